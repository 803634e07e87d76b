//! Reads the records that the calling threads leave (layout: csrc/record.h). Their descriptors are looked up by whoever
//! reads: this process's own records hold addresses that can be trusted, those of a process that died are checked.

use super::descriptor::Descriptor;
use crate::message::value::{word, Plain, Value};

pub const SPAN_BEGIN: u8 = 0;
pub const SPAN_END: u8 = 1;
pub const METRIC_INT: u8 = 2;
pub const METRIC_FLOAT: u8 = 3;
pub const LOG_LITERAL: u8 = 4;
pub const LOG_VALUES: u8 = 5;
pub const LOG_TEXT: u8 = 6;
pub const ASYNC_BEGIN: u8 = 7;
pub const ASYNC_END: u8 = 8;
pub const NAMED_BEGIN: u8 = 9;
pub const ASYNC_NAMED_BEGIN: u8 = 10;
pub const ASYNC_NAMED_END: u8 = 11;
pub const LOG_FEW: u8 = 12;
pub const METRIC_WITH: u8 = 13;
pub const FRAME: u8 = 14;
pub const KINDS: u8 = 15;

const HEAD: usize = 16;

/// Values of a record with few of them, at most.
const FEW: usize = 4;

/// One event, still in the units of the calling thread.
pub struct Record<'a> {
    pub ticks: u64,
    pub kind: u8,
    pub descriptor: &'static Descriptor,
    body: &'a [u8],
}

/// The properties that a measure brings along.
#[derive(Clone, Copy)]
pub struct TaggedWith<'a> {
    /// How many of them, the first ones, are the context's and the process's.
    pub ambient: usize,
    count: usize,
    pub bytes: &'a [u8],
}

impl<'a> TaggedWith<'a> {
    /// Names and values.
    pub fn pairs(&self) -> Vec<(Value<'a>, Value<'a>)> {
        let mut rest = self.bytes;
        let mut pairs = Vec::new();
        for _ in 0..self.count {
            let (Some(name), Some(value)) = (Value::take(&mut rest), Value::take(&mut rest)) else {
                break; // only a damaged file ends early
            };
            pairs.push((name, value));
        }
        pairs
    }
}

impl<'a> Record<'a> {
    /// The first record of a run, and what follows it.
    pub fn split(
        run: &'a [u8],
        descriptor_at: impl Fn(u64) -> Option<&'static Descriptor>,
    ) -> Option<(Self, &'a [u8])> {
        if run.len() < HEAD {
            return None;
        }
        let (ticks, tagged) = (word(run, 0), word(run, 1));
        let kind = (tagged & 15) as u8;
        let size = match kind {
            SPAN_BEGIN | SPAN_END | LOG_LITERAL => HEAD,
            METRIC_INT | METRIC_FLOAT | FRAME => HEAD + 8,
            METRIC_WITH if run.len() >= HEAD + 8 => (word(run, 2) as u32 as usize).max(HEAD + 24),
            LOG_VALUES | LOG_TEXT if run.len() >= HEAD + 8 => (word(run, 2) as u32 as usize).max(HEAD + 8),
            LOG_FEW if run.len() >= HEAD + 8 => ((word(run, 2) >> 48) as usize).max(HEAD + 8),
            NAMED_BEGIN if run.len() >= HEAD + 8 => (word(run, 2) as u32 as usize).max(HEAD + 16),
            ASYNC_NAMED_BEGIN | ASYNC_NAMED_END if run.len() >= HEAD + 8 => {
                (word(run, 2) as u32 as usize).max(HEAD + 40)
            }
            ASYNC_BEGIN | ASYNC_END => HEAD + 24,
            _ => return None,
        };
        let record = Self {
            ticks,
            kind,
            descriptor: descriptor_at(tagged & !15)?,
            body: run.get(HEAD..size)?,
        };
        Some((record, &run[size..]))
    }

    /// The name that a span brings along, after as many words of its body.
    pub fn name_after(&self, words: usize) -> String {
        let mut rest = &self.body[8 * words..];
        let mut name = String::new();
        if let Some(Value::Text(text)) = Value::take(&mut rest) {
            text.write_to(&mut name);
        }
        name
    }

    /// The value's bits of a metric; span id, parent and depth of an async event.
    pub fn word(&self, index: usize) -> u64 {
        word(self.body, index)
    }

    /// Of a measure with properties: the number, and the properties as they are in the record: equal bytes are equal sets.
    pub fn tagged_measure(&self) -> (Value<'a>, TaggedWith<'a>) {
        let head = word(self.body, 0);
        let mut rest = &self.body[8..];
        let number = Value::take(&mut rest).unwrap_or(Value::None);
        let with = TaggedWith {
            ambient: (head >> 32 & 0xffff) as usize,
            count: (head >> 48) as usize,
            bytes: rest,
        };
        (number, with)
    }

    /// The codes of the values of a record with few of them, and words that begin with what they are besides.
    /// None: the values are in the other form.
    #[inline(always)]
    pub fn few(&self) -> Option<(&'a [u8], &'a [[u8; 8]])> {
        let (words, _) = self.body.as_chunks();
        match words {
            [head, rest @ ..] if self.kind == LOG_FEW => Some((&head[..FEW.min(usize::from(head[FEW]))], rest)),
            _ => None,
        }
    }

    /// The values of a log event in the other form.
    pub fn values(&self) -> Values<'a> {
        Values {
            left: (word(self.body, 0) >> 32 & 0xffff) as usize,
            rest: &self.body[8..],
        }
    }

    /// How many they are, and words that begin with them.
    #[inline(always)]
    pub fn value_words(&self) -> (usize, &'a [[u8; 8]]) {
        let (words, _) = self.body.as_chunks();
        match words {
            [head, values @ ..] => ((u64::from_le_bytes(*head) >> 32 & 0xffff) as usize, values),
            [] => (0, words),
        }
    }

    /// The values of a log event in either form.
    pub fn all_values(&self) -> Vec<Value<'a>> {
        match self.few() {
            Some((codes, mut words)) => {
                let values = codes
                    .iter()
                    .map(|code| Plain::take_coded(u64::from(*code), &mut words).value());
                values.map_while(|value| value).collect() // only a damaged file ends early
            }
            None => self.values().collect(),
        }
    }

    /// Whether it brings any properties along.
    #[inline(always)]
    pub fn has_properties(&self) -> bool {
        self.kind != LOG_FEW && word(self.body, 0) >> 48 != 0
    }

    /// Its properties (name, value, name, value …) in the order of precedence: what comes later wins.
    pub fn properties(&self) -> Values<'a> {
        let mut values = self.values();
        while values.next().is_some() {}
        Values {
            left: 2 * (word(self.body, 0) >> 48) as usize,
            rest: values.rest,
        }
    }
}

/// Values as they are in a record, one after the other.
#[derive(Clone, Copy)]
pub struct Values<'a> {
    left: usize,
    rest: &'a [u8],
}

impl<'a> Values<'a> {
    /// Equal bytes are equal values.
    pub fn bytes(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    #[inline]
    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        Value::take(&mut self.rest) // only a damaged file ends early
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left))
    }
}
