//! Makes blocks: a buffer of dependencies and a buffer of events, then the request body.
//!
//! Ids restart with each block and each block brings all that its events refer to, so blocks decode alone.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use crate::codec::columns::{Dictionary, Encoder, LogColumns};

use super::announcement::{block_body, process_body, stream_body, BlockHead, Process};
use super::captures::{CapturedBlock, Captures};
use super::clock::Clock;
use super::descriptor::{Description, Descriptor};
use super::identity::new_id;
use super::layouts::{StreamKind, DESCRIPTION, LOCATION, PROPERTY_SET, STATIC_STRING};
use super::mends::AllMended;
use super::outbox::{Announcement, Block, Outbox, Subject};
use super::spool::segments::StreamMark;

/// The level of detail that every metric and span is declared with: 2 is medium.
const LOD: u32 = 2;

/// Of 8 bytes each, that an event begins with.
const MOST_WORDS: usize = 5;

pub type Properties = Vec<(String, String)>;

/// The two buffers of the block being filled.
#[derive(Default)]
pub struct BlockWriter {
    dependencies: Vec<u8>,
    objects: Vec<u8>,
    last_id: u64,
    texts: HashMap<Box<str>, u64>,
    property_sets: HashMap<Properties, u64>,
    /// By descriptor index.
    locations: HashMap<usize, u64>,
    /// Id by descriptor index, 0 for those not yet in this block.
    descriptors: Vec<u64>,
    described: Vec<usize>,
    events: u64,
}

impl BlockWriter {
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Bytes of events so far, not compressed.
    pub fn size(&self) -> usize {
        self.objects.len()
    }

    fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// The id of a text in this block.
    pub fn text(&mut self, text: &str) -> u64 {
        if let Some(&id) = self.texts.get(text) {
            return id;
        }
        let id = self.new_id();
        self.texts.insert(text.into(), id);
        self.dependencies.push(STATIC_STRING);
        self.dependencies
            .extend_from_slice(&(8 + text.len() as u32).to_le_bytes());
        self.dependencies.extend_from_slice(&id.to_le_bytes());
        self.dependencies.extend_from_slice(text.as_bytes());
        id
    }

    /// The id of a descriptor if it has one in this block by now.
    #[inline]
    pub fn described(&self, descriptor: &'static Descriptor) -> Option<u64> {
        let id = self.descriptors.get(descriptor.index);
        id.copied().filter(|&id| id != 0)
    }

    /// The id of a descriptor in this block.
    pub fn describe(&mut self, descriptor: &'static Descriptor) -> u64 {
        self.describe_as(descriptor, None)
    }

    /// The same, with another text in the place of a log's template: always the same for the same descriptor.
    pub fn describe_as(&mut self, descriptor: &'static Descriptor, template_shown: Option<&str>) -> u64 {
        if let Some(id) = self.described(descriptor) {
            return id;
        }
        if self.descriptors.len() <= descriptor.index {
            self.descriptors.resize(descriptor.index + 1, 0);
        }
        let target = descriptor.target;
        let (texts, last) = match &descriptor.description {
            Description::Log { level, template } => {
                let shown = template_shown.unwrap_or(template.text());
                ([shown, target, target, descriptor.file], *level)
            }
            Description::Metric { name, unit, .. } => ([*name, *unit, target, descriptor.file], LOD),
            Description::Span { name } => ([*name, target, target, descriptor.file], LOD),
        };
        let references = texts.map(|text| self.text(text));
        let id = self.new_id();
        self.dependencies.push(DESCRIPTION);
        self.dependencies.extend_from_slice(&id.to_le_bytes());
        for reference in references {
            self.dependencies.extend_from_slice(&reference.to_le_bytes());
        }
        self.dependencies.extend_from_slice(&descriptor.line.to_le_bytes());
        self.dependencies.extend_from_slice(&last.to_le_bytes());
        self.descriptors[descriptor.index] = id;
        self.described.push(descriptor.index);
        id
    }

