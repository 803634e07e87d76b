//! A CBOR reader for the three request bodies and the stored payloads, and a writer for what we store.
//!
//! It never allocates from an announced length, and never recurses deeper than `MAX_CBOR_DEPTH`. Tags are skipped
//! in front of any item; definite and indefinite lengths are both read.

use std::borrow::Cow;

use super::error::{wire_error, Result, WireError};
use super::limits::MAX_CBOR_DEPTH;

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const SIMPLE: u8 = 7;

const INDEFINITE: u8 = 31;
const BREAK: u8 = 0xff;

const SIMPLE_FALSE: u64 = 20;
const SIMPLE_TRUE: u64 = 21;
const SIMPLE_NULL: u64 = 22;
const SIMPLE_UNDEFINED: u64 = 23;

struct Head {
    major: u8,
    info: u8,
    argument: u64,
}

impl Head {
    fn is_indefinite(&self) -> bool {
        self.info == INDEFINITE
    }

    fn is_simple(&self, value: u64) -> bool {
        // an info of 25 and more is a float whose bits could look like any simple value
        self.major == SIMPLE && self.info <= 24 && self.argument == value
    }

    fn kind(&self) -> &'static str {
        match self.major {
            UNSIGNED | NEGATIVE => "an integer",
            BYTES => "a byte string",
            TEXT => "a text",
            ARRAY => "an array",
            MAP => "a map",
            _ => "a simple value",
        }
    }
}

/// Items left in an array (or entries left in a map) that is being read.
pub struct Items {
    left: Option<u64>,
}

