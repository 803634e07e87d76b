//! Async span events of all threads of a process to rows of `async_spans`: begin and end joined by the span's id. The two
//! may come in any order and in different parts of the process's blocks: what lacks one of them is carried on.

use std::collections::btree_map::Entry;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{DataType, Schema, SchemaRef};
use micromegas_core::codec::{Dependencies, Record, Result, WireError};
use pyo3::prelude::*;

use crate::arrow_py::{value_error, ArrowBatch};
use crate::async_events::{Event, Plan};
use crate::block_reader::{for_each_event, LayoutCache, Problems, Seen, ValueBudget};
use crate::block_source::BlockSource;
use crate::call_tree::scope_hash;
use crate::carried::{HeardTexts, StateReader, StateWriter, ToldTexts};
use crate::clock::Clock;
use crate::columns::{
    column, take_narrow, take_wide, text_dictionary_type, time_type, DictionaryColumn, MovedKeys, TimeColumn,
};
use crate::scopes::BlockScopes;
use crate::stateful_builder::stateful_builder;

/// Spans that may lack their begin or their end at once: this bounds what a sender who never ends one can hold.
const MAX_UNPAIRED: usize = 1 << 20;

const CLOSED: &str = "closed";
const OPEN: &str = "open";
const BEGIN_LOST: &str = "begin_lost";

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        column("stream_id", text_dictionary_type()),
        column("span_id", DataType::Int64),
        column("parent_span_id", DataType::Int64),
        column("depth", DataType::UInt32),
        column("hash", DataType::UInt32),
        column("begin", time_type()),
        column("end", time_type()),
        column("duration", DataType::Int64),
        column("state", text_dictionary_type()),
        column("name", text_dictionary_type()),
        column("target", text_dictionary_type()),
        column("filename", text_dictionary_type()),
        column("line", DataType::UInt32),
    ]))
}

/// A scope as keys of the columns.
#[derive(Clone, Copy)]
struct ScopeKeys {
    hash: u32,
    name: i32,
    target: i32,
    filename: i32,
    line: u32,
}

/// One event of a span whose other event is not known; keys are those of the rows to come.
#[derive(Clone, Copy)]
struct Unpaired {
    is_begin: bool,
    time: i64,
    stream: i32,
    parent_span_id: i64,
    depth: u32,
    scope: ScopeKeys,
}

#[derive(Default)]
struct Rows {
    stream_id: DictionaryColumn,
    span_id: Vec<i64>,
    parent_span_id: Vec<i64>,
    depth: Vec<u32>,
    hash: Vec<u32>,
    begin: TimeColumn,
    end: TimeColumn,
    duration: Vec<i64>,
    state: DictionaryColumn,
    name: DictionaryColumn,
    target: DictionaryColumn,
    filename: DictionaryColumn,
    line: Vec<u32>,
}

impl Rows {
    fn dictionaries(&self) -> [&DictionaryColumn; 5] {
        [&self.stream_id, &self.state, &self.name, &self.target, &self.filename]
    }

    fn rows(&self) -> usize {
        self.begin.rows()
    }

    fn bytes(&self) -> usize {
        let plain = 3 * size_of::<i64>() + 3 * size_of::<u32>();
        let dictionaries = DictionaryColumn::all_bytes(self.dictionaries());
        self.begin.bytes() + self.end.bytes() + self.rows() * plain + dictionaries
    }

    fn push(&mut self, span_id: i64, begin: &Unpaired, end: i64, state: &str) {
        // the two ends of a span may have been told by different threads
        let end = end.max(begin.time);
        self.stream_id.push(begin.stream);
        self.span_id.push(span_id);
        self.parent_span_id.push(begin.parent_span_id);
        self.depth.push(begin.depth);
        self.hash.push(begin.scope.hash);
        self.begin.push(begin.time);
        self.end.push(end);
        self.duration.push(end.saturating_sub(begin.time));
        let state = self.state.values.intern_str(state);
        self.state.push(state);
        self.name.push(begin.scope.name);
        self.target.push(begin.scope.target);
        self.filename.push(begin.scope.filename);
        self.line.push(begin.scope.line);
    }

    /// The event with its texts moved over from the dictionaries of other rows.
    fn adopt(&mut self, event: &Unpaired, texts: &mut MovedTexts<'_>) -> Unpaired {
        let mut moved = *event;
        moved.stream = texts.stream.key(event.stream, &mut self.stream_id);
        moved.scope.name = texts.name.key(event.scope.name, &mut self.name);
        moved.scope.target = texts.target.key(event.scope.target, &mut self.target);
        moved.scope.filename = texts.filename.key(event.scope.filename, &mut self.filename);
        moved
    }

