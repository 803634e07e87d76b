//! Blocks of log streams to rows of `log_entries` (lakehouse §2.3), thirteen columns, none NULL.
//! A bad event is left out and told of; it must never take other events with it.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int32Array, RecordBatch};
use arrow_schema::{DataType, Schema, SchemaRef};
use micromegas_core::codec::events::{EventForm, TextEvent, TextForm, TextOrigin};
use micromegas_core::codec::{
    Dependencies, DependencyIndex, Place, Record, RecordType, RecordTypes, Result, WireError,
};
use pyo3::prelude::*;

use crate::block_reader::{for_each_event, LayoutCache, PerDependency, Problems, Seen, ValueBudget};
use crate::block_source::BlockSource;
use crate::clock::Clock;
use crate::columns::{
    column, jsonb_dictionary_type, text_dictionary_type, time_type, DictionaryColumn, ProcessColumns, TextColumn,
    TimeColumn,
};
use crate::event_builder::event_builder;
use crate::otlp::{self, Signal};
use crate::property_sets::{PropertySet, PropertySets};

fn schema() -> SchemaRef {
    let mut fields = ProcessColumns::leading_fields();
    fields.extend([
        column("time", time_type()),
        column("target", text_dictionary_type()),
        column("level", DataType::Int32),
        column("msg", DataType::Utf8),
        column("properties", jsonb_dictionary_type()),
        column("process_properties", jsonb_dictionary_type()),
    ]);
    Arc::new(Schema::new(fields))
}

/// How the events of one type become rows.
enum Plan {
    /// `LogStaticStrEvent`: the message is the description's.
    Static {
        description: Place,
        time: Place,
    },
    /// `LogStaticStrInteropEvent`: all texts are dependencies.
    StaticInterop {
        time: Place,
        level: Place,
        target: Place,
        message: Place,
    },
    /// The message travels with the event.
    Text {
        form: TextForm,
        overrides: bool,
    },
    /// A known type whose layout cannot be used.
    Unusable(WireError),
    Unknown,
}

impl Plan {
    fn of(types: &RecordTypes, record_type: &RecordType) -> Self {
        Self::try_of(types, record_type).unwrap_or_else(Self::Unusable)
    }

    fn try_of(types: &RecordTypes, record_type: &RecordType) -> Result<Self> {
        Ok(match (record_type.name.as_str(), EventForm::of(types, record_type)?) {
            (name, EventForm::Text(form)) => Self::Text {
                form,
                overrides: name == "TaggedLogString",
            },
            ("LogStaticStrEvent", EventForm::Members) => Self::Static {
                description: record_type.reference_field("desc")?,
                time: record_type.wide_field("time")?,
            },
            ("LogStaticStrInteropEvent", EventForm::Members) => Self::StaticInterop {
                time: record_type.wide_field("time")?,
                level: record_type.narrow_field("level")?,
                target: record_type.reference_field("target")?,
                message: record_type.reference_field("msg")?,
            },
            _ => Self::Unknown,
        })
    }
}

/// A log description, with its target as a key of the column.
#[derive(Clone, Copy)]
struct Description {
    target: i32,
    level: i32,
}

/// What a property set says of other columns.
#[derive(Clone, Copy, Default)]
struct Said {
    target: Option<i32>,
    level: Option<i32>,
}

fn level_of_word(word: &str) -> Option<i32> {
    const WORDS: [&str; 6] = ["fatal", "error", "warning", "info", "debug", "trace"];
    WORDS
        .iter()
        .position(|known| *known == word)
        .map(|position| position as i32 + 1)
}

