//! Cuts a decompressed buffer into records: `u8 type index, [u32 length], body`. A record never reaches past the end
//! of the buffer; where one would, the iteration ends with an error and everything before it stays good.

use super::error::{wire_error, Result, WireError};
use super::layout::{RecordType, RecordTypes};

/// One record: `index` is its type's position in the metadata, `body` has the type's size when that is fixed. All fields
/// are of one width: behind a byte, copies of records wait for its padding, half as long as it takes to read an event.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    pub index: usize,
    pub record_type: &'a RecordType,
    pub body: &'a [u8],
}

/// The records of one buffer in their order. After an error it yields nothing more: there is no way to find the
/// beginning of the next record.
pub struct Records<'a> {
    types: &'a RecordTypes,
    buffer: &'a [u8],
    position: usize,
}

impl<'a> Records<'a> {
    pub fn new(types: &'a RecordTypes, buffer: &'a [u8]) -> Self {
        Self::resume(types, buffer, 0)
    }

    /// The records from `position` on, which is what `position()` said of the same buffer before.
    pub fn resume(types: &'a RecordTypes, buffer: &'a [u8], position: usize) -> Self {
        Self {
            types,
            buffer,
            position,
        }
    }

    /// Where the next record begins, in bytes from the start of the buffer.
    pub fn position(&self) -> usize {
        self.position
    }

    #[inline]
    fn read(&mut self) -> Result<Record<'a>> {
        let index = usize::from(self.buffer[self.position]);
        let record_type = self.types.get(index)?;
        let mut body = &self.buffer[self.position + 1..];
        let length = match record_type.size {
            Some(size) => size,
            None => {
                let Some((length, rest)) = body.split_first_chunk::<4>() else {
                    return Err(wire_error!("{}: the buffer ends inside the length", record_type.name));
                };
                body = rest;
                u32::from_le_bytes(*length) as usize
            }
        };
        if length > body.len() {
            return Err(wire_error!(
                "{}: length {length} past the end of the buffer ({} bytes left)",
                record_type.name,
                body.len()
            ));
        }
        self.position = self.buffer.len() - body.len() + length;
        Ok(Record {
            index,
            record_type,
            body: &body[..length],
        })
    }

    fn located(&self, error: WireError, start: usize) -> WireError {
        error.within(format!("record at byte {start}"))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.position >= self.buffer.len() {
            return None;
        }
        let start = self.position;
        let record = self.read().map_err(|error| self.located(error, start));
        if record.is_err() {
            self.position = self.buffer.len();
        }
        Some(record)
    }
}