    fn take(&mut self) -> std::result::Result<RecordBatch, String> {
        let columns = vec![
            self.stream_id.take_texts("stream_id")?,
            take_wide(&mut self.span_id),
            take_wide(&mut self.parent_span_id),
            take_narrow(&mut self.depth),
            take_narrow(&mut self.hash),
            self.begin.take(),
            self.end.take(),
            take_wide(&mut self.duration),
            self.state.take_texts("state")?,
            self.name.take_texts("name")?,
            self.target.take_texts("target")?,
            self.filename.take_texts("filename")?,
            take_narrow(&mut self.line),
        ];
        RecordBatch::try_new(schema(), columns).map_err(|error| error.to_string())
    }
}

/// The texts of rows that are given away, for events that stay.
struct MovedTexts<'r> {
    stream: MovedKeys<'r>,
    name: MovedKeys<'r>,
    target: MovedKeys<'r>,
    filename: MovedKeys<'r>,
}

impl<'r> MovedTexts<'r> {
    fn of(rows: &'r Rows) -> Self {
        Self {
            stream: MovedKeys::from(&rows.stream_id),
            name: MovedKeys::from(&rows.name),
            target: MovedKeys::from(&rows.target),
            filename: MovedKeys::from(&rows.filename),
        }
    }
}

/// One block while it is read.
struct Block<'d, 'a> {
    dependencies: &'d Dependencies<'a>,
    scopes: BlockScopes<ScopeKeys>,
    clock: Clock,
    stream: i32,
    repeated: usize,
}

/// See `_engine.pyi`.
#[pyclass(module = "micromegas._engine")]
pub struct AsyncSpansBuilder {
    layouts: LayoutCache,
    rows: Rows,
    /// By span id.
    unpaired: BTreeMap<i64, Unpaired>,
    /// The latest end of a block: until then an open span is known to go on.
    known_until: i64,
}

impl AsyncSpansBuilder {
    fn event(&mut self, plan: &Plan, record: &Record<'_>, block: &mut Block<'_, '_>) -> Result<Seen> {
        let rows = &mut self.rows;
        let event = match plan.event(record, block.dependencies, &mut block.scopes, |scope| ScopeKeys {
            hash: scope_hash(scope.name, scope.filename, scope.target, scope.line),
            name: rows.name.values.intern_str(scope.name),
            target: rows.target.values.intern_str(scope.target),
            filename: rows.filename.values.intern_str(scope.filename),
            line: scope.line,
        })? {
            Event::Span(event) => event,
            Event::Other(seen) => return Ok(seen),
        };
        let span_id = event.span_id;
        let event = Unpaired {
            is_begin: event.is_begin,
            time: block.clock.time_of(event.ticks),
            stream: block.stream,
            parent_span_id: event.parent_span_id,
            depth: event.depth,
            scope: event.scope,
        };
        let unpaired = self.unpaired.len();
        match self.unpaired.entry(span_id) {
            Entry::Occupied(other) if other.get().is_begin == event.is_begin => block.repeated += 1,
            Entry::Occupied(other) => {
                let other = other.remove();
                let (begin, end) = if event.is_begin { (event, other) } else { (other, event) };
                self.rows.push(span_id, &begin, end.time, CLOSED);
            }
            Entry::Vacant(_) if unpaired >= MAX_UNPAIRED => {
                return Err(WireError::new(format!(
                    "more than {MAX_UNPAIRED} spans lack their begin or their end"
                )));
            }
            Entry::Vacant(place) => {
                place.insert(event);
            }
        }
        Ok(Seen::Known)
    }

    fn read(&mut self, source: &BlockSource, problems: &mut Problems) -> std::result::Result<(), String> {
        let clock = source.clock()?;
        self.known_until = self.known_until.max(clock.time_of_relative(source.end_ticks));
        let (layout, buffers) = self.layouts.open(source)?;
        let dependencies = Dependencies::parse(&layout.dependencies, &buffers.dependencies)
            .map_err(|error: WireError| error.to_string())?;
        let plans: Vec<Plan> = layout.objects.iter().map(Plan::of).collect();
        let mut block = Block {
            dependencies: &dependencies,
            scopes: BlockScopes::new(&dependencies, ValueBudget::of(&buffers)),
            clock,
            stream: self.rows.stream_id.values.intern_str(&source.stream_id),
            repeated: 0,
        };
        for_each_event(&layout, &buffers.objects, problems, |_, record| {
            self.event(&plans[record.index], record, &mut block)
        });
        if block.repeated > 0 {
            let repeated = block.repeated;
            problems.add(format_args!(
                "{repeated} async spans began or ended twice: the first counts"
            ));
        }
        Ok(())
    }

