//! Columns of the typed values of log calls. Values in the same place of the same call site stand together, by type.

use std::ops::Range;

use super::super::bytes::ByteReader;
use super::super::error::{wire_error, Result};
use super::body::{BodyReader, BodyWriter};
use super::decimals::{read_floats, write_floats, Floats};
use super::integers::{groups_until, read_groups, read_integers, write_integers, Groups, Integers, Sign};
use super::texts::{Dictionary, Known, MAX_DICTIONARY};
use crate::message::value::Value;

/// MM_MAX_VALUES of csrc/record.h.
const MAX_VALUES: usize = 32;
/// Groups of a column; what a reader keeps for each must not add up.
pub const MAX_GROUPS: usize = 1 << 16;

/// Of a record, for a number.
pub const NUMBER_BYTES: usize = 9;
/// The same for a text, without its own.
pub const TEXT_HEAD_BYTES: usize = 5;

const NONE: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const INT: u8 = 3;
const FLOAT: u8 = 4;
const TEXT: u8 = 5;

/// A text of a run of values, as `read_values` reads them: a tag, the length (u32), UTF-8.
fn push_text(text: &[u8], to: &mut Vec<u8>) {
    let mut head = [TEXT; 5];
    head[1..].copy_from_slice(&(text.len() as u32).to_le_bytes());
    to.reserve(head.len() + text.len());
    to.extend_from_slice(&head);
    to.extend_from_slice(text);
}

/// Reads a count and values as they stand in a `LogTemplateEvent`: a tag each, 8 bytes of a number, a text's length (u32)
/// and UTF-8. The record must end there.
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

/// A value as it stands in a column: its tag; bits of a number, or index of a text.
#[derive(Clone, Copy)]
pub struct Cell {
    tag: u8,
    payload: u64,
}

impl Cell {
    /// `index` gives that of a text, which is UTF-8.
    #[inline(always)]
    pub fn of(value: &Value<'_>, index: impl FnOnce(&[u8]) -> u32) -> Self {
        let (tag, payload) = match value {
            Value::None => (NONE, 0),
            Value::Bool(boolean) => (if *boolean { TRUE } else { FALSE }, 0),
            Value::Int(integer) => (INT, *integer as u64),
            Value::Float(float) => (FLOAT, float.to_bits()),
            Value::Utf8(text) => (TEXT, u64::from(index(text.as_bytes()))),
            Value::Text(text) => {
                let mut utf8 = String::new();
                text.write_to(&mut utf8);
                (TEXT, u64::from(index(utf8.as_bytes())))
            }
        };
        Self { tag, payload }
    }

    /// Of the bits of an i64.
    #[inline]
    pub fn of_int(payload: u64) -> Self {
        Self { tag: INT, payload }
    }

    #[inline]
    pub fn of_float_bits(payload: u64) -> Self {
        Self { tag: FLOAT, payload }
    }

    #[inline]
    pub fn of_text(index: u32) -> Self {
        Self {
            tag: TEXT,
            payload: u64::from(index),
        }
    }

    /// The value again.
    pub fn value(self, texts: &Dictionary) -> Value<'_> {
        match self.tag {
            FALSE | TRUE => Value::Bool(self.tag == TRUE),
            INT => Value::Int(self.payload as i64),
            FLOAT => Value::Float(f64::from_bits(self.payload)),
            TEXT => Value::Utf8(std::str::from_utf8(texts.get(self.payload as u32)).unwrap_or_default()),
            _ => Value::None,
        }
    }

    /// What a value of no text takes in a record, and a text besides its bytes.
    #[inline]
    pub fn record_bytes(self) -> usize {
        match self.tag {
            INT | FLOAT => NUMBER_BYTES,
            TEXT => TEXT_HEAD_BYTES,
            _ => 1,
        }
    }
}

/// The values of rows whose texts are in a dictionary.
#[derive(Default)]
pub struct ValueRows {
    counts: Vec<u8>,
    tags: Vec<u8>,
    payloads: Vec<u64>,
}

impl ValueRows {
    /// For about so many rows.
    pub fn with_capacity(rows: usize) -> Self {
        Self {
            counts: Vec::with_capacity(rows),
            tags: Vec::with_capacity(2 * rows),
            payloads: Vec::with_capacity(2 * rows),
        }
    }

    /// Rows of so many cells each, at most MAX_VALUES, that stand behind one another.
    pub fn extend(&mut self, counts: impl Iterator<Item = u8>, cells: &[Cell]) {
        self.counts.extend(counts);
        self.tags.extend(cells.iter().map(|cell| cell.tag));
        self.payloads.extend(cells.iter().map(|cell| cell.payload));
    }

    pub fn clear(&mut self) {
        self.counts.clear();
        self.tags.clear();
        self.payloads.clear();
    }

