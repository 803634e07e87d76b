//! Blocks of OTLP spans to rows of `otel_spans` (lakehouse §2.3), twenty-one columns. A bad span is left out and told of.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, FixedSizeBinaryBuilder, StringBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use micromegas_core::codec::{Result, WireError};
use pyo3::prelude::*;

use super::properties::{GroupProperties, Properties};
use super::reader::Fields;
use super::records::Group;
use super::row_maker::{make_rows, RowMaker};
use super::text_of_bytes::encode_hex;
use super::value::repeated;
use super::values::ValueMaker;
use super::{block_objects, event_time, Signal, SPAN_ID_BYTES, TRACE_ID_BYTES};
use crate::block_reader::{Problems, ValueBudget};
use crate::block_source::BlockSource;
use crate::columns::{
    column, jsonb_dictionary_type, take_wide, text_dictionary_type, time_type, DictionaryColumn, TextColumn, TimeColumn,
};
use crate::event_builder::event_builder;
use crate::jsonb::{self, encode, Number, Tree};

/// Memory that the events or the links of one span may take while they are made.
const MAX_EVENTS_BYTES: usize = 64 << 20;

const KINDS: [&str; 6] = ["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"];
const STATUSES: [&str; 3] = ["UNSET", "OK", "ERROR"];

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        column("process_id", text_dictionary_type()),
        column("stream_id", text_dictionary_type()),
        column("block_id", text_dictionary_type()),
        column("insert_time", time_type()),
        column("exe", DataType::Utf8),
        column("username", DataType::Utf8),
        column("computer", DataType::Utf8),
        column("process_properties", jsonb_dictionary_type()),
        column("trace_id", DataType::FixedSizeBinary(TRACE_ID_BYTES as i32)),
        column("span_id", DataType::FixedSizeBinary(SPAN_ID_BYTES as i32)),
        Field::new("parent_span_id", DataType::FixedSizeBinary(SPAN_ID_BYTES as i32), true),
        column("start_time", time_type()),
        column("end_time", time_type()),
        column("duration", DataType::Int64),
        column("name", text_dictionary_type()),
        column("kind", text_dictionary_type()),
        column("status", text_dictionary_type()),
        Field::new("status_message", DataType::Utf8, true),
        column("properties", jsonb_dictionary_type()),
        column("events", DataType::Binary),
        column("links", DataType::Binary),
    ]))
}

#[derive(Default)]
struct BlockColumns {
    process_id: DictionaryColumn,
    stream_id: DictionaryColumn,
    block_id: DictionaryColumn,
    insert_time: TimeColumn,
    exe: TextColumn,
    username: TextColumn,
    computer: TextColumn,
    process_properties: DictionaryColumn,
}

struct Rows {
    block: BlockColumns,
    trace_id: FixedSizeBinaryBuilder,
    span_id: FixedSizeBinaryBuilder,
    parent_span_id: FixedSizeBinaryBuilder,
    /// Starts.
    time: TimeColumn,
    end_time: TimeColumn,
    duration: Vec<i64>,
    name: DictionaryColumn,
    kind: DictionaryColumn,
    status: DictionaryColumn,
    status_message: StringBuilder,
    properties: DictionaryColumn,
    events: BinaryBuilder,
    links: BinaryBuilder,
}

impl Default for Rows {
    fn default() -> Self {
        Self {
            block: BlockColumns::default(),
            trace_id: FixedSizeBinaryBuilder::new(TRACE_ID_BYTES as i32),
            span_id: FixedSizeBinaryBuilder::new(SPAN_ID_BYTES as i32),
            parent_span_id: FixedSizeBinaryBuilder::new(SPAN_ID_BYTES as i32),
            time: TimeColumn::default(),
            end_time: TimeColumn::default(),
            duration: Vec::new(),
            name: DictionaryColumn::default(),
            kind: DictionaryColumn::default(),
            status: DictionaryColumn::default(),
            status_message: StringBuilder::new(),
            properties: DictionaryColumn::default(),
            events: BinaryBuilder::new(),
            links: BinaryBuilder::new(),
        }
    }
}

