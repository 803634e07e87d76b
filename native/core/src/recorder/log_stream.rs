//! The log stream: events of all threads in the order of time, templates and values apart. Who decodes makes messages of them.
//!
//! An event waits until all threads were read up to its time, which is a millisecond or two where there are many, and goes
//! into the columns of the block then: so what one pass has put down, the next step finds in the processor's caches.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::blocks::{BlockWriter, Office, Properties, Stream};
use super::console::Console;
use super::descriptor::{Description, Descriptor};
use super::known_texts::{KnownTexts, Place};
use super::layouts::StreamKind;
use super::record::{Record, Values, LOG_LITERAL, LOG_TEXT};
use super::scrubber::Scrubber;
use crate::codec::columns::{Cell, LogColumns, LogHead};
use crate::codec::id_hash::IdHasher;
use crate::message::finish_message;
use crate::message::template::{longest_value, push_str, Template};
use crate::message::value::Value;

const BLOCK_BYTES: usize = 1 << 20;

/// Bytes of messages in a block, once they are made: who reads it has them all in memory.
const BLOCK_MESSAGE_BYTES: usize = 32 << 20;

const LEVELS: [&str; 6] = ["fatal", "error", "warning", "info", "debug", "trace"];

struct Pending {
    ns: u64,
    descriptor: &'static Descriptor,
    message: Message,
    set: SetIndex,
}

/// A set of properties by its place in `PropertySets`, counted from one; 0: none.
type SetIndex = u32;

/// The property sets of the events that wait.
#[derive(Default)]
struct PropertySets {
    sets: Vec<Properties>,
    /// By what stands in the record: the same call site makes the same set again and again.
    known: HashMap<Box<[u8]>, SetIndex, IdHasher>,
}

enum Message {
    /// The template as it stands.
    Literal,
    /// In `texts`.
    Text(Range<usize>),
    /// For the template.
    Values(GivenValues),
}

/// Where they begin in `values`, and how many they are.
struct GivenValues {
    start: u32,
    count: u8,
    /// In a record.
    bytes: u32,
    /// At most as many bytes as the message can have.
    longest: u32,
}

impl GivenValues {
    fn of<'v>(&self, values: &'v [Cell]) -> &'v [Cell] {
        &values[self.start as usize..][..usize::from(self.count)]
    }
}

/// What happens to log events besides being sent. By default they are not printed, and no secret passes.
#[derive(Clone, Default)]
pub struct LogOutput {
    /// The least severe level that is printed; 0: none.
    pub console_level: u32,
    pub scrubber: Arc<Scrubber>,
}

/// What a look for secrets in a template has told.
#[derive(Clone, Copy)]
enum Look {
    Unknown,
    Clean,
    /// A value may become a secret by what stands around it.
    Suspicious,
    /// It holds a secret itself (the first text of an f-string, say).
    Replaced,
}

pub struct LogStream {
    stream: Stream,
    /// What the events of the block refer to.
    writer: BlockWriter,
    columns: LogColumns,
    /// Of the first and the last event of the block.
    block_ns: (u64, u64),
    /// Bytes of the block's messages, once they are made.
    message_bytes: usize,
    /// Of the property sets in this block, 0 for those that it does not have yet.
    set_ids: Vec<u64>,
    pending: Vec<Pending>,
    texts: String,
    /// Those that are texts are not filled in yet while `known_texts` was not asked for answers.
    values: Vec<Cell>,
    known_texts: KnownTexts,
    property_sets: PropertySets,
    scrubber: Arc<Scrubber>,
    /// By descriptor index.
    looks: Vec<Look>,
    /// By descriptor index: what is told in the place of templates with secrets.
    replacements: HashMap<usize, String>,
    console: Option<Console>,
    /// To be added to event times to get nanoseconds since the epoch.
    wall_offset_ns: i64,
}

impl LogStream {
    pub fn new(begin_ns: u64, wall_offset_ns: i64, output: &LogOutput) -> Self {
        Self {
            stream: Stream::new(StreamKind::Log, Vec::new(), begin_ns),
            writer: BlockWriter::default(),
            columns: LogColumns::default(),
            block_ns: (0, 0),
            message_bytes: 0,
            set_ids: Vec::new(),
            pending: Vec::new(),
            texts: String::new(),
            values: Vec::new(),
            known_texts: KnownTexts::default(),
            property_sets: PropertySets::default(),
            scrubber: Arc::clone(&output.scrubber),
            looks: Vec::new(),
            replacements: HashMap::new(),
            console: (output.console_level > 0).then(|| Console::new(output.console_level)),
            wall_offset_ns,
        }
    }

