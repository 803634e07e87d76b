//! Every event of one block as JSONB, whatever its type: what the SQL function `parse_block` gives.
//! A reader goes through the block in steps, so that nobody has to hold all its events; it must never pass over one.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, StringBuilder};
use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::{DataType, Schema, SchemaRef};
use micromegas_core::codec::events::{EventForm, ImageEvent, TextOrigin};
use micromegas_core::codec::limits::{MAX_DECOMPRESSED_BYTES, MAX_TYPE_DEPTH};
use micromegas_core::codec::place::{Field, FieldValue, PlaceKind};
use micromegas_core::codec::{
    BlockBuffers, Dependencies, DependencyIndex, DependencyView, Format, Record, Records, Result, StreamLayout,
    WireError,
};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;

use crate::arrow_py::{value_error, ArrowBatch};
use crate::columns::column;
use crate::jsonb::{encode, Number, Tree};

const TYPE_KEY: &str = "__type";
/// Bytes of one event's value while it is made. A description can be reached by many members and by many ways.
const MAX_EVENT_BYTES: usize = 256 << 20;
/// What a value costs beside its text.
const NODE_BYTES: usize = 64;
/// Values of a batch from which it is given away.
const BATCH_BYTES: usize = 16 << 20;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        column("object_index", DataType::Int64),
        column("type_name", DataType::Utf8),
        column("value", DataType::Binary),
    ]))
}

/// Makes the value of one event.
struct EventValue<'d, 'a> {
    dependencies: &'d Dependencies<'a>,
    bytes_left: usize,
}

