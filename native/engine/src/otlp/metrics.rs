//! Blocks of OTLP data points to rows of `measures`. A bad point is left out and told of.
//!
//! A sum or gauge point is one row. A summary, and a histogram of either kind, are rows of what they come to: `_count`
//! (without a unit), `_sum`, `_min` and `_max`, as far as the point tells them; the buckets are for `parse_block`.

use micromegas_core::codec::{Result, WireError};

use super::properties::{GroupProperties, Properties};
use super::reader::{Fields, Wire};
use super::records::{Group, Metric, MetricKind, Scope};
use super::row_maker::{make_rows, RowMaker};
use super::{block_objects, event_time, Signal};
use crate::block_reader::{Problems, ValueBudget};
use crate::block_source::BlockSource;
use crate::measures::Rows;

/// The flag of a point that says that there was nothing to measure.
const NO_RECORDED_VALUE: u64 = 1;

pub fn read(rows: &mut Rows, source: &BlockSource, problems: &mut Problems) -> std::result::Result<(), String> {
    let objects = block_objects(&source.payload).map_err(|error| error.to_string())?;
    let mut reader = PointReader {
        rows,
        budget: ValueBudget::of_bytes(objects.len()),
        scope: None,
        series: None,
        own: Properties::default(),
    };
    make_rows(Signal::Metrics, &objects, problems, &mut reader)
}

/// A scope and what was made of it; None when it can't be read.
struct ReadScope<'a> {
    scope: Scope<'a>,
    made: Option<(i32, GroupProperties<'a>)>,
}

impl ReadScope<'_> {
    fn is_of(&self, scope: &Scope<'_>) -> bool {
        // by identity: comparing a long scope with itself for each of its metrics would cost as much as reading it
        std::ptr::eq(self.scope.message, scope.message) && std::ptr::eq(self.scope.schema_url, scope.schema_url)
    }
}

/// The names and units of a metric's rows as keys of their columns.
#[derive(Clone, Copy)]
struct Series {
    kind: MetricKind,
    unit: i32,
    no_unit: i32,
    /// The metric's own name, or with `_count`, `_sum`, `_min` and `_max`.
    names: [i32; 4],
}

impl Series {
    fn of(metric: &Metric<'_>, rows: &mut Rows) -> Self {
        let unit = rows.unit.values.intern_str(metric.unit);
        let mut names = [0; 4];
        if matches!(metric.kind, MetricKind::Gauge | MetricKind::Sum) {
            names = [rows.name.values.intern_str(metric.name); 4];
        } else {
            for (name, suffix) in names.iter_mut().zip(["_count", "_sum", "_min", "_max"]) {
                *name = rows.name.values.intern_str(&format!("{}{suffix}", metric.name));
            }
        }
        Self {
            kind: metric.kind,
            unit,
            no_unit: rows.unit.values.intern_str(""),
            names,
        }
    }
}

/// What a point says, whatever its kind.
#[derive(Default)]
struct Point {
    time: u64,
    flags: u64,
    number: Option<f64>,
    count: u64,
    sum: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
}

impl Point {
    fn read<'a>(kind: MetricKind, message: &'a [u8], own: &mut Properties<'a>) -> Result<Self> {
        let mut point = Self {
            // summaries can't say that their sum is not known
            sum: (kind == MetricKind::Summary).then_some(0.0),
            ..Self::default()
        };
        for field in Fields::new(message) {
            let (number, wire) = field?;
            match (kind, number) {
                (_, 3) => point.time = wire.fixed64()?,
                (MetricKind::Gauge | MetricKind::Sum, _) => point.number_field(number, wire, own)?,
                (_, 4) => point.count = wire.fixed64()?,
                (_, 5) => point.sum = Some(wire.double()?),
                (MetricKind::Histogram, _) => match number {
                    9 => own.push_attribute(wire.bytes()?)?,
                    10 => point.flags = wire.varint()?,
                    11 => point.min = Some(wire.double()?),
                    12 => point.max = Some(wire.double()?),
                    _ => {}
                },
                (MetricKind::ExponentialHistogram, _) => match number {
                    1 => own.push_attribute(wire.bytes()?)?,
                    10 => point.flags = wire.varint()?,
                    12 => point.min = Some(wire.double()?),
                    13 => point.max = Some(wire.double()?),
                    _ => {}
                },
                (MetricKind::Summary, _) => match number {
                    6 => point.quantile(wire.bytes()?)?,
                    7 => own.push_attribute(wire.bytes()?)?,
                    8 => point.flags = wire.varint()?,
                    _ => {}
                },
            }
        }
        Ok(point)
    }

    fn number_field<'a>(&mut self, number: u32, wire: Wire<'a>, own: &mut Properties<'a>) -> Result<()> {
        match number {
            4 => self.number = Some(wire.double()?),
            6 => self.number = Some(wire.fixed64()? as i64 as f64),
            7 => own.push_attribute(wire.bytes()?)?,
            8 => self.flags = wire.varint()?,
            _ => {}
        }
        Ok(())
    }

    /// The message `ValueAtQuantile`.
    fn quantile(&mut self, message: &[u8]) -> Result<()> {
        let (mut quantile, mut value) = (0.0, 0.0);
        for field in Fields::new(message) {
            match field? {
                (1, wire) => quantile = wire.double()?,
                (2, wire) => value = wire.double()?,
                _ => {}
            }
        }
        if quantile == 0.0 {
            self.min = Some(value);
        } else if quantile == 1.0 {
            self.max = Some(value);
        }
        Ok(())
    }
}

