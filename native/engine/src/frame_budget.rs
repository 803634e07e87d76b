//! What made frames slow: the spans inside of each frame that took longer than its budget, summed by name. Rows come
//! thread by thread, in order of their begins; only the spans that are open at a time are kept.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, Float64Array, RecordBatch};
use arrow_schema::{DataType, Schema, SchemaRef};
use pyo3::prelude::*;

use crate::arrow_py::{rows_of, value_error, ArrowBatch};
use crate::columns::{column, take_wide, text_dictionary_type, time_type, DictionaryColumn, TimeColumn};
use crate::trace::rows::FrameRows;

const NS_PER_MS: f64 = 1e6;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        column("stream_id", text_dictionary_type()),
        column("thread_name", text_dictionary_type()),
        column("frame_id", DataType::Int64),
        column("frame_begin", time_type()),
        column("frame_end", time_type()),
        column("frame_ms", DataType::Float64),
        column("over_ms", DataType::Float64),
        column("name", text_dictionary_type()),
        column("target", text_dictionary_type()),
        column("count", DataType::Int64),
        column("inclusive_ms", DataType::Float64),
        column("exclusive_ms", DataType::Float64),
        column("share", DataType::Float64),
    ]))
}

/// The number of a name with its target.
type Scope = u32;

struct Open {
    scope: Scope,
    depth: u32,
    begin: i64,
    end: i64,
    in_children: i64,
}

#[derive(Default)]
struct Sum {
    count: i64,
    /// Of the outermost spans of the scope only: a function that calls itself takes its time once.
    inclusive: i64,
    exclusive: i64,
    open: u32,
}

/// The frame at hand; within one that is not slow, nothing is counted.
struct Frame {
    id: i64,
    begin: i64,
    end: i64,
    is_slow: bool,
    open: Vec<Open>,
    sums: HashMap<Scope, Sum>,
}

impl Frame {
    fn close(&mut self) {
        let Some(span) = self.open.pop() else { return };
        let duration = span.end - span.begin;
        let sum = self.sums.entry(span.scope).or_default();
        sum.open -= 1;
        sum.exclusive += duration - span.in_children;
        if sum.open == 0 {
            sum.inclusive += duration;
        }
        if let Some(parent) = self.open.last_mut() {
            parent.in_children += duration;
        }
    }

    fn open(&mut self, span: Open) {
        while self
            .open
            .last()
            .is_some_and(|top| top.end < span.begin || (top.end == span.begin && top.depth >= span.depth))
        {
            self.close();
        }
        let sum = self.sums.entry(span.scope).or_default();
        sum.count += 1;
        sum.open += 1;
        self.open.push(span);
    }
}

#[derive(Default)]
struct Found {
    stream_id: DictionaryColumn,
    thread_name: DictionaryColumn,
    frame_id: Vec<i64>,
    frame_begin: TimeColumn,
    frame_end: TimeColumn,
    frame_ms: Vec<f64>,
    over_ms: Vec<f64>,
    name: DictionaryColumn,
    target: DictionaryColumn,
    count: Vec<i64>,
    inclusive_ms: Vec<f64>,
    exclusive_ms: Vec<f64>,
    share: Vec<f64>,
}

fn take_numbers(values: &mut Vec<f64>) -> ArrayRef {
    Arc::new(Float64Array::from(std::mem::take(values)))
}

impl Found {
    fn take(&mut self) -> Result<RecordBatch, String> {
        let columns = vec![
            self.stream_id.take_texts("stream_id")?,
            self.thread_name.take_texts("thread_name")?,
            take_wide(&mut self.frame_id),
            self.frame_begin.take(),
            self.frame_end.take(),
            take_numbers(&mut self.frame_ms),
            take_numbers(&mut self.over_ms),
            self.name.take_texts("name")?,
            self.target.take_texts("target")?,
            take_wide(&mut self.count),
            take_numbers(&mut self.inclusive_ms),
            take_numbers(&mut self.exclusive_ms),
            take_numbers(&mut self.share),
        ];
        RecordBatch::try_new(schema(), columns).map_err(|error| error.to_string())
    }
}

/// See `_engine.pyi`.
#[pyclass(module = "micromegas._engine")]
pub struct FrameBudget {
    span_name: String,
    budget: i64,
    begin: i64,
    end: i64,
    stream_id: String,
    thread_name: String,
    time: i64,
    frame: Option<Frame>,
    scopes: HashMap<(String, String), Scope>,
    /// By scope.
    texts: Vec<(String, String)>,
    found: Found,
}

