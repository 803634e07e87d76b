//! An attribute's value, and its text: a string as it is, numbers and truth values as JSON has them, lists and maps as
//! JSON, bytes in base64.

use std::borrow::Cow;

use micromegas_core::codec::{Result, WireError};

use super::reader::Fields;
use super::text_of_bytes;
use super::MAX_DEPTH;
use crate::json_text::{format_number, format_string};
use crate::jsonb::Number;

/// The text of one list or map.
const MAX_TEXT_BYTES: usize = 64 << 20;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AnyValue<'a> {
    /// Nothing was said.
    Empty,
    Text(&'a str),
    Bool(bool),
    Int(i64),
    Double(f64),
    /// The message `ArrayValue`.
    Array(&'a [u8]),
    /// The message `KeyValueList`.
    Map(&'a [u8]),
    Bytes(&'a [u8]),
}

impl<'a> AnyValue<'a> {
    /// Reads the message `AnyValue`; of several alternatives the last counts.
    pub fn read(message: &'a [u8]) -> Result<Self> {
        let mut value = Self::Empty;
        for field in Fields::new(message) {
            let (number, wire) = field?;
            value = match number {
                1 => Self::Text(wire.text()?),
                2 => Self::Bool(wire.boolean()?),
                3 => Self::Int(wire.varint()? as i64),
                4 => Self::Double(wire.double()?),
                5 => Self::Array(wire.bytes()?),
                6 => Self::Map(wire.bytes()?),
                7 => Self::Bytes(wire.bytes()?),
                _ => value,
            };
        }
        Ok(value)
    }

    /// See the module's description; "" for nothing.
    pub fn text(self) -> Result<Cow<'a, str>> {
        let mut out = String::new();
        match self {
            Self::Empty => {}
            Self::Text(text) => return Ok(Cow::Borrowed(text)),
            Self::Bytes(bytes) => text_of_bytes::encode(bytes, &mut out),
            other => other.write_json(&mut out, 0)?,
        }
        Ok(Cow::Owned(out))
    }

    fn write_json(self, out: &mut String, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(WireError::new(format!(
                "values lie in one another deeper than {MAX_DEPTH}"
            )));
        }
        if out.len() > MAX_TEXT_BYTES {
            return Err(WireError::new(format!(
                "a value has more than {MAX_TEXT_BYTES} bytes as text"
            )));
        }
        match self {
            Self::Empty => out.push_str("null"),
            Self::Text(text) => format_string(text, out),
            Self::Bool(value) => out.push_str(if value { "true" } else { "false" }),
            Self::Int(value) => format_number(Number::Signed(value), out),
            Self::Double(value) => format_number(Number::Float(value), out),
            Self::Bytes(bytes) => {
                out.push('"');
                text_of_bytes::encode(bytes, out);
                out.push('"');
            }
            Self::Array(message) => {
                out.push('[');
                let mut separator = "";
                for item in repeated(message, 1) {
                    out.push_str(std::mem::replace(&mut separator, ","));
                    Self::read(item?)?.write_json(out, depth + 1)?;
                }
                out.push(']');
            }
            Self::Map(message) => {
                out.push('{');
                let mut separator = "";
                for pair in repeated(message, 1) {
                    out.push_str(std::mem::replace(&mut separator, ","));
                    let (key, value) = key_value(pair?)?;
                    format_string(key, out);
                    out.push(':');
                    value.write_json(out, depth + 1)?;
                }
                out.push('}');
            }
        }
        Ok(())
    }
}

/// Reads the message `KeyValue`.
pub fn key_value(message: &[u8]) -> Result<(&str, AnyValue<'_>)> {
    let mut key = "";
    let mut value = AnyValue::Empty;
    for field in Fields::new(message) {
        match field? {
            (1, wire) => key = wire.text()?,
            (2, wire) => value = AnyValue::read(wire.bytes()?)?,
            _ => {}
        }
    }
    Ok((key, value))
}

/// The messages (or texts) in the repeated field `number` of a message.
pub fn repeated(message: &[u8], number: u32) -> impl Iterator<Item = Result<&[u8]>> {
    Fields::new(message).filter_map(move |field| match field {
        Ok((found, wire)) => (found == number).then(|| wire.bytes()),
        Err(error) => Some(Err(error)),
    })
}
