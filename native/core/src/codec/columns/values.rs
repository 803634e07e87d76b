//! Columns of the typed values of log calls. Values in the same place of the same call site stand together, by type.

use super::super::bytes::ByteReader;
use super::super::error::{wire_error, Result};
use super::body::{BodyReader, BodyWriter};
use super::decimals::{read_floats, write_floats, Floats};
use super::integers::{read_groups, read_integers, write_integers, Groups, Integers, Sign};
use super::texts::{Dictionary, Known, MAX_DICTIONARY};
use crate::message::value::Value;

/// MM_MAX_VALUES of csrc/record.h.
const MAX_VALUES: usize = 32;
/// Groups of a column; what a reader keeps for each must not add up.
pub const MAX_GROUPS: usize = 1 << 16;

const NONE: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const INT: u8 = 3;
const FLOAT: u8 = 4;
const TEXT: u8 = 5;

/// Appends a count and values as they stand in a `LogTemplateEvent`: a tag each, 8 bytes of a number, a text's length
/// (u32) and UTF-8.
pub fn push_values(values: &[Value<'_>], to: &mut Vec<u8>) {
    to.push(values.len() as u8);
    values.iter().for_each(|value| push_value(value, to));
}

/// One value of such a run.
#[inline]
pub fn push_value(value: &Value<'_>, to: &mut Vec<u8>) {
    match value {
        Value::None => to.push(NONE),
        Value::Bool(boolean) => to.push(if *boolean { TRUE } else { FALSE }),
        Value::Int(integer) => push_number(INT, *integer as u64, to),
        Value::Float(float) => push_number(FLOAT, float.to_bits(), to),
        Value::Utf8(text) => push_text(text.as_bytes(), to),
        Value::Text(text) => {
            let mut utf8 = String::new();
            text.write_to(&mut utf8);
            push_text(utf8.as_bytes(), to);
        }
    }
}

fn push_number(tag: u8, bits: u64, to: &mut Vec<u8>) {
    let mut bytes = [tag; 9];
    bytes[1..].copy_from_slice(&bits.to_le_bytes());
    to.extend_from_slice(&bytes);
}

/// The same of a text that is UTF-8.
#[inline]
pub fn push_text(text: &[u8], to: &mut Vec<u8>) {
    let mut head = [TEXT; 5];
    head[1..].copy_from_slice(&(text.len() as u32).to_le_bytes());
    to.reserve(head.len() + text.len());
    to.extend_from_slice(&head);
    to.extend_from_slice(text);
}

/// Reads what `push_values` appended; the record must end there.
pub fn read_values<'a>(record: &mut ByteReader<'a>) -> Result<Vec<Value<'a>>> {
    let count = usize::from(record.u8()?);
    let mut values = Vec::new();
    for _ in 0..count {
        values.push(match record.u8()? {
            NONE => Value::None,
            FALSE => Value::Bool(false),
            TRUE => Value::Bool(true),
            INT => Value::Int(record.i64()?),
            FLOAT => Value::Float(f64::from_bits(record.u64()?)),
            TEXT => {
                let length = record.u32()? as usize;
                let text = std::str::from_utf8(record.take(length)?);
                Value::Utf8(text.map_err(|error| wire_error!("text of a value: {error}"))?)
            }
            tag => return Err(wire_error!("value of unknown type {tag}")),
        });
    }
    match record.rest().len() {
        0 => Ok(values),
        left => Err(wire_error!("{left} bytes behind the values")),
    }
}

#[derive(Default)]
pub struct ValueColumns<'a> {
    counts: Vec<u64>,
    tags: Vec<u8>,
    /// Bits of a number, index of a text.
    payloads: Vec<u64>,
    texts: Dictionary<'a>,
}

impl<'a> ValueColumns<'a> {
    /// For about so many rows.
    pub fn with_capacity(rows: usize) -> Self {
        Self {
            counts: Vec::with_capacity(rows),
            tags: Vec::with_capacity(2 * rows),
            payloads: Vec::with_capacity(2 * rows),
            texts: Dictionary::default(),
        }
    }

    /// The values of a row, which are all that is left of its record.
    #[inline]
    pub fn push(&mut self, values: &'a [u8]) -> Result<()> {
        match self.push_whole(values) {
            Some([]) if self.texts.len() <= MAX_DICTIONARY => Ok(()),
            _ => Err(wire_error!("values that have no columns")),
        }
    }