impl EventValue<'_, '_> {
    fn spend(&mut self, bytes: usize) -> Result<()> {
        self.bytes_left = self
            .bytes_left
            .checked_sub(bytes.saturating_add(NODE_BYTES))
            .ok_or_else(|| WireError::new(format!("the value has more than {MAX_EVENT_BYTES} bytes")))?;
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<Tree> {
        self.spend(text.len())?;
        Ok(Tree::String(text.to_string()))
    }

    /// What an id stands for. `before` bounds the dependencies that may be used: one refers only to those before it.
    fn reference(&mut self, id: u64, before: DependencyIndex, depth: usize) -> Result<Tree> {
        let index = self.dependencies.find(id)?;
        if index >= before {
            return Err(WireError::new(format!(
                "dependency {index} is used before it is written"
            )));
        }
        if depth > MAX_TYPE_DEPTH {
            return Err(WireError::new(format!(
                "objects refer to one another deeper than {MAX_TYPE_DEPTH}"
            )));
        }
        match self.dependencies.view(index) {
            Some(DependencyView::Text(text)) => self.text(text),
            Some(DependencyView::Object(record_type, body)) => {
                let mut object = BTreeMap::new();
                self.members(&mut object, record_type.fields()?, body, index, depth)?;
                self.typed(object, &record_type.name)
            }
            _ => {
                let mut object = BTreeMap::new();
                for (name, value) in self.dependencies.property_set_at(index)? {
                    self.spend(name.len())?;
                    object.insert(name.to_string(), self.text(value)?);
                }
                Ok(Tree::Object(object))
            }
        }
    }

    fn typed(&mut self, mut object: BTreeMap<String, Tree>, type_name: &str) -> Result<Tree> {
        let type_name = self.text(type_name)?;
        object.insert(TYPE_KEY.to_string(), type_name);
        Ok(Tree::Object(object))
    }

    fn members(
        &mut self,
        object: &mut BTreeMap<String, Tree>,
        fields: &[Field],
        body: &[u8],
        before: DependencyIndex,
        depth: usize,
    ) -> Result<()> {
        for field in fields {
            self.spend(field.name.len())?;
            let value = match &field.value {
                FieldValue::Plain(place) => match place.kind {
                    PlaceKind::Reference => self
                        .reference(place.reference(body), before, depth + 1)
                        .map_err(|error| error.within(format!("member {}", field.name)))?,
                    PlaceKind::F64 => Tree::Number(Number::Float(place.f64(body))),
                    PlaceKind::I64 => Tree::Number(Number::Signed(place.i64(body))),
                    PlaceKind::U64 => unsigned(place.u64(body)),
                    PlaceKind::U8 | PlaceKind::U32 => unsigned(place.u32(body).into()),
                },
                FieldValue::Object {
                    offset,
                    type_name,
                    fields,
                } => {
                    let mut inner = BTreeMap::new();
                    // how deep types lie in one another was bounded when the layout was read
                    self.members(&mut inner, fields, &body[*offset..], before, depth + 1)?;
                    self.typed(inner, type_name)?
                }
            };
            object.insert(field.name.clone(), value);
        }
        Ok(())
    }

    fn event(&mut self, form: &Result<EventForm>, record: &Record<'_>) -> Result<Tree> {
        let any = DependencyIndex::MAX;
        let mut object = BTreeMap::new();
        let mut put = |name: &str, value: Tree| object.insert(name.to_string(), value);
        match form.as_ref().map_err(Clone::clone)? {
            EventForm::Members => self.members(&mut object, record.record_type.fields()?, record.body, any, 0)?,
            EventForm::Text(form) => {
                let text = form.read(record.body)?;
                match text.origin {
                    TextOrigin::Description(id) => {
                        put("desc", self.reference(id, any, 1)?);
                    }
                    TextOrigin::Inline { level, target } => {
                        put("level", unsigned(level.into()));
                        put("target", self.reference(target, any, 1)?);
                    }
                }
                if let Some(id) = text.properties {
                    put("properties", self.reference(id, any, 1)?);
                }
                put("msg", self.text(&text.message)?);
                put("time", Tree::Number(Number::Signed(text.time)));
            }
            EventForm::Image => {
                let image = ImageEvent::read(record.body)?;
                put("name", self.text(&image.name)?);
                put("format", self.text(&image.format)?);
                put("data", Tree::String(format!("{} bytes", image.data.len())));
                put("time", Tree::Number(Number::Signed(image.time)));
            }
            EventForm::Unknown => {}
        }
        self.typed(object, &record.record_type.name)
    }
}

fn unsigned(value: u64) -> Tree {
    Tree::Number(Number::Unsigned(value))
}

/// See `_engine.pyi`.
#[pyclass(module = "micromegas._engine")]
pub struct BlockEvents {
    layout: StreamLayout,
    buffers: BlockBuffers,
    /// Of the next record, in bytes.
    position: usize,
    /// Events given so far.
    count: usize,
}

impl BlockEvents {
    fn read_rows(&mut self, max_rows: usize) -> std::result::Result<RecordBatch, String> {
        let text = |error: WireError| error.to_string();
        let dependencies = Dependencies::parse(&self.layout.dependencies, &self.buffers.dependencies).map_err(text)?;
        let types = &self.layout.objects;
        let forms: Vec<Result<EventForm>> = types.iter().map(|each| EventForm::of(types, each)).collect();
        let first = self.count;
        let mut type_names = StringBuilder::new();
        let mut values = BinaryBuilder::new();
        let mut records = Records::resume(types, &self.buffers.objects, self.position);
        while self.count - first < max_rows && values.values_slice().len() < BATCH_BYTES {
            let Some(record) = records.next() else { break };
            let made = record.map_err(text).and_then(|record| {
                let type_name = &record.record_type.name;
                let mut maker = EventValue {
                    dependencies: &dependencies,
                    bytes_left: MAX_EVENT_BYTES,
                };
                let value = maker
                    .event(&forms[usize::from(record.index)], &record)
                    .map_err(text)
                    .and_then(|tree| encode(&tree))
                    .map_err(|error| format!("event {} ({type_name}): {error}", self.count))?;
                Ok((type_name, value))
            });
            match made {
                Ok((type_name, value)) => {
                    type_names.append_value(type_name);
                    values.append_value(value);
                    self.count += 1;
                    self.position = records.position();
                }
                // the events before it go first, and the next call comes back to it
                Err(_) if self.count > first => break,
                Err(error) => return Err(error),
            }
        }
        let indexes: Int64Array = (first as i64..self.count as i64).collect::<Vec<i64>>().into();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(indexes),
            Arc::new(type_names.finish()),
            Arc::new(values.finish()),
        ];
        RecordBatch::try_new(schema(), columns).map_err(|error| error.to_string())
    }
}

#[pymethods]
impl BlockEvents {
    #[new]
    #[pyo3(signature = (dependencies_metadata, objects_metadata, payload, format=Format::default().name()))]
    fn new(
        py: Python<'_>,
        dependencies_metadata: PyBackedBytes,
        objects_metadata: PyBackedBytes,
        payload: PyBackedBytes,
        format: &str,
    ) -> PyResult<Self> {
        py.detach(|| {
            let format = Format::parse(format)?;
            let layout = StreamLayout::parse(&dependencies_metadata, &objects_metadata)?;
            let buffers = BlockBuffers::open(format, &layout, &payload, MAX_DECOMPRESSED_BYTES)?;
            Ok(Self {
                layout,
                buffers,
                position: 0,
                count: 0,
            })
        })
        .map_err(|error: WireError| value_error(error))
    }

    #[getter]
    fn count(&self) -> usize {
        self.count
    }

    fn read(&mut self, py: Python<'_>, max_rows: usize) -> PyResult<ArrowBatch> {
        py.detach(|| self.read_rows(max_rows))
            .map(ArrowBatch::new)
            .map_err(value_error)
    }
}
