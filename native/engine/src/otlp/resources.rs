//! A request cut into its resources, with no more read of them than their blocks have to say: attributes, the times of
//! the records, and how many there are.

use micromegas_core::codec::{Result, WireError};

use super::check::check;
use super::reader::Fields;
use super::records::{walk, Group, MetricKind, Visitor};
use super::value::{key_value, repeated};
use super::{event_time, Signal, MAX_ATTRIBUTES, MAX_RECORDS};

use std::borrow::Cow;
use std::ops::ControlFlow;

/// Resources of one request.
const MAX_RESOURCES: usize = 10_000;
/// Rows that a summary point may become, and that it counts for.
const ROWS_OF_A_SUMMARY: usize = 4;

/// A resource that has records.
pub struct Resource<'a> {
    /// The message `ResourceLogs`, `ResourceMetrics` or `ResourceSpans` as it was sent.
    pub message: &'a [u8],
    pub attributes: Vec<(&'a str, Cow<'a, str>)>,
    /// Earliest and latest in ns since the epoch; None when no record tells a time.
    pub times: Option<(i64, i64)>,
    pub records: usize,
}

/// The resources of a request that is whole; fails, naming the place, for one that is not.
pub fn resources(signal: Signal, request: &[u8]) -> Result<Vec<Resource<'_>>> {
    check(signal.request(), request)?;
    let mut found = Vec::new();
    let (mut seen, mut attributes_left, mut records_left) = (0, MAX_ATTRIBUTES, MAX_RECORDS);
    for message in repeated(request, 1) {
        let message = message?;
        seen += 1;
        if seen > MAX_RESOURCES {
            return Err(WireError::new(format!(
                "the request has more than {MAX_RESOURCES} resources"
            )));
        }
        let mut count = Counter {
            signal,
            kind: None,
            times: None,
            records: 0,
            seen: 0,
            error: None,
        };
        walk(signal, message, &mut count)?;
        if let Some(error) = count.error {
            return Err(error);
        }
        records_left = usize::checked_sub(records_left, count.seen)
            .ok_or_else(|| WireError::new(format!("the request has more than {MAX_RECORDS} records")))?;
        if count.records > 0 {
            let attributes = attributes_of(message, &mut attributes_left)?;
            found.push(Resource {
                message,
                attributes,
                times: count.times,
                records: count.records,
            });
        }
    }
    Ok(found)
}

fn attributes_of<'a>(message: &'a [u8], left: &mut usize) -> Result<Vec<(&'a str, Cow<'a, str>)>> {
    let mut attributes = Vec::new();
    for resource in repeated(message, 1) {
        for attribute in repeated(resource?, 1) {
            *left = left
                .checked_sub(1)
                .ok_or_else(|| WireError::new(format!("its resources have more than {MAX_ATTRIBUTES} attributes")))?;
            let (key, value) = key_value(attribute?)?;
            attributes.push((key, value.text()?));
        }
    }
    Ok(attributes)
}

struct Counter {
    signal: Signal,
    kind: Option<MetricKind>,
    times: Option<(i64, i64)>,
    /// As a block's row counts them.
    records: usize,
    seen: usize,
    error: Option<WireError>,
}

impl Counter {
    fn add_time(&mut self, time: u64) {
        if let Some(time) = event_time(time) {
            self.times = Some(match self.times {
                None => (time, time),
                Some((first, last)) => (first.min(time), last.max(time)),
            });
        }
    }

    fn count(&mut self, record: &[u8]) -> Result<()> {
        let (mut time, mut observed) = (0, 0);
        for field in Fields::new(record) {
            match (self.signal, field?) {
                (Signal::Logs, (1, wire)) | (Signal::Metrics, (3, wire)) => time = wire.fixed64()?,
                (Signal::Logs, (11, wire)) => observed = wire.fixed64()?,
                (Signal::Traces, (7 | 8, wire)) => self.add_time(wire.fixed64()?),
                _ => {}
            }
        }
        self.add_time(if time == 0 { observed } else { time });
        self.records += if self.kind == Some(MetricKind::Summary) {
            ROWS_OF_A_SUMMARY
        } else {
            1
        };
        Ok(())
    }
}

impl<'a> Visitor<'a> for Counter {
    fn group(&mut self, group: &Group<'a>) {
        self.kind = group.metric.map(|metric| metric.kind);
    }

    fn broken(&mut self, error: WireError) {
        self.error.get_or_insert(error);
    }

    fn record(&mut self, record: &'a [u8]) -> ControlFlow<()> {
        self.seen += 1;
        match self.count(record) {
            Ok(()) if self.seen <= MAX_RECORDS => ControlFlow::Continue(()),
            Ok(()) => ControlFlow::Break(()),
            Err(error) => {
                self.error.get_or_insert(error);
                ControlFlow::Break(())
            }
        }
    }
}