    /// The id of the place that a descriptor tells, for spans that bring their name along.
    pub fn locate(&mut self, descriptor: &'static Descriptor) -> u64 {
        if let Some(&id) = self.locations.get(&descriptor.index) {
            return id;
        }
        let references = [descriptor.target, descriptor.target, descriptor.file].map(|text| self.text(text));
        let id = self.new_id();
        self.dependencies.push(LOCATION);
        self.dependencies.extend_from_slice(&id.to_le_bytes());
        for reference in references {
            self.dependencies.extend_from_slice(&reference.to_le_bytes());
        }
        self.dependencies.extend_from_slice(&descriptor.line.to_le_bytes());
        self.dependencies.extend_from_slice(&LOD.to_le_bytes());
        self.locations.insert(descriptor.index, id);
        id
    }

    /// The id of a property set in this block.
    pub fn property_set(&mut self, properties: &Properties) -> u64 {
        if let Some(&id) = self.property_sets.get(properties) {
            return id;
        }
        let references: Vec<u64> = properties
            .iter()
            .flat_map(|(name, value)| [self.text(name), self.text(value)])
            .collect();
        let id = self.new_id();
        self.dependencies.push(PROPERTY_SET);
        let length = 12 + 8 * references.len() as u32;
        self.dependencies.extend_from_slice(&length.to_le_bytes());
        self.dependencies.extend_from_slice(&id.to_le_bytes());
        self.dependencies
            .extend_from_slice(&(properties.len() as u32).to_le_bytes());
        for reference in references {
            self.dependencies.extend_from_slice(&reference.to_le_bytes());
        }
        self.property_sets.insert(properties.clone(), id);
        id
    }

    /// An event of a fixed size: its members one after the other.
    #[inline]
    pub fn event(&mut self, type_index: u8, words: &[u64], last: &[u8]) {
        let head = head(type_index, words);
        self.objects.extend_from_slice(&head.0[..head.1]);
        self.objects.extend_from_slice(last);
        self.events += 1;
    }

    pub fn clear(&mut self) {
        self.dependencies.clear();
        self.objects.clear();
        self.last_id = 0;
        self.texts.clear();
        self.property_sets.clear();
        self.locations.clear();
        for index in self.described.drain(..) {
            self.descriptors[index] = 0;
        }
        self.events = 0;
    }
}

/// The bytes that an event begins with, and how many they are: made in one place, so that they are copied at once.
#[inline]
fn head(type_index: u8, words: &[u64]) -> ([u8; 1 + 8 * MOST_WORDS], usize) {
    let mut bytes = [0; 1 + 8 * MOST_WORDS];
    bytes[0] = type_index;
    let mut at = 1;
    for word in words {
        bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        at += 8;
    }
    (bytes, at)
}

/// A stream of this process.
pub struct Stream {
    pub kind: StreamKind,
    id: Arc<str>,
    properties: Properties,
    /// Made with the first block.
    announcement: Option<Arc<Announcement>>,
    object_offset: u64,
    end_ns: u64,
}

impl Stream {
    pub fn new(kind: StreamKind, properties: Properties, begin_ns: u64) -> Self {
        Self {
            kind,
            id: new_id().into(),
            properties,
            announcement: None,
            object_offset: 0,
            end_ns: begin_ns,
        }
    }

    /// Other properties, as long as nobody has been told of it. False: too late.
    pub fn set_properties(&mut self, properties: &Properties) -> bool {
        if self.announcement.is_some() {
            return false;
        }
        self.properties.clone_from(properties);
        true
    }

    pub fn mark(&self, serial: u64) -> StreamMark {
        StreamMark {
            serial,
            kind: self.kind,
            id: self.id.to_string(),
            object_offset: self.object_offset,
            end_ns: self.end_ns,
            open: Vec::new(),
        }
    }

    /// Goes on where a process stopped that died.
    pub fn restore(&mut self, mark: &StreamMark) {
        self.id = mark.id.as_str().into();
        self.object_offset = mark.object_offset;
        self.end_ns = mark.end_ns;
    }

    /// Sends what the writer holds as a block that ends at `end_ns`. It begins where the last one ended, or earlier
    /// when its first event is earlier (another thread was slower to commit): a block's range covers all its events.
    pub fn cut(&mut self, writer: &mut BlockWriter, first_ns: u64, end_ns: u64, office: &Office) {
        if writer.events > 0 {
            let payload = office.encode(self.kind, writer);
            self.cut_encoded(&payload, writer.events, (first_ns, end_ns), office);
            writer.clear();
        }
    }

