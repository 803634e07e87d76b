//! Merges the rows of a process, each kind in order of time, into the packets of one trace in order of time.

use std::collections::{HashMap, HashSet};

use arrow_array::{Array, StructArray};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use xxhash_rust::xxh64::xxh64;

use super::interning::Texts;
use super::lanes::{Lanes, Owner, Span};
use super::packets::{
    annotate_int, annotate_text, flow_in, flow_out, EventNames, Packets, TrackKind, LEVEL, MESSAGE, PARENT_SPAN_ID,
    PROPERTIES, SPAN_ID, TARGET,
};
use super::rows::{flows, LogRows, MeasureRows, SpanRows};
use crate::arrow_py::{rows_of, value_error};
use crate::json_text;
use crate::jsonb::Value;

const LEVELS: [&str; 6] = ["fatal", "error", "warn", "info", "debug", "trace"];
/// A log line is called by so much of its message; all of it is in the annotation.
const MAX_INSTANT_NAME: usize = 256;
const ASYNC_TRACK: &str = "Async spans";
const LOG_TRACK: &str = "Log";

/// The kinds of rows, in the order in which rows of one time are written.
const INPUTS: [&str; 4] = ["threads", "async", "measures", "logs"];

enum Rows {
    Spans(SpanRows),
    Measures(MeasureRows),
    Logs(LogRows),
}

impl Rows {
    fn of(input: usize, rows: &StructArray) -> Result<Self, String> {
        match input {
            0 | 1 => SpanRows::of(rows).map(Self::Spans),
            2 => MeasureRows::of(rows).map(Self::Measures),
            _ => LogRows::of(rows).map(Self::Logs),
        }
    }

    fn times(&self) -> &[i64] {
        match self {
            Self::Spans(rows) => &rows.begin,
            Self::Measures(rows) => &rows.time,
            Self::Logs(rows) => &rows.time,
        }
    }

    fn forget(&mut self) {
        match self {
            Self::Spans(rows) => {
                rows.name.forget();
                rows.target.forget();
                rows.filename.forget();
            }
            Self::Measures(_) => {}
            Self::Logs(rows) => rows.target.forget(),
        }
    }
}

/// What is known of the rows of one kind.
enum Input {
    /// More rows are to come, and none are here.
    Empty,
    At {
        rows: Box<Rows>,
        row: usize,
    },
    Ended,
}

struct Thread {
    stream_id: String,
    name: String,
    number: Option<i64>,
}

/// A series of measures: its name, unit, target and properties by number.
type Series = (u32, u32, u32, u32);

/// See `_engine.pyi`.
#[pyclass(module = "micromegas._engine")]
pub struct TraceEncoder {
    packets: Packets,
    process_uuid: u64,
    pid: i64,
    inputs: [Input; 4],
    time: i64,
    threads: Vec<Thread>,
    thread_numbers: HashMap<String, u32>,
    tids: HashSet<i64>,
    lanes: Lanes,
    /// Track by lane.
    lane_tracks: Vec<usize>,
    /// Track of a thread itself, by thread.
    thread_tracks: HashMap<u32, usize>,
    /// Sorted by parent, then child, once all are here.
    flows: Vec<(i64, i64)>,
    are_flows_sorted: bool,
    flow_children: HashSet<i64>,
    series_texts: Texts,
    properties: HashMap<Vec<u8>, u32>,
    series: HashMap<Series, usize>,
    log_track: Option<usize>,
    json: String,
}

impl TraceEncoder {
    fn hash(&self, what: &str) -> u64 {
        xxh64(what.as_bytes(), self.process_uuid)
    }

    fn flow_id(&self, child: i64) -> u64 {
        xxh64(&child.to_le_bytes(), self.process_uuid)
    }

