//! The bytes that all the columns of a block are written to, one column behind the other, and read from again.
//!
//! A reader knows the length of each column before it comes to it: from counts in the body, never from the segments.

use super::super::error::{wire_error, Result};

/// A column from this length on is compressed by itself: its bytes have their own statistics.
const OWN_SEGMENT_BYTES: usize = 512;

#[derive(Default)]
pub struct BodyWriter {
    bytes: Vec<u8>,
    /// Where a segment may end.
    cuts: Vec<usize>,
    /// Memory for what columns are made of, kept from one to the next: large pieces would go back to the system each time.
    spare: Vec<Vec<u64>>,
}

impl BodyWriter {
    pub fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    /// Seven bits a byte, the lowest first; the highest bit says that more follow.
    pub fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// 0, -1, 1, -2 … as 0, 1, 2, 3 …
    pub fn signed_varint(&mut self, value: i64) {
        self.varint((value << 1 ^ value >> 63) as u64);
    }

    pub fn count(&mut self, count: usize) {
        self.varint(count as u64);
    }

    /// So many of any value, to be given back.
    pub fn numbers(&mut self, count: usize) -> Vec<u64> {
        let mut numbers = self.spare.pop().unwrap_or_default();
        numbers.resize(count, 0);
        numbers
    }

    pub fn give_back(&mut self, numbers: Vec<u64>) {
        self.spare.push(numbers);
    }

    /// A column of `length` bytes, which `fill` appends.
    pub fn column(&mut self, length: usize, fill: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.reserve(length);
        fill(&mut self.bytes);
        debug_assert_eq!(self.bytes.len() - start, length);
        if length >= OWN_SEGMENT_BYTES {
            self.cuts.push(start);
            self.cuts.push(start + length);
        }
    }

    /// So many columns of `length` bytes each, which `fill` fills in, where there are zeros.
    pub fn columns(&mut self, count: usize, length: usize, fill: impl FnOnce(&mut [u8])) {
        if length == 0 {
            return;
        }
        let start = self.bytes.len();
        self.bytes.resize(start + count * length, 0);
        fill(&mut self.bytes[start..]);
        if length >= OWN_SEGMENT_BYTES {
            let starts = (start..).step_by(length).take(count);
            self.cuts.extend(starts.flat_map(|start| [start, start + length]));
        }
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.cuts.clear();
    }

    /// The whole body, in pieces that are best compressed by themselves.
    pub fn segments(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.cuts.iter().copied().chain([self.bytes.len()]);
        let starts = [0].into_iter().chain(self.cuts.iter().copied());
        starts
            .zip(ends)
            .filter(|(start, end)| start < end)
            .map(|(start, end)| &self.bytes[start..end])
    }
}

#[derive(Clone)]
pub struct BodyReader<'a> {
    rest: &'a [u8],
}

impl<'a> BodyReader<'a> {
    pub fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    pub fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        match self.rest.split_at_checked(length) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(wire_error!(
                "a column of {length} bytes where {} are left",
                self.rest.len()
            )),
        }
    }

    pub fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    pub fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(wire_error!("a number of more than 64 bits"))
    }

    pub fn signed_varint(&mut self) -> Result<i64> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A number of things of which there are at most `limit`.
    pub fn count(&mut self, limit: usize, things: &str) -> Result<usize> {
        let count = self.varint()?;
        match usize::try_from(count) {
            Ok(count) if count <= limit => Ok(count),
            _ => Err(wire_error!("{count} {things}, at most {limit} are possible")),
        }
    }

    pub fn flag(&mut self) -> Result<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(wire_error!("{other} where 0 or 1 must be")),
        }
    }

    pub fn finish(&self) -> Result<()> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(wire_error!("{left} bytes behind the last column")),
        }
    }
}
