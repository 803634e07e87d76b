//! What a builder carries from one partition to the next, as bytes: integers little-endian, texts with their length in
//! front. Only our own output is ever read, but what was cut or changed on disk must give an error, never a panic.

use std::collections::HashMap;

/// The texts of one dictionary that a state has told, by their keys there. Any number of spans may have one long name.
#[derive(Default)]
pub struct ToldTexts {
    places: HashMap<i32, i64>,
}

/// The texts of one dictionary that a reader was told: their keys in the dictionary that is filled.
#[derive(Default)]
pub struct HeardTexts {
    keys: Vec<i32>,
}

/// Collects a state.
#[derive(Default)]
pub struct StateWriter {
    bytes: Vec<u8>,
}

impl StateWriter {
    pub fn wide(&mut self, value: i64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub fn narrow(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub fn flag(&mut self, value: bool) {
        self.bytes.push(value.into());
    }

    pub fn count(&mut self, value: usize) {
        self.wide(value as i64);
    }

    pub fn text(&mut self, value: &[u8]) {
        self.count(value.len());
        self.bytes.extend_from_slice(value);
    }

    /// The text of a dictionary's key: with its content the first time, then by its place among those, as a negative
    /// number where the length would be.
    pub fn text_of(&mut self, told: &mut ToldTexts, key: i32, content: &[u8]) {
        let next = told.places.len() as i64;
        let place = *told.places.entry(key).or_insert(next);
        if place == next {
            self.text(content);
        } else {
            self.wide(-1 - place);
        }
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads a state in the order in which it was written.
pub struct StateReader<'s> {
    rest: &'s [u8],
}

impl<'s> StateReader<'s> {
    pub fn new(bytes: &'s [u8]) -> Self {
        Self { rest: bytes }
    }

    fn take(&mut self, length: usize) -> Result<&'s [u8], String> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or_else(|| format!("carried state ends {} bytes short", length - self.rest.len()))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| "carried state is cut".to_string())
    }

    pub fn wide(&mut self) -> Result<i64, String> {
        self.array().map(i64::from_le_bytes)
    }

    pub fn narrow(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn flag(&mut self) -> Result<bool, String> {
        self.array::<1>().map(|[byte]| byte != 0)
    }

    /// A number of things of which each takes at least one byte.
    pub fn count(&mut self) -> Result<usize, String> {
        let count = self.wide()?;
        match usize::try_from(count) {
            Ok(count) if count <= self.rest.len() => Ok(count),
            _ => Err(format!(
                "carried state counts {count} things in {} bytes",
                self.rest.len()
            )),
        }
    }

    pub fn text(&mut self) -> Result<&'s [u8], String> {
        let length = self.count()?;
        self.take(length)
    }

    /// The key of a text that `text_of` or, in states of earlier releases, `text` wrote; `intern` gives a new one its key.
    pub fn text_of(&mut self, heard: &mut HeardTexts, intern: impl FnOnce(&[u8]) -> i32) -> Result<i32, String> {
        let mut ahead = Self { rest: self.rest };
        let place = ahead.wide()?;
        if place >= 0 {
            let key = intern(self.text()?);
            heard.keys.push(key);
            return Ok(key);
        }
        self.rest = ahead.rest;
        let known = usize::try_from(-1 - place).ok().and_then(|place| heard.keys.get(place));
        known
            .copied()
            .ok_or_else(|| format!("carried state names text {} of {}", -1 - place, heard.keys.len()))
    }

    pub fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// All must have been read.
    pub fn end(self) -> Result<(), String> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(format!("carried state has {left} bytes too many")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_told_once() {
        let (mut writer, mut told) = (StateWriter::default(), ToldTexts::default());
        for key in [7, 3, 7, 7, 3] {
            writer.text_of(&mut told, key, if key == 7 { b"draw" } else { b"" });
        }
        let bytes = writer.into_bytes();
        assert_eq!(bytes.len(), 5 * 8 + 4);
        let read = |bytes: &[u8]| -> Result<Vec<i32>, String> {
            let (mut reader, mut heard) = (StateReader::new(bytes), HeardTexts::default());
            let keys: Result<_, _> = (0..5)
                .map(|_| reader.text_of(&mut heard, |text| text.len() as i32))
                .collect();
            reader.end()?;
            keys
        };
        assert_eq!(read(&bytes), Ok(vec![4, 0, 4, 4, 0]));
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err());
        }
        let mut writer = StateWriter::default();
        for key in [7, 3, 7, 7, 3] {
            writer.text(if key == 7 { b"draw" } else { b"" });
        }
        assert_eq!(
            read(&writer.into_bytes()),
            Ok(vec![4, 0, 4, 4, 0]),
            "of an earlier release"
        );
        for place in [-3, i64::MIN] {
            let mut damaged = bytes.clone();
            let last = damaged.len() - 8;
            damaged[last..].copy_from_slice(&i64::to_le_bytes(place));
            assert!(read(&damaged).unwrap_err().contains("names text"));
        }
    }

    #[test]
    fn reads_what_was_written_and_nothing_else() {
        let mut writer = StateWriter::default();
        writer.wide(-5);
        writer.narrow(7);
        writer.flag(true);
        writer.text(b"draw");
        let bytes = writer.into_bytes();
        let read = |bytes: &[u8]| -> Result<(i64, u32, bool, Vec<u8>), String> {
            let mut reader = StateReader::new(bytes);
            let found = (
                reader.wide()?,
                reader.narrow()?,
                reader.flag()?,
                reader.text()?.to_vec(),
            );
            reader.end()?;
            Ok(found)
        };
        assert_eq!(read(&bytes), Ok((-5, 7, true, b"draw".to_vec())));
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err());
        }
        assert!(read(&[bytes, vec![0]].concat()).is_err());
    }
}
