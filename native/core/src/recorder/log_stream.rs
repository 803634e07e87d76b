//! The log stream: events of all threads in the order of time, templates and values apart. Who decodes makes messages of them.
//!
//! An event waits until all threads were read up to its time, and goes into the columns of the block then. Where only one
//! thread has something to tell, that is at once, some events at a time: so what one step has put down, the next one finds
//! in the processor's first cache.

use std::ops::Range;
use std::sync::Arc;

use super::blocks::{BlockWriter, Office, Stream};
use super::console::Console;
use super::descriptor::{Description, Descriptor};
use super::known_texts::{KnownTexts, Place, Questions};
use super::layouts::StreamKind;
use super::log_properties::{PropertySets, SetIndex};
use super::record::{Record, Values, LOG_FEW, LOG_LITERAL, LOG_TEXT, LOG_VALUES};
use super::scrubber::Scrubber;
use super::shown_templates::{Look, ShownTemplates};
use crate::codec::columns::{Cell, LogColumns, LogHead, TemplateRow, NUMBER_BYTES, TEMPLATE_BYTES, TEXT_HEAD_BYTES};
use crate::message::finish_message;
use crate::message::template::{longest_value, push_str, Template, LONGEST_NUMBER};
use crate::message::value::{Plain, Value};

/// Of records that a reader makes of a block. Each block has its own dictionary: texts that come again in a larger one are
/// there once.
const BLOCK_BYTES: usize = 4 << 20;

/// Texts in longer records than this, on average, seldom come again: such a block ends at a quarter, for the memory's sake.
const LONG_RECORD: usize = 256;

/// Memory of events that wait, and of messages, that is kept from one cut to the next.
const KEPT_BYTES: usize = 1 << 20;

/// Bytes of messages in a block, once they are made: who reads it has them all in memory.
const BLOCK_MESSAGE_BYTES: usize = 32 << 20;

/// So many events are enough to go into the columns by themselves.
const TOGETHER: usize = 64;

struct Pending {
    ns: u64,
    descriptor: &'static Descriptor,
    message: Message,
    set: SetIndex,
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
    fn range(&self) -> Range<usize> {
        self.start as usize..self.start as usize + usize::from(self.count)
    }
}

/// Of the values of an event.
#[derive(Default)]
struct Sizes {
    /// In a record.
    bytes: usize,
    /// In a message, at most.
    longest: usize,
}

impl Sizes {
    #[inline(always)]
    fn add(&mut self, bytes: usize, longest: usize) {
        self.bytes += bytes;
        self.longest += longest;
    }
}

/// What happens to log events besides being sent. By default they are not printed, and no secret passes.
#[derive(Clone, Default)]
pub struct LogOutput {
    /// The least severe level that is printed; 0: none.
    pub console_level: u32,
    pub scrubber: Arc<Scrubber>,
}