fn level_of_number(number: u32) -> i32 {
    // senders know 0 to 6; a number that fits no i32 must not come out negative
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[derive(Default)]
pub struct Rows {
    process: ProcessColumns,
    time: TimeColumn,
    pub target: DictionaryColumn,
    level: Vec<i32>,
    message: TextColumn,
    pub properties: DictionaryColumn,
}

impl Rows {
    /// `target` and `properties` are keys of their columns; the caller bounds the bytes of messages.
    pub fn push(&mut self, time: i64, target: i32, level: i32, message: &str, properties: i32) {
        self.time.push(time);
        self.target.push(target);
        self.level.push(level);
        self.message.push(message);
        self.properties.push(properties);
    }

    fn largest_column(&self) -> usize {
        self.message
            .text_bytes()
            .max(self.target.value_bytes())
            .max(self.properties.value_bytes())
    }

    fn bytes(&self) -> usize {
        self.process.bytes()
            + self.time.bytes()
            + self.target.bytes()
            + self.level.len() * size_of::<i32>()
            + self.message.bytes()
            + self.properties.bytes()
    }

    fn fill(&mut self, source: &BlockSource, rows: usize) -> std::result::Result<(), String> {
        self.process.repeat(source, rows)
    }

    fn take(mut self) -> std::result::Result<RecordBatch, String> {
        let mut columns: Vec<ArrayRef> = self.process.take_leading()?;
        columns.push(self.time.take());
        columns.push(self.target.take_texts("target")?);
        columns.push(Arc::new(Int32Array::from(std::mem::take(&mut self.level))));
        columns.push(self.message.take()?);
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
    messages: PerDependency<&'d str>,
    targets: PerDependency<i32>,
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
        let count = dependencies.len();
        let property_sets = PropertySets::new(dependencies, &mut rows.properties, &mut budget)?;
        Ok(Self {
            rows,
            dependencies,
            clock,
            descriptions: PerDependency::new(count),
            messages: PerDependency::new(count),
            targets: PerDependency::new(count),
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
            let target = object.text("target")?;
            // any number of descriptions may have one long target, which each of them looks through
            budget.spend(target.len())?;
            Ok(Description {
                target: rows.target.values.intern_str(target),
                level: level_of_number(object.u32("level")?),
            })
        })
    }

    fn target(&mut self, id: u64) -> Result<i32> {
        let Self {
            rows,
            dependencies,
            targets,
            ..
        } = self;
        let index = dependencies.find(id)?;
        targets.get(index, || Ok(rows.target.values.intern_str(dependencies.text(index)?)))
    }

    fn property_set(&mut self, id: u64) -> Result<PropertySet<Said>> {
        let index = self.dependencies.find(id)?;
        let Rows { properties, target, .. } = &mut *self.rows;
        let say = |said: &mut Said, name: &str, value: &str| match name {
            "target" => said.target = Some(target.values.intern_str(value)),
            // an unknown word says nothing about the level
            "level" => said.level = level_of_word(value),
            _ => {}
        };
        self.property_sets
            .get(self.dependencies, index, properties, &mut self.budget, say)
    }

    fn push(&mut self, ticks: i64, target: i32, level: i32, message: &str, properties: i32) -> Result<()> {
        self.budget.spend(message.len())?;
        self.rows
            .push(self.clock.time_of(ticks), target, level, message, properties);
        Ok(())
    }

    fn event(&mut self, plan: &Plan, record: &Record<'_>) -> Result<Seen> {
        match plan {
            Plan::Static { description, time } => {
                let index = self.dependencies.find(description.reference(record.body))?;
                let Description { target, level } = self.description(index)?;
                let dependencies = self.dependencies;
                let message = self
                    .messages
                    .get(index, || dependencies.object(index)?.text("fmt_str"))?;
                self.push(time.i64(record.body), target, level, message, self.property_sets.none())?;
            }
            Plan::StaticInterop {
                time,
                level,
                target,
                message,
            } => {
                let dependencies = self.dependencies;
                let message = dependencies.text(dependencies.find(message.reference(record.body))?)?;
                let target = self.target(target.reference(record.body))?;
                let level = level_of_number(level.u32(record.body));
                self.push(time.i64(record.body), target, level, message, self.property_sets.none())?;
            }
            Plan::Text { form, overrides } => {
                let TextEvent {
                    time,
                    origin,
                    properties,
                    message,
                } = form.read(record.body)?;
                let (mut target, mut level) = match origin {
                    TextOrigin::Description(id) => {
                        let description = self.description(self.dependencies.find(id)?)?;
                        (description.target, description.level)
                    }
                    TextOrigin::Inline { level, target } => (self.target(target)?, level_of_number(level)),
                };
                let mut key = self.property_sets.none();
                if let Some(id) = properties {
                    let set = self.property_set(id)?;
                    key = set.key;
                    if *overrides {
                        target = set.said.target.unwrap_or(target);
                        level = set.said.level.unwrap_or(level);
                    }
                }
                self.push(time, target, level, &message, key)?;
            }
            Plan::Unusable(error) => return Err(error.clone()),
            Plan::Unknown => return Ok(Seen::Unknown),
        }
        Ok(Seen::Known)
    }
}

/// See `_engine.pyi`.
#[pyclass(module = "micromegas._engine")]
#[derive(Default)]
pub struct LogEntriesBuilder {
    layouts: LayoutCache,
    rows: Rows,
}

impl LogEntriesBuilder {
    fn read(&mut self, source: &BlockSource, problems: &mut Problems) -> std::result::Result<(), String> {
        if Signal::of_format(&source.format) == Some(Signal::Logs) {
            return otlp::logs::read(&mut self.rows, source, problems);
        }
        let clock = source.clock()?;
        let (layout, buffers) = self.layouts.open(source)?;
        let text = |error: WireError| error.to_string();
        let dependencies = Dependencies::parse(&layout.dependencies, &buffers.dependencies).map_err(text)?;
        let plans: Vec<Plan> = layout
            .objects
            .iter()
            .map(|each| Plan::of(&layout.objects, each))
            .collect();
        let mut block =
            BlockRows::new(&mut self.rows, &dependencies, clock, ValueBudget::of(&buffers)).map_err(text)?;
        for_each_event(&layout, &buffers.objects, problems, |_, record| {
            block.event(&plans[record.index], record)
        });
        Ok(())
    }
}

event_builder!(LogEntriesBuilder);