    /// Gives what is left behind the last value. None: a value is none, or not whole.
    #[inline]
    fn push_whole(&mut self, values: &'a [u8]) -> Option<&'a [u8]> {
        let (&count, mut rest) = values.split_first()?;
        if usize::from(count) > MAX_VALUES {
            return None;
        }
        self.counts.push(u64::from(count));
        for _ in 0..count {
            let (&tag, after) = rest.split_first()?;
            let payload;
            (payload, rest) = match tag {
                NONE | FALSE | TRUE => (0, after),
                INT | FLOAT => {
                    let (bits, after) = after.split_first_chunk()?;
                    (u64::from_le_bytes(*bits), after)
                }
                TEXT => {
                    let (length, after) = after.split_first_chunk()?;
                    let (text, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
                    (u64::from(self.texts.index(text)), after)
                }
                _ => return None,
            };
            self.tags.push(tag);
            self.payloads.push(payload);
        }
        Some(rest)
    }

    /// `sites` tells the call site of each row, of which there are `distinct`.
    pub fn write(&self, sites: &[u64], distinct: usize, body: &mut BodyWriter) {
        write_integers(&self.counts, Sign::Unsigned, body);
        let is_grouped = distinct > 1 && sites.len() >= 4 * distinct && distinct * MAX_VALUES <= MAX_GROUPS;
        body.byte(u8::from(is_grouped));
        // where each group's values begin when all are put in the order of groups
        let mut starts = vec![0_usize; 1 + MAX_VALUES * if is_grouped { distinct } else { 1 }];
        let group = |row: usize| {
            if is_grouped {
                sites[row] as usize * MAX_VALUES
            } else {
                0
            }
        };
        for (row, &count) in self.counts.iter().enumerate() {
            let first = group(row) + 1;
            starts[first..first + count as usize]
                .iter_mut()
                .for_each(|each| *each += 1);
        }
        for index in 1..starts.len() {
            starts[index] += starts[index - 1];
        }
        let ends = starts[1..].to_vec();
        let (mut tags, mut payloads) = (vec![0; self.tags.len()], vec![0; self.tags.len()]);
        let mut values = self.tags.iter().zip(&self.payloads);
        for (row, &count) in self.counts.iter().enumerate() {
            let first = group(row);
            for (next, (&tag, &payload)) in starts[first..first + count as usize].iter_mut().zip(&mut values) {
                tags[*next] = u64::from(tag);
                payloads[*next] = payload;
                *next += 1;
            }
        }
        Groups::choose(&tags, &ends, Sign::Unsigned).write(body);
        let of_type = |wanted: u8| {
            let mut found = Vec::with_capacity(tags.len());
            let mut found_ends = Vec::with_capacity(ends.len());
            let mut start = 0;
            for &end in &ends {
                let group = tags[start..end].iter().zip(&payloads[start..end]);
                found.extend(
                    group
                        .filter(|(&tag, _)| tag == u64::from(wanted))
                        .map(|(_, &payload)| payload),
                );
                found_ends.push(found.len());
                start = end;
            }
            (found, found_ends)
        };
        let (integers, integer_ends) = of_type(INT);
        Groups::choose(&integers, &integer_ends, Sign::Signed).write(body);
        let (floats, float_ends) = of_type(FLOAT);
        write_floats(&floats, &float_ends, body);
        let (mut texts, text_ends) = of_type(TEXT);
        let dictionary = self.texts.renumbered(&mut texts);
        Groups::choose(&texts, &text_ends, Sign::Unsigned).write(body);
        dictionary.write(body);
    }
}

/// Gives the values of one row after the other.
pub struct ValueReader<'a> {
    counts: Integers<'a>,
    is_grouped: bool,
    tags: Vec<Integers<'a>>,
    integers: Vec<Integers<'a>>,
    floats: Vec<Floats<'a>>,
    texts: Vec<Integers<'a>>,
    known: Known<'a>,
}

impl<'a> ValueReader<'a> {
    /// `next_site` gives the call site of each of the `rows`, which are below `distinct`.
    pub fn read(
        rows: usize,
        distinct: usize,
        mut next_site: impl FnMut() -> Result<usize>,
        body: &mut BodyReader<'a>,
    ) -> Result<Self> {
        let counts = read_integers(rows, body)?;
        let is_grouped = body.flag()?;
        let groups = MAX_VALUES * if is_grouped { distinct } else { 1 };
        if groups > MAX_GROUPS {
            return Err(wire_error!("values in {groups} groups"));
        }
        let mut lengths = vec![0; groups];
        let mut all_counts = counts.clone();
        for _ in 0..rows {
            let site = next_site()?;
            let count = all_counts.next_size()?;
            if count > MAX_VALUES {
                return Err(wire_error!("{count} values"));
            }
            let start = if is_grouped { site * MAX_VALUES } else { 0 };
            lengths[start..start + count].iter_mut().for_each(|length| *length += 1);
        }
        let tags = read_groups(&lengths, body)?;
        let mut of_type = [const { Vec::new() }; 3];
        for (group, length) in tags.iter().zip(lengths) {
            let mut group = group.clone();
            let mut found = [0; 3];
            for _ in 0..length {
                match group.next()? {
                    tag @ 3..=5 => found[tag as usize - 3] += 1,
                    tag if tag <= u64::from(TRUE) => {}
                    tag => return Err(wire_error!("value of unknown type {tag}")),
                }
            }
            for (lengths, found) in of_type.iter_mut().zip(found) {
                lengths.push(found);
            }
        }
        let [integers, floats, texts] = of_type;
        let uses = texts.iter().sum();
        Ok(Self {
            counts,
            is_grouped,
            tags,
            integers: read_groups(&integers, body)?,
            floats: read_floats(&floats, body)?,
            texts: read_groups(&texts, body)?,
            known: Known::read(uses, body)?,
        })
    }

    /// Appends the values of the next row, which is one of call site `site`, as `push_values` does.
    pub fn next(&mut self, site: usize, to: &mut Vec<u8>) -> Result<()> {
        let count = self.counts.next_size()?;
        to.push(count as u8);
        let start = if self.is_grouped { site * MAX_VALUES } else { 0 };
        for group in start..start + count {
            let tag = self.tags[group].next()? as u8;
            match tag {
                INT => {
                    to.push(tag);
                    to.extend_from_slice(&self.integers[group].next()?.to_le_bytes());
                }
                FLOAT => {
                    to.push(tag);
                    to.extend_from_slice(&self.floats[group].next()?.to_le_bytes());
                }
                TEXT => push_text(self.known.get(self.texts[group].next_size()?)?, to),
                _ => to.push(tag),
            }
        }
        Ok(())
    }
}
