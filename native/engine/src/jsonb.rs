//! The binary JSON of property columns: written from text pairs or a value tree, read in place without a copy.
//! The bytes are those of lakehouse §5 (databend's JSONB); a reader must never trust a length that it has not checked.

use std::collections::BTreeMap;

const ARRAY: u32 = 0x8000_0000;
const OBJECT: u32 = 0x4000_0000;
const SCALAR: u32 = 0x2000_0000;
const CONTAINER_MASK: u32 = 0xE000_0000;
const COUNT_MASK: u32 = 0x1FFF_FFFF;

const KIND_NULL: u32 = 0x0000_0000;
const KIND_STRING: u32 = 0x1000_0000;
const KIND_NUMBER: u32 = 0x2000_0000;
const KIND_FALSE: u32 = 0x3000_0000;
const KIND_TRUE: u32 = 0x4000_0000;
const KIND_CONTAINER: u32 = 0x5000_0000;
const KIND_MASK: u32 = 0xF000_0000;
const LENGTH_MASK: u32 = 0x0FFF_FFFF;

const NUMBER_ZERO: u8 = 0x00;
const NUMBER_NAN: u8 = 0x10;
const NUMBER_INFINITY: u8 = 0x20;
const NUMBER_NEGATIVE_INFINITY: u8 = 0x30;
const NUMBER_SIGNED: u8 = 0x40;
const NUMBER_UNSIGNED: u8 = 0x50;
const NUMBER_FLOAT: u8 = 0x60;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    Signed(i64),
    Unsigned(u64),
    Float(f64),
}

/// A JSON value that owns its content: what a text is parsed into before it is encoded.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    Array(Vec<Tree>),
    /// Sorted by key, as the binary form wants it.
    Object(BTreeMap<String, Tree>),
}