pub struct CborReader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> CborReader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    fn truncated(&self) -> WireError {
        wire_error!("the body ends inside an item (at byte {})", self.bytes.len())
    }

    fn unexpected(&self, wanted: &str, found: &Head) -> WireError {
        wire_error!(
            "{} where {wanted} must be (before byte {})",
            found.kind(),
            self.position
        )
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.position..];
        match usize::try_from(length) {
            Ok(length) if length <= rest.len() => {
                self.position += length;
                Ok(&rest[..length])
            }
            _ => Err(self.truncated()),
        }
    }

    fn raw_head(&mut self) -> Result<Head> {
        let initial = self.take(1)?[0];
        let (major, info) = (initial >> 5, initial & 31);
        let argument = match info {
            0..=23 => u64::from(info),
            24..=27 => self
                .take(1 << (info - 24))?
                .iter()
                .fold(0, |value, byte| value << 8 | u64::from(*byte)),
            INDEFINITE if matches!(major, BYTES | TEXT | ARRAY | MAP | SIMPLE) => 0,
            _ => {
                return Err(wire_error!(
                    "byte {initial:#04x} begins no item (at byte {})",
                    self.position - 1
                ))
            }
        };
        Ok(Head { major, info, argument })
    }

    /// The head of the next item, behind any number of tags.
    fn head(&mut self) -> Result<Head> {
        loop {
            let head = self.raw_head()?;
            if head.major != TAG {
                return Ok(head);
            }
        }
    }

    fn at_break(&mut self) -> Result<bool> {
        match self.bytes.get(self.position) {
            Some(&BREAK) => {
                self.position += 1;
                Ok(true)
            }
            Some(_) => Ok(false),
            None => Err(self.truncated()),
        }
    }

    pub fn map(&mut self) -> Result<Items> {
        let head = self.head()?;
        match head.major {
            MAP => Ok(Items {
                left: (!head.is_indefinite()).then_some(head.argument),
            }),
            _ => Err(self.unexpected("a map", &head)),
        }
    }

    pub fn array(&mut self) -> Result<Items> {
        let head = self.head()?;
        match head.major {
            ARRAY => Ok(Items {
                left: (!head.is_indefinite()).then_some(head.argument),
            }),
            _ => Err(self.unexpected("an array", &head)),
        }
    }

    /// True when one more item (or map entry) follows; the caller must then read it.
    pub fn more(&mut self, items: &mut Items) -> Result<bool> {
        match &mut items.left {
            Some(0) => Ok(false),
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
            None => Ok(!self.at_break()?),
        }
    }

    /// The pieces of an indefinite string: each must be a definite string of the same major type.
    fn chunks(&mut self, major: u8, mut piece: impl FnMut(&'a [u8]) -> Result<()>) -> Result<()> {
        while !self.at_break()? {
            let head = self.raw_head()?;
            if head.major != major || head.is_indefinite() {
                return Err(self.unexpected("a piece of the same string", &head));
            }
            let bytes = self.take(head.argument)?;
            piece(bytes)?;
        }
        Ok(())
    }

    fn utf8(&self, bytes: &'a [u8]) -> Result<&'a str> {
        std::str::from_utf8(bytes).map_err(|error| wire_error!("a text before byte {}: {error}", self.position))
    }

    pub fn text(&mut self) -> Result<Cow<'a, str>> {
        let head = self.head()?;
        if head.major != TEXT {
            return Err(self.unexpected("a text", &head));
        }
        if !head.is_indefinite() {
            let bytes = self.take(head.argument)?;
            return self.utf8(bytes).map(Cow::Borrowed);
        }
        let mut whole = Vec::new();
        self.chunks(TEXT, |piece| {
            whole.extend_from_slice(piece);
            Ok(())
        })?;
        let end = self.position;
        String::from_utf8(whole)
            .map(Cow::Owned)
            .map_err(|error| wire_error!("a text before byte {end}: {error}"))
    }

    /// A byte string, or an array of integers 0…255 as senders before 0.29 wrote it.
    pub fn byte_buffer(&mut self) -> Result<Cow<'a, [u8]>> {
        let head = self.head()?;
        match head.major {
            BYTES if !head.is_indefinite() => self.take(head.argument).map(Cow::Borrowed),
            BYTES => {
                let mut whole = Vec::new();
                self.chunks(BYTES, |piece| {
                    whole.extend_from_slice(piece);
                    Ok(())
                })?;
                Ok(Cow::Owned(whole))
            }
            ARRAY => {
                let mut items = Items {
                    left: (!head.is_indefinite()).then_some(head.argument),
                };
                let mut whole = Vec::new();
                while self.more(&mut items)? {
                    let value = self.integer()?;
                    whole.push(u8::try_from(value).map_err(|_| wire_error!("{value} in an array of bytes"))?);
                }
                Ok(Cow::Owned(whole))
            }
            _ => Err(self.unexpected("a byte string", &head)),
        }
    }

    fn integer(&mut self) -> Result<i128> {
        let head = self.head()?;
        match head.major {
            UNSIGNED => Ok(i128::from(head.argument)),
            NEGATIVE => Ok(-1 - i128::from(head.argument)),
            _ => Err(self.unexpected("an integer", &head)),
        }
    }

    /// An integer that must fit `T`.
    pub fn number<T: TryFrom<i128>>(&mut self) -> Result<T> {
        let value = self.integer()?;
        T::try_from(value).map_err(|_| wire_error!("integer {value} does not fit {}", std::any::type_name::<T>()))
    }

    pub fn boolean(&mut self) -> Result<bool> {
        let head = self.head()?;
        match (head.is_simple(SIMPLE_FALSE), head.is_simple(SIMPLE_TRUE)) {
            (true, _) => Ok(false),
            (_, true) => Ok(true),
            _ => Err(self.unexpected("a boolean", &head)),
        }
    }

    /// Reads a null if one is next; otherwise leaves the item in place.
    pub fn null(&mut self) -> Result<bool> {
        let start = self.position;
        let head = self.head()?;
        if head.is_simple(SIMPLE_NULL) || head.is_simple(SIMPLE_UNDEFINED) {
            return Ok(true);
        }
        self.position = start;
        Ok(false)
    }

    /// Passes over one item of any kind.
    pub fn skip(&mut self) -> Result<()> {
        self.skip_nested(0)
    }

    fn skip_nested(&mut self, depth: usize) -> Result<()> {
        if depth > MAX_CBOR_DEPTH {
            return Err(wire_error!("items nested deeper than {MAX_CBOR_DEPTH}"));
        }
        let head = self.head()?;
        match head.major {
            UNSIGNED | NEGATIVE => Ok(()),
            SIMPLE if head.is_indefinite() => Err(wire_error!("a break outside of a string, an array or a map")),
            SIMPLE => Ok(()),
            BYTES | TEXT if head.is_indefinite() => self.chunks(head.major, |_| Ok(())),
            BYTES | TEXT => self.take(head.argument).map(|_| ()),
            _ => {
                let mut items = Items {
                    left: (!head.is_indefinite()).then_some(head.argument),
                };
                while self.more(&mut items)? {
                    self.skip_nested(depth + 1)?;
                    if head.major == MAP {
                        self.skip_nested(depth + 1)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Reads one map whose keys are exactly `names` (unknown keys are skipped; a duplicate or a missing one is an
    /// error). `visit` gets the position of the key in `names` and must read the value.
    pub fn fields(&mut self, names: &[&'static str], visit: impl FnMut(&mut Self, usize) -> Result<()>) -> Result<()> {
        self.some_fields(names, names.len(), visit)
    }

    /// The same, but only the first `required` of the keys must be there.
    pub fn some_fields(
        &mut self,
        names: &[&'static str],
        required: usize,
        mut visit: impl FnMut(&mut Self, usize) -> Result<()>,
    ) -> Result<()> {
        debug_assert!(names.len() <= 32);
        let mut seen = 0u32;
        let mut entries = self.map()?;
        while self.more(&mut entries)? {
            let key = self.text().map_err(|error| error.within("key"))?;
            match names.iter().position(|name| *name == key) {
                None => self.skip()?,
                Some(index) if seen & 1 << index != 0 => return Err(wire_error!("key `{key}` twice")),
                Some(index) => {
                    seen |= 1 << index;
                    visit(self, index).map_err(|error| error.within(names[index]))?;
                }
            }
        }
        let mut required = names[..required].iter().enumerate();
        match required.find(|(index, _)| seen & 1 << index == 0) {
            Some((_, missing)) => Err(wire_error!("key `{missing}` is missing")),
            None => Ok(()),
        }
    }
}

/// Writes definite-length CBOR with the shortest heads.
#[derive(Default)]
pub struct CborWriter {
    bytes: Vec<u8>,
}

impl CborWriter {
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn head(&mut self, major: u8, argument: u64) {
        let big_endian = argument.to_be_bytes();
        let (info, width) = match argument {
            0..=23 => (argument as u8, 0),
            24..=0xff => (24, 1),
            0x100..=0xffff => (25, 2),
            0x1_0000..=0xffff_ffff => (26, 4),
            _ => (27, 8),
        };
        self.bytes.push(major << 5 | info);
        self.bytes.extend_from_slice(&big_endian[8 - width..]);
    }

    pub fn map(&mut self, entries: usize) {
        self.head(MAP, entries as u64);
    }

    pub fn array(&mut self, items: usize) {
        self.head(ARRAY, items as u64);
    }

    pub fn text(&mut self, text: &str) {
        self.head(TEXT, text.len() as u64);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    pub fn byte_string_head(&mut self, length: usize) {
        self.head(BYTES, length as u64);
    }

    pub fn unsigned(&mut self, value: u64) {
        self.head(UNSIGNED, value);
    }

    pub fn boolean(&mut self, value: bool) {
        self.head(SIMPLE, if value { SIMPLE_TRUE } else { SIMPLE_FALSE });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_not_trusted() {
        assert!(CborReader::new(b"\x5b\x00\x00\x01\x00\x00\x00\x00\x00ab")
            .byte_buffer()
            .is_err());
        assert!(CborReader::new(b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff\x01")
            .byte_buffer()
            .is_err());
        assert!(CborReader::new(b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff").skip().is_err());
    }

    #[test]
    fn nesting_is_bounded() {
        assert!(CborReader::new(&[0x81; 200_000]).skip().is_err());
        assert!(CborReader::new(&[0x9f; 200_000]).skip().is_err());
        assert!(CborReader::new(&[0xc1; 200_000]).skip().is_err());
    }

    #[test]
    fn both_kinds_of_lengths() {
        assert_eq!(CborReader::new(b"\x7f\x61a\x61b\xff").text().unwrap(), "ab");
        assert_eq!(CborReader::new(b"\xd9\x10\x92\x62ab").text().unwrap(), "ab");
        assert_eq!(
            &*CborReader::new(b"\x9f\x01\x18\xff\xff").byte_buffer().unwrap(),
            b"\x01\xff"
        );
        assert!(CborReader::new(b"\x81\x19\x01\x00").byte_buffer().is_err());
        assert!(CborReader::new(b"\x7f\x41a\xff").text().is_err());
        assert!(CborReader::new(b"\xff").skip().is_err());
    }

    #[test]
    fn integers_fit_or_fail() {
        assert_eq!(
            CborReader::new(b"\x3b\x7f\xff\xff\xff\xff\xff\xff\xff")
                .number::<i64>()
                .unwrap(),
            i64::MIN
        );
        assert!(CborReader::new(b"\x1b\x80\x00\x00\x00\x00\x00\x00\x00")
            .number::<i64>()
            .is_err());
        assert!(CborReader::new(b"\x20").number::<u64>().is_err());
        assert!(CborReader::new(b"\xf9\x3c\x00").number::<i64>().is_err());
    }
}
