//! A connection's socket as the two ends of HTTP/2 see it. What is written is collected, for HTTP/2 writes frame by frame
//! and each call of the kernel costs more than a copy; `Outgoing::send` hands it over. Never blocks.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use mio::net::TcpStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::held::held;
use crate::waiting::Waiting;

/// About what is read from a connection in one turn: whoever sends without a pause must not keep the others waiting.
const MAX_READ: usize = 64 * 1024;
/// The socket and what is on its way to it; shared by HTTP/2, which fills it, and by whoever drives the connection.
pub struct Outgoing {
    stream: TcpStream,
    /// TLS writes here, not HTTP/2.
    is_secured: bool,
    waiting: Mutex<Waiting>,
    /// Where the pieces of a message begin that HTTP/2 is about to write; 0: nowhere.
    offered: AtomicUsize,
    /// The kernel may have something to read. Without asking, one would have to try each time.
    is_readable: AtomicBool,
    /// The peer said that it sends no more: there is always that to be read.
    is_shut: AtomicBool,
    is_heard: AtomicBool,
    /// Since the last `begin`.
    read: AtomicUsize,
}

impl Outgoing {
    /// Before a turn of the connection: it may read again.
    pub fn begin(&self) {
        self.read.store(0, Ordering::Relaxed);
    }

    /// Whether the kernel takes nothing now.
    pub fn is_blocked(&self) -> Arc<AtomicBool> {
        held(&self.waiting).block.flag()
    }

    /// Since when the kernel takes nothing.
    pub fn blocked_since(&self) -> Option<Instant> {
        held(&self.waiting).block.since()
    }

    /// Hands over what the kernel takes now.
    pub fn send(&self) -> io::Result<()> {
        held(&self.waiting).send(&mut &self.stream)
    }

    /// Nothing waits for the kernel.
    pub fn is_idle(&self) -> bool {
        let waiting = held(&self.waiting);
        waiting.is_empty() && waiting.block.since().is_none()
    }

    /// The kernel takes something again.
    pub fn note_writable(&self) {
        held(&self.waiting).block.end();
    }

    /// Who takes over the pieces of messages; nobody over TLS, which copies them.
    pub fn keeper(self: &Arc<Self>) -> Weak<Outgoing> {
        if self.is_secured {
            Weak::new()
        } else {
            Arc::downgrade(self)
        }
    }

    /// HTTP/2 asks a message for its pieces in order to write them; the first begins here.
    pub fn offer(&self, start: *const u8) {
        self.offered.store(start.addr(), Ordering::Relaxed);
    }

    /// Takes over the pieces that HTTP/2 was told to be written: it lets go of them at once.
    pub fn keep(&self, pieces: VecDeque<Bytes>) {
        held(&self.waiting).keep(pieces);
    }

    fn take(&self, slices: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        let offered = self.offered.swap(0, Ordering::Relaxed);
        let own = slices.iter().rev().position(|slice| slice.as_ptr().addr() == offered);
        let own = own.map_or(0, |number| number + 1);
        held(&self.waiting).take(&mut &self.stream, slices, own)
    }

    /// The kernel has something to read, and `is_shut`, its end.
    pub fn note_readable(&self, is_shut: bool) {
        self.is_readable.store(true, Ordering::Relaxed);
        self.is_shut.fetch_or(is_shut, Ordering::Relaxed);
    }

    /// Whether anything came since the last time.
    pub fn was_heard(&self) -> bool {
        self.is_heard.swap(false, Ordering::Relaxed)
    }
}

/// The socket as HTTP/2 (or TLS) reads and writes it.
pub struct Socket(pub Arc<Outgoing>);

impl Socket {
    pub fn new(stream: TcpStream, is_secured: bool) -> Socket {
        Socket(Arc::new(Outgoing {
            stream,
            is_secured,
            waiting: Mutex::default(),
            offered: AtomicUsize::new(0),
            is_readable: AtomicBool::new(true),
            is_shut: AtomicBool::new(false),
            is_heard: AtomicBool::new(false),
            read: AtomicUsize::new(0),
        }))
    }
}

