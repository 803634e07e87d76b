//! What a builder carries from one partition to the next, as bytes: integers little-endian, texts with their length in
//! front. Only our own output is ever read, but what was cut or changed on disk must give an error, never a panic.

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
