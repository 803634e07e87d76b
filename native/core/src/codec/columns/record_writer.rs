//! The records that columns become.

use super::super::error::{wire_error, Result, WireError};
use super::super::place::PlaceKind;
use super::integers::Integers;

/// Records being made, of at most `cap` bytes.
pub struct RecordWriter {
    pub bytes: Vec<u8>,
    cap: usize,
    /// What the running parts have come to.
    running: u64,
}

impl RecordWriter {
    pub fn new(cap: usize) -> Self {
        Self {
            bytes: Vec::new(),
            cap,
            running: 0,
        }
    }

    fn too_large(&self) -> WireError {
        wire_error!("records of more than {} bytes", self.cap)
    }

    pub fn check(&self) -> Result<()> {
        match self.bytes.len() <= self.cap {
            true => Ok(()),
            false => Err(self.too_large()),
        }
    }

    /// Bytes that may still come.
    fn room(&self) -> usize {
        self.cap.saturating_sub(self.bytes.len())
    }

    #[inline]
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.len() > self.room() {
            return Err(self.too_large());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    pub fn append_with_length(&mut self, bytes: &[u8]) -> Result<()> {
        let length = u32::try_from(bytes.len()).map_err(|_| self.too_large())?;
        self.append(&length.to_le_bytes())?;
        self.append(bytes)
    }

    /// Appends zeros; gives where they begin.
    #[inline]
    pub fn zeros(&mut self, length: usize) -> Result<usize> {
        if length > self.room() {
            return Err(self.too_large());
        }
        let start = self.bytes.len();
        self.bytes.resize(start + length, 0);
        Ok(start)
    }

    #[inline]
    pub fn put(&mut self, at: usize, bytes: &[u8]) -> Result<()> {
        match self.bytes.get_mut(at..at + bytes.len()) {
            Some(place) => {
                place.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(wire_error!("a member outside of its record")),
        }
    }

    #[inline]
    pub fn put_number(&mut self, at: usize, value: u64, kind: PlaceKind) -> Result<()> {
        let size = kind.size() as usize;
        if size < 8 && value >> (8 * size) != 0 {
            return Err(wire_error!("{value} in {size} bytes"));
        }
        self.put(at, &value.to_le_bytes()[..size])
    }

    #[inline]
    pub fn step(&mut self, steps: &mut Integers<'_>) -> Result<u64> {
        self.running = self.running.wrapping_add(steps.next()?);
        Ok(self.running)
    }

    /// Writes the length of the record's body, which begins behind it, at `at`.
    pub fn finish_length(&mut self, at: usize) -> Result<()> {
        let length = self.bytes.len().saturating_sub(at + 4);
        let length = u32::try_from(length).map_err(|_| self.too_large())?;
        self.put(at, &length.to_le_bytes())
    }
}
