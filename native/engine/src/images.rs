//! Blocks of image streams to rows of `images` (lakehouse §2.3), twelve columns, none NULL.
//! The bytes of an image are passed on as they are: nothing here knows what a picture is.

use std::sync::Arc;

use arrow_array::builder::BinaryBuilder;
use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::{DataType, Schema, SchemaRef};
use micromegas_core::codec::events::{EventForm, ImageEvent};
use micromegas_core::codec::{Result, WireError};
use pyo3::prelude::*;

use crate::block_reader::{for_each_event, LayoutCache, Problems, Seen, ValueBudget};
use crate::block_source::BlockSource;
use crate::columns::{
    column, text_dictionary_type, time_type, DictionaryColumn, ProcessColumns, TextColumn, TimeColumn,
};
use crate::event_builder::event_builder;

fn schema() -> SchemaRef {
    let mut fields = ProcessColumns::leading_fields();
    fields.extend([
        column("time", time_type()),
        column("name", DataType::Utf8),
        column("format", text_dictionary_type()),
        column("payload_size", DataType::Int64),
        column("data", DataType::Binary),
    ]);
    Arc::new(Schema::new(fields))
}

#[derive(Default)]
struct Rows {
    process: ProcessColumns,
    time: TimeColumn,
    name: TextColumn,
    format: DictionaryColumn,
    payload_size: Vec<i64>,
    data: BinaryBuilder,
}

impl Rows {
    fn data_bytes(&self) -> usize {
        self.data.values_slice().len()
    }

    fn largest_column(&self) -> usize {
        self.data_bytes()
            .max(self.name.text_bytes())
            .max(self.format.value_bytes())
    }

    fn bytes(&self) -> usize {
        self.process.bytes()
            + self.time.bytes()
            + self.name.bytes()
            + self.format.bytes()
            + self.payload_size.len() * (size_of::<i64>() + size_of::<i32>())
            + self.data_bytes()
    }

    fn fill(&mut self, source: &BlockSource, rows: usize) -> std::result::Result<(), String> {
        self.process.repeat(source, rows)
    }

    fn take(mut self) -> std::result::Result<RecordBatch, String> {
        let mut columns: Vec<ArrayRef> = self.process.take_leading()?;
        columns.push(self.time.take());
        columns.push(self.name.take()?);
        columns.push(self.format.take_texts("format")?);
        columns.push(Arc::new(Int64Array::from(std::mem::take(&mut self.payload_size))));
        columns.push(Arc::new(self.data.finish()));
        RecordBatch::try_new(schema(), columns).map_err(|error| error.to_string())
    }

    fn push(&mut self, time: i64, image: &ImageEvent<'_>, budget: &mut ValueBudget) -> Result<()> {
        budget.spend(image.name.len() + image.format.len() + image.data.len())?;
        self.time.push(time);
        self.name.push(&image.name);
        let format = self.format.values.intern_str(&image.format);
        self.format.push(format);
        self.payload_size.push(image.data.len() as i64);
        self.data.append_value(image.data);
        Ok(())
    }
}

/// See `_engine.pyi`.
#[pyclass(module = "micromegas._engine")]
#[derive(Default)]
pub struct ImagesBuilder {
    layouts: LayoutCache,
    rows: Rows,
}

impl ImagesBuilder {
    fn read(&mut self, source: &BlockSource, problems: &mut Problems) -> std::result::Result<(), String> {
        let clock = source.clock()?;
        let (layout, buffers) = self.layouts.open(source)?;
        let forms: Vec<Result<EventForm>> = layout
            .objects
            .iter()
            .map(|each| EventForm::of(&layout.objects, each))
            .collect();
        let rows = &mut self.rows;
        let mut budget = ValueBudget::of(&buffers);
        // an image refers to nothing, so the block's dependencies are not read
        for_each_event(&layout, &buffers.objects, problems, |_, record| {
            match &forms[record.index] {
                Ok(EventForm::Image) => {
                    let image = ImageEvent::read(record.body)?;
                    rows.push(clock.time_of(image.time), &image, &mut budget)?;
                    Ok(Seen::Known)
                }
                Ok(_) => Ok(Seen::Unknown),
                Err(error) => Err::<Seen, WireError>(error.clone()),
            }
        });
        Ok(())
    }
}

event_builder!(ImagesBuilder);