/// Of no event.
const NO_TIMES: (u64, u64) = (u64::MAX, 0);

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
    /// Those that are texts are not filled in yet while `known_texts` has questions.
    values: Vec<Cell>,
    /// Where the values of events that go on waiting are put together.
    spare_values: Vec<Cell>,
    /// Events until then need not wait for other threads in this pass.
    settled_by_ns: u64,
    /// So many events make it worth to settle: what goes on waiting is looked at each time.
    enough: usize,
    /// Of a few events, while they go into the columns.
    rows: Vec<TemplateRow>,
    known_texts: KnownTexts,
    /// Events that wait with texts to be looked at closer.
    suspicious: Vec<u32>,
    property_sets: PropertySets,
    scrubber: Arc<Scrubber>,
    templates: ShownTemplates,
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
            block_ns: NO_TIMES,
            message_bytes: 0,
            set_ids: Vec::new(),
            pending: Vec::new(),
            texts: String::new(),
            values: Vec::new(),
            spare_values: Vec::new(),
            settled_by_ns: 0,
            enough: TOGETHER,
            rows: Vec::new(),
            known_texts: KnownTexts::default(),
            suspicious: Vec::new(),
            property_sets: PropertySets::default(),
            scrubber: Arc::clone(&output.scrubber),
            templates: ShownTemplates::new(&output.scrubber),
            console: (output.console_level > 0).then(|| Console::new(output.console_level)),
            wall_offset_ns,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.columns.events() == 0
    }

    pub fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// Takes an event of a record. Its texts wait in `questions` for `answer`, which is to be called before anything is settled.
    pub fn add<'r>(&mut self, ns: u64, record: &Record<'r>, questions: &mut Questions<'r>) {
        let descriptor = record.descriptor;
        let is_clean = matches!(self.templates.look(descriptor), Look::Clean) && self.console.is_none();
        match &descriptor.description {
            Description::Log { template, .. } if is_clean && matches!(record.kind, LOG_FEW | LOG_VALUES) => {
                let given = self.given_values(template, record, questions);
                let set = self.set_of(record);
                self.pending.push(Pending {
                    ns,
                    descriptor,
                    message: Message::Values(given),
                    set,
                });
            }
            _ if record.kind == LOG_LITERAL => self.push(ns, descriptor, Message::Literal, 0),
            _ => self.add_other(ns, record, questions),
        }
        if questions.are_enough() {
            self.answer(questions);
        }
    }

    /// The same of an event that has its message already, or may hold a secret, or is to be printed.
    #[inline(never)]
    fn add_other<'r>(&mut self, ns: u64, record: &Record<'r>, questions: &mut Questions<'r>) {
        let descriptor = record.descriptor;
        let mut message = match &descriptor.description {
            _ if record.kind == LOG_TEXT => self.text_message(record.values()),
            Description::Log { template, level } => {
                let look = self.templates.look(descriptor);
                let is_printed = self.console.as_ref().is_some_and(|console| console.wants(*level));
                let made = match look {
                    Look::Clean if !is_printed => None,
                    _ => self.message(ns, descriptor, template, look, record.all_values()),
                };
                made.unwrap_or_else(|| Message::Values(self.given_values(template, record, questions)))
            }
            _ => Message::Literal,
        };
        // A literal has no place for properties.
        if record.has_properties() && matches!(message, Message::Literal) {
            let start = self.texts.len();
            self.texts.push_str(&self.templates.shown(descriptor));
            message = Message::Text(start..self.texts.len());
        }
        let set = self.set_of(record);
        self.push(ns, descriptor, message, set);
    }

    /// Of an event's properties.
    #[inline(always)]
    fn set_of(&mut self, record: &Record<'_>) -> SetIndex {
        match record.has_properties() {
            true => self.property_sets.index_of(record.properties(), &self.scrubber),
            false => 0,
        }
    }

    /// Whether some events wait that no other thread's can precede.
    #[inline]
    pub fn is_ready(&self) -> bool {
        self.pending.len() >= self.enough && self.pending.last().is_some_and(|last| last.ns <= self.settled_by_ns)
    }

    /// All threads but one are read up to that time, until `settle`. Who reads that one calls `settle_ready` when `is_ready`.
    pub fn expect_one_thread(&mut self, horizon_ns: u64) {
        self.settled_by_ns = horizon_ns;
    }

    /// Puts into blocks what precedes the event that was added last.
    pub fn settle_ready(&mut self, questions: &mut Questions<'_>, office: &Office) {
        self.answer(questions);
        if let Some(last) = self.pending.last() {
            self.settle_until(last.ns, office);
        }
    }

    #[inline(never)]
    fn text_message(&mut self, mut values: Values<'_>) -> Message {
        let start = self.texts.len();
        if let Some(text) = values.next() {
            push_str(&text, &mut self.texts);
        }
        self.scrubber.scrub(&mut self.texts, start);
        finish_message(&mut self.texts, start);
        Message::Text(start..self.texts.len())
    }

    /// Takes the values as they are, of the event that is being added. Suspicious texts among them are found once they are
    /// looked up.
    #[inline(always)]
    fn given_values<'r>(
        &mut self,
        template: &Template<'_>,
        record: &Record<'r>,
        questions: &mut Questions<'r>,
    ) -> GivenValues {
        let start = self.values.len() as u32;
        let mut sizes = Sizes::default();
        if let Some((codes, mut words)) = record.few() {
            for code in codes {
                let plain = Plain::take_coded(u64::from(*code), &mut words);
                let cell = self.plain_cell(plain, &mut sizes, questions).unwrap_or_else(|| {
                    let value = plain.value().unwrap_or(Value::None); // only a damaged file has others
                    self.other_cell(&value, &mut sizes)
                });
                self.values.push(cell);
            }
        } else {
            let (count, mut words) = record.value_words();
            for _ in 0..count {
                let mut behind = words;
                let plain = Plain::take(&mut behind);
                let cell = self.plain_cell(plain, &mut sizes, questions).unwrap_or_else(|| {
                    let mut rest = words.as_flattened();
                    let value = Value::take(&mut rest).unwrap_or(Value::None); // only a damaged file ends early
                    behind = rest.as_chunks().0;
                    self.other_cell(&value, &mut sizes)
                });
                words = behind;
                self.values.push(cell);
            }
        }
        GivenValues {
            start,
            count: (self.values.len() as u32 - start) as u8,
            bytes: sizes.bytes as u32,
            longest: template.longest_message(sizes.longest) as u32,
        }
    }

    /// None: the value is another.
    #[inline(always)]
    fn plain_cell<'r>(&self, plain: Plain<'r>, sizes: &mut Sizes, questions: &mut Questions<'r>) -> Option<Cell> {
        let cell = match plain {
            Plain::Int(bits) => Cell::of_int(bits),
            Plain::Float(bits) => Cell::of_float_bits(bits),
            Plain::Narrow(text) => {
                let place = Place {
                    event: self.pending.len() as u32,
                    value: self.values.len() as u32,
                };
                if !self.known_texts.ask(text, place, questions) {
                    return None;
                }
                sizes.add(TEXT_HEAD_BYTES + text.units.len(), text.units.len());
                return Some(Cell::of_text(0));
            }
            Plain::Bare(_) | Plain::Other => return None,
        };
        sizes.add(NUMBER_BYTES, LONGEST_NUMBER);
        Some(cell)
    }

    #[inline(never)]
    fn other_cell(&mut self, value: &Value<'_>, sizes: &mut Sizes) -> Cell {
        let (mut text_bytes, mut is_suspicious) = (0, false);
        let cell = Cell::of(value, |text| {
            let answer = self.known_texts.answer_now(text, &self.scrubber);
            text_bytes = text.len();
            is_suspicious = answer.is_suspicious;
            answer.index
        });
        if is_suspicious {
            self.suspicious.push(self.pending.len() as u32);
        }
        sizes.add(cell.record_bytes() + text_bytes, longest_value(value));
        cell
    }

    /// Looks up the texts of the events that wait, and looks closer at those events that have suspicious ones.
    pub fn answer(&mut self, questions: &mut Questions<'_>) {
        let (values, suspicious) = (&mut self.values, &mut self.suspicious);
        self.known_texts.answer(questions, &self.scrubber, |place, answer| {
            values[place.value as usize] = Cell::of_text(answer.index);
            if answer.is_suspicious && suspicious.last() != Some(&place.event) {
                suspicious.push(place.event);
            }
        });
        if !self.suspicious.is_empty() {
            for event in std::mem::take(&mut self.suspicious) {
                self.look_closer(event as usize);
            }
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
        let cells = self.values[given.range()].to_vec();
        let look = self.templates.look(descriptor);
        let start = self.texts.len();
        let known_texts = std::mem::take(&mut self.known_texts);
        let values: Vec<Value<'_>> = cells.iter().map(|cell| cell.value(known_texts.dictionary())).collect();
        if self.push_scrubbed(look, template, &values) {
            self.pending[event].message = Message::Text(start..self.texts.len());
        }
        self.known_texts = known_texts;
    }

    /// Makes the message of what may hold a secret, or is to be printed. None: values and template tell it as they are.
    #[inline(never)]
    fn message(
        &mut self,
        ns: u64,
        descriptor: &'static Descriptor,
        template: &Template<'_>,
        look: Look,
        values: Vec<Value<'_>>,
    ) -> Option<Message> {
        let start = self.texts.len();
        let suspicious = !matches!(look, Look::Clean) || values.iter().any(|value| self.is_suspicious(value));
        if suspicious && values.is_empty() {
            return Some(Message::Literal);
        }
        if suspicious && self.push_scrubbed(look, template, &values) {
            return Some(Message::Text(start..self.texts.len()));
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
        None
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
                let text = self.templates.shown(descriptor).into_owned();
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
        self.settled_by_ns = 0;
        self.settle_until(horizon_ns, office);
    }

    fn settle_until(&mut self, horizon_ns: u64, office: &Office) {
        let mut pending = std::mem::take(&mut self.pending);
        if !pending.is_sorted_by_key(|event| event.ns) {
            pending.sort_by_key(|event| event.ns);
        }
        let settled = pending.partition_point(|event| event.ns <= horizon_ns);
        self.set_ids.resize(self.property_sets.count(), 0);
        let mut events = &pending[..settled];
        while let Some(first) = events.first() {
            if self.room() == 0 {
                self.cut_block(self.block_ns.1, office);
            }
            let written = match first.message {
                Message::Values(_) => self.write_values(events),
                _ => self.write_text(first),
            };
            events = &events[written..];
        }
        pending.drain(..settled);
        self.pending = pending;
        self.enough = TOGETHER.max(2 * self.pending.len());
        self.forget_values();
    }

    /// Keeps the values of the events that wait, and no others.
    fn forget_values(&mut self) {
        self.spare_values.clear();
        for event in &mut self.pending {
            if let Message::Values(given) = &mut event.message {
                let start = self.spare_values.len() as u32;
                self.spare_values.extend_from_slice(&self.values[given.range()]);
                given.start = start;
            }
        }
        std::mem::swap(&mut self.values, &mut self.spare_values);
    }

    /// Makes blocks of all that waits; the last one ends at `horizon_ns`, if no event is later.
    pub fn cut(&mut self, horizon_ns: u64, office: &Office) {
        self.settle(u64::MAX, office);
        self.cut_block(self.block_ns.1.max(horizon_ns), office);
        self.pending.shrink_to(KEPT_BYTES / size_of::<Pending>());
        self.values.shrink_to(KEPT_BYTES / size_of::<Cell>());
        self.spare_values.shrink_to(KEPT_BYTES / size_of::<Cell>());
        self.texts.clear();
        self.texts.shrink_to(4 * KEPT_BYTES);
        self.property_sets = PropertySets::default();
        self.set_ids.clear();
        self.known_texts.shrink();
    }

    /// How many bytes of records the block takes before it wants no more events. 0: it wants none.
    #[inline]
    fn room(&self) -> usize {
        let most = (LONG_RECORD * self.columns.events()).clamp(BLOCK_BYTES / 4, BLOCK_BYTES);
        match self.message_bytes < BLOCK_MESSAGE_BYTES {
            true => most.saturating_sub(self.columns.record_bytes()),
            false => 0,
        }
    }

    #[inline]
    fn head(&mut self, event: &Pending) -> LogHead {
        let ns = event.ns;
        self.block_ns = (self.block_ns.0.min(ns), self.block_ns.1.max(ns));
        let site = self.writer.described(event.descriptor).unwrap_or_else(|| {
            let replacement = self.templates.replacement(event.descriptor);
            self.writer.describe_as(event.descriptor, replacement)
        });
        LogHead { site, ns }
    }

    /// The id of the event's property set in the block, or 0.
    #[inline]
    fn set_id(&mut self, event: &Pending) -> u64 {
        let Some(index) = (event.set as usize).checked_sub(1) else {
            return 0;
        };
        if self.set_ids[index] == 0 {
            self.set_ids[index] = self.writer.property_set(self.property_sets.get(index));
        }
        self.set_ids[index]
    }

    /// Writes as many of the events as have values that stand behind one another, and room in the block; gives their number.
    fn write_values(&mut self, events: &[Pending]) -> usize {
        let mut rows = std::mem::take(&mut self.rows);
        rows.clear();
        let room = self.room();
        let (mut values, mut bytes) = (0..0, 0);
        for event in &events[..events.len().min(TOGETHER)] {
            let Message::Values(given) = &event.message else { break };
            let range = given.range();
            if rows.is_empty() {
                values = range.start..range.start;
            } else if range.start != values.end
                || TEMPLATE_BYTES * rows.len() + bytes >= room
                || self.message_bytes >= BLOCK_MESSAGE_BYTES
            {
                break;
            }
            values.end = range.end;
            bytes += given.bytes as usize;
            self.message_bytes += given.longest as usize;
            rows.push(TemplateRow {
                head: self.head(event),
                set: self.set_id(event),
                values: given.count,
            });
        }
        self.columns.templates(&rows, &self.values[values], bytes);
        let written = rows.len();
        self.rows = rows;
        written
    }

    /// Writes an event without values.
    fn write_text(&mut self, event: &Pending) -> usize {
        let head = self.head(event);
        let set = self.set_id(event);
        match &event.message {
            Message::Text(range) => self.columns.text(head, set, range.clone()),
            _ => self.columns.literal(head),
        }
        1
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
            self.block_ns = NO_TIMES;
            self.message_bytes = 0;
            self.set_ids.fill(0);
        }
    }
}
