//! Messages as value trees, for those who want to see everything: `parse_block`, and the events and links of spans.
//! Lists of attributes become objects, ids hexadecimal texts, other names and numbers are those of OTLP's JSON form.

use std::collections::BTreeMap;

use micromegas_core::codec::{Result, WireError};

use super::check::for_each_packed;
use super::reader::{Fields, Wire};
use super::schema::{self, Kind, Label, Message};
use super::text_of_bytes::encode_hex;
use super::value::{key_value, repeated, AnyValue};
use super::MAX_DEPTH;
use crate::jsonb::{Number, Tree};

/// What a value costs beside its text.
const NODE_BYTES: usize = 64;

/// Makes the values of one record.
pub struct ValueMaker {
    whole: usize,
    left: usize,
}

impl ValueMaker {
    /// `bytes` bounds the memory that the values may take, roughly.
    pub fn new(bytes: usize) -> Self {
        Self {
            whole: bytes,
            left: bytes,
        }
    }

    fn spend(&mut self, bytes: usize) -> Result<()> {
        self.left = self
            .left
            .checked_sub(bytes.saturating_add(NODE_BYTES))
            .ok_or_else(|| WireError::new(format!("the value has more than {} bytes", self.whole)))?;
        Ok(())
    }

    pub fn text(&mut self, text: impl Into<String>) -> Result<Tree> {
        let text = text.into();
        self.spend(text.len())?;
        Ok(Tree::String(text))
    }

    fn insert(&mut self, object: &mut BTreeMap<String, Tree>, key: &str, value: Tree) -> Result<()> {
        self.spend(key.len())?;
        object.insert(key.to_string(), value);
        Ok(())
    }

    /// An object of members that were made.
    pub fn object<const N: usize>(&mut self, members: [(&str, Tree); N]) -> Result<Tree> {
        let mut object = BTreeMap::new();
        for (key, value) in members {
            self.insert(&mut object, key, value)?;
        }
        Ok(Tree::Object(object))
    }

    pub fn any(&mut self, value: AnyValue<'_>, depth: usize) -> Result<Tree> {
        if depth > MAX_DEPTH {
            return Err(WireError::new(format!(
                "values lie in one another deeper than {MAX_DEPTH}"
            )));
        }
        self.spend(0)?;
        Ok(match value {
            AnyValue::Empty => Tree::Null,
            AnyValue::Text(text) => self.text(text)?,
            AnyValue::Bool(value) => Tree::Bool(value),
            AnyValue::Int(value) => Tree::Number(Number::Signed(value)),
            AnyValue::Double(value) => Tree::Number(Number::Float(value)),
            AnyValue::Bytes(bytes) => Tree::String(format!("{} bytes", bytes.len())),
            AnyValue::Array(message) => {
                let mut items = Vec::new();
                for item in repeated(message, 1) {
                    items.push(self.any(AnyValue::read(item?)?, depth + 1)?);
                }
                Tree::Array(items)
            }
            AnyValue::Map(message) => {
                let mut object = BTreeMap::new();
                for pair in repeated(message, 1) {
                    let (key, value) = key_value(pair?)?;
                    let value = self.any(value, depth + 1)?;
                    self.insert(&mut object, key, value)?;
                }
                Tree::Object(object)
            }
        })
    }

    /// The attributes in the repeated field `number` of a message; of equal keys the last counts.
    pub fn attributes(&mut self, message: &[u8], number: u32) -> Result<Tree> {
        let mut object = BTreeMap::new();
        for pair in repeated(message, number) {
            let (key, value) = key_value(pair?)?;
            let value = self.any(value, 0)?;
            self.insert(&mut object, key, value)?;
        }
        Ok(Tree::Object(object))
    }

    /// Every field that a message has, by name.
    pub fn members(&mut self, message: &'static Message, bytes: &[u8]) -> Result<BTreeMap<String, Tree>> {
        let mut object = BTreeMap::new();
        for field in Fields::new(bytes) {
            let (number, wire) = field?;
            let Some(known) = message.field(number) else { continue };
            let value = match (known.kind, wire) {
                // attributes are gathered as one object
                (Kind::Message(inner), _) if std::ptr::eq(inner, &schema::KEY_VALUE) => {
                    if !object.contains_key(known.name) {
                        let attributes = self.attributes(bytes, number)?;
                        self.insert(&mut object, known.name, attributes)?;
                    }
                    continue;
                }
                (Kind::Message(inner), wire) if std::ptr::eq(inner, &schema::ANY_VALUE) => {
                    self.any(AnyValue::read(wire.bytes()?)?, 0)?
                }
                // only values lie in one another without bound, and those have their own way
                (Kind::Message(inner), wire) => Tree::Object(self.members(inner, wire.bytes()?)?),
                (kind, Wire::Bytes(packed)) if known.label == Label::Repeated && kind.is_packable() => {
                    let mut items = Vec::new();
                    for_each_packed(kind, packed, |wire| {
                        items.push(self.scalar(kind, wire)?);
                        Ok(())
                    })?;
                    match object.get_mut(known.name) {
                        Some(Tree::Array(known)) => known.append(&mut items),
                        _ => self.insert(&mut object, known.name, Tree::Array(items))?,
                    }
                    continue;
                }
                (kind, wire) => self.scalar(kind, wire)?,
            };
            if known.label != Label::Repeated {
                self.insert(&mut object, known.name, value)?;
            } else if let Some(Tree::Array(items)) = object.get_mut(known.name) {
                items.push(value);
            } else {
                self.insert(&mut object, known.name, Tree::Array(vec![value]))?;
            }
        }
        Ok(object)
    }

    fn scalar(&mut self, kind: Kind, wire: Wire<'_>) -> Result<Tree> {
        self.spend(0)?;
        let unsigned = |value: u64| Tree::Number(Number::Unsigned(value));
        let signed = |value: i64| Tree::Number(Number::Signed(value));
        Ok(match kind {
            Kind::Text => self.text(wire.text()?)?,
            Kind::Id => {
                let id = wire.bytes()?;
                self.spend(2 * id.len())?;
                Tree::String(encode_hex(id))
            }
            Kind::Bytes => Tree::String(format!("{} bytes", wire.bytes()?.len())),
            Kind::Bool => Tree::Bool(wire.boolean()?),
            Kind::Double => Tree::Number(Number::Float(wire.double()?)),
            Kind::Fixed64 => unsigned(wire.fixed64()?),
            Kind::Sfixed64 => signed(wire.fixed64()? as i64),
            Kind::Fixed32 => unsigned(wire.fixed32()?.into()),
            Kind::Int64 => signed(wire.varint()? as i64),
            Kind::Enum(_) => signed(wire.int32()?.into()),
            Kind::Uint32 => unsigned((wire.varint()? as u32).into()),
            Kind::Sint32 => {
                let bits = wire.varint()? as u32;
                signed(((bits >> 1) as i32 ^ -((bits & 1) as i32)).into())
            }
            Kind::Uint64 | Kind::Message(_) => unsigned(wire.varint()?),
        })
    }
}
