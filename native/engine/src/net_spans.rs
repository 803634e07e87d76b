//! Blocks of network streams to rows of `net_spans` (lakehouse §2.3), fourteen columns, none NULL.
//! How spans nest is decided by `net_stack` alone; here events are read and rows are kept. Blocks of one stream come in
//! the order of time, in parts if need be: a builder goes on from the state of another. A span that never ends gives
//! no row.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{BooleanArray, RecordBatch};
use arrow_schema::{DataType, Schema, SchemaRef};
use micromegas_core::codec::{Dependencies, DependencyIndex, Place, Record, RecordType, Result, WireError};
use pyo3::prelude::*;

use crate::block_reader::{for_each_event, LayoutCache, PerDependency, Problems, Seen};
use crate::block_source::BlockSource;
use crate::carried::{HeardTexts, StateReader, StateWriter, ToldTexts};
use crate::clock::Clock;
use crate::columns::{
    column, take_narrow, take_wide, text_dictionary_type, time_type, DictionaryColumn, MovedKeys, TimeColumn,
};
use crate::net_stack::{ClosedSpan, Kind, NetStack, OpenSpan};
use crate::stateful_builder::stateful_builder;

/// Spans that may be open at once. Real ones nest four deep; this bounds what a sender who never ends one can hold.
const MAX_OPEN_SPANS: usize = 1 << 20;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        column("process_id", text_dictionary_type()),
        column("stream_id", text_dictionary_type()),
        column("span_id", DataType::Int64),
        column("parent_span_id", DataType::Int64),
        column("depth", DataType::UInt32),
        column("kind", text_dictionary_type()),
        column("name", text_dictionary_type()),
        column("connection_name", text_dictionary_type()),
        column("is_outgoing", DataType::Boolean),
        column("begin_bits", DataType::Int64),
        column("end_bits", DataType::Int64),
        column("bit_size", DataType::Int64),
        column("begin_time", time_type()),
        column("end_time", time_type()),
    ]))
}

enum Plan {
    Begin {
        kind: Kind,
        name: Place,
        time: Place,
        /// Of connections only.
        is_outgoing: Option<Place>,
    },
    End {
        kind: Kind,
        bit_size: Place,
        time: Place,
    },
    Property {
        name: Place,
        bit_size: Place,
        time: Place,
    },
    /// A known type whose layout cannot be used.
    Unusable(WireError),
    Unknown,
}

impl Plan {
    fn of(record_type: &RecordType) -> Self {
        Self::try_of(record_type).unwrap_or_else(Self::Unusable)
    }

    fn try_of(record_type: &RecordType) -> Result<Self> {
        let begin = |kind, name: &str| {
            Ok(Self::Begin {
                kind,
                name: record_type.reference_field(name)?,
                time: record_type.wide_field("time")?,
                is_outgoing: match kind {
                    Kind::Connection => Some(record_type.narrow_field("is_outgoing")?),
                    _ => None,
                },
            })
        };
        let end = |kind| {
            Ok(Self::End {
                kind,
                bit_size: record_type.narrow_field("bit_size")?,
                time: record_type.wide_field("time")?,
            })
        };
        match record_type.name.as_str() {
            "NetConnectionBeginEvent" => begin(Kind::Connection, "connection_name"),
            "NetConnectionEndEvent" => end(Kind::Connection),
            "NetObjectBeginEvent" => begin(Kind::Object, "object_name"),
            "NetObjectEndEvent" => end(Kind::Object),
            "NetRPCBeginEvent" => begin(Kind::Rpc, "function_name"),
            "NetRPCEndEvent" => end(Kind::Rpc),
            "NetPropertyEvent" => Ok(Self::Property {
                name: record_type.reference_field("property_name")?,
                bit_size: record_type.narrow_field("bit_size")?,
                time: record_type.wide_field("time")?,
            }),
            _ => Ok(Self::Unknown),
        }
    }
}

#[derive(Default)]
struct Rows {
    process_id: DictionaryColumn,
    stream_id: DictionaryColumn,
    span_id: Vec<i64>,
    parent_span_id: Vec<i64>,
    depth: Vec<u32>,
    kind: DictionaryColumn,
    name: DictionaryColumn,
    connection_name: DictionaryColumn,
    is_outgoing: Vec<bool>,
    begin_bits: Vec<i64>,
    end_bits: Vec<i64>,
    bit_size: Vec<i64>,
    begin_time: TimeColumn,
    end_time: TimeColumn,
}

impl Rows {
    fn dictionaries(&self) -> [&DictionaryColumn; 5] {
        [
            &self.process_id,
            &self.stream_id,
            &self.kind,
            &self.name,
            &self.connection_name,
        ]
    }

    fn rows(&self) -> usize {
        self.begin_time.rows()
    }

    fn bytes(&self) -> usize {
        let plain = 5 * size_of::<i64>() + size_of::<u32>() + size_of::<bool>();
        let dictionaries = DictionaryColumn::all_bytes(self.dictionaries());
        self.begin_time.bytes() + self.end_time.bytes() + self.rows() * plain + dictionaries
    }

