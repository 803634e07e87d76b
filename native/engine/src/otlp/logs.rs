//! Blocks of OTLP log records to rows of `log_entries`. A bad record is left out and told of.

use micromegas_core::codec::{Result, WireError};

use super::properties::{GroupProperties, Properties};
use super::reader::Fields;
use super::records::Group;
use super::row_maker::{make_rows, RowMaker};
use super::schema;
use super::text_of_bytes::encode_hex;
use super::value::AnyValue;
use super::{block_objects, event_time, Signal, SPAN_ID_BYTES, TRACE_ID_BYTES};
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
    let objects = block_objects(&source.payload).map_err(|error| error.to_string())?;
    let mut reader = LogReader {
        rows,
        budget: ValueBudget::of_bytes(objects.len()),
        default_time: source.begin_ticks,
        group: None,
        own: Properties::default(),
    };
    make_rows(Signal::Logs, &objects, problems, &mut reader)
}

struct LogReader<'r, 'a> {
    rows: &'r mut Rows,
    budget: ValueBudget,
    /// Of records without a time: the begin of the block, whose ticks are absolute nanoseconds.
    default_time: i64,
    /// The target as a key of its column, and the properties; None for a group that can't be read.
    group: Option<(i32, GroupProperties<'a>)>,
    own: Properties<'a>,
}

impl<'a> RowMaker<'a> for LogReader<'_, 'a> {
    fn record_name(&self) -> &'static str {
        schema::LOG_RECORD.name
    }

    fn group(&mut self, group: &Group<'a>) -> Result<()> {
        self.group = None;
        let (name, properties) = GroupProperties::of_scope(&group.scope).map_err(|error| error.within("scope"))?;
        self.group = Some((self.rows.target.values.intern_str(name), properties));
        Ok(())
    }

    fn row(&mut self, record: &'a [u8]) -> Result<()> {
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
