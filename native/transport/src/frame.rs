//! gRPC's framing of messages: a byte that says whether it is compressed, four bytes of length, the message.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};

use crate::socket::Outgoing;

const PREFIX: usize = 5;

/// A message, or a part of one, on its way out. It lies in pieces, none of them empty; long ones are never copied.
#[derive(Default)]
pub struct Frame {
    pieces: VecDeque<Bytes>,
    length: usize,
    /// Who takes over what is written; None: nobody, it is copied (by TLS).
    keeper: Option<Arc<Outgoing>>,
}

/// A message that is being put together.
pub struct Composer {
    frame: Frame,
    /// Short pieces side by side.
    joined: BytesMut,
}

impl Composer {
    /// Of a message of `length` bytes, of which about `short` are copied. None when it is longer than gRPC can say.
    pub fn new(length: usize, short: usize) -> Option<Composer> {
        let length = u32::try_from(length).ok()?.to_be_bytes();
        let mut joined = BytesMut::with_capacity(PREFIX + short);
        joined.extend_from_slice(&[0]);
        joined.extend_from_slice(&length);
        Some(Composer {
            frame: Frame::default(),
            joined,
        })
    }

    pub fn copy(&mut self, bytes: &[u8]) {
        self.joined.extend_from_slice(bytes);
    }

    pub fn keep(&mut self, bytes: Bytes) {
        let before = self.joined.split().freeze();
        self.frame.push(before);
        self.frame.push(bytes);
    }

    pub fn finish(mut self) -> Frame {
        self.frame.push(self.joined.freeze());
        self.frame
    }
}

impl Frame {
    fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.length += piece.len();
            self.pieces.push_back(piece);
        }
    }

    pub fn kept_by(mut self, keeper: Option<Arc<Outgoing>>) -> Frame {
        self.keeper = keeper;
        self
    }

    /// The first `count` bytes; what is left stays here.
    pub fn split_to(&mut self, count: usize) -> Frame {
        let mut first = Frame::default().kept_by(self.keeper.clone());
        while first.length < count {
            let piece = &mut self.pieces[0];
            let piece = if piece.len() > count - first.length {
                piece.split_to(count - first.length)
            } else {
                self.pieces.pop_front().expect("it was looked at")
            };
            self.length -= piece.len();
            first.push(piece);
        }
        first
    }
}

impl Buf for Frame {
    fn remaining(&self) -> usize {
        self.length
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let count = into.len().min(self.pieces.len());
        for (slice, piece) in into.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(piece);
        }
        if let (Some(keeper), [first, ..]) = (&self.keeper, &into[..count]) {
            keeper.offer(first.as_ptr());
        }
        count
    }

    /// What was written is let go at once.
    fn advance(&mut self, count: usize) {
        let written = self.split_to(count);
        if let Some(keeper) = &written.keeper {
            keeper.keep(written.pieces);
        }
    }
}

/// Why what came is no sequence of messages.
#[derive(Debug, PartialEq, Eq)]
pub enum FrameError {
    Flag(u8),
    TooLong(usize, usize),
    Cut,
}

/// A message as it came.
#[derive(Debug, PartialEq, Eq)]
pub struct Incoming {
    pub is_compressed: bool,
    pub body: Bytes,
}

/// Messages out of the bytes of a call, which come in any pieces.
pub struct Messages {
    max_bytes: usize,
    pending: BytesMut,
}

impl Messages {
    pub fn new(max_bytes: usize) -> Messages {
        Messages {
            max_bytes,
            pending: BytesMut::new(),
        }
    }