    fn push(&mut self, span: &ClosedSpan) {
        self.span_id.push(span.span_id);
        self.parent_span_id.push(span.parent_span_id);
        self.depth.push(span.depth);
        let kind = self.kind.values.intern_str(span.kind.name());
        self.kind.push(kind);
        self.name.push(span.name);
        self.connection_name.push(span.connection);
        self.is_outgoing.push(span.is_outgoing);
        self.begin_bits.push(span.begin_bits);
        self.end_bits.push(span.begin_bits.saturating_add(span.bit_size));
        self.bit_size.push(span.bit_size);
        self.begin_time.push(span.begin_time);
        self.end_time.push(span.end_time);
    }

    fn take(&mut self) -> std::result::Result<RecordBatch, String> {
        let columns = vec![
            self.process_id.take_texts("process_id")?,
            self.stream_id.take_texts("stream_id")?,
            take_wide(&mut self.span_id),
            take_wide(&mut self.parent_span_id),
            take_narrow(&mut self.depth),
            self.kind.take_texts("kind")?,
            self.name.take_texts("name")?,
            self.connection_name.take_texts("connection_name")?,
            Arc::new(BooleanArray::from(std::mem::take(&mut self.is_outgoing))),
            take_wide(&mut self.begin_bits),
            take_wide(&mut self.end_bits),
            take_wide(&mut self.bit_size),
            self.begin_time.take(),
            self.end_time.take(),
        ];
        RecordBatch::try_new(schema(), columns).map_err(|error| error.to_string())
    }
}

/// One block while it is read.
struct Block<'d, 'a> {
    dependencies: &'d Dependencies<'a>,
    /// Keys of the column `name`, and of `connection_name`.
    names: PerDependency<i32>,
    connections: PerDependency<i32>,
    clock: Clock,
    room_for_open: usize,
}

impl Block<'_, '_> {
    fn key(
        keys: &mut PerDependency<i32>,
        dependencies: &Dependencies<'_>,
        index: DependencyIndex,
        column: &mut DictionaryColumn,
    ) -> Result<i32> {
        keys.get(index, || Ok(column.values.intern_str(dependencies.text(index)?)))
    }

    /// Takes one event; `span_id` is its index in the stream.
    fn event(
        &mut self,
        plan: &Plan,
        record: &Record<'_>,
        span_id: i64,
        stack: &mut NetStack,
        rows: &mut Rows,
    ) -> Result<Seen> {
        match plan {
            Plan::Begin {
                kind,
                name,
                time,
                is_outgoing,
            } => {
                if stack.open().len() >= self.room_for_open {
                    return Err(WireError::new(format!("more than {MAX_OPEN_SPANS} spans are open")));
                }
                let index = self.dependencies.find(name.reference(record.body))?;
                let name = Self::key(&mut self.names, self.dependencies, index, &mut rows.name)?;
                let inherited = match (stack.connection(), is_outgoing) {
                    (Some(inherited), _) => inherited,
                    (None, Some(is_outgoing)) => {
                        let column = &mut rows.connection_name;
                        let key = Self::key(&mut self.connections, self.dependencies, index, column)?;
                        (key, is_outgoing.u32(record.body) != 0)
                    }
                    (None, None) => no_connection(rows),
                };
                let time = self.clock.time_of(time.i64(record.body));
                stack.begin(span_id, *kind, name, inherited, time);
            }
            Plan::End { kind, bit_size, time } => {
                let time = self.clock.time_of(time.i64(record.body));
                if let Some(span) = stack.end(*kind, bit_size.u32(record.body), time) {
                    rows.push(&span);
                }
            }
            Plan::Property { name, bit_size, time } => {
                let index = self.dependencies.find(name.reference(record.body))?;
                let name = Self::key(&mut self.names, self.dependencies, index, &mut rows.name)?;
                let inherited = stack.connection().unwrap_or_else(|| no_connection(rows));
                let time = self.clock.time_of(time.i64(record.body));
                rows.push(&stack.property(span_id, name, inherited, bit_size.u32(record.body), time));
            }
            Plan::Unusable(error) => return Err(error.clone()),
            Plan::Unknown => return Ok(Seen::Unknown),
        }
        Ok(Seen::Known)
    }
}

/// Connection and direction of what lies in no connection: its begin was lost.
fn no_connection(rows: &mut Rows) -> (i32, bool) {
    (rows.connection_name.values.intern_str(""), false)
}

/// See `_engine.pyi`.
#[pyclass(module = "micromegas._engine")]
#[derive(Default)]
pub struct NetSpansBuilder {
    layouts: LayoutCache,
    rows: Rows,
    /// By stream: what began in its blocks so far and goes on.
    stacks: BTreeMap<String, NetStack>,
    open_spans: usize,
}

