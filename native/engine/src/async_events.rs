//! Async span events of thread streams to rows of `async_events` (lakehouse §2.3), twelve columns, none NULL.
//! Begins and ends are not paired here: the two are often in different streams.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{DataType, Schema, SchemaRef};
use micromegas_core::codec::{Dependencies, Place, Record, RecordType, Result, WireError};
use pyo3::prelude::*;

use crate::block_reader::{for_each_event, LayoutCache, Problems, Seen, ValueBudget};
use crate::block_source::BlockSource;
use crate::call_tree::scope_hash;
use crate::clock::Clock;
use crate::columns::{column, take_narrow, take_wide, text_dictionary_type, time_type, DictionaryColumn, TimeColumn};
use crate::event_builder::event_builder;
use crate::scopes::{is_span_type, BlockScopes, Scope, ScopePlan};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        column("stream_id", text_dictionary_type()),
        column("block_id", text_dictionary_type()),
        column("time", time_type()),
        column("event_type", text_dictionary_type()),
        column("span_id", DataType::Int64),
        column("parent_span_id", DataType::Int64),
        column("depth", DataType::UInt32),
        column("hash", DataType::UInt32),
        column("name", text_dictionary_type()),
        column("filename", text_dictionary_type()),
        column("target", text_dictionary_type()),
        column("line", DataType::UInt32),
    ]))
}

/// How the events of one type are read.
pub enum Plan {
    Span {
        is_begin: bool,
        scope: ScopePlan,
        span_id: Place,
        time: Place,
        /// Senders before 0.12 know neither.
        parent_span_id: Option<Place>,
        depth: Option<Place>,
    },
    /// A known type whose layout cannot be used.
    Unusable(WireError),
    /// Spans of the thread itself: not ours.
    Ignored,
    Unknown,
}

/// An event of an async span; `scope` is what the builder made of the scope's texts.
pub struct SpanEvent<T> {
    pub is_begin: bool,
    pub ticks: i64,
    pub span_id: i64,
    pub parent_span_id: i64,
    pub depth: u32,
    pub scope: T,
}

/// What a record is.
pub enum Event<T> {
    Span(SpanEvent<T>),
    Other(Seen),
}

impl Plan {
    pub fn of(record_type: &RecordType) -> Self {
        let plan = match record_type.name.as_str() {
            "BeginAsyncSpanEvent" => Self::span(record_type, true, false),
            "EndAsyncSpanEvent" => Self::span(record_type, false, false),
            "BeginAsyncNamedSpanEvent" => Self::span(record_type, true, true),
            "EndAsyncNamedSpanEvent" => Self::span(record_type, false, true),
            name if is_span_type(name) => Ok(Self::Ignored),
            _ => Ok(Self::Unknown),
        };
        plan.unwrap_or_else(Self::Unusable)
    }

    /// Reads a record; `make` is called once for each scope of the block.
    pub fn event<'d, T: Copy>(
        &self,
        record: &Record<'_>,
        dependencies: &'d Dependencies<'_>,
        scopes: &mut BlockScopes<T>,
        make: impl FnOnce(Scope<'d>) -> T,
    ) -> Result<Event<T>> {
        match self {
            Self::Span {
                is_begin,
                scope,
                span_id,
                time,
                parent_span_id,
                depth,
            } => Ok(Event::Span(SpanEvent {
                is_begin: *is_begin,
                ticks: time.i64(record.body),
                span_id: span_id.i64(record.body),
                parent_span_id: parent_span_id.as_ref().map_or(0, |field| field.i64(record.body)),
                depth: depth.as_ref().map_or(0, |field| field.u32(record.body)),
                scope: scopes.get(dependencies, scope, record.body, make)?,
            })),
            Self::Unusable(error) => Err(error.clone()),
            Self::Ignored => Ok(Event::Other(Seen::Known)),
            Self::Unknown => Ok(Event::Other(Seen::Unknown)),
        }
    }

    fn span(record_type: &RecordType, is_begin: bool, is_named: bool) -> Result<Self> {
        let parent_span_id = match record_type.field("parent_span_id")? {
            Some(_) => Some(record_type.wide_field("parent_span_id")?),
            None => None,
        };
        let depth = match record_type.field("depth")? {
            Some(_) => Some(record_type.narrow_field("depth")?),
            None => None,
        };
        Ok(Self::Span {
            is_begin,
            scope: match is_named {
                true => ScopePlan::named(record_type, "span_location")?,
                false => ScopePlan::described(record_type, "span_desc")?,
            },
            span_id: record_type.wide_field("span_id")?,
            time: record_type.wide_field("time")?,
            parent_span_id,
            depth,
        })
    }
}