impl FrameBudget {
    fn read(&mut self, rows: &mut FrameRows) -> Result<(), String> {
        for row in 0..rows.begin.len() {
            let stream_id = rows.stream_id.text(row);
            if stream_id != self.stream_id {
                self.close_frame();
                self.stream_id = stream_id.to_owned();
                self.thread_name = rows.thread_name.text(row).to_owned();
                self.time = i64::MIN;
            }
            let (begin, end) = (rows.begin[row], rows.end[row].max(rows.begin[row]));
            if begin < self.time {
                return Err(format!("spans of thread {} are not in order of time", self.stream_id));
            }
            self.time = begin;
            let depth = rows.depth[row];
            let is_inside = self.frame.as_ref().is_some_and(|frame| {
                let frame_depth = frame.open.first().map_or(0, |span| span.depth);
                begin < frame.end || (begin == frame.end && depth > frame_depth)
            });
            if !is_inside {
                self.close_frame();
                if rows.name.text(row) != self.span_name {
                    continue;
                }
                self.frame = Some(Frame {
                    id: rows.id[row],
                    begin,
                    end,
                    is_slow: end - begin > self.budget && begin >= self.begin && end <= self.end,
                    open: Vec::new(),
                    sums: HashMap::new(),
                });
            }
            let scope = self.scope(rows.name.text(row), rows.target.text(row));
            if let Some(frame) = &mut self.frame {
                let span = Open {
                    scope,
                    depth,
                    begin,
                    end,
                    in_children: 0,
                };
                match frame.is_slow {
                    true => frame.open(span),
                    // its first span is the frame itself, which tells how deep it lies
                    false if frame.open.is_empty() => frame.open.push(span),
                    false => {}
                }
            }
        }
        Ok(())
    }

    fn scope(&mut self, name: &str, target: &str) -> Scope {
        let next = self.texts.len() as u32;
        let scope = *self.scopes.entry((name.to_owned(), target.to_owned())).or_insert(next);
        if scope == next {
            self.texts.push((name.to_owned(), target.to_owned()));
        }
        scope
    }

    fn close_frame(&mut self) {
        let Some(mut frame) = self.frame.take() else { return };
        if !frame.is_slow {
            return;
        }
        while !frame.open.is_empty() {
            frame.close();
        }
        let mut sums: Vec<(Scope, Sum)> = frame.sums.into_iter().collect();
        sums.sort_unstable_by_key(|(scope, sum)| (-sum.exclusive, -sum.inclusive, *scope));
        let duration = frame.end - frame.begin;
        let found = &mut self.found;
        for (scope, sum) in sums {
            let (name, target) = &self.texts[scope as usize];
            found.stream_id.repeat(self.stream_id.as_bytes(), 1);
            found.thread_name.repeat(self.thread_name.as_bytes(), 1);
            found.frame_id.push(frame.id);
            found.frame_begin.push(frame.begin);
            found.frame_end.push(frame.end);
            found.frame_ms.push(duration as f64 / NS_PER_MS);
            found.over_ms.push((duration - self.budget) as f64 / NS_PER_MS);
            found.name.repeat(name.as_bytes(), 1);
            found.target.repeat(target.as_bytes(), 1);
            found.count.push(sum.count);
            found.inclusive_ms.push(sum.inclusive as f64 / NS_PER_MS);
            found.exclusive_ms.push(sum.exclusive as f64 / NS_PER_MS);
            found.share.push(sum.exclusive as f64 / duration as f64);
        }
    }
}

#[pymethods]
impl FrameBudget {
    #[new]
    fn new(span_name: String, budget: i64, begin: i64, end: i64) -> Self {
        Self {
            span_name,
            budget,
            begin,
            end,
            stream_id: String::new(),
            thread_name: String::new(),
            time: i64::MIN,
            frame: None,
            scopes: HashMap::new(),
            texts: Vec::new(),
            found: Found::default(),
        }
    }

    fn feed(&mut self, py: Python<'_>, batch: &Bound<'_, PyAny>) -> PyResult<ArrowBatch> {
        let rows = rows_of(batch)?;
        let found = py.detach(|| {
            if rows.len() > 0 {
                self.read(&mut FrameRows::of(&rows)?)?;
            }
            self.found.take()
        });
        found.map(ArrowBatch::new).map_err(value_error)
    }

    fn finish(&mut self) -> PyResult<ArrowBatch> {
        self.close_frame();
        self.found.take().map(ArrowBatch::new).map_err(value_error)
    }
}
