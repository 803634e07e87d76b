//! The columns of a log block, filled event by event: what `Encoder` makes of the records of the recorder's log stream,
//! without the records.

use std::ops::Range;

use super::body::BodyWriter;
use super::integers::{write_integers, Sign};
use super::references::ReferenceColumn;
use super::texts::{write_empty_texts, write_texts, Dictionary};
use super::values::{Cell, ValueRows};

const CODEC_UTF8: u8 = 2;

/// The types of the stream, by their index: as its layout declares them.
const LITERAL: usize = 0;
const TEXT: usize = 1;
const TAGGED_TEXT: usize = 2;
const TEMPLATE: usize = 3;

/// What every event has.
#[derive(Clone, Copy)]
pub struct LogHead {
    /// The id of its description, in this block.
    pub site: u64,
    pub ns: u64,
}

/// An event with values for its template.
#[derive(Clone, Copy)]
pub struct TemplateRow {
    pub head: LogHead,
    /// Properties, or 0.
    pub set: u64,
    /// How many.
    pub values: u8,
}

/// Of a record, without its values.
pub const TEMPLATE_BYTES: usize = 30;

/// Columns that all types have, of one type.
#[derive(Default)]
struct Heads {
    sites: ReferenceColumn,
    steps: Vec<u64>,
}

/// The same of types with properties. 0: none.
#[derive(Default)]
struct Texts {
    heads: Heads,
    sets: ReferenceColumn,
    ranges: Vec<Range<usize>>,
}

#[derive(Default)]
pub struct LogColumns {
    kinds: Vec<u8>,
    last_ns: u64,
    literals: Heads,
    texts: Texts,
    tagged: Texts,
    templates: Heads,
    template_sets: ReferenceColumn,
    values: ValueRows,
    record_bytes: usize,
}

impl LogColumns {
    #[inline]
    fn step(&mut self, kind: usize, ns: u64) -> u64 {
        self.kinds.push(kind as u8);
        let step = ns.wrapping_sub(self.last_ns);
        self.last_ns = ns;
        step
    }

    /// The template as it stands.
    #[inline]
    pub fn literal(&mut self, head: LogHead) {
        let step = self.step(LITERAL, head.ns);
        self.literals.push(head.site, step);
        self.record_bytes += 17;
    }

    /// A message, with a set of properties if it is not 0; `range` is where it is in the texts that `write` is given.
    pub fn text(&mut self, head: LogHead, set: u64, range: Range<usize>) {
        let step = self.step(if set == 0 { TEXT } else { TAGGED_TEXT }, head.ns);
        self.record_bytes += range.len() + if set == 0 { 26 } else { 34 };
        let texts = if set == 0 { &mut self.texts } else { &mut self.tagged };
        texts.heads.push(head.site, step);
        texts.sets.push(set);
        texts.ranges.push(range);
    }

    /// Some events with values for their templates; `cells` are those of all. Their values take `value_bytes` in records.
    pub fn templates(&mut self, rows: &[TemplateRow], cells: &[Cell], value_bytes: usize) {
        self.kinds.resize(self.kinds.len() + rows.len(), TEMPLATE as u8);
        let heads = rows.iter().map(|row| row.head);
        self.templates.sites.extend(heads.clone().map(|head| head.site));
        let mut last_ns = self.last_ns;
        self.templates.steps.extend(heads.map(|head| {
            let step = head.ns.wrapping_sub(last_ns);
            last_ns = head.ns;
            step
        }));
        self.last_ns = last_ns;
        if rows.iter().all(|row| row.set == 0) {
            self.template_sets.extend_same(0, rows.len());
        } else {
            self.template_sets.extend(rows.iter().map(|row| row.set));
        }
        self.values.extend(rows.iter().map(|row| row.values), cells);
        self.record_bytes += TEMPLATE_BYTES * rows.len() + value_bytes;
    }

    pub fn events(&self) -> usize {
        self.kinds.len()
    }

    /// Of the records that a reader makes of it.
    pub fn record_bytes(&self) -> usize {
        self.record_bytes
    }