    #[inline]
    fn look_at_template(&mut self, descriptor: &'static Descriptor) -> Look {
        match self.looks.get(descriptor.index) {
            None | Some(Look::Unknown) => self.look_closer_at_template(descriptor),
            Some(known) => *known,
        }
    }

    #[cold]
    fn look_closer_at_template(&mut self, descriptor: &'static Descriptor) -> Look {
        if descriptor.index >= self.looks.len() {
            self.looks.resize(descriptor.index + 1, Look::Unknown);
        }
        let mut found = Look::Clean;
        if let Description::Log { template, .. } = &descriptor.description {
            let mut text = template.text().to_owned();
            if self.scrubber.is_suspicious(text.as_bytes()) {
                found = Look::Suspicious;
                if self.scrubber.scrub(&mut text, 0) {
                    found = Look::Replaced;
                    self.replacements.insert(descriptor.index, text);
                }
            }
        }
        self.looks[descriptor.index] = found;
        found
    }

    pub fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.columns.events() == 0
    }

    pub fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    pub fn add(&mut self, ns: u64, record: &Record<'_>) {
        let look = self.look_at_template(record.descriptor);
        let descriptor = record.descriptor;
        if record.kind == LOG_LITERAL {
            return self.push(ns, descriptor, Message::Literal, 0);
        }
        let mut values = record.values();
        let mut message = match &descriptor.description {
            _ if record.kind == LOG_TEXT => self.text_message(record.values()),
            Description::Log { template, level } => {
                let is_printed = self.console.as_ref().is_some_and(|console| console.wants(*level));
                match look {
                    Look::Clean if !is_printed => self.given_values(template, &mut values),
                    _ => self.message(ns, descriptor, template, look, record.values()),
                }
            }
            _ => Message::Literal,
        };
        let properties = record.properties_behind(values);
        let mut set = 0;
        if properties.size_hint().1 != Some(0) {
            // A literal has no place for properties.
            if matches!(message, Message::Literal) {
                let start = self.texts.len();
                self.texts.push_str(&self.shown_template(descriptor));
                message = Message::Text(start..self.texts.len());
            }
            set = self.property_set(properties);
        }
        self.push(ns, descriptor, message, set);
        if self.known_texts.are_enough() {
            self.look_up_texts();
        }
    }

    fn text_message(&mut self, mut values: Values<'_>) -> Message {
        let start = self.texts.len();
        if let Some(text) = values.next() {
            push_str(&text, &mut self.texts);
        }
        self.scrubber.scrub(&mut self.texts, start);
        finish_message(&mut self.texts, start);
        Message::Text(start..self.texts.len())
    }

    /// Takes the values as they are. Suspicious texts among them are found once they are looked up.
    #[inline]
    fn given_values<'v>(&mut self, template: &Template<'_>, values: impl Iterator<Item = Value<'v>>) -> Message {
        let start = self.values.len();
        let (mut bytes, mut longest) = (0, 0);
        for value in values {
            longest += longest_value(&value);
            bytes += self.push_value(&value);
        }
        Message::Values(GivenValues {
            start: start as u32,
            count: (self.values.len() - start) as u8,
            bytes: bytes as u32,
            longest: template.longest_message(longest) as u32,
        })
    }

    /// Gives the bytes that the value takes in a record.
    #[inline(always)]
    fn push_value(&mut self, value: &Value<'_>) -> usize {
        let place = Place {
            event: self.pending.len() as u32,
            value: self.values.len() as u32,
        };
        let mut text_bytes = 0;
        let mut ask = |text: &[u8]| {
            self.known_texts.ask(text, place);
            text_bytes = text.len();
            0
        };
        let cell = match value.as_ascii() {
            Some(text) => Cell::of_text(ask(text)),
            None => Cell::of(value, ask),
        };
        self.values.push(cell);
        cell.record_bytes() + text_bytes
    }

    /// Looks up the texts of the events that wait, and looks closer at those events that have suspicious ones.
    fn look_up_texts(&mut self) {
        let mut suspicious = Vec::new();
        self.known_texts.answer(&self.scrubber, |answer| {
            self.values[answer.place.value as usize] = Cell::of_text(answer.index);
            if answer.is_suspicious && suspicious.last() != Some(&answer.place.event) {
                suspicious.push(answer.place.event);
            }
        });
        for event in suspicious {
            self.look_closer(event as usize);
        }
    }

    /// Makes the message of an event that waits, and keeps it if it holds a secret.
    #[cold]
    fn look_closer(&mut self, event: usize) {
        let Pending {
            descriptor,
            message: Message::Values(given),
            ..
        } = &self.pending[event]
        else {
            return;
        };
        let Description::Log { template, .. } = &descriptor.description else {
            return;
        };
        let cells = given.of(&self.values).to_vec();
        let look = self.look_at_template(descriptor);
        let start = self.texts.len();
        let known_texts = std::mem::take(&mut self.known_texts);
        let values: Vec<Value<'_>> = cells.iter().map(|cell| cell.value(known_texts.dictionary())).collect();
        if self.push_scrubbed(look, template, &values) {
            self.pending[event].message = Message::Text(start..self.texts.len());
        }
        self.known_texts = known_texts;
    }

    /// Makes the message of what may hold a secret, or is to be printed.
    fn message(
        &mut self,
        ns: u64,
        descriptor: &'static Descriptor,
        template: &Template<'_>,
        look: Look,
        values: Values<'_>,
    ) -> Message {
        let values: Vec<Value<'_>> = values.collect();
        let start = self.texts.len();
        let suspicious = !matches!(look, Look::Clean) || values.iter().any(|value| self.is_suspicious(value));
        if suspicious && values.is_empty() {
            return Message::Literal;
        }
        if suspicious && self.push_scrubbed(look, template, &values) {
            return Message::Text(start..self.texts.len());
        }
        if self.console.is_some() {
            let mut made = String::new();
            if values.is_empty() {
                made.push_str(template.text());
            } else {
                template.write_message(&values, &mut made);
            }
            finish_message(&mut made, 0);
            self.print_later(ns, descriptor, &made);
        }
        self.given_values(template, values.into_iter())
    }

    fn property_set(&mut self, values: Values<'_>) -> SetIndex {
        if let Some(&known) = self.property_sets.known.get(values.bytes()) {
            return known;
        }
        let properties = self.property_pairs(&values.collect::<Vec<_>>());
        let PropertySets { sets, known } = &mut self.property_sets;
        sets.push(properties);
        let index = sets.len() as SetIndex;
        known.insert(values.bytes().into(), index);
        index
    }

    fn property_pairs(&self, values: &[Value<'_>]) -> Properties {
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
            self.scrubber.scrub_property(name, value);
            // Existing readers fail the whole block on a property `level` with any other word.
            if name == "level" && !LEVELS.contains(&value.as_str()) {
                name.push('_');
            }
        }
        pairs
    }

    /// The template as readers may see it.
    fn shown_template(&self, descriptor: &Descriptor) -> String {
        match (self.replacements.get(&descriptor.index), &descriptor.description) {
            (Some(replacement), _) => replacement.clone(),
            (None, Description::Log { template, .. }) => template.text().to_owned(),
            _ => String::new(),
        }
    }

    fn is_suspicious(&self, value: &Value<'_>) -> bool {
        match value {
            Value::Text(text) if text.width == 1 => self.scrubber.is_suspicious(text.units),
            Value::Text(text) => {
                let mut utf8 = String::new();
                text.write_to(&mut utf8);
                self.scrubber.is_suspicious(utf8.as_bytes())
            }
            Value::Utf8(text) => self.scrubber.is_suspicious(text.as_bytes()),
            _ => false,
        }
    }

    /// Makes the message, and leaves it in `texts` if a secret was taken out of it (or of its template).
    fn push_scrubbed(&mut self, look: Look, template: &Template<'_>, values: &[Value<'_>]) -> bool {
        let start = self.texts.len();
        template.write_message(values, &mut self.texts);
        let changed = self.scrubber.scrub(&mut self.texts, start);
        if changed || matches!(look, Look::Replaced) {
            finish_message(&mut self.texts, start);
            return true;
        }
        self.texts.truncate(start);
        false
    }

    #[inline(always)]
    fn push(&mut self, ns: u64, descriptor: &'static Descriptor, message: Message, set: SetIndex) {
        match &message {
            Message::Literal if self.console.is_some() => {
                let text = self.shown_template(descriptor);
                self.print_later(ns, descriptor, &text);
            }
            Message::Text(range) if self.console.is_some() => {
                let text = self.texts[range.clone()].to_owned();
                self.print_later(ns, descriptor, &text);
            }
            _ => {} // values: made to a message by who had them
        }
        self.pending.push(Pending {
            ns,
            descriptor,
            message,
            set,
        });
    }

    fn print_later(&mut self, ns: u64, descriptor: &Descriptor, message: &str) {
        if let (Some(console), Description::Log { level, .. }) = (&mut self.console, &descriptor.description) {
            if console.wants(*level) {
                let wall_ns = self.wall_offset_ns + ns as i64;
                console.add(ns, wall_ns, *level, descriptor.target, message);
            }
        }
    }

    /// Prints what has been added, where that is wanted.
    pub fn print(&mut self) {
        if let Some(console) = &mut self.console {
            console.print();
        }
    }

    /// An event of the recorder itself.
    pub fn add_message(&mut self, ns: u64, descriptor: &'static Descriptor, message: &str) {
        let start = self.texts.len();
        self.texts.push_str(message);
        self.scrubber.scrub(&mut self.texts, start);
        self.push(ns, descriptor, Message::Text(start..self.texts.len()), 0);
    }

    /// Puts what is not later than `horizon_ns` into blocks: all threads were read until then.
    pub fn settle(&mut self, horizon_ns: u64, office: &Office) {
        self.look_up_texts();
        let mut pending = std::mem::take(&mut self.pending);
        pending.sort_by_key(|event| event.ns);
        let settled = pending.partition_point(|event| event.ns <= horizon_ns);
        self.set_ids.resize(self.property_sets.sets.len(), 0);
        for event in &pending[..settled] {
            if self.columns.record_bytes() >= BLOCK_BYTES || self.message_bytes >= BLOCK_MESSAGE_BYTES {
                self.cut_block(self.block_ns.1, office);
            }
            self.write_event(event);
        }
        pending.drain(..settled);
        if pending.is_empty() {
            self.values.clear();
        }
        self.pending = pending;
    }

    /// Makes blocks of all that waits; the last one ends at `horizon_ns`, if no event is later.
    pub fn cut(&mut self, horizon_ns: u64, office: &Office) {
        self.settle(u64::MAX, office);
        self.cut_block(self.block_ns.1.max(horizon_ns), office);
        self.pending.shrink_to(BLOCK_BYTES / size_of::<Pending>());
        self.values.shrink_to(BLOCK_BYTES / size_of::<Cell>());
        self.texts.clear();
        self.texts.shrink_to(4 * BLOCK_BYTES);
        self.property_sets = PropertySets::default();
        self.set_ids.clear();
        self.known_texts.shrink();
    }

    #[inline]
    fn write_event(&mut self, event: &Pending) {
        let ns = event.ns;
        self.block_ns = match self.columns.events() {
            0 => (ns, ns),
            _ => (self.block_ns.0.min(ns), self.block_ns.1.max(ns)),
        };
        let site = self.writer.described(event.descriptor).unwrap_or_else(|| {
            let replacement = self.replacements.get(&event.descriptor.index);
            self.writer
                .describe_as(event.descriptor, replacement.map(String::as_str))
        });
        let head = LogHead { site, ns };
        let set = match (event.set as usize).checked_sub(1) {
            None => 0,
            Some(index) => {
                if self.set_ids[index] == 0 {
                    self.set_ids[index] = self.writer.property_set(&self.property_sets.sets[index]);
                }
                self.set_ids[index]
            }
        };
        match &event.message {
            Message::Literal => self.columns.literal(head),
            Message::Text(range) => self.columns.text(head, set, range.clone()),
            Message::Values(given) => {
                let values = given.of(&self.values);
                self.columns.template(head, set, values, given.bytes as usize);
                self.message_bytes += given.longest as usize;
            }
        }
    }

    fn cut_block(&mut self, end_ns: u64, office: &Office) {
        let events = self.columns.events() as u64;
        if events > 0 {
            let texts = self.known_texts.dictionary_mut();
            let payload = office.encode_log(&self.writer, &self.columns, self.texts.as_bytes(), texts);
            self.stream
                .cut_encoded(&payload, events, (self.block_ns.0, end_ns), office);
            self.writer.clear();
            self.columns.clear();
            self.message_bytes = 0;
            self.set_ids.fill(0);
        }
    }
}

/// A name keeps its place and gets the later value.
fn put(pairs: &mut Properties, name: String, value: String) {
    match pairs.iter_mut().find(|(known, _)| *known == name) {
        Some(pair) => pair.1 = value,
        None => pairs.push((name, value)),
    }
}
