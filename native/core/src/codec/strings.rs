//! Texts as they stand in records. A text borrows the buffer whenever its bytes are good UTF-8 already.

use std::borrow::Cow;

use super::bytes::ByteReader;
use super::error::{wire_error, Result};

const CODEC_ANSI: u8 = 0;
const CODEC_WIDE: u8 = 1;
const CODEC_UTF8: u8 = 2;

/// Reads `u8 codec, u32 length in bytes, bytes`. Bad bytes become U+FFFD; an odd wide length, a text longer than
/// the record and an unknown codec are errors. ANSI is read as UTF-8, as everybody else does.
pub fn encoded_text<'a>(record: &mut ByteReader<'a>) -> Result<Cow<'a, str>> {
    let codec = record.u8()?;
    let length = record.u32()? as usize;
    let bytes = record.take(length).map_err(|error| error.within("text"))?;
    match codec {
        CODEC_ANSI | CODEC_UTF8 => Ok(String::from_utf8_lossy(bytes)),
        CODEC_WIDE if length.is_multiple_of(2) => Ok(Cow::Owned(wide_text(bytes))),
        CODEC_WIDE => Err(wire_error!("wide text of {length} bytes: the length is odd")),
        _ => Err(wire_error!("text of unknown codec {codec}")),
    }
}

fn wide_text(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    char::decode_utf16(units)
        .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

/// A text without a head, to the end of the record, whose bytes may be bad (legacy log events).
pub fn lossy_text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// A text without a head, to the end of the record, that must be UTF-8 (`StaticString`).
pub fn strict_text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|error| wire_error!("static string: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<String> {
        encoded_text(&mut ByteReader::new(bytes)).map(Cow::into_owned)
    }

    #[test]
    fn every_codec() {
        assert_eq!(read(b"\x02\x03\0\0\0a\xff\0rest").unwrap(), "a\u{fffd}\0");
        assert_eq!(read(b"\x00\x02\0\0\0\xc3\xa9").unwrap(), "é");
        assert_eq!(read(b"\x01\x06\0\0\0a\0\x3d\xd8b\0").unwrap(), "a\u{fffd}b");
        assert!(read(b"\x01\x03\0\0\0a\0b").is_err());
        assert!(read(b"\x03\x00\0\0\0").is_err());
        assert!(read(b"\x02\xff\xff\xff\xffa").is_err());
        assert!(read(b"\x02\x01").is_err());
    }
}