    pub fn put(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next message that is whole. A length beyond the limit is refused before anything of it is held.
    pub fn next(&mut self) -> Result<Option<Incoming>, FrameError> {
        let Some(&[flag, a, b, c, d]) = self.pending.first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        if flag > 1 {
            return Err(FrameError::Flag(flag));
        }
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > self.max_bytes {
            return Err(FrameError::TooLong(length, self.max_bytes));
        }
        if self.pending.len() < PREFIX + length {
            return Ok(None);
        }
        self.pending.advance(PREFIX);
        Ok(Some(Incoming {
            is_compressed: flag == 1,
            body: self.pending.split_to(length).freeze(),
        }))
    }

    pub fn clear(&mut self) {
        self.pending = BytesMut::new();
    }

    /// What is held of a message that isn't whole.
    pub fn held_bytes(&self) -> usize {
        self.pending.len()
    }

    /// At the end of the call: nothing may be left.
    pub fn end(&self) -> Result<(), FrameError> {
        if self.pending.is_empty() {
            Ok(())
        } else {
            Err(FrameError::Cut)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message in pieces of these lengths, which are kept or copied in turn.
    fn composed(lengths: &[u8]) -> (Vec<u8>, Frame) {
        let body: Vec<u8> = (0..lengths.iter().sum()).collect();
        let mut composer = Composer::new(body.len(), 0).expect("short");
        let mut rest = &body[..];
        for (number, &length) in lengths.iter().enumerate() {
            let (piece, others) = rest.split_at(length.into());
            if number % 2 == 0 {
                composer.keep(Bytes::copy_from_slice(piece));
            } else {
                composer.copy(piece);
            }
            rest = others;
        }
        (body, composer.finish())
    }

    fn joined(mut frame: Frame) -> Vec<u8> {
        let length = frame.remaining();
        frame.copy_to_bytes(length).to_vec()
    }

    const SHAPES: [&[u8]; 7] = [&[], &[0], &[1], &[0, 6], &[5, 0, 0, 7], &[40], &[1, 2, 3, 4, 5, 6, 19]];

    #[test]
    fn a_message_survives_any_split_on_its_way() {
        for lengths in SHAPES {
            let whole = joined(composed(lengths).1);
            for at in 0..=whole.len() {
                let (body, mut rest) = composed(lengths);
                let mut parts = joined(rest.split_to(at));
                assert_eq!((parts.len(), rest.remaining()), (at, whole.len() - at));
                parts.extend(joined(rest));
                assert_eq!(parts, whole);

                let mut messages = Messages::new(40);
                messages.put(&whole[..at]);
                let early = messages.next().expect("well formed");
                assert_eq!(early.is_some(), at == whole.len());
                if at < whole.len() {
                    messages.put(&whole[at..]);
                }
                let message = early
                    .or_else(|| messages.next().expect("well formed"))
                    .expect("it is whole");
                assert_eq!((message.is_compressed, &message.body[..]), (false, &body[..]));
                assert_eq!(messages.end(), Ok(()));
            }
        }
    }

    #[test]
    fn a_message_is_written_in_pieces_from_wherever_it_stands() {
        for lengths in SHAPES {
            let whole = joined(composed(lengths).1);
            for at in 0..=whole.len() {
                for room in 1..5 {
                    let mut frame = composed(lengths).1;
                    frame.advance(at);
                    assert_eq!(frame.remaining(), whole.len() - at);
                    assert!(whole[at..].starts_with(frame.chunk()));
                    assert_eq!(frame.chunk().is_empty(), at == whole.len());
                    let mut slices = vec![IoSlice::new(&[]); room];
                    let count = frame.chunks_vectored(&mut slices);
                    assert!(slices[..count].iter().all(|slice| !slice.is_empty()));
                    let written: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
                    assert!(whole[at..].starts_with(&written));
                    assert_eq!(count, room.min(frame.pieces.len()));
                }
            }
        }
    }

    #[test]
    fn what_is_written_is_let_go_at_once() {
        let (first, second) = (Bytes::from(vec![1; 10]), Bytes::from(vec![2; 10]));
        let mut composer = Composer::new(20, 0).expect("short");
        composer.keep(first.clone());
        composer.keep(second.clone());
        let mut frame = composer.finish();
        frame.advance(PREFIX + 9);
        assert!(!first.is_unique());
        frame.advance(1);
        assert!(first.is_unique() && !second.is_unique());
    }

    #[test]
    fn what_is_no_message_is_refused_by_its_first_bytes() {
        let mut messages = Messages::new(10);
        messages.put(&[2, 0, 0, 0, 0]);
        assert_eq!(messages.next(), Err(FrameError::Flag(2)));
        let mut messages = Messages::new(10);
        messages.put(&[0, 0, 0, 0, 11]);
        assert_eq!(messages.next(), Err(FrameError::TooLong(11, 10)));
        let mut messages = Messages::new(10);
        messages.put(&[1, 0, 0, 0, 1]);
        assert_eq!(messages.next(), Ok(None));
        assert_eq!(messages.end(), Err(FrameError::Cut));
    }
}