/// A JSON value that lies in JSONB bytes.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Number(Number),
    String(&'a str),
    Array(Array<'a>),
    Object(Object<'a>),
}

/// What is wrong with JSONB bytes, or with a value that is to become some.
pub type Error = String;

// ---- writing

/// A JSONB object of text values. Keys are sorted; the last of equal keys wins.
pub fn encode_object<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Vec<u8>, Error> {
    let sorted: BTreeMap<&str, &str> = pairs.into_iter().collect();
    let text: usize = sorted.iter().map(|(key, value)| key.len() + value.len()).sum();
    let mut out = Vec::with_capacity(4 + 8 * sorted.len() + text);
    put(&mut out, OBJECT | count(sorted.len())?);
    for key in sorted.keys() {
        put(&mut out, KIND_STRING | length(key.len())?);
    }
    for value in sorted.values() {
        put(&mut out, KIND_STRING | length(value.len())?);
    }
    sorted.keys().for_each(|key| out.extend_from_slice(key.as_bytes()));
    sorted
        .values()
        .for_each(|value| out.extend_from_slice(value.as_bytes()));
    Ok(out)
}

/// The JSONB bytes of any value.
pub fn encode(tree: &Tree) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    match tree {
        Tree::Array(_) | Tree::Object(_) => encode_container(tree, &mut out)?,
        scalar => {
            put(&mut out, SCALAR | 1);
            put(&mut out, 0);
            let entry = encode_item(scalar, &mut out)?;
            out[4..8].copy_from_slice(&entry.to_be_bytes());
        }
    }
    Ok(out)
}

/// The value of `encode`, for a value that lies within other JSONB bytes.
pub fn encode_value(value: &Value<'_>) -> Result<Vec<u8>, Error> {
    match value {
        Value::Array(array) => Ok(array.0.bytes.to_vec()),
        Value::Object(object) => Ok(object.0.bytes.to_vec()),
        Value::Null => encode(&Tree::Null),
        Value::Bool(value) => encode(&Tree::Bool(*value)),
        Value::Number(number) => encode(&Tree::Number(*number)),
        Value::String(text) => encode(&Tree::String((*text).to_string())),
    }
}

/// A JSONB array of values that lie within other JSONB bytes.
pub fn encode_array(values: &[Value<'_>]) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    put(&mut out, ARRAY | count(values.len())?);
    let mut entry_at = reserve(&mut out, values.len());
    for value in values {
        let start = out.len();
        let kind = match value {
            Value::Null => KIND_NULL,
            Value::Bool(false) => KIND_FALSE,
            Value::Bool(true) => KIND_TRUE,
            Value::String(text) => {
                out.extend_from_slice(text.as_bytes());
                KIND_STRING
            }
            Value::Number(number) => {
                encode_number(*number, &mut out);
                KIND_NUMBER
            }
            Value::Array(Array(container)) | Value::Object(Object(container)) => {
                out.extend_from_slice(container.bytes);
                KIND_CONTAINER
            }
        };
        let entry = kind | length(out.len() - start)?;
        entry_at = fill(&mut out, entry_at, entry);
        // a path may name the same large element many times
        length(out.len())?;
    }
    Ok(out)
}

fn encode_container(tree: &Tree, out: &mut Vec<u8>) -> Result<(), Error> {
    // entries are reserved first and filled in as the lengths become known
    match tree {
        Tree::Array(items) => {
            put(out, ARRAY | count(items.len())?);
            let mut entry_at = reserve(out, items.len());
            for item in items {
                let entry = encode_item(item, out)?;
                entry_at = fill(out, entry_at, entry);
            }
        }
        Tree::Object(members) => {
            put(out, OBJECT | count(members.len())?);
            let mut entry_at = reserve(out, 2 * members.len());
            for key in members.keys() {
                out.extend_from_slice(key.as_bytes());
                entry_at = fill(out, entry_at, KIND_STRING | length(key.len())?);
            }
            for member in members.values() {
                let entry = encode_item(member, out)?;
                entry_at = fill(out, entry_at, entry);
            }
        }
        _ => unreachable!("a scalar is no container"),
    }
    Ok(())
}

/// Appends the bytes of an item and gives its entry.
fn encode_item(item: &Tree, out: &mut Vec<u8>) -> Result<u32, Error> {
    let start = out.len();
    let kind = match item {
        Tree::Null => KIND_NULL,
        Tree::Bool(false) => KIND_FALSE,
        Tree::Bool(true) => KIND_TRUE,
        Tree::String(text) => {
            out.extend_from_slice(text.as_bytes());
            KIND_STRING
        }
        Tree::Number(number) => {
            encode_number(*number, out);
            KIND_NUMBER
        }
        Tree::Array(_) | Tree::Object(_) => {
            encode_container(item, out)?;
            KIND_CONTAINER
        }
    };
    Ok(kind | length(out.len() - start)?)
}

fn encode_number(number: Number, out: &mut Vec<u8>) {
    match number {
        Number::Signed(0) | Number::Unsigned(0) => out.push(NUMBER_ZERO),
        Number::Signed(value) => {
            out.push(NUMBER_SIGNED);
            let bytes = value.to_be_bytes();
            let width = [1, 2, 4].into_iter().find(|width| {
                let bits = 8 * *width as u32;
                (-(1_i64 << (bits - 1))..1_i64 << (bits - 1)).contains(&value)
            });
            out.extend_from_slice(&bytes[8 - width.unwrap_or(8)..]);
        }
        Number::Unsigned(value) => {
            out.push(NUMBER_UNSIGNED);
            let width = [1, 2, 4].into_iter().find(|width| value >> (8 * *width as u32) == 0);
            out.extend_from_slice(&value.to_be_bytes()[8 - width.unwrap_or(8)..]);
        }
        Number::Float(value) if value.is_nan() => out.push(NUMBER_NAN),
        Number::Float(f64::INFINITY) => out.push(NUMBER_INFINITY),
        Number::Float(f64::NEG_INFINITY) => out.push(NUMBER_NEGATIVE_INFINITY),
        Number::Float(value) => {
            out.push(NUMBER_FLOAT);
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

fn put(out: &mut Vec<u8>, word: u32) {
    out.extend_from_slice(&word.to_be_bytes());
}

fn reserve(out: &mut Vec<u8>, entries: usize) -> usize {
    let start = out.len();
    out.resize(start + 4 * entries, 0);
    start
}

fn fill(out: &mut [u8], at: usize, entry: u32) -> usize {
    out[at..at + 4].copy_from_slice(&entry.to_be_bytes());
    at + 4
}

fn count(items: usize) -> Result<u32, Error> {
    let limit = COUNT_MASK as usize;
    if items > limit {
        return Err(format!("jsonb: {items} items, at most {limit} fit"));
    }
    Ok(items as u32)
}

fn length(bytes: usize) -> Result<u32, Error> {
    let limit = LENGTH_MASK as usize;
    if bytes > limit {
        return Err(format!("jsonb: item of {bytes} bytes, at most {limit} fit"));
    }
    Ok(bytes as u32)
}

// ---- reading

/// The bytes of an array or object together with its number of items.
#[derive(Clone, Copy, Debug)]
struct Container<'a> {
    bytes: &'a [u8],
    items: usize,
    /// Entries after the header: one an item in an array, two in an object.
    entries: usize,
}

#[derive(Clone, Copy, Debug)]
pub struct Array<'a>(Container<'a>);

#[derive(Clone, Copy, Debug)]
pub struct Object<'a>(Container<'a>);

impl<'a> Value<'a> {
    /// The value that `bytes` hold. Containers are checked as far as they are read, so reading goes on giving errors.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let header = word(bytes, 0)?;
        match header & CONTAINER_MASK {
            SCALAR => {
                let entry = word(bytes, 4)?;
                // a scalar that announced a container could hold a scalar again, and so on for all the bytes there are
                if entry & KIND_MASK == KIND_CONTAINER {
                    return Err("jsonb: container where a scalar is announced".to_string());
                }
                let item = bytes.get(8..).ok_or_else(|| short(bytes, 8))?;
                Self::of_entry(entry, item)
            }
            ARRAY => Ok(Self::Array(Array(Container::new(bytes, header, 1)?))),
            OBJECT => Ok(Self::Object(Object(Container::new(bytes, header, 2)?))),
            _ => Err(format!("jsonb: unknown header {header:#010x}")),
        }
    }

    /// The value of an item whose bytes start at the start of `rest`.
    fn of_entry(entry: u32, rest: &'a [u8]) -> Result<Self, Error> {
        let length = (entry & LENGTH_MASK) as usize;
        let bytes = rest.get(..length).ok_or_else(|| short(rest, length))?;
        match entry & KIND_MASK {
            KIND_NULL => Ok(Self::Null),
            KIND_FALSE => Ok(Self::Bool(false)),
            KIND_TRUE => Ok(Self::Bool(true)),
            KIND_STRING => Ok(Self::String(text(bytes)?)),
            KIND_NUMBER => Ok(Self::Number(number(bytes)?)),
            KIND_CONTAINER => match Self::parse(bytes)? {
                container @ (Self::Array(_) | Self::Object(_)) => Ok(container),
                _ => Err("jsonb: scalar where a container is announced".to_string()),
            },
            kind => Err(format!("jsonb: unknown item kind {:#x}", kind >> 28)),
        }
    }
}

impl<'a> Container<'a> {
    fn new(bytes: &'a [u8], header: u32, entries_per_item: usize) -> Result<Self, Error> {
        let items = (header & COUNT_MASK) as usize;
        let entries = items * entries_per_item;
        let end = 4 + 4 * entries;
        if bytes.len() < end {
            return Err(short(bytes, end));
        }
        Ok(Self { bytes, items, entries })
    }

    /// Items of entries `range`, their bytes starting at `offset`.
    fn walk(self, range: std::ops::Range<usize>, mut offset: usize) -> impl Iterator<Item = Result<Value<'a>, Error>> {
        range.map(move |index| {
            let entry = word(self.bytes, 4 + 4 * index)?;
            let rest = self.bytes.get(offset..).ok_or_else(|| short(self.bytes, offset))?;
            offset += (entry & LENGTH_MASK) as usize;
            Value::of_entry(entry, rest)
        })
    }

    fn items_start(&self) -> usize {
        4 + 4 * self.entries
    }
}