    /// The same of a block that is in columns.
    pub fn cut_encoded(&mut self, payload: &[u8], events: u64, (first_ns, end_ns): (u64, u64), office: &Office) {
        let begin_ns = self.end_ns.min(first_ns).max(office.clock_start_ns);
        let end_ns = end_ns.max(begin_ns);
        let process_id = &office.process.id;
        let announcement = self.announcement.get_or_insert_with(|| {
            let subject = Subject::Stream {
                process_id: Arc::clone(process_id),
                stream_id: Arc::clone(&self.id),
            };
            let body = stream_body(process_id, &self.id, self.kind, &self.properties);
            Announcement::new(subject, body)
        });
        let head = BlockHead {
            block_id: &new_id(),
            stream_id: &self.id,
            process_id,
            begin_wall_ns: office.wall_ns(begin_ns),
            end_wall_ns: office.wall_ns(end_ns),
            begin_ticks: begin_ns - office.clock_start_ns,
            end_ticks: end_ns - office.clock_start_ns,
            object_offset: self.object_offset,
            nb_objects: events,
        };
        let body = block_body(&head, &[], payload);
        if office.captures.any_open() {
            office.captures.keep(CapturedBlock {
                process: process_body(&office.process, office.start_wall_ns, office.clock_start_ns),
                stream: stream_body(&office.process.id, &self.id, self.kind, &self.properties),
                block: body.clone(),
            });
        }
        let subject = Subject::Block {
            process_id: Arc::clone(process_id),
            stream_id: Arc::clone(&self.id),
            kind: self.kind,
            events,
        };
        office.cut.borrow_mut().push(Block {
            announcement: Arc::clone(announcement),
            subject,
            body,
        });
        self.object_offset += events;
        self.end_ns = end_ns;
    }
}

impl Stream {
    /// Leaves out what the writer holds; gives the number of its events.
    pub fn skip(writer: &mut BlockWriter) -> u64 {
        let events = writer.events;
        writer.clear();
        events
    }
}

/// What cutting a block needs besides the stream.
pub struct Office {
    pub process: Arc<Process>,
    pub outbox: Arc<Outbox>,
    pub captures: Arc<Captures>,
    pub mended: Arc<AllMended>,
    pub clock_start_ns: u64,
    pub start_wall_ns: i64,
    /// Blocks that are to leave together.
    cut: RefCell<Vec<Block>>,
    /// By kind of stream.
    encoders: RefCell<[Encoder; 3]>,
}

impl Office {
    pub fn new(process: Arc<Process>, outbox: Arc<Outbox>, captures: Arc<Captures>, clock: &Clock) -> Self {
        Self {
            process,
            outbox,
            captures,
            mended: Arc::default(),
            clock_start_ns: clock.start_ns(),
            start_wall_ns: clock.wall_ns(clock.start_ns()),
            cut: RefCell::default(),
            encoders: RefCell::new(StreamKind::ALL.map(|kind| Encoder::new(kind.layout()))),
        }
    }

    /// The block in columns.
    fn encode(&self, kind: StreamKind, writer: &BlockWriter) -> Vec<u8> {
        let encoder = &mut self.encoders.borrow_mut()[kind as usize];
        encoder
            .encode(&writer.dependencies, &writer.objects)
            .expect("records of our own layouts can be cut")
    }

    /// The same of a block of logs.
    pub fn encode_log(
        &self,
        writer: &BlockWriter,
        columns: &LogColumns,
        messages: &[u8],
        texts: &mut Dictionary,
    ) -> Vec<u8> {
        let encoder = &mut self.encoders.borrow_mut()[StreamKind::Log as usize];
        encoder
            .encode_log(&writer.dependencies, columns, messages, texts)
            .expect("records of our own layouts can be cut")
    }

    /// Blocks that leave behind all others.
    pub fn add_cut(&self, blocks: Vec<Block>) {
        self.cut.borrow_mut().extend(blocks);
    }

    /// The blocks cut since the last time.
    pub fn take_cut(&self) -> Vec<Block> {
        self.cut.take()
    }

    fn wall_ns(&self, nanoseconds: u64) -> i64 {
        self.start_wall_ns + (nanoseconds - self.clock_start_ns) as i64
    }
}