    /// Writes until rows of some kind are needed, or `max_bytes` are ready, or everything is written.
    fn run(&mut self, max_bytes: usize) -> Result<Option<usize>, String> {
        if !std::mem::replace(&mut self.are_flows_sorted, true) {
            self.flows.sort_unstable();
        }
        while self.packets.bytes() < max_bytes {
            let mut next: Option<(i64, usize)> = None;
            for (kind, input) in self.inputs.iter().enumerate() {
                match input {
                    Input::Empty => return Ok(Some(kind)),
                    Input::Ended => {}
                    Input::At { rows, row } => {
                        let time = rows.times()[*row];
                        if next.is_none_or(|(earliest, _)| time < earliest) {
                            next = Some((time, kind));
                        }
                    }
                }
            }
            let Some((time, kind)) = next else {
                match self.lanes.last_end() {
                    Some((lane, end)) => self.packets.slice_end(self.lane_tracks[lane], end),
                    None => return Ok(None),
                }
                continue;
            };
            if time < self.time {
                return Err(format!("{} are not in order of time", INPUTS[kind]));
            }
            self.time = time;
            let Input::At { mut rows, row } = std::mem::replace(&mut self.inputs[kind], Input::Empty) else {
                continue;
            };
            if self.packets.bound_names() {
                self.forget_names(&mut rows);
            }
            match rows.as_mut() {
                Rows::Spans(spans) => self.span(spans, row, kind == 0)?,
                Rows::Measures(measures) => self.measure(measures, row)?,
                Rows::Logs(logs) => self.log(logs, row)?,
            }
            if row + 1 < rows.times().len() {
                self.inputs[kind] = Input::At { rows, row: row + 1 };
            }
        }
        Ok(None)
    }

    fn forget_names(&mut self, current: &mut Rows) {
        current.forget();
        for input in &mut self.inputs {
            if let Input::At { rows, .. } = input {
                rows.forget();
            }
        }
    }

    fn write_ends(&mut self, time: i64, before: Option<&Span>) {
        while let Some((lane, end)) = self.lanes.next_end(time, before) {
            self.packets.slice_end(self.lane_tracks[lane], end);
        }
    }

    fn span(&mut self, rows: &mut SpanRows, row: usize, is_of_thread: bool) -> Result<(), String> {
        let owner = match is_of_thread {
            true => Owner::Thread(self.thread(rows.stream_id.text(row))?),
            false => Owner::Async,
        };
        let begin = rows.begin[row];
        let span = Span {
            owner,
            id: rows.id[row],
            parent: rows.parent[row],
            depth: rows.depth[row],
            begin,
            end: rows.end[row].max(begin),
        };
        self.write_ends(begin, Some(&span));
        let (lane, new_rank) = self.lanes.open(&span);
        if let Some(rank) = new_rank {
            let track = self.new_lane(lane, owner, rank, begin);
            self.lane_tracks.push(track);
        }
        let names = &mut self.packets.names;
        let file = rows.filename.number(row, |text| names.files.number(text));
        let event_names = EventNames {
            event: rows.name.number(row, |text| names.events.number(text)),
            category: rows.target.number(row, |text| names.categories.number(text)),
            location: names.locations.number(file, rows.line[row]),
        };
        let track = self.lane_tracks[lane];
        if is_of_thread {
            self.packets.slice_begin(track, begin, event_names, |_| {});
            return Ok(());
        }
        let first = self.flows.partition_point(|(parent, _)| *parent < span.id);
        let children = self.flows[first..].iter().take_while(|(parent, _)| *parent == span.id);
        let outgoing: Vec<u64> = children.map(|(_, child)| self.flow_id(*child)).collect();
        let incoming = self.flow_children.contains(&span.id).then(|| self.flow_id(span.id));
        self.packets.slice_begin(track, begin, event_names, |event| {
            annotate_int(event, SPAN_ID, span.id);
            annotate_int(event, PARENT_SPAN_ID, span.parent);
            for flow in outgoing {
                flow_out(event, flow);
            }
            if let Some(flow) = incoming {
                flow_in(event, flow);
            }
        });
        Ok(())
    }

    fn thread(&self, stream_id: &str) -> Result<u32, String> {
        let number = self.thread_numbers.get(stream_id).copied();
        number.ok_or_else(|| format!("spans of the unknown thread {stream_id}"))
    }