impl<'a> Array<'a> {
    pub fn len(&self) -> usize {
        self.0.items
    }

    pub fn is_empty(&self) -> bool {
        self.0.items == 0
    }

    pub fn iter(self) -> impl Iterator<Item = Result<Value<'a>, Error>> {
        self.0.walk(0..self.0.items, self.0.items_start())
    }
}

impl<'a> Object<'a> {
    pub fn len(&self) -> usize {
        self.0.items
    }

    pub fn is_empty(&self) -> bool {
        self.0.items == 0
    }

    /// Keys in stored (sorted) order.
    pub fn keys(self) -> impl Iterator<Item = Result<&'a str, Error>> {
        self.0
            .walk(0..self.0.items, self.0.items_start())
            .map(|key| match key? {
                Value::String(key) => Ok(key),
                _ => Err("jsonb: object key is no string".to_string()),
            })
    }

    fn values_start(&self) -> Result<usize, Error> {
        let mut offset = self.0.items_start();
        for index in 0..self.0.items {
            offset += (word(self.0.bytes, 4 + 4 * index)? & LENGTH_MASK) as usize;
        }
        Ok(offset)
    }

    /// Bytes of all keys.
    pub fn names_bytes(self) -> Result<usize, Error> {
        Ok(self.values_start()? - self.0.items_start())
    }

    /// Key and value pairs in stored (sorted) order.
    pub fn iter(self) -> Result<impl Iterator<Item = Result<(&'a str, Value<'a>), Error>>, Error> {
        let values = self.0.walk(self.0.items..2 * self.0.items, self.values_start()?);
        Ok(self.keys().zip(values).map(|(key, value)| Ok((key?, value?))))
    }

    /// The member called `name`: the one spelled so, otherwise the first that differs in ASCII case only.
    pub fn get(self, name: &str) -> Result<Option<Value<'a>>, Error> {
        let mut found = None;
        for (index, key) in self.keys().enumerate() {
            let key = key?;
            if key == name {
                found = Some(index);
                break;
            }
            if found.is_none() && key.eq_ignore_ascii_case(name) {
                found = Some(index);
            }
        }
        found.map(|place| self.member(place)).transpose()
    }

    /// The member spelled `name`.
    pub fn get_exact(self, name: &str) -> Result<Option<Value<'a>>, Error> {
        for (index, key) in self.keys().enumerate() {
            if key? == name {
                return self.member(index).map(Some);
            }
        }
        Ok(None)
    }

    /// The member at a place that a key has.
    fn member(self, found: usize) -> Result<Value<'a>, Error> {
        let mut offset = self.values_start()?;
        for index in self.0.items..self.0.items + found {
            offset += (word(self.0.bytes, 4 + 4 * index)? & LENGTH_MASK) as usize;
        }
        let mut walk = self.0.walk(self.0.items + found..self.0.items + found + 1, offset);
        walk.next().unwrap_or_else(|| Err("jsonb: no such member".to_string()))
    }
}