    fn append_block(&mut self, source: &BlockSource) -> Vec<String> {
        let mut problems = Problems::new(source);
        if let Err(error) = self.read(source, &mut problems) {
            problems.add(error);
        }
        problems.into_texts()
    }

    /// The spans that lack one of their ends, as rows.
    fn unpaired_rows(&self) -> std::result::Result<RecordBatch, String> {
        let mut rows = Rows::default();
        let mut texts = MovedTexts::of(&self.rows);
        for (span_id, event) in &self.unpaired {
            let event = rows.adopt(event, &mut texts);
            match event.is_begin {
                true => rows.push(*span_id, &event, self.known_until, OPEN),
                false => rows.push(*span_id, &event, event.time, BEGIN_LOST),
            }
        }
        rows.take()
    }

    fn take_rows(&mut self) -> std::result::Result<RecordBatch, String> {
        let mut taken = std::mem::take(&mut self.rows);
        let mut texts = MovedTexts::of(&taken);
        for event in self.unpaired.values_mut() {
            *event = self.rows.adopt(event, &mut texts);
        }
        taken.take()
    }

    fn state(&self) -> Vec<u8> {
        let mut writer = StateWriter::default();
        writer.wide(self.known_until);
        writer.count(self.unpaired.len());
        let rows = &self.rows;
        let columns = [&rows.stream_id, &rows.name, &rows.target, &rows.filename];
        let mut told: [ToldTexts; 4] = Default::default();
        for (span_id, event) in &self.unpaired {
            let scope = &event.scope;
            writer.wide(*span_id);
            writer.flag(event.is_begin);
            writer.wide(event.time);
            writer.wide(event.parent_span_id);
            for value in [event.depth, scope.hash, scope.line] {
                writer.narrow(value);
            }
            let keys = [event.stream, scope.name, scope.target, scope.filename];
            for ((column, key), told) in columns.iter().zip(keys).zip(&mut told) {
                writer.text_of(told, key, column.values.value(key));
            }
        }
        writer.into_bytes()
    }

    fn resume(state: &[u8]) -> std::result::Result<Self, String> {
        let mut reader = StateReader::new(state);
        let mut builder = Self::empty();
        builder.known_until = reader.wide()?;
        let mut heard: [HeardTexts; 4] = Default::default();
        for _ in 0..reader.count()? {
            let span_id = reader.wide()?;
            let is_begin = reader.flag()?;
            let (time, parent_span_id) = (reader.wide()?, reader.wide()?);
            let (depth, hash, line) = (reader.narrow()?, reader.narrow()?, reader.narrow()?);
            let rows = &mut builder.rows;
            let [streams, names, targets, filenames] = &mut heard;
            let stream = reader.text_of(streams, |text| rows.stream_id.values.intern(text))?;
            let scope = ScopeKeys {
                hash,
                name: reader.text_of(names, |text| rows.name.values.intern(text))?,
                target: reader.text_of(targets, |text| rows.target.values.intern(text))?,
                filename: reader.text_of(filenames, |text| rows.filename.values.intern(text))?,
                line,
            };
            let event = Unpaired {
                is_begin,
                time,
                stream,
                parent_span_id,
                depth,
                scope,
            };
            builder.unpaired.insert(span_id, event);
        }
        reader.end()?;
        Ok(builder)
    }

    fn carried_bytes(&self) -> usize {
        self.unpaired.len() * size_of::<(i64, Unpaired)>()
    }

    fn empty() -> Self {
        Self {
            layouts: LayoutCache::default(),
            rows: Rows::default(),
            unpaired: BTreeMap::new(),
            known_until: i64::MIN,
        }
    }
}

stateful_builder!(AsyncSpansBuilder, begin, end, {
    fn unpaired(&self, py: Python<'_>) -> PyResult<ArrowBatch> {
        py.detach(|| self.unpaired_rows())
            .map(ArrowBatch::new)
            .map_err(value_error)
    }
});