    /// The objects of the block. Messages are in `messages`, texts among the values in `texts`.
    pub fn write(&self, messages: &[u8], texts: &mut Dictionary, body: &mut BodyWriter) {
        body.count(self.kinds.len());
        write_integers(&self.kinds, Sign::Unsigned, body);
        if !self.literals.steps.is_empty() {
            body.byte(1);
            self.literals.sites.write(body);
            self.literals.write_steps(body);
        }
        for (each, has_sets) in [(&self.texts, false), (&self.tagged, true)] {
            if !each.ranges.is_empty() {
                each.write(has_sets, messages, body);
            }
        }
        if !self.templates.steps.is_empty() {
            body.byte(1);
            let sites = &self.templates.sites;
            sites.write(body);
            self.template_sets.write(body);
            self.templates.write_steps(body);
            self.values.write(sites.indexes(), sites.distinct(), texts, body);
        }
    }

    /// For the next block; memory is kept.
    pub fn clear(&mut self) {
        self.kinds.clear();
        self.last_ns = 0;
        self.literals.clear();
        for texts in [&mut self.texts, &mut self.tagged] {
            texts.heads.clear();
            texts.sets.clear();
            texts.ranges.clear();
        }
        self.templates.clear();
        self.template_sets.clear();
        self.values.clear();
        self.record_bytes = 0;
    }
}

impl Heads {
    #[inline]
    fn push(&mut self, site: u64, step: u64) {
        self.sites.push(site);
        self.steps.push(step);
    }

    fn write_steps(&self, body: &mut BodyWriter) {
        write_integers(&self.steps, Sign::Signed, body);
    }

    fn clear(&mut self) {
        self.sites.clear();
        self.steps.clear();
    }
}

