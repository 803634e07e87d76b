//! OTLP's JSON form into protobuf, as a stream: no value tree between, which would be many times the text.
//!
//! Fields come out in the order of their numbers and defaults are left out, so that the same request has the same bytes
//! (and its blocks the same ids) in both encodings.

use micromegas_core::codec::{Result, WireError};

use super::reader::FIXED64;
use super::schema::{Field, Kind, Label, Message};
use super::text_of_bytes;
use super::MAX_DEPTH;
use crate::json_text::Parser;
use crate::jsonb::Number;
use crate::trace::protobuf::varint;

/// The protobuf bytes of a JSON text, at most about `limit` of them.
pub fn to_protobuf(message: &Message, text: &str, limit: usize) -> Result<Vec<u8>> {
    let mut maker = Maker {
        parser: Parser::new(text),
        out: Vec::new(),
        limit,
    };
    maker.message(message, 0)?;
    maker.parser.end().map_err(WireError::new)?;
    Ok(maker.out)
}

struct Maker<'a> {
    parser: Parser<'a>,
    out: Vec<u8>,
    limit: usize,
}

impl Maker<'_> {
    fn wrong(&self, what: &str) -> WireError {
        WireError::new(self.parser.error(what))
    }

    fn expect(&mut self, token: &str, what: &str) -> Result<()> {
        self.parser.skip_space();
        if self.parser.take(token) {
            Ok(())
        } else {
            Err(self.wrong(what))
        }
    }

    /// Whether another item follows in a container that `close` ends; its first item when `is_first`.
    fn next_item(&mut self, close: &str, is_first: bool) -> Result<bool> {
        self.parser.skip_space();
        if self.parser.take(close) {
            return Ok(false);
        }
        if !is_first {
            self.expect(",", "neither a comma nor the end of a container")?;
            self.parser.skip_space();
        }
        Ok(true)
    }

    fn key(&mut self) -> Result<String> {
        if self.parser.peek() != Some(b'"') {
            return Err(self.wrong("no string where a key is expected"));
        }
        let key = self.parser.string().map_err(WireError::new)?;
        self.expect(":", "no colon after a key")?;
        self.parser.skip_space();
        Ok(key)
    }

    fn message(&mut self, message: &Message, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(self.wrong("messages nested too deep"));
        }
        self.expect("{", "no object where a message is expected")?;
        let start = self.out.len();
        // number and begin of each field, of which there are no more than the table has
        let mut written: Vec<(u32, usize)> = Vec::new();
        let mut is_first = true;
        while self.next_item("}", is_first)? {
            is_first = false;
            let key = self.key()?;
            let Some(field) = message.named(&key) else {
                self.skip(depth + 1)?;
                continue;
            };
            if written.iter().any(|(number, _)| *number == field.number) {
                return Err(self.wrong("a field is given twice").within(field.name));
            }
            written.push((field.number, self.out.len()));
            if !self.parser.take("null") {
                self.field(field, depth).map_err(|error| error.within(field.name))?;
            }
            if self.out.len() > self.limit {
                return Err(WireError::new(format!(
                    "the message has more than {} bytes",
                    self.limit
                )));
            }
        }
        if !written.is_sorted() {
            self.sort_fields(start, &written);
        }
        Ok(())
    }

    fn sort_fields(&mut self, start: usize, written: &[(u32, usize)]) {
        let unsorted = self.out.split_off(start);
        let mut ranges: Vec<(u32, usize, usize)> = written
            .iter()
            .enumerate()
            .map(|(index, (number, begin))| {
                let end = written.get(index + 1).map_or(start + unsorted.len(), |next| next.1);
                (*number, begin - start, end - start)
            })
            .collect();
        ranges.sort_unstable();
        for (_, begin, end) in ranges {
            self.out.extend_from_slice(&unsorted[begin..end]);
        }
    }

    fn field(&mut self, field: &Field, depth: usize) -> Result<()> {
        if field.label != Label::Repeated {
            return self.value(field, depth);
        }
        self.expect("[", "no array where many values are expected")?;
        let begin = self.out.len();
        let is_packed = field.kind.is_packable();
        if is_packed {
            self.tag(field);
        }
        let first = self.out.len();
        let mut is_first = true;
        while self.next_item("]", is_first)? {
            is_first = false;
            match field.kind {
                kind if is_packed => self.packed_value(kind)?,
                _ => self.value(field, depth)?,
            }
            if self.out.len() > self.limit {
                return Err(WireError::new(format!(
                    "the message has more than {} bytes",
                    self.limit
                )));
            }
        }
        if is_packed && self.out.len() == first {
            self.out.truncate(begin);
        } else if is_packed {
            self.insert_length(first);
        }
        Ok(())
    }

    fn tag(&mut self, field: &Field) {
        let wire_type = if field.label == Label::Repeated {
            super::reader::BYTES
        } else {
            field.kind.wire_type()
        };
        varint(&mut self.out, u64::from(field.number) << 3 | u64::from(wire_type));
    }

    /// Puts the number of bytes since `first` before them.
    fn insert_length(&mut self, first: usize) {
        let mut length = Vec::with_capacity(5);
        varint(&mut length, (self.out.len() - first) as u64);
        self.out.splice(first..first, length);
    }

    fn value(&mut self, field: &Field, depth: usize) -> Result<()> {
        let is_kept = field.label != Label::Plain;
        match field.kind {
            Kind::Message(inner) => {
                self.tag(field);
                let first = self.out.len();
                self.message(inner, depth + 1)?;
                self.insert_length(first);
            }
            Kind::Text => {
                let text = self.string()?;
                self.put_bytes(field, text.as_bytes(), is_kept);
            }
            Kind::Bytes => {
                let bytes = text_of_bytes::decode(&self.string()?).ok_or_else(|| self.wrong("no base64"))?;
                self.put_bytes(field, &bytes, is_kept);
            }
            Kind::Id => {
                let bytes =
                    text_of_bytes::decode_hex(&self.string()?).ok_or_else(|| self.wrong("no hexadecimal id"))?;
                self.put_bytes(field, &bytes, is_kept);
            }
            kind => {
                let bits = self.bits(kind)?;
                if is_kept || bits != 0 {
                    self.tag(field);
                    self.put_bits(kind, bits);
                }
            }
        }
        Ok(())
    }

    fn packed_value(&mut self, kind: Kind) -> Result<()> {
        let bits = self.bits(kind)?;
        self.put_bits(kind, bits);
        Ok(())
    }

    fn put_bytes(&mut self, field: &Field, bytes: &[u8], is_kept: bool) {
        if is_kept || !bytes.is_empty() {
            self.tag(field);
            varint(&mut self.out, bytes.len() as u64);
            self.out.extend_from_slice(bytes);
        }
    }

    fn put_bits(&mut self, kind: Kind, bits: u64) {
        match kind.wire_type() {
            FIXED64 => self.out.extend_from_slice(&bits.to_le_bytes()),
            super::reader::FIXED32 => self.out.extend_from_slice(&(bits as u32).to_le_bytes()),
            _ => varint(&mut self.out, bits),
        }
    }

    /// A number or a truth value as the wire has it.
    fn bits(&mut self, kind: Kind) -> Result<u64> {
        Ok(match kind {
            Kind::Bool if self.parser.take("true") => 1,
            Kind::Bool if self.parser.take("false") => 0,
            Kind::Bool => return Err(self.wrong("neither true nor false")),
            Kind::Double => self.double()?.to_bits(),
            Kind::Enum(names) => self.enumerated(names)? as i64 as u64,
            Kind::Int64 | Kind::Sfixed64 => self.integer::<i64>()? as u64,
            Kind::Uint32 | Kind::Fixed32 => self.integer::<u32>()?.into(),
            Kind::Sint32 => {
                let value = self.integer::<i32>()?;
                u64::from(((value << 1) ^ (value >> 31)) as u32)
            }
            _ => self.integer::<u64>()?,
        })
    }

    fn string(&mut self) -> Result<String> {
        if self.parser.peek() != Some(b'"') {
            return Err(self.wrong("no string where one is expected"));
        }
        self.parser.string().map_err(WireError::new)
    }

    /// A number, or a string that holds one: 64-bit integers are strings in JSON.
    fn number(&mut self) -> Result<Number> {
        if self.parser.peek() == Some(b'"') {
            let text = self.string()?;
            let mut inner = Parser::new(&text);
            let number = inner.number().and_then(|number| inner.end().map(|()| number));
            return number.map_err(|_| self.wrong("no number in the string"));
        }
        self.parser.number().map_err(WireError::new)
    }

    fn integer<T: TryFrom<i128>>(&mut self) -> Result<T> {
        let value = match self.number()? {
            Number::Signed(value) => Some(i128::from(value)),
            Number::Unsigned(value) => Some(i128::from(value)),
            Number::Float(value) => (value.fract() == 0.0 && value.abs() < 1e30).then_some(value as i128),
        };
        value
            .and_then(|value| T::try_from(value).ok())
            .ok_or_else(|| self.wrong("no integer that fits"))
    }

    fn double(&mut self) -> Result<f64> {
        Ok(match self.number()? {
            Number::Signed(value) => value as f64,
            Number::Unsigned(value) => value as f64,
            Number::Float(value) => value,
        })
    }

    fn enumerated(&mut self, names: &[&str]) -> Result<i32> {
        if self.parser.peek() != Some(b'"') {
            return self.integer();
        }
        let name = self.string()?;
        names
            .iter()
            .position(|known| *known == name)
            .map(|position| position as i32)
            .ok_or_else(|| self.wrong("unknown name of a value"))
    }

    /// Passes over a value that nobody asks for.
    fn skip(&mut self, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(self.wrong("nested too deep"));
        }
        self.parser.skip_space();
        match self.parser.peek() {
            Some(b'"') => self.string().map(|_| ()),
            Some(b'{') => {
                self.parser.take("{");
                let mut is_first = true;
                while self.next_item("}", is_first)? {
                    is_first = false;
                    self.key()?;
                    self.skip(depth + 1)?;
                }
                Ok(())
            }
            Some(b'[') => {
                self.parser.take("[");
                let mut is_first = true;
                while self.next_item("]", is_first)? {
                    is_first = false;
                    self.skip(depth + 1)?;
                }
                Ok(())
            }
            _ if self.parser.take("null") || self.parser.take("true") || self.parser.take("false") => Ok(()),
            _ => self.parser.number().map(|_| ()).map_err(WireError::new),
        }
    }
}
