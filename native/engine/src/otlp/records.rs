//! The way through the message of one resource to its records, in their order, with what they share: their scope, and
//! for data points their metric.

use std::ops::ControlFlow;

use micromegas_core::codec::{Result, WireError};

use super::reader::Fields;
use super::schema::{self, Message};
use super::value::repeated;
use super::Signal;

/// Who made the records of a group.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scope<'a> {
    /// The message `InstrumentationScope`.
    pub message: &'a [u8],
    pub schema_url: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    Gauge,
    Sum,
    Histogram,
    ExponentialHistogram,
    Summary,
}

impl MetricKind {
    /// By the number of the field that holds the data.
    fn of_field(number: u32) -> Option<Self> {
        Some(match number {
            5 => Self::Gauge,
            7 => Self::Sum,
            9 => Self::Histogram,
            10 => Self::ExponentialHistogram,
            11 => Self::Summary,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Sum => "sum",
            Self::Histogram => "histogram",
            Self::ExponentialHistogram => "exponential_histogram",
            Self::Summary => "summary",
        }
    }

    pub fn point(self) -> &'static Message {
        match self {
            Self::Gauge | Self::Sum => &schema::NUMBER_POINT,
            Self::Histogram => &schema::HISTOGRAM_POINT,
            Self::ExponentialHistogram => &schema::EXPONENTIAL_HISTOGRAM_POINT,
            Self::Summary => &schema::SUMMARY_POINT,
        }
    }
}

/// What the points of a metric share.
#[derive(Debug, Clone, Copy)]
pub struct Metric<'a> {
    pub name: &'a str,
    pub description: &'a str,
    pub unit: &'a str,
    pub kind: MetricKind,
    /// Number of the enumeration `AggregationTemporality`.
    pub temporality: i32,
    pub is_monotonic: bool,
    data: &'a [u8],
}

impl<'a> Metric<'a> {
    /// None for a metric without data.
    fn read(message: &'a [u8]) -> Result<Option<Self>> {
        let (mut name, mut description, mut unit) = ("", "", "");
        let mut found: Option<(MetricKind, &[u8])> = None;
        for field in Fields::new(message) {
            let (number, wire) = field?;
            match number {
                1 => name = wire.text()?,
                2 => description = wire.text()?,
                3 => unit = wire.text()?,
                _ => {
                    if let Some(kind) = MetricKind::of_field(number) {
                        found = Some((kind, wire.bytes()?));
                    }
                }
            }
        }
        let Some((kind, data)) = found else { return Ok(None) };
        let (mut temporality, mut is_monotonic) = (0, false);
        if !matches!(kind, MetricKind::Gauge | MetricKind::Summary) {
            for field in Fields::new(data) {
                match field? {
                    (2, wire) => temporality = wire.int32()?,
                    (3, wire) if kind == MetricKind::Sum => is_monotonic = wire.boolean()?,
                    _ => {}
                }
            }
        }
        Ok(Some(Self {
            name,
            description,
            unit,
            kind,
            temporality,
            is_monotonic,
            data,
        }))
    }
}

/// Records that follow one another and share what stands here.
#[derive(Debug, Clone, Copy)]
pub struct Group<'a> {
    pub scope: Scope<'a>,
    /// Of data points.
    pub metric: Option<Metric<'a>>,
}

/// Who looks at the records.
pub trait Visitor<'a> {
    /// The group of the records that follow.
    fn group(&mut self, group: &Group<'a>);
    /// A whole group that can't be read.
    fn broken(&mut self, error: WireError);
    fn record(&mut self, record: &'a [u8]) -> ControlFlow<()>;
}

/// Shows every record of a resource's message to `visitor`, until it has seen enough. Fails where the message can't be
/// followed any further.
pub fn walk<'a>(signal: Signal, resource_message: &'a [u8], visitor: &mut impl Visitor<'a>) -> Result<()> {
    let mut schema_url = "";
    for field in Fields::new(resource_message) {
        match field? {
            (3, wire) => schema_url = wire.text()?,
            _ => continue,
        }
    }
    for group in repeated(resource_message, 2) {
        if walk_scope(signal, group?, schema_url, visitor)?.is_break() {
            break;
        }
    }
    Ok(())
}

fn walk_scope<'a>(
    signal: Signal,
    message: &'a [u8],
    schema_url: &'a str,
    visitor: &mut impl Visitor<'a>,
) -> Result<ControlFlow<()>> {
    let mut scope = Scope {
        message: &[],
        schema_url,
    };
    for field in Fields::new(message) {
        match field? {
            (1, wire) => scope.message = wire.bytes()?,
            (3, wire) => {
                let own = wire.text()?;
                if !own.is_empty() {
                    scope.schema_url = own;
                }
            }
            _ => {}
        }
    }
    if signal != Signal::Metrics {
        visitor.group(&Group { scope, metric: None });
        return walk_records(message, 2, visitor);
    }
    for metric in repeated(message, 2) {
        match Metric::read(metric?) {
            Ok(None) => {}
            Ok(Some(metric)) => {
                let data = metric.data;
                visitor.group(&Group {
                    scope,
                    metric: Some(metric),
                });
                if walk_records(data, 1, visitor)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Err(error) => visitor.broken(error.within("metric")),
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn walk_records<'a>(message: &'a [u8], number: u32, visitor: &mut impl Visitor<'a>) -> Result<ControlFlow<()>> {
    for record in repeated(message, number) {
        if visitor.record(record?).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}