impl Rows {
    fn dictionaries(&self) -> [&DictionaryColumn; 8] {
        [
            &self.block.process_id,
            &self.block.stream_id,
            &self.block.block_id,
            &self.block.process_properties,
            &self.name,
            &self.kind,
            &self.status,
            &self.properties,
        ]
    }

    fn texts(&self) -> [&TextColumn; 3] {
        [&self.block.exe, &self.block.username, &self.block.computer]
    }

    fn plain_bytes(&self) -> [usize; 3] {
        [
            self.events.values_slice().len(),
            self.links.values_slice().len(),
            self.status_message.values_slice().len(),
        ]
    }

    fn largest_column(&self) -> usize {
        let plain = self.plain_bytes().into_iter();
        let texts = self.texts().map(TextColumn::text_bytes).into_iter();
        plain
            .chain(texts)
            .max()
            .unwrap_or(0)
            .max(DictionaryColumn::largest(self.dictionaries()))
    }

    fn bytes(&self) -> usize {
        // ids, offsets and the times of the block
        let fixed = TRACE_ID_BYTES + 2 * SPAN_ID_BYTES + 3 * size_of::<i32>() + 2 * size_of::<i64>();
        let texts: usize = self.texts().map(TextColumn::bytes).into_iter().sum();
        self.time.rows() * fixed
            + self.time.bytes()
            + self.end_time.bytes()
            + texts
            + self.plain_bytes().into_iter().sum::<usize>()
            + DictionaryColumn::all_bytes(self.dictionaries())
    }

    fn fill(&mut self, source: &BlockSource, rows: usize) -> std::result::Result<(), String> {
        let pairs = source
            .process_properties
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let process_properties = jsonb::encode_object(pairs)?;
        let block = &mut self.block;
        block.process_id.repeat(source.process_id.as_bytes(), rows);
        block.stream_id.repeat(source.stream_id.as_bytes(), rows);
        block.block_id.repeat(source.block_id.as_bytes(), rows);
        block.insert_time.repeat(source.insert_time, rows);
        block.exe.repeat(&source.exe, rows);
        block.username.repeat(&source.username, rows);
        block.computer.repeat(&source.computer, rows);
        block.process_properties.repeat(&process_properties, rows);
        Ok(())
    }

    fn take(mut self) -> std::result::Result<RecordBatch, String> {
        let block = &mut self.block;
        let columns: Vec<ArrayRef> = vec![
            block.process_id.take_texts("process_id")?,
            block.stream_id.take_texts("stream_id")?,
            block.block_id.take_texts("block_id")?,
            block.insert_time.take(),
            block.exe.take()?,
            block.username.take()?,
            block.computer.take()?,
            block.process_properties.take_jsonb("process_properties")?,
            Arc::new(self.trace_id.finish()),
            Arc::new(self.span_id.finish()),
            Arc::new(self.parent_span_id.finish()),
            self.time.take(),
            self.end_time.take(),
            take_wide(&mut self.duration),
            self.name.take_texts("name")?,
            self.kind.take_texts("kind")?,
            self.status.take_texts("status")?,
            Arc::new(self.status_message.finish()),
            self.properties.take_jsonb("properties")?,
            Arc::new(self.events.finish()),
            Arc::new(self.links.finish()),
        ];
        RecordBatch::try_new(schema(), columns).map_err(|error| error.to_string())
    }

