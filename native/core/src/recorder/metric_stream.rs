//! The metrics stream: measures of all threads in the order of time.

use super::blocks::{BlockWriter, Office, Properties, Stream};
use super::descriptor::{Description, Descriptor};
use super::layouts::StreamKind;

const BLOCK_EVENTS: usize = 40_000;

const INTEGER_EVENT: u8 = 0;
const FLOAT_EVENT: u8 = 1;
/// The tagged forms follow in the same order.
const TAGGED: u8 = 2;

#[derive(Clone, Copy)]
pub enum Measure {
    Integer(i64),
    Float(f64),
}

struct Pending {
    ns: u64,
    descriptor: &'static Descriptor,
    measure: Measure,
}

pub struct MetricStream {
    stream: Stream,
    writer: BlockWriter,
    pending: Vec<Pending>,
}

impl MetricStream {
    pub fn new(begin_ns: u64) -> Self {
        Self {
            stream: Stream::new(StreamKind::Metrics, Vec::new(), begin_ns),
            writer: BlockWriter::default(),
            pending: Vec::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    pub fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    pub fn add(&mut self, ns: u64, descriptor: &'static Descriptor, measure: Measure) {
        self.pending.push(Pending {
            ns,
            descriptor,
            measure,
        });
    }

    /// Makes blocks of all that waits; the last one ends at `horizon_ns`, if no event is later.
    pub fn cut(&mut self, horizon_ns: u64, office: &Office) {
        self.pending.sort_by_key(|event| event.ns);
        let mut properties = Properties::new();
        let last_chunk = self.pending.len().saturating_sub(1) / BLOCK_EVENTS;
        for (index, chunk) in self.pending.chunks(BLOCK_EVENTS).enumerate() {
            for event in chunk {
                write_event(&mut self.writer, event, &mut properties);
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
    }
}

fn write_event(writer: &mut BlockWriter, event: &Pending, properties: &mut Properties) {
    let id = writer.describe(event.descriptor);
    // The wire's integers are unsigned: what is negative goes as a float, which holds it as readers see it anyway.
    let (type_index, bits) = match event.measure {
        Measure::Integer(value) if value >= 0 => (INTEGER_EVENT, value as u64),
        Measure::Integer(value) => (FLOAT_EVENT, (value as f64).to_bits()),
        Measure::Float(value) => (FLOAT_EVENT, value.to_bits()),
    };
    match &event.descriptor.description {
        Description::Metric { properties: own, .. } if !own.is_empty() => {
            properties.clear();
            properties.extend(
                own.iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
            );
            let set = writer.property_set(properties);
            writer.event(TAGGED + type_index, &[id, set, bits, event.ns], &[]);
        }
        _ => writer.event(type_index, &[id, bits, event.ns], &[]),
    }
}
