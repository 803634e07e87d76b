//! Blocks of metric streams to rows of `measures` (lakehouse §2.3), fourteen columns, none NULL.
//! A bad event is left out and told of; it must never take other events with it.

use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, RecordBatch};
use arrow_schema::{DataType, Schema, SchemaRef};
use micromegas_core::codec::{Dependencies, DependencyIndex, Place, PlaceKind, Record, RecordType, Result, WireError};
use pyo3::prelude::*;

use crate::block_reader::{for_each_event, LayoutCache, PerDependency, Problems, Seen, ValueBudget};
use crate::block_source::BlockSource;
use crate::clock::Clock;
use crate::columns::{
    column, jsonb_dictionary_type, text_dictionary_type, time_type, DictionaryColumn, ProcessColumns, TimeColumn,
};
use crate::event_builder::event_builder;
use crate::otlp::{self, Signal};
use crate::property_sets::{PropertySet, PropertySets};

/// Integer measures of this unit are told in seconds.
const TICKS: &str = "ticks";
const SECONDS: &str = "seconds";

fn schema() -> SchemaRef {
    let mut fields = ProcessColumns::leading_fields();
    fields.extend([
        column("time", time_type()),
        column("target", text_dictionary_type()),
        column("name", text_dictionary_type()),
        column("unit", text_dictionary_type()),
        column("value", DataType::Float64),
        column("properties", jsonb_dictionary_type()),
        column("process_properties", jsonb_dictionary_type()),
    ]);
    Arc::new(Schema::new(fields))
}

enum Plan {
    Metric {
        description: Place,
        value: Place,
        time: Place,
        properties: Option<Place>,
    },
    /// A known type whose layout cannot be used.
    Unusable(WireError),
    Unknown,
}

impl Plan {
    fn of(record_type: &RecordType) -> Self {
        let (is_float, is_tagged) = match record_type.name.as_str() {
            "IntegerMetricEvent" => (false, false),
            "FloatMetricEvent" => (true, false),
            "TaggedIntegerMetricEvent" => (false, true),
            "TaggedFloatMetricEvent" => (true, true),
            _ => return Self::Unknown,
        };
        Self::metric(record_type, is_float, is_tagged).unwrap_or_else(Self::Unusable)
    }

    fn metric(record_type: &RecordType, is_float: bool, is_tagged: bool) -> Result<Self> {
        let value = if is_float {
            record_type.f64_field("value")?
        } else {
            record_type.wide_field("value")?
        };
        Ok(Self::Metric {
            description: record_type.reference_field("desc")?,
            value,
            time: record_type.wide_field("time")?,
            properties: if is_tagged {
                Some(record_type.reference_field("properties")?)
            } else {
                None
            },
        })
    }
}

/// A unit as a key of its column.
#[derive(Clone, Copy)]
struct Unit {
    key: i32,
    is_ticks: bool,
}

#[derive(Clone, Copy)]
struct Description {
    target: i32,
    name: i32,
    unit: Unit,
}

impl Unit {
    fn of(text: &str, column: &mut DictionaryColumn) -> Self {
        Self {
            key: column.values.intern_str(text),
            is_ticks: text == TICKS,
        }
    }
}

/// What a property set says of other columns.
#[derive(Clone, Copy, Default)]
struct Said {
    target: Option<i32>,
    name: Option<i32>,
    unit: Option<Unit>,
}

#[derive(Default)]
pub struct Rows {
    process: ProcessColumns,
    time: TimeColumn,
    pub target: DictionaryColumn,
    pub name: DictionaryColumn,
    pub unit: DictionaryColumn,
    value: Vec<f64>,
    pub properties: DictionaryColumn,
}

impl Rows {
    /// All but `time` and `value` are keys of their columns.
    pub fn push(&mut self, time: i64, target: i32, name: i32, unit: i32, value: f64, properties: i32) {
        self.time.push(time);
        self.target.push(target);
        self.name.push(name);
        self.unit.push(unit);
        self.value.push(value);
        self.properties.push(properties);
    }

    fn dictionaries(&self) -> [&DictionaryColumn; 4] {
        [&self.target, &self.name, &self.unit, &self.properties]
    }

    fn largest_column(&self) -> usize {
        DictionaryColumn::largest(self.dictionaries())
    }

    fn bytes(&self) -> usize {
        self.process.bytes()
            + self.time.bytes()
            + self.value.len() * size_of::<f64>()
            + DictionaryColumn::all_bytes(self.dictionaries())
    }

    fn fill(&mut self, source: &BlockSource, rows: usize) -> std::result::Result<(), String> {
        self.process.repeat(source, rows)
    }

    fn take(mut self) -> std::result::Result<RecordBatch, String> {
        let mut columns: Vec<ArrayRef> = self.process.take_leading()?;
        columns.push(self.time.take());
        columns.push(self.target.take_texts("target")?);
        columns.push(self.name.take_texts("name")?);
        columns.push(self.unit.take_texts("unit")?);
        columns.push(Arc::new(Float64Array::from(std::mem::take(&mut self.value))));
        columns.push(self.properties.take_jsonb("properties")?);
        columns.push(self.process.take_properties()?);
        RecordBatch::try_new(schema(), columns).map_err(|error| error.to_string())
    }
}

