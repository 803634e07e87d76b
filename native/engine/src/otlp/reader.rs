//! The fields of a protobuf message, in the order of the wire, without a copy. A message within is a range of bytes that
//! is read when somebody looks into it.

use micromegas_core::codec::{Result, WireError};

/// The number of a field's wire type, and what it is called in errors.
pub const VARINT: u8 = 0;
pub const FIXED64: u8 = 1;
pub const BYTES: u8 = 2;
pub const FIXED32: u8 = 5;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

impl<'a> Wire<'a> {
    fn wrong(self) -> WireError {
        WireError::new(match self {
            Self::Varint(_) => "unexpected varint",
            Self::Fixed64(_) => "unexpected 64 bits",
            Self::Bytes(_) => "unexpected bytes",
            Self::Fixed32(_) => "unexpected 32 bits",
        })
    }

    pub fn bytes(self) -> Result<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            other => Err(other.wrong()),
        }
    }

    pub fn text(self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|error| WireError::new(format!("text is not UTF-8: {error}")))
    }

    pub fn varint(self) -> Result<u64> {
        match self {
            Self::Varint(value) => Ok(value),
            other => Err(other.wrong()),
        }
    }

    pub fn boolean(self) -> Result<bool> {
        Ok(self.varint()? != 0)
    }

    /// Numbers of an enumeration and of 32 bits are cut off as the protocol says.
    pub fn int32(self) -> Result<i32> {
        Ok(self.varint()? as i32)
    }

    pub fn fixed64(self) -> Result<u64> {
        match self {
            Self::Fixed64(value) => Ok(value),
            other => Err(other.wrong()),
        }
    }

    pub fn double(self) -> Result<f64> {
        self.fixed64().map(f64::from_bits)
    }

    pub fn fixed32(self) -> Result<u32> {
        match self {
            Self::Fixed32(value) => Ok(value),
            other => Err(other.wrong()),
        }
    }
}

/// See the module's description. Ends after the first error.
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(|| {
            WireError::new(format!(
                "{length} bytes are announced where {} are left",
                self.rest.len()
            ))
        })?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or_else(|| WireError::new(format!("{} bytes where {N} are due", self.rest.len())))?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    pub fn varint(&mut self) -> Result<u64> {
        let mut value = 0_u64;
        for (index, byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                if index == 9 && *byte > 1 {
                    break;
                }
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(WireError::new("a number of variable length has no end"))
    }

    pub fn fixed64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn fixed32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn field(&mut self) -> Result<(u32, Wire<'a>)> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3)
            .ok()
            .filter(|number| (1..1 << 29).contains(number))
            .ok_or_else(|| WireError::new(format!("{tag} is no tag of a field")))?;
        let wire = match (tag & 7) as u8 {
            VARINT => Wire::Varint(self.varint()?),
            FIXED64 => Wire::Fixed64(self.fixed64()?),
            BYTES => {
                let length = self.varint()?;
                // what does not fit into a usize is past the end in any case
                Wire::Bytes(self.take(usize::try_from(length).unwrap_or(usize::MAX))?)
            }
            FIXED32 => Wire::Fixed32(self.fixed32()?),
            other => return Err(WireError::new(format!("field {number}: wire type {other} is not read"))),
        };
        Ok((number, wire))
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Wire<'a>)>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(message: &[u8]) -> Result<Vec<(u32, Wire<'_>)>> {
        Fields::new(message).collect()
    }

    #[test]
    fn reads_every_wire_type() {
        let mut message = vec![0x08, 0x96, 0x01, 0x12, 2, b'h', b'i', 0x19];
        message.extend(7_u64.to_le_bytes());
        message.push(0x25);
        message.extend(9_u32.to_le_bytes());
        let expected = vec![
            (1, Wire::Varint(150)),
            (2, Wire::Bytes(b"hi")),
            (3, Wire::Fixed64(7)),
            (4, Wire::Fixed32(9)),
        ];
        assert_eq!(all(&message).unwrap(), expected);
    }

    #[test]
    fn refuses_what_has_no_end() {
        for broken in [
            &[0x08_u8][..],
            &[0x08, 0x80],
            &[0x12, 3, 1],
            &[0x19, 1],
            &[0x25, 1, 2, 3],
            &[0x00, 0x01],
            &[0x0b],
            &[0x0f],
            &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
            &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        ] {
            assert!(all(broken).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn numbers_come_back() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            crate::trace::protobuf::varint(&mut out, value);
            let mut fields = Fields::new(&out);
            assert_eq!(fields.varint().unwrap(), value);
            assert!(fields.is_empty());
        }
    }
}