    fn new_lane(&mut self, lane: usize, owner: Owner, rank: usize, time: i64) -> usize {
        let Owner::Thread(number) = owner else {
            let uuid = self.hash(&format!("async {lane}"));
            return self
                .packets
                .track(uuid, self.process_uuid, ASYNC_TRACK, &TrackKind::Plain, time);
        };
        let thread = &self.threads[number as usize];
        let uuid = xxh64(thread.stream_id.as_bytes(), 0);
        if rank > 0 {
            let name = format!("{} (overlapping)", thread.name);
            let parent = self
                .thread_tracks
                .get(&number)
                .map_or(uuid, |track| self.packets.uuid(*track));
            let uuid = self.hash(&format!("{} {rank}", thread.stream_id));
            return self.packets.track(uuid, parent, &name, &TrackKind::Plain, time);
        }
        let name = thread.name.clone();
        // Threads with one number would be one thread to a viewer.
        let wanted = thread
            .number
            .filter(|number| (1..=i64::from(i32::MAX)).contains(number));
        let mut tid = wanted.unwrap_or((uuid & 0x7fff_ffff) as i64);
        while tid == 0 || !self.tids.insert(tid) {
            tid = (tid + 1) & 0x7fff_ffff;
        }
        let kind = TrackKind::Thread { pid: self.pid, tid };
        let track = self.packets.track(uuid, self.process_uuid, &name, &kind, time);
        self.thread_tracks.insert(number, track);
        track
    }

    fn measure(&mut self, rows: &mut MeasureRows, row: usize) -> Result<(), String> {
        let time = rows.time[row];
        self.write_ends(time, None);
        let texts = &mut self.series_texts;
        let name = rows.name.number(row, |text| texts.number(text));
        let unit = rows.unit.number(row, |text| texts.number(text));
        let target = rows.target.number(row, |text| texts.number(text));
        let jsonb = rows.properties.jsonb(row);
        let properties = match self.properties.get(jsonb) {
            Some(number) => *number,
            None => {
                let number = self.properties.len() as u32;
                self.properties.insert(jsonb.to_vec(), number);
                number
            }
        };
        let series = (name, unit, target, properties);
        let track = match self.series.get(&series) {
            Some(track) => *track,
            None => {
                let track = self.new_series(rows, row, time)?;
                self.series.insert(series, track);
                track
            }
        };
        self.packets.counter(track, time, rows.value[row]);
        Ok(())
    }

    fn new_series(&mut self, rows: &MeasureRows, row: usize, time: i64) -> Result<usize, String> {
        let (name, unit, target) = (rows.name.text(row), rows.unit.text(row), rows.target.text(row));
        self.format_properties(rows.properties.jsonb(row))?;
        let uuid = self.hash(&format!("counter {name}\0{unit}\0{target}\0{}", self.json));
        let shown = match self.json.is_empty() {
            true => name.to_owned(),
            false => format!("{name} {}", self.json),
        };
        let kind = TrackKind::Counter { unit };
        Ok(self.packets.track(uuid, self.process_uuid, &shown, &kind, time))
    }

    fn log(&mut self, rows: &mut LogRows, row: usize) -> Result<(), String> {
        let time = rows.time[row];
        self.write_ends(time, None);
        let track = match self.log_track {
            Some(track) => track,
            None => {
                let uuid = self.hash("log");
                let track = self
                    .packets
                    .track(uuid, self.process_uuid, LOG_TRACK, &TrackKind::Plain, time);
                self.log_track = Some(track);
                track
            }
        };
        self.format_properties(rows.properties.jsonb(row))?;
        let names = &mut self.packets.names;
        let category = rows.target.number(row, |text| names.categories.number(text));
        let (message, target) = (rows.message.value(row), rows.target.text(row));
        let level = usize::try_from(rows.level[row]).unwrap_or(0);
        let level = level.checked_sub(1).and_then(|position| LEVELS.get(position));
        let json = self.json.as_str();
        self.packets
            .instant(track, time, shortened(message), category, |event| {
                match level {
                    Some(level) => annotate_text(event, LEVEL, level),
                    None => annotate_int(event, LEVEL, i64::from(rows.level[row])),
                }
                annotate_text(event, TARGET, target);
                annotate_text(event, MESSAGE, message);
                if !json.is_empty() {
                    annotate_text(event, PROPERTIES, json);
                }
            });
        Ok(())
    }

