//! A connection's socket as the two ends of HTTP/2 see it. What is written is collected, for HTTP/2 writes frame by frame
//! and each call of the kernel costs more than a copy; `Outgoing::send` hands it over. Never blocks.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Instant;

use mio::net::TcpStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::held::held;

/// Once so much is collected, more must wait for the kernel.
const MAX_COLLECTED: usize = 256 * 1024;
/// What is at least so long goes to the kernel without being collected first.
const DIRECT: usize = 64 * 1024;
/// About what is read from a connection in one turn: whoever sends without a pause must not keep the others waiting.
const MAX_READ: usize = 64 * 1024;
/// The room that a connection keeps once all is sent.
const KEPT: usize = 16 * 1024;

/// What waits for the kernel to take it.
#[derive(Default)]
struct Collected {
    bytes: Vec<u8>,
    /// Of these, how many the kernel has.
    sent: usize,
    /// Since when the kernel takes nothing; it will tell when it does.
    blocked_since: Option<Instant>,
    /// The same for calls, which must not hold the socket.
    is_blocked: Arc<AtomicBool>,
}

/// The socket and what is on its way to it; shared by HTTP/2, which fills it, and by whoever drives the connection.
pub struct Outgoing {
    stream: TcpStream,
    collected: Mutex<Collected>,
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
        held(&self.collected).is_blocked.clone()
    }

    /// Since when the kernel takes nothing.
    pub fn blocked_since(&self) -> Option<Instant> {
        held(&self.collected).blocked_since
    }

    /// Hands over what the kernel takes now.
    pub fn send(&self) -> io::Result<()> {
        held(&self.collected).send(&self.stream)
    }

    /// Nothing waits for the kernel.
    pub fn is_idle(&self) -> bool {
        let collected = held(&self.collected);
        collected.waiting() == 0 && collected.blocked_since.is_none()
    }

    /// The kernel takes something again.
    pub fn note_writable(&self) {
        held(&self.collected).unblock();
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

impl Collected {
    fn unblock(&mut self) {
        self.blocked_since = None;
        self.is_blocked.store(false, Ordering::Relaxed);
    }

    /// How much the kernel took; None when it takes nothing now.
    fn taken(&mut self, mut write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<Option<usize>> {
        while self.blocked_since.is_none() {
            match write(&self.bytes[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => return Ok(Some(count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.blocked_since = Some(Instant::now());
                    self.is_blocked.store(true, Ordering::Relaxed);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn waiting(&self) -> usize {
        self.bytes.len() - self.sent
    }

    fn send(&mut self, mut stream: &TcpStream) -> io::Result<()> {
        while self.waiting() > 0 {
            let Some(count) = self.taken(|bytes| stream.write(bytes))? else {
                return Ok(());
            };
            self.sent += count;
        }
        self.clear();
        Ok(())
    }

    fn clear(&mut self) {
        self.sent = 0;
        self.bytes.clear();
        // of many connections few send at a time
        self.bytes.shrink_to(KEPT);
    }

    /// Takes what is long to the kernel at once, and keeps the rest; None when there is no room.
    fn take(&mut self, stream: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        if length >= DIRECT {
            return self.pass(stream, slices);
        }
        if self.waiting() >= MAX_COLLECTED {
            self.send(stream)?;
        }
        if self.waiting() >= MAX_COLLECTED {
            return Ok(None);
        }
        self.bytes.drain(..self.sent);
        self.sent = 0;
        slices.iter().for_each(|slice| self.bytes.extend_from_slice(slice));
        Ok(Some(length))
    }

    /// Hands over what is collected and `slices` behind it, in one call of the kernel; how much it took of these.
    fn pass(&mut self, mut stream: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        loop {
            let waiting = self.waiting();
            let write = |bytes: &[u8]| {
                let all: Vec<_> = [IoSlice::new(bytes)]
                    .into_iter()
                    .chain(slices.iter().copied())
                    .collect();
                stream.write_vectored(if bytes.is_empty() { slices } else { &all })
            };
            let Some(count) = self.taken(write)? else {
                return Ok(None);
            };
            if count > waiting {
                self.clear();
                return Ok(Some(count - waiting));
            }
            self.sent += count;
        }
    }
}

/// The socket as HTTP/2 (or TLS) reads and writes it.
pub struct Socket(pub Arc<Outgoing>);

impl Socket {
    pub fn new(stream: TcpStream) -> Socket {
        Socket(Arc::new(Outgoing {
            stream,
            collected: Mutex::default(),
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
        match held(&self.0.collected).take(&self.0.stream, slices)? {
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
    use std::net::{TcpListener, TcpStream as StdStream};
    use std::task::Waker;

    use super::*;

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
        let mut socket = Socket::new(TcpStream::from_std(receiver));
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

    #[test]
    fn short_and_long_leave_in_their_order_however_little_the_kernel_takes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut reader = StdStream::connect(listener.local_addr().unwrap()).unwrap();
        let writer = listener.accept().unwrap().0;
        writer.set_nonblocking(true).unwrap();
        let mut socket = Socket::new(TcpStream::from_std(writer));
        let context = &mut Context::from_waker(Waker::noop());
        let lengths = [
            10,
            DIRECT,
            5,
            4 * MAX_COLLECTED,
            DIRECT - 1,
            0,
            DIRECT - 1,
            3,
            16 * MAX_COLLECTED,
            7,
        ];
        let sent: Vec<u8> = (0..lengths.iter().sum())
            .map(|number: usize| (number % 251) as u8)
            .collect();
        let (mut received, mut waited, mut rest) = (Vec::new(), 0, &sent[..]);
        let mut read = |socket: &Socket| {
            let mut room = vec![0; DIRECT];
            let count = reader.read(&mut room).unwrap();
            received.extend_from_slice(&room[..count]);
            // as when the kernel tells so, only more often
            socket.0.note_writable();
            waited += 1;
        };
        for length in lengths {
            let (mut piece, others) = rest.split_at(length);
            rest = others;
            while !piece.is_empty() {
                let slices: Vec<_> = piece.chunks(1000 + length / 10).map(IoSlice::new).collect();
                match Pin::new(&mut socket).poll_write_vectored(context, &slices) {
                    Poll::Ready(count) => piece = &piece[count.unwrap()..],
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