    fn push(&mut self, span: &Span<'_>, times: (i64, i64), properties: i32, events: &[u8], links: &[u8]) -> Result<()> {
        let id = |error: arrow_schema::ArrowError| WireError::new(error.to_string());
        self.trace_id.append_value(span.trace_id).map_err(id)?;
        self.span_id.append_value(span.span_id).map_err(id)?;
        // an id of zeros is no id
        if span.parent_span_id.len() == SPAN_ID_BYTES && span.parent_span_id.iter().any(|byte| *byte != 0) {
            self.parent_span_id.append_value(span.parent_span_id).map_err(id)?;
        } else {
            self.parent_span_id.append_null();
        }
        let (start, end) = times;
        self.time.push(start);
        self.end_time.push(end);
        self.duration.push(end.saturating_sub(start));
        let name = self.name.values.intern_str(span.name);
        self.name.push(name);
        let kind = self.kind.values.intern_str(named(&KINDS, span.kind));
        self.kind.push(kind);
        let status = self.status.values.intern_str(named(&STATUSES, span.status));
        self.status.push(status);
        if span.status_message.is_empty() {
            self.status_message.append_null();
        } else {
            self.status_message.append_value(span.status_message);
        }
        self.properties.push(properties);
        self.events.append_value(events);
        self.links.append_value(links);
        Ok(())
    }
}