/// A scope as keys of the columns.
#[derive(Clone, Copy)]
struct ScopeKeys {
    hash: u32,
    name: i32,
    filename: i32,
    target: i32,
    line: u32,
}

/// One block while it is read: what its dependencies became, and the keys of the two types of events.
struct Block<'d, 'a> {
    dependencies: &'d Dependencies<'a>,
    scopes: BlockScopes<ScopeKeys>,
    clock: Clock,
    begin: i32,
    end: i32,
}

#[derive(Default)]
struct Rows {
    stream_id: DictionaryColumn,
    block_id: DictionaryColumn,
    time: TimeColumn,
    event_type: DictionaryColumn,
    span_id: Vec<i64>,
    parent_span_id: Vec<i64>,
    depth: Vec<u32>,
    hash: Vec<u32>,
    name: DictionaryColumn,
    filename: DictionaryColumn,
    target: DictionaryColumn,
    line: Vec<u32>,
}

impl Rows {
    fn dictionaries(&self) -> [&DictionaryColumn; 6] {
        [
            &self.stream_id,
            &self.block_id,
            &self.event_type,
            &self.name,
            &self.filename,
            &self.target,
        ]
    }

    fn largest_column(&self) -> usize {
        DictionaryColumn::largest(self.dictionaries())
    }

    fn bytes(&self) -> usize {
        let plain = 2 * size_of::<i64>() + 3 * size_of::<u32>();
        self.time.bytes() + self.time.rows() * plain + DictionaryColumn::all_bytes(self.dictionaries())
    }

    fn fill(&mut self, source: &BlockSource, rows: usize) -> std::result::Result<(), String> {
        self.stream_id.repeat(source.stream_id.as_bytes(), rows);
        self.block_id.repeat(source.block_id.as_bytes(), rows);
        Ok(())
    }

    fn take(mut self) -> std::result::Result<RecordBatch, String> {
        let columns = vec![
            self.stream_id.take_texts("stream_id")?,
            self.block_id.take_texts("block_id")?,
            self.time.take(),
            self.event_type.take_texts("event_type")?,
            take_wide(&mut self.span_id),
            take_wide(&mut self.parent_span_id),
            take_narrow(&mut self.depth),
            take_narrow(&mut self.hash),
            self.name.take_texts("name")?,
            self.filename.take_texts("filename")?,
            self.target.take_texts("target")?,
            take_narrow(&mut self.line),
        ];
        RecordBatch::try_new(schema(), columns).map_err(|error| error.to_string())
    }

    fn event(&mut self, plan: &Plan, record: &Record<'_>, block: &mut Block<'_, '_>) -> Result<Seen> {
        let event = match plan.event(record, block.dependencies, &mut block.scopes, |scope| ScopeKeys {
            hash: scope_hash(scope.name, scope.filename, scope.target, scope.line),
            name: self.name.values.intern_str(scope.name),
            filename: self.filename.values.intern_str(scope.filename),
            target: self.target.values.intern_str(scope.target),
            line: scope.line,
        })? {
            Event::Span(event) => event,
            Event::Other(seen) => return Ok(seen),
        };
        let scope = event.scope;
        self.time.push(block.clock.time_of(event.ticks));
        self.event_type
            .push(if event.is_begin { block.begin } else { block.end });
        self.span_id.push(event.span_id);
        self.parent_span_id.push(event.parent_span_id);
        self.depth.push(event.depth);
        self.hash.push(scope.hash);
        self.name.push(scope.name);
        self.filename.push(scope.filename);
        self.target.push(scope.target);
        self.line.push(scope.line);
        Ok(Seen::Known)
    }
}

/// See `_engine.pyi`.
#[pyclass(module = "micromegas._engine")]
#[derive(Default)]
pub struct AsyncEventsBuilder {
    layouts: LayoutCache,
    rows: Rows,
}

impl AsyncEventsBuilder {
    fn read(&mut self, source: &BlockSource, problems: &mut Problems) -> std::result::Result<(), String> {
        let clock = source.clock()?;
        let (layout, buffers) = self.layouts.open(source)?;
        let dependencies = Dependencies::parse(&layout.dependencies, &buffers.dependencies)
            .map_err(|error: WireError| error.to_string())?;
        let plans: Vec<Plan> = layout.objects.iter().map(Plan::of).collect();
        let rows = &mut self.rows;
        let mut block = Block {
            dependencies: &dependencies,
            scopes: BlockScopes::new(&dependencies, ValueBudget::of(&buffers)),
            clock,
            begin: rows.event_type.values.intern_str("begin"),
            end: rows.event_type.values.intern_str("end"),
        };
        for_each_event(&layout, &buffers.objects, problems, |_, record| {
            rows.event(&plans[record.index], record, &mut block)
        });
        Ok(())
    }
}

event_builder!(AsyncEventsBuilder);