    /// `sites` tells the call site of each row, of which there are `distinct`.
    pub fn write(&self, sites: &[u32], distinct: usize, texts: &mut Dictionary, body: &mut BodyWriter) {
        write_integers(&self.counts, Sign::Unsigned, body);
        let is_grouped = distinct > 1 && sites.len() >= 4 * distinct && distinct * MAX_VALUES <= MAX_GROUPS;
        body.byte(u8::from(is_grouped));
        let site = |row: usize| if is_grouped { sites[row] as usize } else { 0 };
        let ends = self.group_ends(&site, if is_grouped { distinct } else { 1 });
        let mut payloads = body.numbers(self.payloads.len());
        let tags = self.by_group(&site, &ends, &mut payloads);
        Groups::choose(groups_until(&tags, &ends), Sign::Unsigned).write(body);
        let [integers, floats, indexes] = by_type(&tags, &mut payloads, &ends);
        Groups::choose(groups_at(&payloads, &integers), Sign::Signed).write(body);
        write_floats(&groups_at(&payloads, &floats), body);
        let order = texts.renumber(&mut payloads, &indexes);
        Groups::choose(groups_at(&payloads, &indexes), Sign::Unsigned).write(body);
        texts.write(&order, body);
        body.give_back(payloads);
    }

    /// Where each group's values end when all are put in the order of groups: of a site, then of a place.
    fn group_ends(&self, site: &impl Fn(usize) -> usize, sites: usize) -> Vec<usize> {
        const COUNTS: usize = MAX_VALUES + 1;
        let mut rows = vec![0_u32; COUNTS * sites];
        for (row, &count) in self.counts.iter().enumerate() {
            rows[site(row) * COUNTS + count as usize] += 1;
        }
        let mut ends = Vec::with_capacity(MAX_VALUES * sites);
        let mut end = 0;
        for rows in rows.chunks_exact(COUNTS) {
            // a place has a value of each row that has more values
            let mut longer: usize = rows[1..].iter().map(|&rows| rows as usize).sum();
            for &ending in &rows[1..] {
                end += longer;
                ends.push(end);
                longer -= ending as usize;
            }
        }
        ends
    }

    /// Tags in that order, and into `payloads` these.
    fn by_group(&self, site: &impl Fn(usize) -> usize, ends: &[usize], payloads: &mut [u64]) -> Vec<u8> {
        let mut next = Vec::with_capacity(ends.len());
        next.push(0);
        next.extend_from_slice(&ends[..ends.len() - 1]);
        let mut tags = vec![0; self.tags.len()];
        let mut values = self.tags.iter().zip(&self.payloads);
        for (row, &count) in self.counts.iter().enumerate() {
            let first = site(row) * MAX_VALUES;
            for (next, (&tag, &payload)) in next[first..first + count as usize].iter_mut().zip(&mut values) {
                tags[*next] = tag;
                payloads[*next] = payload;
                *next += 1;
            }
        }
        tags
    }
}

/// Where the integers, floats, texts of each group are, if there are some. Groups of several types are put in the order of
/// these first.
fn by_type(tags: &[u8], payloads: &mut [u64], ends: &[usize]) -> [Vec<Range<usize>>; 3] {
    let mut found = [const { Vec::new() }; 3];
    let mut typed = Vec::new();
    let mut start = 0;
    for &end in ends {
        let (tags, payloads) = (&tags[start..end], &mut payloads[start..end]);
        let first = tags.first().copied().unwrap_or(NONE);
        let is_of_one_type = tags.iter().fold(0, |others, tag| others | (tag ^ first)) == 0;
        typed.clear();
        for (wanted, ranges) in (INT..).zip(&mut found) {
            let begin = start + typed.len();
            if !is_of_one_type {
                let of_type = tags.iter().zip(&*payloads).filter(|(&tag, _)| tag == wanted);
                typed.extend(of_type.map(|(_, &payload)| payload));
                if begin < start + typed.len() {
                    ranges.push(begin..start + typed.len());
                }
            } else if first == wanted {
                ranges.push(start..end);
            }
        }
        payloads[..typed.len()].copy_from_slice(&typed);
        start = end;
    }
    found
}

fn groups_at<'v>(payloads: &'v [u64], ranges: &[Range<usize>]) -> Vec<&'v [u64]> {
    ranges.iter().map(|range| &payloads[range.clone()]).collect()
}

/// The values of records.
pub struct ValueColumns {
    rows: ValueRows,
    texts: Dictionary,
}

impl ValueColumns {
    /// For about so many rows.
    pub fn with_capacity(rows: usize) -> Self {
        Self {
            rows: ValueRows::with_capacity(rows),
            texts: Dictionary::default(),
        }
    }

    /// The values of a row, which are all that is left of its record.
    #[inline]
    pub fn push(&mut self, values: &[u8]) -> Result<()> {
        match self.push_whole(values) {
            Some([]) if self.texts.count() <= MAX_DICTIONARY => Ok(()),
            _ => Err(wire_error!("values that have no columns")),
        }
    }

    /// Gives what is left behind the last value. None: a value is none, or not whole.
    #[inline]
    fn push_whole<'v>(&mut self, values: &'v [u8]) -> Option<&'v [u8]> {
        let (&count, mut rest) = values.split_first()?;
        if usize::from(count) > MAX_VALUES {
            return None;
        }
        self.rows.counts.push(count);
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
            self.rows.tags.push(tag);
            self.rows.payloads.push(payload);
        }
        Some(rest)
    }

    /// `sites` tells the call site of each row, of which there are `distinct`.
    pub fn write(&mut self, sites: &[u32], distinct: usize, body: &mut BodyWriter) {
        self.rows.write(sites, distinct, &mut self.texts, body);
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