/// One block while it is read: what its dependencies became in the columns of the row group.
struct BlockRows<'r, 'd, 'a> {
    rows: &'r mut Rows,
    dependencies: &'d Dependencies<'a>,
    clock: Clock,
    descriptions: PerDependency<Description>,
    property_sets: PropertySets<Said>,
    budget: ValueBudget,
}

impl<'r, 'd, 'a> BlockRows<'r, 'd, 'a> {
    fn new(
        rows: &'r mut Rows,
        dependencies: &'d Dependencies<'a>,
        clock: Clock,
        mut budget: ValueBudget,
    ) -> Result<Self> {
        let property_sets = PropertySets::new(dependencies, &mut rows.properties, &mut budget)?;
        Ok(Self {
            rows,
            dependencies,
            clock,
            descriptions: PerDependency::new(dependencies.len()),
            property_sets,
            budget,
        })
    }

    fn description(&mut self, index: DependencyIndex) -> Result<Description> {
        let Self {
            rows,
            dependencies,
            descriptions,
            budget,
            ..
        } = self;
        descriptions.get(index, || {
            let object = dependencies.object(index)?;
            let (target, name, unit) = (object.text("target")?, object.text("name")?, object.text("unit")?);
            // any number of descriptions may have one long text, which each of them looks through
            budget.spend(target.len() + name.len() + unit.len())?;
            Ok(Description {
                target: rows.target.values.intern_str(target),
                name: rows.name.values.intern_str(name),
                unit: Unit::of(unit, &mut rows.unit),
            })
        })
    }

    fn property_set(&mut self, index: DependencyIndex) -> Result<PropertySet<Said>> {
        let Rows {
            properties,
            target,
            name,
            unit,
            ..
        } = &mut *self.rows;
        let say = |said: &mut Said, key: &str, value: &str| match key {
            "target" => said.target = Some(target.values.intern_str(value)),
            "name" => said.name = Some(name.values.intern_str(value)),
            "unit" => said.unit = Some(Unit::of(value, unit)),
            _ => {}
        };
        self.property_sets
            .get(self.dependencies, index, properties, &mut self.budget, say)
    }

    fn event(&mut self, plan: &Plan, record: &Record<'_>) -> Result<Seen> {
        let (description, value_field, time, properties) = match plan {
            Plan::Metric {
                description,
                value,
                time,
                properties,
            } => (description, value, time, properties),
            Plan::Unusable(error) => return Err(error.clone()),
            Plan::Unknown => return Ok(Seen::Unknown),
        };
        let Description {
            mut target,
            mut name,
            mut unit,
        } = self.description(self.dependencies.find(description.reference(record.body))?)?;
        let mut key = self.property_sets.none();
        if let Some(properties) = properties {
            let set = self.property_set(self.dependencies.find(properties.reference(record.body))?)?;
            key = set.key;
            target = set.said.target.unwrap_or(target);
            name = set.said.name.unwrap_or(name);
            unit = set.said.unit.unwrap_or(unit);
        }
        let mut value = match value_field.kind {
            PlaceKind::F64 => value_field.f64(record.body),
            PlaceKind::I64 => value_field.i64(record.body) as f64,
            _ => value_field.u64(record.body) as f64,
        };
        let ticks = time.i64(record.body);
        if unit.is_ticks && !matches!(value_field.kind, PlaceKind::F64) {
            value /= self.clock.frequency_at(ticks) as f64;
            unit = Unit::of(SECONDS, &mut self.rows.unit);
        }
        self.rows
            .push(self.clock.time_of(ticks), target, name, unit.key, value, key);
        Ok(Seen::Known)
    }
}

/// See `_engine.pyi`.
#[pyclass(module = "micromegas._engine")]
#[derive(Default)]
pub struct MeasuresBuilder {
    layouts: LayoutCache,
    rows: Rows,
}

impl MeasuresBuilder {
    fn read(&mut self, source: &BlockSource, problems: &mut Problems) -> std::result::Result<(), String> {
        if Signal::of_format(&source.format) == Some(Signal::Metrics) {
            return otlp::metrics::read(&mut self.rows, source, problems);
        }
        let clock = source.clock()?;
        let (layout, buffers) = self.layouts.open(source)?;
        let text = |error: WireError| error.to_string();
        let dependencies = Dependencies::parse(&layout.dependencies, &buffers.dependencies).map_err(text)?;
        let plans: Vec<Plan> = layout.objects.iter().map(Plan::of).collect();
        let mut block =
            BlockRows::new(&mut self.rows, &dependencies, clock, ValueBudget::of(&buffers)).map_err(text)?;
        for_each_event(&layout, &buffers.objects, problems, |_, record| {
            block.event(&plans[record.index], record)
        });
        Ok(())
    }
}

event_builder!(MeasuresBuilder);