fn word(bytes: &[u8], at: usize) -> Result<u32, Error> {
    let raw = bytes.get(at..at + 4).ok_or_else(|| short(bytes, at + 4))?;
    Ok(u32::from_be_bytes([raw[0], raw[1], raw[2], raw[3]]))
}

fn short(bytes: &[u8], wanted: usize) -> Error {
    format!("jsonb: {} bytes where {wanted} are announced", bytes.len())
}

fn text(bytes: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(bytes).map_err(|error| format!("jsonb: string is not UTF-8: {error}"))
}

fn number(bytes: &[u8]) -> Result<Number, Error> {
    let Some((tag, payload)) = bytes.split_first() else {
        return Err("jsonb: number without a tag".to_string());
    };
    let unknown = || format!("jsonb: number with tag {tag:#04x} and {} bytes", payload.len());
    match (*tag, payload.len()) {
        (NUMBER_ZERO, 0) => Ok(Number::Unsigned(0)),
        (NUMBER_NAN, 0) => Ok(Number::Float(f64::NAN)),
        (NUMBER_INFINITY, 0) => Ok(Number::Float(f64::INFINITY)),
        (NUMBER_NEGATIVE_INFINITY, 0) => Ok(Number::Float(f64::NEG_INFINITY)),
        (NUMBER_SIGNED, 1 | 2 | 4 | 8) => {
            let negative = payload[0] & 0x80 != 0;
            let start = if negative { -1_i64 } else { 0 };
            Ok(Number::Signed(
                payload.iter().fold(start, |value, byte| value << 8 | i64::from(*byte)),
            ))
        }
        (NUMBER_UNSIGNED, 1 | 2 | 4 | 8) => Ok(Number::Unsigned(
            payload.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)),
        )),
        (NUMBER_FLOAT, 8) => {
            let raw: [u8; 8] = payload.try_into().map_err(|_| unknown())?;
            Ok(Number::Float(f64::from_be_bytes(raw)))
        }
        _ => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_the_documented_bytes() {
        let bytes = encode_object([("b", "xy"), ("a", "1"), ("b", "z")]).unwrap();
        let expected = [
            0x40, 0, 0, 2, 0x10, 0, 0, 1, 0x10, 0, 0, 1, 0x10, 0, 0, 1, 0x10, 0, 0, 1, b'a', b'b', b'1', b'z',
        ];
        assert_eq!(bytes, expected);
        assert_eq!(encode_object([]).unwrap(), [0x40, 0, 0, 0]);
        assert_eq!(encode(&Tree::Null).unwrap(), [0x20, 0, 0, 1, 0, 0, 0, 0]);
        let zero = encode(&Tree::Number(Number::Signed(0))).unwrap();
        assert_eq!(zero, [0x20, 0, 0, 1, 0x20, 0, 0, 1, 0]);
        let minus_129 = encode(&Tree::Number(Number::Signed(-129))).unwrap();
        assert_eq!(minus_129[8..], [0x40, 0xFF, 0x7F]);
    }

    #[test]
    fn no_truncation_or_flipped_byte_panics() {
        let tree = Tree::Array(vec![
            Tree::Number(Number::Float(1.5)),
            Tree::Object([("k".to_string(), Tree::String("value".to_string()))].into()),
        ]);
        let bytes = encode(&tree).unwrap();
        for end in 0..bytes.len() {
            read_all(&bytes[..end]);
        }
        for at in 0..bytes.len() {
            for flip in [0x01, 0x10, 0x40, 0x80, 0xFF] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                read_all(&damaged);
            }
        }
    }

    #[test]
    fn scalars_do_not_lie_in_scalars() {
        const LEVELS: u32 = 1_000_000;
        let bytes: Vec<u8> = (0..LEVELS)
            .flat_map(|level| [SCALAR | 1, KIND_CONTAINER | (8 * (LEVELS - level - 1))])
            .flat_map(u32::to_be_bytes)
            .collect();
        assert!(Value::parse(&bytes).unwrap_err().contains("where a scalar"));
    }

    fn read_all(bytes: &[u8]) {
        fn visit(value: Value<'_>) {
            match value {
                Value::Array(array) => array.iter().take(100).flatten().for_each(visit),
                Value::Object(object) => {
                    let _ = object.get("K");
                    if let Ok(pairs) = object.iter() {
                        pairs.take(100).flatten().for_each(|(_, value)| visit(value));
                    }
                }
                _ => {}
            }
        }
        if let Ok(value) = Value::parse(bytes) {
            visit(value);
        }
    }
}
