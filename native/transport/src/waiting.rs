//! What waits for the kernel to take it. Messages are kept as they are, short things are copied side by side, so that as much
//! as there is goes in one call.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf, Bytes};

/// Once so much is copied here, more must wait for the kernel.
const MAX_COPIED: usize = 256 * 1024;
/// The same of messages: the longest one (a quarter of what peers have to take) and its metadata.
pub const MAX_KEPT: usize = 2 * 1024 * 1024 + 16 * 1024;
/// Copies that are at least so long are not made if the kernel takes the original at once.
const DIRECT: usize = 64 * 1024;
/// Of a message, what is shorter is copied.
const SHORT: usize = 4 * 1024;
/// The room that a connection keeps once all is sent.
const ROOM: usize = 16 * 1024;
/// What the kernel takes in one call.
const MAX_SLICES: usize = 1024;

#[derive(Default)]
pub struct Waiting {
    /// These go first.
    pieces: VecDeque<Bytes>,
    copied: Vec<u8>,
    /// Of `copied`, how many the kernel has.
    sent: usize,
    /// Of all of it, how much the kernel has yet to take.
    length: usize,
    /// What HTTP/2 was told to be written, and is about to hand over.
    promised: usize,
    pub block: Block,
}

/// Whether the kernel takes nothing now.
#[derive(Default)]
pub struct Block {
    /// It will tell when it does.
    since: Option<Instant>,
    /// The same for calls, which must not hold the socket.
    is_blocked: Arc<AtomicBool>,
}

impl Waiting {
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Takes bytes to be sent after those before; how many, or None when there is no room. `own` of the slices, the last
    /// ones, are pieces of a message that will be handed over.
    pub fn take(&mut self, to: &mut impl Write, slices: &[IoSlice<'_>], own: usize) -> io::Result<Option<usize>> {
        let (foreign, own) = slices.split_at(slices.len() - own);
        let (short, long) = (length_of(foreign), length_of(own));
        let is_kept = long >= SHORT;
        let room = if is_kept { MAX_KEPT } else { MAX_COPIED };
        if self.length >= room || (!is_kept && short + long >= DIRECT) {
            self.send(to)?;
        }
        if self.length >= room {
            return Ok(None);
        }
        if !is_kept && short + long >= DIRECT && self.length == 0 {
            return self.block.tried(|| to.write_vectored(slices));
        }
        foreign.iter().for_each(|slice| self.copied.extend_from_slice(slice));
        if is_kept {
            self.promised = long;
        } else {
            own.iter().for_each(|slice| self.copied.extend_from_slice(slice));
        }
        self.length += short + if is_kept { 0 } else { long };
        Ok(Some(short + long))
    }

    /// What was promised, if it was; the rest has been sent or copied.
    pub fn keep(&mut self, pieces: VecDeque<Bytes>) {
        let promised = mem::take(&mut self.promised);
        if promised == 0 {
            return;
        }
        if !self.copied.is_empty() {
            let sent = mem::take(&mut self.sent);
            self.pieces
                .push_back(Bytes::from(mem::take(&mut self.copied)).slice(sent..));
        }
        self.length += promised;
        self.pieces.extend(pieces);
    }

    /// Hands over what the kernel takes now.
    pub fn send(&mut self, to: &mut impl Write) -> io::Result<()> {
        while self.length > 0 {
            let copied = IoSlice::new(&self.copied[self.sent..]);
            let count = if self.pieces.is_empty() {
                self.block.tried(|| to.write(&copied))?
            } else {
                let pieces = self.pieces.iter().map(|piece| IoSlice::new(piece));
                let slices: Vec<_> = pieces.chain([copied]).take(MAX_SLICES).collect();
                self.block.tried(|| to.write_vectored(&slices))?
            };
            let Some(count) = count else { return Ok(()) };
            self.let_go(count);
        }
        Ok(())
    }

    fn let_go(&mut self, mut count: usize) {
        self.length -= count;
        while let Some(piece) = self.pieces.front_mut() {
            if piece.len() > count {
                return piece.advance(count);
            }
            count -= piece.len();
            self.pieces.pop_front();
        }
        self.sent += count;
        if self.length == 0 {
            self.sent = 0;
            self.copied.clear();
            // of many connections few send at a time
            self.copied.shrink_to(ROOM);
        }
    }
}

impl Block {
    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    pub fn flag(&self) -> Arc<AtomicBool> {
        self.is_blocked.clone()
    }

    /// The kernel takes something again.
    pub fn end(&mut self) {
        self.since = None;
        self.is_blocked.store(false, Ordering::Relaxed);
    }

