//! gRPC's framing of messages: a byte that says whether it is compressed, four bytes of length, the message.

use bytes::{Buf, Bytes, BytesMut};

const PREFIX: usize = 5;

/// A message, or a part of one, on its way out; it is never copied.
#[derive(Default)]
pub struct Frame {
    prefix: [u8; PREFIX],
    at: usize,
    end: usize,
    body: Bytes,
}

impl Frame {
    pub fn new(body: Bytes) -> Option<Frame> {
        let length = u32::try_from(body.len()).ok()?.to_be_bytes();
        let prefix = [0, length[0], length[1], length[2], length[3]];
        Some(Frame {
            prefix,
            at: 0,
            end: PREFIX,
            body,
        })
    }

    /// The first `count` bytes; what is left stays here.
    pub fn split_to(&mut self, count: usize) -> Frame {
        let of_prefix = count.min(self.end - self.at);
        let at = self.at;
        self.at += of_prefix;
        Frame {
            prefix: self.prefix,
            at,
            end: at + of_prefix,
            body: self.body.split_to(count - of_prefix),
        }
    }
}

impl Buf for Frame {
    fn remaining(&self) -> usize {
        self.end - self.at + self.body.len()
    }

    fn chunk(&self) -> &[u8] {
        if self.at < self.end {
            &self.prefix[self.at..self.end]
        } else {
            &self.body
        }
    }

    fn advance(&mut self, count: usize) {
        let of_prefix = count.min(self.end - self.at);
        self.at += of_prefix;
        self.body.advance(count - of_prefix);
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

    fn sent(body: &[u8]) -> Vec<u8> {
        let mut frame = Frame::new(Bytes::copy_from_slice(body)).expect("short");
        frame.copy_to_bytes(frame.remaining()).to_vec()
    }

    #[test]
    fn a_message_survives_any_split_on_its_way() {
        for length in [0, 1, 5, 6, 40] {
            let body: Vec<u8> = (0..length).collect();
            let whole = sent(&body);
            for at in 0..=whole.len() {
                let mut rest = Frame::new(Bytes::from(body.clone())).expect("short");
                let mut first = rest.split_to(at);
                let mut joined = first.copy_to_bytes(first.remaining()).to_vec();
                assert_eq!(joined.len(), at);
                joined.extend(rest.copy_to_bytes(rest.remaining()));
                assert_eq!(joined, whole);

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