/// The name of an enumeration's value; the first for a number that has none.
fn named(names: &[&'static str], number: i32) -> &'static str {
    usize::try_from(number)
        .ok()
        .and_then(|number| names.get(number))
        .unwrap_or(&names[0])
}

/// The fields of the message `Span` that have columns.
#[derive(Default)]
struct Span<'a> {
    trace_id: &'a [u8],
    span_id: &'a [u8],
    parent_span_id: &'a [u8],
    trace_state: &'a str,
    name: &'a str,
    kind: i32,
    start: u64,
    end: u64,
    status: i32,
    status_message: &'a str,
    has_events: bool,
    has_links: bool,
}

impl<'a> Span<'a> {
    fn read(message: &'a [u8], own: &mut Properties<'a>) -> Result<Self> {
        let mut span = Self::default();
        for field in Fields::new(message) {
            let (number, wire) = field?;
            match number {
                1 => span.trace_id = wire.bytes()?,
                2 => span.span_id = wire.bytes()?,
                3 => span.trace_state = wire.text()?,
                4 => span.parent_span_id = wire.bytes()?,
                5 => span.name = wire.text()?,
                6 => span.kind = wire.int32()?,
                7 => span.start = wire.fixed64()?,
                8 => span.end = wire.fixed64()?,
                9 => own.push_attribute(wire.bytes()?)?,
                11 => span.has_events = true,
                13 => span.has_links = true,
                15 => {
                    for field in Fields::new(wire.bytes()?) {
                        match field? {
                            (2, wire) => span.status_message = wire.text()?,
                            (3, wire) => span.status = wire.int32()?,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(span)
    }

    fn check_ids(&self) -> Result<()> {
        for (what, id, length) in [
            ("trace id", self.trace_id, TRACE_ID_BYTES),
            ("span id", self.span_id, SPAN_ID_BYTES),
        ] {
            if id.len() != length {
                return Err(WireError::new(format!("a {what} of {} bytes, not {length}", id.len())));
            }
        }
        Ok(())
    }

    /// Start and end; where one is missing it is the other, where both are, `default`.
    fn times(&self, default: i64) -> (i64, i64) {
        let (start, end) = (event_time(self.start), event_time(self.end));
        let start = start.or(end).unwrap_or(default);
        (start, end.unwrap_or(start))
    }
}

/// Makes the list of a span's events or links.
fn list_of(span: &[u8], number: u32, item: impl Fn(&mut ValueMaker, &[u8]) -> Result<Tree>) -> Result<Vec<u8>> {
    let mut maker = ValueMaker::new(MAX_EVENTS_BYTES);
    let items: Result<Vec<Tree>> = repeated(span, number)
        .map(|message| item(&mut maker, message?))
        .collect();
    encode(&Tree::Array(items?)).map_err(WireError::new)
}

/// The message `Span.Event`.
fn event_tree(maker: &mut ValueMaker, message: &[u8]) -> Result<Tree> {
    let (mut time, mut name) = (0, "");
    for field in Fields::new(message) {
        match field? {
            (1, wire) => time = wire.fixed64()?,
            (2, wire) => name = wire.text()?,
            _ => {}
        }
    }
    let time = Tree::Number(Number::Signed(event_time(time).unwrap_or(0)));
    let (name, attributes) = (maker.text(name)?, maker.attributes(message, 3)?);
    maker.object([("time", time), ("name", name), ("attributes", attributes)])
}

/// The message `Span.Link`.
fn link_tree(maker: &mut ValueMaker, message: &[u8]) -> Result<Tree> {
    let (mut trace_id, mut span_id): (&[u8], &[u8]) = (&[], &[]);
    for field in Fields::new(message) {
        match field? {
            (1, wire) => trace_id = wire.bytes()?,
            (2, wire) => span_id = wire.bytes()?,
            _ => {}
        }
    }
    let (trace_id, span_id) = (maker.text(encode_hex(trace_id))?, maker.text(encode_hex(span_id))?);
    let attributes = maker.attributes(message, 4)?;
    maker.object([("trace_id", trace_id), ("span_id", span_id), ("attributes", attributes)])
}

struct SpanReader<'r, 'a> {
    rows: &'r mut Rows,
    budget: ValueBudget,
    default_time: i64,
    /// Bytes of the texts of its process that each row repeats.
    process_text: usize,
    group: Option<GroupProperties<'a>>,
    own: Properties<'a>,
    no_items: Vec<u8>,
}

impl<'a> RowMaker<'a> for SpanReader<'_, 'a> {
    fn record_name(&self) -> &'static str {
        super::schema::SPAN.name
    }

    fn group(&mut self, group: &Group<'a>) -> Result<()> {
        self.group = None;
        let (_, properties) = GroupProperties::of_scope(&group.scope).map_err(|error| error.within("scope"))?;
        self.group = Some(properties);
        Ok(())
    }

    fn row(&mut self, record: &'a [u8]) -> Result<()> {
        let Some(group) = &mut self.group else {
            return Err(WireError::new("its scope can't be read"));
        };
        self.own.clear();
        let span = Span::read(record, &mut self.own)?;
        span.check_ids()?;
        self.own.push_text("otel.trace_state", span.trace_state);
        let (events, links);
        let events = if span.has_events {
            events = list_of(record, 11, event_tree).map_err(|error| error.within("events"))?;
            &events
        } else {
            &self.no_items
        };
        let links = if span.has_links {
            links = list_of(record, 13, link_tree).map_err(|error| error.within("links"))?;
            &links
        } else {
            &self.no_items
        };
        self.budget
            .spend(events.len() + links.len() + span.name.len() + span.status_message.len() + self.process_text)?;
        let properties = group.intern(&self.own, &mut self.rows.properties, &mut self.budget)?;
        self.rows
            .push(&span, span.times(self.default_time), properties, events, links)
    }
}

/// See `_engine.pyi`.
#[pyclass(module = "micromegas._engine")]
#[derive(Default)]
pub struct OtelSpansBuilder {
    rows: Rows,
}

impl OtelSpansBuilder {
    fn read(&mut self, source: &BlockSource, problems: &mut Problems) -> std::result::Result<(), String> {
        if Signal::of_format(&source.format) != Some(Signal::Traces) {
            return Err(format!("format `{}` has no OTLP spans", source.format));
        }
        let objects = block_objects(&source.payload).map_err(|error| error.to_string())?;
        let mut reader = SpanReader {
            rows: &mut self.rows,
            budget: ValueBudget::of_bytes(objects.len()),
            default_time: source.begin_ticks,
            process_text: source.exe.len() + source.username.len() + source.computer.len(),
            group: None,
            own: Properties::default(),
            no_items: encode(&Tree::Array(Vec::new()))?,
        };
        make_rows(Signal::Traces, &objects, problems, &mut reader)
    }
}

event_builder!(OtelSpansBuilder);