    /// Leaves the JSON of properties in `json`; nothing for an empty set.
    fn format_properties(&mut self, jsonb: &[u8]) -> Result<(), String> {
        self.json.clear();
        json_text::format(&Value::parse(jsonb)?, &mut self.json)?;
        if self.json == "{}" {
            self.json.clear();
        }
        Ok(())
    }
}

/// As much of a message as a name needs.
fn shortened(message: &str) -> &str {
    let mut end = message.len().min(MAX_INSTANT_NAME);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}

fn input_of(name: &str) -> PyResult<usize> {
    let position = INPUTS.iter().position(|input| *input == name);
    position.ok_or_else(|| PyValueError::new_err(format!("{name:?} is none of {}", INPUTS.join(", "))))
}

#[pymethods]
impl TraceEncoder {
    #[new]
    fn new(
        process_id: &str,
        process_name: &str,
        labels: Vec<String>,
        time: i64,
        inputs: Vec<String>,
    ) -> PyResult<Self> {
        let process_uuid = xxh64(process_id.as_bytes(), 0);
        let mut encoder = Self {
            packets: Packets::default(),
            process_uuid,
            pid: (process_uuid & 0x7fff_ffff) as i64,
            inputs: [Input::Ended, Input::Ended, Input::Ended, Input::Ended],
            time: i64::MIN,
            threads: Vec::new(),
            thread_numbers: HashMap::new(),
            tids: HashSet::new(),
            lanes: Lanes::default(),
            lane_tracks: Vec::new(),
            thread_tracks: HashMap::new(),
            flows: Vec::new(),
            are_flows_sorted: true,
            flow_children: HashSet::new(),
            series_texts: Texts::default(),
            properties: HashMap::new(),
            series: HashMap::new(),
            log_track: None,
            json: String::new(),
        };
        for name in inputs {
            encoder.inputs[input_of(&name)?] = Input::Empty;
        }
        encoder
            .packets
            .process(process_uuid, encoder.pid, process_name, &labels, time);
        Ok(encoder)
    }

    #[pyo3(signature = (stream_id, name, number=None))]
    fn add_thread(&mut self, stream_id: String, name: String, number: Option<i64>) {
        self.thread_numbers.insert(stream_id.clone(), self.threads.len() as u32);
        self.threads.push(Thread {
            stream_id,
            name,
            number,
        });
    }

    fn add_flows(&mut self, batch: &Bound<'_, PyAny>) -> PyResult<()> {
        let pairs = flows(&rows_of(batch)?).map_err(value_error)?;
        self.flow_children.extend(pairs.iter().map(|(_, child)| *child));
        self.flows.extend(pairs);
        self.are_flows_sorted = false;
        Ok(())
    }

    #[pyo3(signature = (input, batch))]
    fn feed(&mut self, input: &str, batch: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let input = input_of(input)?;
        if !matches!(self.inputs[input], Input::Empty) {
            return Err(PyValueError::new_err(format!(
                "no rows of {} are wanted",
                INPUTS[input]
            )));
        }
        self.inputs[input] = match batch {
            None => Input::Ended,
            Some(batch) => {
                let rows = rows_of(batch)?;
                match rows.len() {
                    0 => Input::Empty,
                    _ => Input::At {
                        rows: Box::new(Rows::of(input, &rows).map_err(value_error)?),
                        row: 0,
                    },
                }
            }
        };
        Ok(())
    }

    fn advance(&mut self, py: Python<'_>, max_bytes: usize) -> PyResult<Option<&'static str>> {
        let wanted = py.detach(|| self.run(max_bytes)).map_err(value_error)?;
        Ok(wanted.map(|input| INPUTS[input]))
    }

    fn take<'py>(&mut self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.packets.take())
    }
}