impl Texts {
    fn write(&self, has_sets: bool, messages: &[u8], body: &mut BodyWriter) {
        body.byte(1);
        self.heads.sites.write(body);
        if has_sets {
            self.sets.write(body);
        }
        self.heads.write_steps(body);
        let texts: Vec<&[u8]> = self.ranges.iter().map(|range| &messages[range.clone()]).collect();
        write_integers(&vec![CODEC_UTF8; texts.len()], Sign::Unsigned, body);
        write_texts(&texts, body);
        write_empty_texts(texts.len(), body); // nothing follows the text
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::declarations::{MemberDeclaration, TypeDeclaration};
    use super::super::super::layout::{RecordTypes, StreamLayout};
    use super::super::encoder::Encoder;
    use super::super::shape::TEMPLATE_EVENT;
    use super::*;
    use crate::message::value::Value;

    fn layout() -> StreamLayout {
        let member = |name: &str, type_name: &str, offset, is_reference| MemberDeclaration {
            name: name.to_owned(),
            type_name: type_name.to_owned(),
            offset,
            size: 8,
            is_reference,
        };
        let literal = vec![member("desc", "u64", 0, true), member("time", "i64", 8, false)];
        let types = [
            ("LogStaticStrEvent", 16, literal),
            ("LogStringEventV2", 0, Vec::new()),
            ("TaggedLogString", 0, Vec::new()),
            (TEMPLATE_EVENT, 0, Vec::new()),
        ];
        let types = types.map(|(name, size, members)| TypeDeclaration {
            name: name.to_owned(),
            size,
            members,
            is_reference: false,
        });
        StreamLayout {
            dependencies: RecordTypes::compile(&[]),
            objects: RecordTypes::compile(&types),
        }
    }

    /// A record as a block has it.
    fn push_record(kind: usize, words: &[u64], rest: &[u8], to: &mut Vec<u8>) {
        to.push(kind as u8);
        if kind != LITERAL {
            to.extend_from_slice(&(8 * words.len() as u32 + rest.len() as u32).to_le_bytes());
        }
        words.iter().for_each(|word| to.extend_from_slice(&word.to_le_bytes()));
        to.extend_from_slice(rest);
    }

    fn push_value(value: &Value<'_>, to: &mut Vec<u8>) {
        match value {
            Value::None => to.push(0),
            Value::Bool(boolean) => to.push(1 + u8::from(*boolean)),
            Value::Int(integer) => {
                to.push(3);
                to.extend_from_slice(&integer.to_le_bytes());
            }
            Value::Float(float) => {
                to.push(4);
                to.extend_from_slice(&float.to_bits().to_le_bytes());
            }
            Value::Utf8(text) => {
                to.push(5);
                to.extend_from_slice(&(text.len() as u32).to_le_bytes());
                to.extend_from_slice(text.as_bytes());
            }
            Value::Text(_) => unreachable!("of the recorder only"),
        }
    }

    /// What `LogColumns::templates` is told of events that follow one another, and none of them any more.
    fn write_run(run: &mut (Vec<TemplateRow>, Vec<Cell>, usize), columns: &mut LogColumns) {
        let (rows, cells, value_bytes) = std::mem::take(run);
        columns.templates(&rows, &cells, value_bytes);
    }

    /// Any events of all types, of few and of many sites, are byte by byte what `Encoder` makes of their records; the
    /// columns and the dictionary are those of the blocks before.
    #[test]
    fn columns_are_those_of_the_records() {
        let mut state = 7_u64;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        let mut columns = LogColumns::default();
        let mut dictionary = Dictionary::default();
        let mut encoders = [Encoder::new(layout()), Encoder::new(layout())];
        for block in 0..120 {
            columns.clear();
            let (mut records, mut messages) = (Vec::new(), Vec::new());
            let (sites, texts) = ([1, 7, 40, 4000][block % 4], [3, 500, 100_000][block % 3]);
            let (values, kinds) = (next(4) * next(10), 1 + next(4));
            let mut ns = 1_u64 << 50;
            let mut run = (Vec::new(), Vec::new(), 0);
            for _ in 0..next(900) + 1 {
                ns = (ns + next(1 << (block % 40))).wrapping_sub(next(20));
                let head = LogHead {
                    site: 1 + next(sites),
                    ns,
                };
                let set = next(3) * next(5);
                let text = format!("text {}", next(texts));
                match next(kinds) {
                    0 => {
                        let cells: Vec<String> =
                            (0..next(values + 1)).map(|_| format!("user {}", next(texts))).collect();
                        let given: Vec<Value<'_>> = cells
                            .iter()
                            .map(|text| match next(1 + block as u64 % 7) {
                                0 | 1 => Value::Utf8(text),
                                2 => Value::Int(next(1 << 20) as i64 - 1000),
                                3 => Value::Float(next(100_000) as f64 / 100.0),
                                4 => Value::None,
                                _ => Value::Bool(next(2) == 0),
                            })
                            .collect();
                        let mut bytes = 0;
                        let row: Vec<Cell> = given
                            .iter()
                            .map(|value| {
                                let cell = Cell::of(value, |text| {
                                    bytes += text.len();
                                    dictionary.index(text)
                                });
                                bytes += cell.record_bytes();
                                cell
                            })
                            .collect();
                        let values = row.len() as u8;
                        run.0.push(TemplateRow { head, set, values });
                        run.1.extend(row);
                        run.2 += bytes;
                        if next(8) == 0 {
                            write_run(&mut run, &mut columns);
                        }
                        let mut rest = vec![given.len() as u8];
                        given.iter().for_each(|value| push_value(value, &mut rest));
                        push_record(TEMPLATE, &[head.site, set, ns], &rest, &mut records);
                    }
                    1 => {
                        write_run(&mut run, &mut columns);
                        columns.literal(head);
                        push_record(LITERAL, &[head.site, ns], &[], &mut records);
                    }
                    _ => {
                        write_run(&mut run, &mut columns);
                        let start = messages.len();
                        messages.extend_from_slice(text.as_bytes());
                        columns.text(head, set, start..messages.len());
                        let mut rest = vec![CODEC_UTF8];
                        rest.extend_from_slice(&(text.len() as u32).to_le_bytes());
                        rest.extend_from_slice(text.as_bytes());
                        match set {
                            0 => push_record(TEXT, &[head.site, ns], &rest, &mut records),
                            _ => push_record(TAGGED_TEXT, &[head.site, set, ns], &rest, &mut records),
                        }
                    }
                }
            }
            write_run(&mut run, &mut columns);
            assert_eq!(columns.record_bytes(), records.len());
            let direct = encoders[0]
                .encode_log(&[], &columns, &messages, &mut dictionary)
                .unwrap();
            let of_records = encoders[1].encode(&[], &records).unwrap();
            assert!(direct == of_records, "block {block}");
        }
    }
}