struct PointReader<'r, 'a> {
    rows: &'r mut Rows,
    budget: ValueBudget,
    scope: Option<ReadScope<'a>>,
    series: Option<Series>,
    own: Properties<'a>,
}

impl<'a> RowMaker<'a> for PointReader<'_, 'a> {
    fn record_name(&self) -> &'static str {
        self.series.map_or("DataPoint", |series| series.kind.point().name)
    }

    fn row(&mut self, record: &'a [u8]) -> Result<()> {
        let (Some(series), Some((target, group))) =
            (self.series, self.scope.as_mut().and_then(|scope| scope.made.as_mut()))
        else {
            return Err(WireError::new("its scope or metric can't be read"));
        };
        self.own.clear();
        let point = Point::read(series.kind, record, &mut self.own)?;
        if point.flags & NO_RECORDED_VALUE != 0 {
            return Ok(());
        }
        let time = event_time(point.time).ok_or_else(|| WireError::new("it has no time"))?;
        let is_number = matches!(series.kind, MetricKind::Gauge | MetricKind::Sum);
        if is_number && point.number.is_none() {
            return Err(WireError::new("it has no value"));
        }
        let properties = group.intern(&self.own, &mut self.rows.properties, &mut self.budget)?;
        let rows = &mut *self.rows;
        if let Some(value) = point.number {
            rows.push(time, *target, series.names[0], series.unit, value, properties);
            return Ok(());
        }
        rows.push(
            time,
            *target,
            series.names[0],
            series.no_unit,
            point.count as f64,
            properties,
        );
        for (name, value) in series.names[1..].iter().zip([point.sum, point.min, point.max]) {
            if let Some(value) = value {
                rows.push(time, *target, *name, series.unit, value, properties);
            }
        }
        Ok(())
    }

    fn group(&mut self, group: &Group<'a>) -> Result<()> {
        self.series = None;
        if !self.scope.as_ref().is_some_and(|known| known.is_of(&group.scope)) {
            let read = GroupProperties::of_scope(&group.scope);
            let known = self.scope.insert(ReadScope {
                scope: group.scope,
                made: None,
            });
            let (name, properties) = read.map_err(|error| error.within("scope"))?;
            known.made = Some((self.rows.target.values.intern_str(name), properties));
        }
        let made = self.scope.as_mut().and_then(|scope| scope.made.as_mut());
        let (Some((_, properties)), Some(metric)) = (made, &group.metric) else {
            return Ok(());
        };
        // names are texts of the columns, which a metric has with or without points
        self.budget.spend(4 * metric.name.len() + metric.unit.len())?;
        let told = properties.next_metric();
        told.push("otel.metric.kind", metric.kind.name());
        if !matches!(metric.kind, MetricKind::Gauge | MetricKind::Summary) {
            let temporality = match metric.temporality {
                1 => "delta",
                2 => "cumulative",
                _ => "unspecified",
            };
            told.push("otel.metric.aggregation_temporality", temporality);
        }
        if metric.kind == MetricKind::Sum {
            let is_monotonic = if metric.is_monotonic { "true" } else { "false" };
            told.push("otel.metric.is_monotonic", is_monotonic);
        }
        self.series = Some(Series::of(metric, self.rows));
        Ok(())
    }
}