    /// How much the kernel took; None when it takes nothing now.
    fn tried(&mut self, mut write: impl FnMut() -> io::Result<usize>) -> io::Result<Option<usize>> {
        while self.since.is_none() {
            match write() {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => return Ok(Some(count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.since = Some(Instant::now());
                    self.is_blocked.store(true, Ordering::Relaxed);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

fn length_of(slices: &[IoSlice<'_>]) -> usize {
    slices.iter().map(|slice| slice.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes per call and then nothing, and counts the calls.
    struct Kernel {
        took: Vec<u8>,
        calls: usize,
        at_once: usize,
        is_full: bool,
    }

    impl Kernel {
        fn new(at_once: usize) -> Kernel {
            Kernel {
                took: Vec::new(),
                calls: 0,
                at_once,
                is_full: false,
            }
        }
    }

    impl Write for Kernel {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.write_vectored(&[IoSlice::new(bytes)])
        }

        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            if std::mem::replace(&mut self.is_full, true) {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.calls += 1;
            let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
            let count = bytes.len().min(self.at_once);
            self.took.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What HTTP/2 does with a message of one piece.
    fn write(waiting: &mut Waiting, kernel: &mut Kernel, head: &[u8], piece: &Bytes) -> bool {
        let slices = [IoSlice::new(head), IoSlice::new(piece)];
        let is_taken = waiting.take(kernel, &slices, 1).unwrap().is_some();
        if is_taken {
            waiting.keep([piece.clone()].into());
        }
        is_taken
    }

    #[test]
    fn messages_are_kept_and_leave_in_one_call() {
        let (mut waiting, mut kernel) = (Waiting::default(), Kernel::new(usize::MAX));
        let pieces: Vec<_> = (1..60).map(|number| Bytes::from(vec![number; SHORT])).collect();
        for piece in &pieces {
            assert!(write(&mut waiting, &mut kernel, b"head", piece));
        }
        assert!(waiting.take(&mut kernel, &[IoSlice::new(b"end")], 0).unwrap().is_some());
        assert!(kernel.calls == 0 && pieces.iter().all(|piece| !piece.is_unique()));
        waiting.send(&mut kernel).unwrap();
        assert!(kernel.calls == 1 && waiting.is_empty() && pieces.iter().all(Bytes::is_unique));
        let whole: Vec<u8> = pieces.iter().flat_map(|piece| [b"head", &piece[..]].concat()).collect();
        assert!(kernel.took == [&whole[..], b"end"].concat());
    }

    #[test]
    fn what_is_sent_is_let_go_though_the_rest_waits() {
        let (mut waiting, mut kernel) = (Waiting::default(), Kernel::new(SHORT + 10));
        let pieces = [Bytes::from(vec![1; SHORT]), Bytes::from(vec![2; SHORT])];
        for piece in &pieces {
            assert!(write(&mut waiting, &mut kernel, b"head", piece));
        }
        waiting.send(&mut kernel).unwrap();
        assert!(pieces[0].is_unique() && !pieces[1].is_unique());
        assert!(waiting.block.since().is_some() && waiting.block.flag().load(Ordering::Relaxed));
        // nothing until the kernel says so
        kernel.is_full = false;
        waiting.send(&mut kernel).unwrap();
        assert_eq!(kernel.calls, 1);
        waiting.block.end();
        waiting.send(&mut kernel).unwrap();
        assert!(waiting.is_empty() && pieces[1].is_unique());
        assert_eq!(kernel.took.len(), 2 * (4 + SHORT));
    }

    #[test]
    fn a_peer_that_reads_nothing_has_so_much_held_for_it_and_no_more() {
        let (mut waiting, mut kernel) = (Waiting::default(), Kernel::new(1));
        let piece = Bytes::from(vec![1; 512 * 1024]);
        let mut taken = 0;
        while write(&mut waiting, &mut kernel, b"head", &piece) {
            taken += 1;
        }
        assert_eq!(taken, MAX_KEPT.div_ceil(piece.len()));
        let mut waiting = Waiting::default();
        let copy = [IoSlice::new(&piece[..DIRECT - 1])];
        let mut taken = 0;
        while waiting.take(&mut kernel, &copy, 0).unwrap().is_some() {
            taken += 1;
        }
        assert_eq!(taken, MAX_COPIED.div_ceil(DIRECT - 1));
    }

    #[test]
    fn what_is_long_and_no_message_is_not_copied_if_the_kernel_takes_it() {
        let (mut waiting, mut kernel) = (Waiting::default(), Kernel::new(DIRECT - 1));
        let long = vec![7; DIRECT];
        let taken = waiting.take(&mut kernel, &[IoSlice::new(&long)], 0).unwrap();
        assert!(taken == Some(DIRECT - 1) && waiting.is_empty());
        // the kernel is full
        let taken = waiting.take(&mut kernel, &[IoSlice::new(&long)], 0).unwrap();
        assert_eq!(taken, None);
    }
}
