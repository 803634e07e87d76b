//! The metrics stream: measures of all threads in the order of time.

use std::collections::HashMap;
use std::sync::Arc;

use super::blocks::{BlockWriter, Office, Properties, Stream};
use super::descriptor::{Description, Descriptor, METRIC_BEYOND};
use super::layouts::StreamKind;
use super::record::{Record, TaggedWith};
use super::scrubber::Scrubber;
use crate::message::template::push_str;
use crate::message::value::Value;

const BLOCK_EVENTS: usize = 40_000;

const INTEGER_EVENT: u8 = 0;
const FLOAT_EVENT: u8 = 1;
/// The tagged forms follow in the same order.
const TAGGED: u8 = 2;

const RECORDER: &str = "micromegas.recorder";

/// Readers take a property of such a name for the measure's own name, unit or target.
const READERS_OWN: [&str; 3] = ["name", "unit", "target"];

#[derive(Clone, Copy)]
pub enum Measure {
    Integer(i64),
    Float(f64),
}

/// A set of properties by its place in `Sets`; 0: none.
type SetIndex = usize;

struct Pending {
    ns: u64,
    descriptor: &'static Descriptor,
    measure: Measure,
    set: SetIndex,
}

/// The property sets of the events that wait.
struct Sets {
    scrubber: Arc<Scrubber>,
    sets: Vec<Properties>,
    /// By descriptor and what a record brings along.
    known: HashMap<Box<[u8]>, SetIndex>,
    key: Vec<u8>,
}

impl Sets {
    /// The set of an event: the properties that its metric was declared with, and those that it brings.
    fn of(&mut self, descriptor: &'static Descriptor, with: Option<TaggedWith<'_>>) -> SetIndex {
        let Description::Metric { properties: own, .. } = &descriptor.description else {
            return 0;
        };
        if own.is_empty() && with.is_none() {
            return 0;
        }
        self.key.clear();
        self.key.extend_from_slice(&descriptor.index.to_le_bytes());
        if let Some(with) = with {
            self.key.extend_from_slice(&with.ambient.to_le_bytes());
            self.key.extend_from_slice(with.bytes);
        }
        if let Some(&known) = self.known.get(self.key.as_slice()) {
            return known;
        }
        let pairs = with.map(|with| with.pairs()).unwrap_or_default();
        let (ambient, given) = pairs.split_at(with.map_or(0, |with| with.ambient.min(pairs.len())));
        let mut set = Properties::new();
        for (name, value) in ambient {
            self.put(&mut set, text_of(name), text_of(value));
        }
        for (name, value) in own {
            self.put(&mut set, (*name).to_owned(), (*value).to_owned());
        }
        // The first three of a metric beyond the limit are what readers are to take for its own.
        let is_beyond = descriptor_name(descriptor) == METRIC_BEYOND && descriptor.target == RECORDER;
        let (its_own, given) = given.split_at(if is_beyond {
            given.len().min(READERS_OWN.len())
        } else {
            0
        });
        set.extend(its_own.iter().map(|(name, value)| (text_of(name), text_of(value))));
        for (name, value) in given {
            self.put(&mut set, text_of(name), text_of(value));
        }
        self.sets.push(set);
        self.known.insert(self.key.as_slice().into(), self.sets.len());
        self.sets.len()
    }

    /// A name keeps its place and gets the later value.
    fn put(&self, set: &mut Properties, mut name: String, mut value: String) {
        self.scrubber.scrub_property(&name, &mut value);
        if READERS_OWN.contains(&name.as_str()) {
            name.push('_');
        }
        match set.iter_mut().find(|(known, _)| *known == name) {
            Some(pair) => pair.1 = value,
            None => set.push((name, value)),
        }
    }

    fn clear(&mut self) {
        self.sets.clear();
        self.known.clear();
    }
}

fn descriptor_name(descriptor: &Descriptor) -> &str {
    match descriptor.description {
        Description::Metric { name, .. } => name,
        _ => "",
    }
}

fn text_of(value: &Value<'_>) -> String {
    let mut text = String::new();
    push_str(value, &mut text);
    text
}

pub struct MetricStream {
    stream: Stream,
    writer: BlockWriter,
    pending: Vec<Pending>,
    sets: Sets,
}

impl MetricStream {
    pub fn new(begin_ns: u64, scrubber: Arc<Scrubber>) -> Self {
        Self {
            stream: Stream::new(StreamKind::Metrics, Vec::new(), begin_ns),
            writer: BlockWriter::default(),
            pending: Vec::new(),
            sets: Sets {
                scrubber,
                sets: Vec::new(),
                known: HashMap::new(),
                key: Vec::new(),
            },
        }
    }

    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    pub fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    pub fn add(&mut self, ns: u64, descriptor: &'static Descriptor, measure: Measure) {
        let set = self.sets.of(descriptor, None);
        self.pending.push(Pending {
            ns,
            descriptor,
            measure,
            set,
        });
    }

    /// A measure with properties of its own.
    pub fn add_tagged(&mut self, ns: u64, record: &Record<'_>) {
        let (number, with) = record.tagged_measure();
        let measure = match number {
            Value::Int(integer) => Measure::Integer(integer),
            Value::Float(real) => Measure::Float(real),
            _ => return, // only in a damaged file
        };
        let set = self.sets.of(record.descriptor, Some(with));
        self.pending.push(Pending {
            ns,
            descriptor: record.descriptor,
            measure,
            set,
        });
    }

    /// Makes blocks of all that waits; the last one ends at `horizon_ns`, if no event is later.
    pub fn cut(&mut self, horizon_ns: u64, office: &Office) {
        self.pending.sort_by_key(|event| event.ns);
        let last_chunk = self.pending.len().saturating_sub(1) / BLOCK_EVENTS;
        let mut ids = Vec::new();
        for (index, chunk) in self.pending.chunks(BLOCK_EVENTS).enumerate() {
            ids.clear();
            ids.resize(self.sets.sets.len(), 0);
            for event in chunk {
                write_event(&mut self.writer, event, &self.sets.sets, &mut ids);
            }
            let (first_ns, last_ns) = (chunk[0].ns, chunk[chunk.len() - 1].ns);
            let end_ns = if index == last_chunk {
                last_ns.max(horizon_ns)
            } else {
                last_ns
            };
            self.stream.cut(&mut self.writer, first_ns, end_ns, office);
        }
        self.pending.clear();
        self.pending.shrink_to(4 * BLOCK_EVENTS);
        self.sets.clear();
    }
}

/// `ids`: of the sets in this block, 0 for those that it does not have yet.
fn write_event(writer: &mut BlockWriter, event: &Pending, sets: &[Properties], ids: &mut [u64]) {
    let id = writer.describe(event.descriptor);
    // The wire's integers are unsigned: what is negative goes as a float, which holds it as readers see it anyway.
    let (type_index, bits) = match event.measure {
        Measure::Integer(value) if value >= 0 => (INTEGER_EVENT, value as u64),
        Measure::Integer(value) => (FLOAT_EVENT, (value as f64).to_bits()),
        Measure::Float(value) => (FLOAT_EVENT, value.to_bits()),
    };
    if event.set == 0 {
        return writer.event(type_index, &[id, bits, event.ns], &[]);
    }
    let set = event.set - 1;
    if ids[set] == 0 {
        ids[set] = writer.property_set(&sets[set]);
    }
    writer.event(TAGGED + type_index, &[id, ids[set], bits, event.ns], &[]);
}
