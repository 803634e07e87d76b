//! Blocks of OTLP log records to rows of `log_entries`. A bad record is left out and told of.

use std::ops::ControlFlow;

use micromegas_core::codec::{Result, WireError};

use super::properties::{GroupProperties, Properties};
use super::reader::Fields;
use super::records::{walk, Group, Visitor};
use super::text_of_bytes::encode_hex;
use super::value::AnyValue;
use super::{block_objects, event_time, Signal, MAX_RECORDS, SPAN_ID_BYTES, TRACE_ID_BYTES};
use crate::block_reader::{Problems, ValueBudget};
use crate::block_source::BlockSource;
use crate::log_entries::Rows;

/// Level of a severity number, 4 (info) for one that says nothing.
fn level_of(severity: i32) -> i32 {
    match severity {
        1..=4 => 6,
        5..=8 => 5,
        9..=12 => 4,
        13..=16 => 3,
        17..=20 => 2,
        21..=24 => 1,
        _ => 4,
    }
}

pub fn read(rows: &mut Rows, source: &BlockSource, problems: &mut Problems) -> std::result::Result<(), String> {
    let text = |error: WireError| error.to_string();
    let objects = block_objects(&source.payload).map_err(text)?;
    let mut reader = LogReader {
        rows,
        problems,
        budget: ValueBudget::of_bytes(objects.len()),
        default_time: source.begin_ticks,
        group: None,
        own: Properties::default(),
        index: 0,
    };
    walk(Signal::Logs, &objects, &mut reader).map_err(text)
}

struct LogReader<'r, 'p, 'a> {
    rows: &'r mut Rows,
    problems: &'p mut Problems,
    budget: ValueBudget,
    /// Of records without a time: the begin of the block, whose ticks are absolute nanoseconds.
    default_time: i64,
    /// The target as a key of its column, and the properties; None for a group that can't be read.
    group: Option<(i32, GroupProperties<'a>)>,
    own: Properties<'a>,
    index: usize,
}

impl<'a> LogReader<'_, '_, 'a> {
    fn push(&mut self, record: &'a [u8]) -> Result<()> {
        let Some((target, group)) = &mut self.group else {
            return Err(WireError::new("its scope can't be read"));
        };
        let (mut time, mut observed, mut severity) = (0, 0, 0);
        let mut body = AnyValue::Empty;
        let (mut severity_text, mut event_name) = ("", "");
        let (mut trace_id, mut span_id): (&[u8], &[u8]) = (&[], &[]);
        let own = &mut self.own;
        own.clear();
        for field in Fields::new(record) {
            let (number, wire) = field?;
            match number {
                1 => time = wire.fixed64()?,
                2 => severity = wire.int32()?,
                3 => severity_text = wire.text()?,
                5 => body = AnyValue::read(wire.bytes()?)?,
                6 => own.push_attribute(wire.bytes()?)?,
                9 => trace_id = wire.bytes()?,
                10 => span_id = wire.bytes()?,
                11 => observed = wire.fixed64()?,
                12 => event_name = wire.text()?,
                _ => {}
            }
        }
        if trace_id.len() == TRACE_ID_BYTES {
            own.push("otel.trace_id", encode_hex(trace_id));
        }
        if span_id.len() == SPAN_ID_BYTES {
            own.push("otel.span_id", encode_hex(span_id));
        }
        own.push_text("otel.severity_text", severity_text);
        own.push_text("otel.event_name", event_name);
        let message = body.text()?;
        self.budget.spend(message.len())?;
        let properties = group.intern(own, &mut self.rows.properties, &mut self.budget)?;
        let time = event_time(time).or(event_time(observed)).unwrap_or(self.default_time);
        self.rows.push(time, *target, level_of(severity), &message, properties);
        Ok(())
    }
}

impl<'a> Visitor<'a> for LogReader<'_, '_, 'a> {
    fn group(&mut self, group: &Group<'a>) {
        self.group = match GroupProperties::of_scope(&group.scope) {
            Ok((name, properties)) => Some((self.rows.target.values.intern_str(name), properties)),
            Err(error) => {
                self.problems.add(error.within("scope"));
                None
            }
        };
    }

    fn broken(&mut self, error: WireError) {
        self.problems.add(error);
    }

    fn record(&mut self, record: &'a [u8]) -> ControlFlow<()> {
        if self.index == MAX_RECORDS {
            self.problems.add(format_args!("more than {MAX_RECORDS} records"));
            return ControlFlow::Break(());
        }
        if let Err(error) = self.push(record) {
            self.problems.add_event(self.index, "LogRecord", error);
        }
        self.index += 1;
        ControlFlow::Continue(())
    }
}