impl NetSpansBuilder {
    fn read(
        &mut self,
        source: &BlockSource,
        stack: &mut NetStack,
        problems: &mut Problems,
    ) -> std::result::Result<(), String> {
        let clock = source.clock()?;
        let (layout, buffers) = self.layouts.open(source)?;
        let dependencies = Dependencies::parse(&layout.dependencies, &buffers.dependencies)
            .map_err(|error: WireError| error.to_string())?;
        let plans: Vec<Plan> = layout.objects.iter().map(Plan::of).collect();
        let rows = &mut self.rows;
        let mut block = Block {
            dependencies: &dependencies,
            names: PerDependency::new(dependencies.len()),
            connections: PerDependency::new(dependencies.len()),
            clock,
            room_for_open: MAX_OPEN_SPANS - (self.open_spans - stack.open().len()),
        };
        for_each_event(&layout, &buffers.objects, problems, |index, record| {
            let span_id = source.object_offset.saturating_add(index as i64);
            block.event(&plans[record.index], record, span_id, stack, rows)
        });
        Ok(())
    }

    fn append_block(&mut self, source: &BlockSource) -> Vec<String> {
        let mut problems = Problems::new(source);
        let rows_before = self.rows.rows();
        let mut stack = self.stacks.remove(&source.stream_id).unwrap_or_default();
        let open_before = stack.open().len();
        if let Err(error) = self.read(source, &mut stack, &mut problems) {
            problems.add(error);
        }
        self.open_spans = self.open_spans - open_before + stack.open().len();
        if !stack.open().is_empty() {
            self.stacks.insert(source.stream_id.clone(), stack);
        }
        let rows = self.rows.rows() - rows_before;
        self.rows.process_id.repeat(source.process_id.as_bytes(), rows);
        self.rows.stream_id.repeat(source.stream_id.as_bytes(), rows);
        problems.into_texts()
    }

    /// The open spans of each stream.
    fn state(&self) -> Vec<u8> {
        let mut writer = StateWriter::default();
        writer.count(self.stacks.len());
        let (mut names, mut connections) = (ToldTexts::default(), ToldTexts::default());
        for (stream_id, stack) in &self.stacks {
            writer.text(stream_id.as_bytes());
            writer.count(stack.open().len());
            for span in stack.open() {
                writer.narrow(span.kind as u32);
                writer.flag(span.is_outgoing);
                for value in [span.span_id, span.begin_time, span.begin_bits, span.consumed_bits] {
                    writer.wide(value);
                }
                let (name, connection) = (&self.rows.name.values, &self.rows.connection_name.values);
                writer.text_of(&mut names, span.name, name.value(span.name));
                writer.text_of(&mut connections, span.connection, connection.value(span.connection));
            }
        }
        writer.into_bytes()
    }

    fn resume(state: &[u8]) -> std::result::Result<Self, String> {
        let mut builder = Self::empty();
        let mut reader = StateReader::new(state);
        let (mut names, mut connections) = (HeardTexts::default(), HeardTexts::default());
        for _ in 0..reader.count()? {
            let stream_id = String::from_utf8_lossy(reader.text()?).into_owned();
            let mut stack = NetStack::default();
            for _ in 0..reader.count()? {
                let kind = reader.narrow()?;
                let kind = *Kind::ALL
                    .get(kind as usize)
                    .ok_or_else(|| format!("carried state has the kind {kind}"))?;
                let is_outgoing = reader.flag()?;
                let (span_id, begin_time) = (reader.wide()?, reader.wide()?);
                let (begin_bits, consumed_bits) = (reader.wide()?, reader.wide()?);
                let rows = &mut builder.rows;
                stack.reopen(OpenSpan {
                    span_id,
                    kind,
                    name: reader.text_of(&mut names, |text| rows.name.values.intern(text))?,
                    connection: reader.text_of(&mut connections, |text| rows.connection_name.values.intern(text))?,
                    is_outgoing,
                    begin_time,
                    begin_bits,
                    consumed_bits,
                });
            }
            builder.open_spans += stack.open().len();
            builder.stacks.insert(stream_id, stack);
        }
        reader.end()?;
        Ok(builder)
    }

    fn carried_bytes(&self) -> usize {
        self.open_spans * size_of::<OpenSpan>()
    }

    fn empty() -> Self {
        Self::default()
    }

    /// The rows so far; the texts of open spans move over into the dictionaries of the rows to come.
    fn take_rows(&mut self) -> std::result::Result<RecordBatch, String> {
        let mut taken = std::mem::take(&mut self.rows);
        let mut names = MovedKeys::from(&taken.name);
        let mut connections = MovedKeys::from(&taken.connection_name);
        for span in self.stacks.values_mut().flat_map(NetStack::open_mut) {
            span.name = names.key(span.name, &mut self.rows.name);
            span.connection = connections.key(span.connection, &mut self.rows.connection_name);
        }
        taken.take()
    }
}

stateful_builder!(NetSpansBuilder, begin_time, end_time, {});
