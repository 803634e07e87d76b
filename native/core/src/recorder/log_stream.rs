//! The log stream: events of all threads in the order of time, templates and values apart. Who decodes makes messages of them.

use std::ops::Range;

use super::blocks::{BlockWriter, Office, Properties, Stream};
use super::descriptor::{Description, Descriptor};
use super::layouts::StreamKind;
use super::record::{Record, LOG_LITERAL, LOG_TEXT};
use crate::codec::columns::push_values;
use crate::message::finish_message;
use crate::message::template::push_str;
use crate::message::value::Value;

const BLOCK_BYTES: usize = 1 << 20;

const STATIC_EVENT: u8 = 0;
const STRING_EVENT: u8 = 1;
const TAGGED_EVENT: u8 = 2;
const TEMPLATE_EVENT: u8 = 3;
/// Bytes of messages in a block, once they are made: who reads it has them all in memory.
const BLOCK_MESSAGE_BYTES: usize = 32 << 20;

const LEVELS: [&str; 6] = ["fatal", "error", "warning", "info", "debug", "trace"];

struct Pending {
    ns: u64,
    descriptor: &'static Descriptor,
    message: Message,
    properties: Option<Properties>,
}

enum Message {
    /// The template as it stands.
    Literal,
    /// In `texts`.
    Text(Range<usize>),
    /// For the template, in `values`; at most as many bytes as the message can have.
    Values(Range<usize>, usize),
}

pub struct LogStream {
    stream: Stream,
    writer: BlockWriter,
    pending: Vec<Pending>,
    texts: String,
    values: Vec<u8>,
}

impl LogStream {
    pub fn new(begin_ns: u64) -> Self {
        Self {
            stream: Stream::new(StreamKind::Log, Vec::new(), begin_ns),
            writer: BlockWriter::default(),
            pending: Vec::new(),
            texts: String::new(),
            values: Vec::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    pub fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    pub fn add(&mut self, ns: u64, record: &Record<'_>) {
        if record.kind == LOG_LITERAL {
            return self.pending.push(Pending {
                ns,
                descriptor: record.descriptor,
                message: Message::Literal,
                properties: None,
            });
        }
        let (values, properties) = record.values();
        let message = match (&record.descriptor.description, values.first()) {
            (_, Some(text)) if record.kind == LOG_TEXT => {
                let start = self.texts.len();
                push_str(text, &mut self.texts);
                finish_message(&mut self.texts, start);
                Message::Text(start..self.texts.len())
            }
            (Description::Log { template, .. }, _) => {
                let start = self.values.len();
                push_values(&values, &mut self.values);
                Message::Values(start..self.values.len(), template.longest_message(&values))
            }
            _ => Message::Literal,
        };
        self.pending.push(Pending {
            ns,
            descriptor: record.descriptor,
            message,
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
            message: Message::Text(start..self.texts.len()),
            properties: None,
        });
    }

    /// Makes blocks of all that waits; the last one ends at `horizon_ns`, if no event is later.
    pub fn cut(&mut self, horizon_ns: u64, office: &Office) {
        self.pending.sort_by_key(|event| event.ns);
        let mut first_ns = self.pending.first().map_or(0, |event| event.ns);
        let mut last_ns = first_ns;
        let mut message_bytes = 0;
        for event in self.pending.drain(..) {
            let is_full = self.writer.size() >= BLOCK_BYTES || message_bytes >= BLOCK_MESSAGE_BYTES;
            if self.writer.events() > 0 && is_full {
                self.stream.cut(&mut self.writer, first_ns, last_ns, office);
                first_ns = event.ns;
                message_bytes = 0;
            }
            last_ns = event.ns;
            let id = self.writer.describe(event.descriptor);
            match (event.message, event.properties) {
                (Message::Literal, _) => self.writer.event(STATIC_EVENT, &[id, event.ns], &[]),
                (Message::Values(range, longest), properties) => {
                    let set = properties.map_or(0, |properties| self.writer.property_set(&properties));
                    message_bytes += longest;
                    self.writer
                        .template_event(TEMPLATE_EVENT, &[id, set, event.ns], &self.values[range]);
                }
                (Message::Text(range), None) => {
                    self.writer
                        .text_event(STRING_EVENT, &[id, event.ns], &self.texts[range])
                }
                (Message::Text(range), Some(properties)) => {
                    let set = self.writer.property_set(&properties);
                    self.writer
                        .text_event(TAGGED_EVENT, &[id, set, event.ns], &self.texts[range]);
                }
            }
        }
        self.texts.clear();
        self.texts.shrink_to(4 * BLOCK_BYTES);
        self.values.clear();
        self.values.shrink_to(4 * BLOCK_BYTES);
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