impl AsyncRead for Socket {
    /// Whoever drives the connection learns of new bytes from the kernel, so nobody needs to be woken.
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let socket = &*self.0;
        if socket.read.load(Ordering::Relaxed) >= MAX_READ {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        while socket.is_readable.load(Ordering::Relaxed) {
            let space = into.initialize_unfilled();
            let asked = space.len();
            match (&socket.stream).read(space) {
                Ok(count) => {
                    into.advance(count);
                    socket.read.fetch_add(count, Ordering::Relaxed);
                    socket.is_heard.store(true, Ordering::Relaxed);
                    // the kernel tells of what comes after a read that it couldn't fill
                    let is_drained = count < asked && !socket.is_shut.load(Ordering::Relaxed);
                    socket.is_readable.store(!is_drained, Ordering::Relaxed);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    socket.is_readable.store(false, Ordering::Relaxed);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Pending
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.0.take(slices)? {
            Some(count) => Poll::Ready(Ok(count)),
            None => Poll::Pending,
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Not yet: whoever drives the connection sends when HTTP/2 has nothing more to write.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.send()?;
        if !self.0.is_idle() {
            return Poll::Pending;
        }
        match self.0.stream.shutdown(Shutdown::Write) {
            Err(error) if error.kind() != ErrorKind::NotConnected => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream as StdStream};
    use std::task::Waker;

    use bytes::{Buf, BufMut};

    use super::*;
    use crate::frame::{Composer, Frame};

    /// What one look at the socket gives, of what the kernel has by then.
    fn read(socket: &mut Socket) -> usize {
        while !socket.0.stream.peek(&mut [0]).is_ok_and(|count| count > 0) {
            std::thread::yield_now();
        }
        socket.0.note_readable(false);
        let mut room = [0; 4096];
        let mut into = ReadBuf::new(&mut room);
        match Pin::new(socket).poll_read(&mut Context::from_waker(Waker::noop()), &mut into) {
            Poll::Ready(result) => result.map(|()| into.filled().len()).unwrap(),
            Poll::Pending => 0,
        }
    }

    #[test]
    fn who_sends_without_a_pause_leaves_others_their_turn() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sender = StdStream::connect(listener.local_addr().unwrap()).unwrap();
        let receiver = listener.accept().unwrap().0;
        receiver.set_nonblocking(true).unwrap();
        let sending = std::thread::spawn(move || sender.write_all(&[0; 2 * MAX_READ]).map(|()| sender));
        let mut socket = Socket::new(TcpStream::from_std(receiver), false);
        let mut sum = 0;
        while sum < MAX_READ {
            let count = read(&mut socket);
            assert!(count > 0);
            sum += count;
        }
        assert_eq!(read(&mut socket), 0);
        socket.0.begin();
        while sum < 2 * MAX_READ {
            sum += read(&mut socket);
            socket.0.begin();
        }
        drop(sending.join().unwrap().unwrap());
    }

    /// A message in pieces of these lengths.
    fn message(lengths: &[usize]) -> Frame {
        let mut composer = Composer::new(lengths.iter().sum(), 0).unwrap();
        for &length in lengths {
            composer.keep((0..length).map(|number| (number % 251) as u8).collect());
        }
        composer.finish()
    }

    const MESSAGES: [&[usize]; 9] = [
        &[10],
        &[100_000; 7],
        &[5, 3, 9],
        &[4_000_000, 1, 300_000],
        &[70_000],
        &[4_096; 200],
        &[4_095],
        &[3; 40],
        &[9_000_000],
    ];

    #[test]
    fn short_and_long_leave_in_their_order_however_little_the_kernel_takes() {
        for is_kept in [true, false] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut reader = StdStream::connect(listener.local_addr().unwrap()).unwrap();
            let writer = listener.accept().unwrap().0;
            writer.set_nonblocking(true).unwrap();
            let mut socket = Socket::new(TcpStream::from_std(writer), false);
            let context = &mut Context::from_waker(Waker::noop());
            let (mut sent, mut received, mut waited) = (Vec::new(), Vec::new(), 0);
            let mut read = |socket: &Socket| {
                let mut room = vec![0; 64 * 1024];
                let count = reader.read(&mut room).unwrap();
                received.extend_from_slice(&room[..count]);
                // as when the kernel tells so, only more often
                socket.0.note_writable();
                waited += 1;
            };
            for (number, lengths) in MESSAGES.into_iter().enumerate() {
                let head = vec![0xAA; number * number * 1000];
                sent.extend_from_slice(&head);
                sent.put(message(lengths));
                // as HTTP/2 does: a head of its own, and up to sixteen pieces at a time
                let keeper = is_kept.then(|| socket.0.clone());
                let mut whole = Bytes::from(head).chain(message(lengths).kept_by(keeper));
                while whole.has_remaining() {
                    let mut slices = [IoSlice::new(&[]); 17];
                    let count = whole.chunks_vectored(&mut slices);
                    match Pin::new(&mut socket).poll_write_vectored(context, &slices[..count]) {
                        Poll::Ready(count) => whole.advance(count.unwrap()),
                        Poll::Pending => read(&socket),
                    }
                }
            }
            while !socket.0.is_idle() {
                socket.0.send().unwrap();
                if !socket.0.is_idle() {
                    read(&socket);
                }
            }
            drop(socket);
            assert!(waited > 0);
            reader.read_to_end(&mut received).unwrap();
            assert!(received == sent);
        }
    }
}
