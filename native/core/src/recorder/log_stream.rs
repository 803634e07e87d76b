//! The log stream: messages are made here, events of all threads are put in the order of time.

use std::ops::Range;

use super::blocks::{BlockWriter, Office, Properties, Stream};
use super::descriptor::{Description, Descriptor};
use super::layouts::StreamKind;
use super::record::{Record, LOG_LITERAL, LOG_TEXT};
use crate::message::finish_message;
use crate::message::template::push_str;
use crate::message::value::Value;

const BLOCK_BYTES: usize = 1 << 20;

const STATIC_EVENT: u8 = 0;
const STRING_EVENT: u8 = 1;
const TAGGED_EVENT: u8 = 2;

const LEVELS: [&str; 6] = ["fatal", "error", "warning", "info", "debug", "trace"];

struct Pending {
    ns: u64,
    descriptor: &'static Descriptor,
    /// In `texts`; None: the template as it stands.
    message: Option<Range<usize>>,
    properties: Option<Properties>,
}

pub struct LogStream {
    stream: Stream,
    writer: BlockWriter,
    pending: Vec<Pending>,
    texts: String,
}

impl LogStream {
    pub fn new(begin_ns: u64) -> Self {
        Self {
            stream: Stream::new(StreamKind::Log, Vec::new(), begin_ns),
            writer: BlockWriter::default(),
            pending: Vec::new(),
            texts: String::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    pub fn add(&mut self, ns: u64, record: &Record<'_>) {
        if record.kind == LOG_LITERAL {
            return self.pending.push(Pending {
                ns,
                descriptor: record.descriptor,
                message: None,
                properties: None,
            });
        }
        let (values, properties) = record.values();
        let start = self.texts.len();
        match (&record.descriptor.description, values.first()) {
            (_, Some(text)) if record.kind == LOG_TEXT => push_str(text, &mut self.texts),
            (Description::Log { template, .. }, _) if !values.is_empty() => {
                template.write_message(&values, &mut self.texts);
            }
            (Description::Log { template, .. }, _) => self.texts.push_str(template.text()),
            _ => {}
        }
        finish_message(&mut self.texts, start);
        self.pending.push(Pending {
            ns,
            descriptor: record.descriptor,
            message: Some(start..self.texts.len()),
            properties: (!properties.is_empty()).then(|| property_pairs(&properties)),
        });
    }

    /// An event of the recorder itself.
    pub fn add_message(&mut self, ns: u64, descriptor: &'static Descriptor, message: &str) {
        let start = self.texts.len();
        self.texts.push_str(message);
        self.pending.push(Pending {
            ns,
            descriptor,
            message: Some(start..self.texts.len()),
            properties: None,
        });
    }

    /// Makes blocks of all that waits; the last one ends at `horizon_ns`, if no event is later.
    pub fn cut(&mut self, horizon_ns: u64, office: &Office) {
        self.pending.sort_by_key(|event| event.ns);
        let mut first_ns = self.pending.first().map_or(0, |event| event.ns);
        let mut last_ns = first_ns;
        for event in self.pending.drain(..) {
            if self.writer.events() > 0 && self.writer.size() >= BLOCK_BYTES {
                self.stream.cut(&mut self.writer, first_ns, last_ns, office);
                first_ns = event.ns;
            }
            last_ns = event.ns;
            let id = self.writer.describe(event.descriptor);
            match (event.message, event.properties) {
                (None, _) => self.writer.event(STATIC_EVENT, &[id, event.ns], &[]),
                (Some(range), None) => self
                    .writer
                    .text_event(STRING_EVENT, &[id, event.ns], &self.texts[range]),
                (Some(range), Some(properties)) => {
                    let set = self.writer.property_set(&properties);
                    self.writer
                        .text_event(TAGGED_EVENT, &[id, set, event.ns], &self.texts[range]);
                }
            }
        }
        self.texts.clear();
        self.texts.shrink_to(4 * BLOCK_BYTES);
        self.stream
            .cut(&mut self.writer, first_ns, last_ns.max(horizon_ns), office);
    }
}

fn property_pairs(values: &[Value<'_>]) -> Properties {
    let text = |value: &Value<'_>| {
        let mut text = String::new();
        push_str(value, &mut text);
        text
    };
    let mut pairs = Properties::new();
    for pair in values.chunks_exact(2) {
        put(&mut pairs, text(&pair[0]), text(&pair[1]));
    }
    for (name, value) in &mut pairs {
        // Existing readers fail the whole block on a property `level` with any other word.
        if name == "level" && !LEVELS.contains(&value.as_str()) {
            name.push('_');
        }
    }
    pairs
}

/// A name keeps its place and gets the later value.
fn put(pairs: &mut Properties, name: String, value: String) {
    match pairs.iter_mut().find(|(known, _)| *known == name) {
        Some(pair) => pair.1 = value,
        None => pairs.push((name, value)),
    }
}
