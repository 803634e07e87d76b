//! Every event of one block as JSONB, whatever its type: what the SQL function `parse_block` gives.
//! A reader goes through the block in steps, so that nobody has to hold all its events; it must never pass over one.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow_array::builder::{ArrayBuilder, BinaryBuilder, StringBuilder};
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
use crate::otlp::records::{walk, Group, Visitor};
use crate::otlp::schema::{self as otlp_schema, Message};
use crate::otlp::values::ValueMaker;
use crate::otlp::{block_objects, Signal};

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

/// The rows of one batch.
struct EventValues {
    first: usize,
    type_names: StringBuilder,
    values: BinaryBuilder,
}

impl EventValues {
    /// `first` is the index of the first row.
    fn new(first: usize) -> Self {
        Self {
            first,
            type_names: StringBuilder::new(),
            values: BinaryBuilder::new(),
        }
    }

    fn rows(&self) -> usize {
        self.values.len()
    }

    /// Of the next row.
    fn index(&self) -> usize {
        self.first + self.rows()
    }

    fn is_full(&self, max_rows: usize) -> bool {
        self.rows() >= max_rows || self.values.values_slice().len() >= BATCH_BYTES
    }

    fn push(&mut self, type_name: &str, value: Vec<u8>) {
        self.type_names.append_value(type_name);
        self.values.append_value(value);
    }

    fn into_batch(mut self) -> std::result::Result<RecordBatch, String> {
        let indexes: Int64Array = (self.first as i64..self.index() as i64).collect::<Vec<i64>>().into();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(indexes),
            Arc::new(self.type_names.finish()),
            Arc::new(self.values.finish()),
        ];
        RecordBatch::try_new(schema(), columns).map_err(|error| error.to_string())
    }
}

/// The records of an OTLP message: log records, data points, spans.
struct OtlpReader {
    signal: Signal,
    message: Vec<u8>,
}

impl OtlpReader {
    fn open(signal: Signal, payload: &[u8]) -> Result<Self> {
        let message = block_objects(payload)?.into_owned();
        Ok(Self { signal, message })
    }

    fn read(&mut self, batch: &mut EventValues, max_rows: usize) -> std::result::Result<(), String> {
        // passing over the records before costs next to nothing beside making the values of a batch
        let mut reader = RecordValues {
            to_pass: batch.first,
            signal: self.signal,
            max_rows,
            batch,
            group: None,
            error: None,
        };
        let walked = walk(self.signal, &self.message, &mut reader).map_err(|error| error.to_string());
        match reader.error.map_or(walked, Err) {
            Err(error) if batch.rows() == 0 => Err(error),
            _ => Ok(()),
        }
    }
}

/// Makes a batch of values on the way through a message.
struct RecordValues<'b, 'a> {
    to_pass: usize,
    signal: Signal,
    max_rows: usize,
    batch: &'b mut EventValues,
    group: Option<Group<'a>>,
    error: Option<String>,
}

impl RecordValues<'_, '_> {
    fn value(&self, record: &[u8]) -> std::result::Result<(&'static str, Vec<u8>), String> {
        let message = match (self.signal, self.group.and_then(|group| group.metric)) {
            (Signal::Logs, _) => &otlp_schema::LOG_RECORD,
            (Signal::Traces, _) => &otlp_schema::SPAN,
            (Signal::Metrics, Some(metric)) => metric.kind.point(),
            (Signal::Metrics, None) => return Err("a point without a metric".to_string()),
        };
        self.group
            .ok_or_else(|| WireError::new("a record without a group"))
            .and_then(|group| otlp_value(&group, message, record))
            .map_err(|error| error.to_string())
            .and_then(|tree| encode(&tree))
            .map(|value| (message.name, value))
            .map_err(|error| format!("event {} ({}): {error}", self.batch.index(), message.name))
    }
}

/// A record with what it shares with its neighbours under `scope` and `metric`.
fn otlp_value(group: &Group<'_>, message: &'static Message, record: &[u8]) -> Result<Tree> {
    let mut maker = ValueMaker::new(MAX_EVENT_BYTES);
    let mut object = maker.members(message, record)?;
    let mut scope = maker.members(&otlp_schema::SCOPE, group.scope.message)?;
    if !group.scope.schema_url.is_empty() {
        scope.insert("schemaUrl".to_string(), maker.text(group.scope.schema_url)?);
    }
    object.insert("scope".to_string(), Tree::Object(scope));
    if let Some(metric) = group.metric {
        let members = [
            ("name", maker.text(metric.name)?),
            ("description", maker.text(metric.description)?),
            ("unit", maker.text(metric.unit)?),
            ("kind", maker.text(metric.kind.name())?),
            (
                "aggregationTemporality",
                Tree::Number(Number::Signed(metric.temporality.into())),
            ),
            ("isMonotonic", Tree::Bool(metric.is_monotonic)),
        ];
        object.insert("metric".to_string(), maker.object(members)?);
    }
    object.insert(TYPE_KEY.to_string(), maker.text(message.name)?);
    Ok(Tree::Object(object))
}

impl<'a> Visitor<'a> for RecordValues<'_, 'a> {
    fn group(&mut self, group: &Group<'a>) {
        self.group = Some(*group);
    }

    fn broken(&mut self, error: WireError) {
        self.error.get_or_insert(error.to_string());
    }

    fn record(&mut self, record: &'a [u8]) -> ControlFlow<()> {
        if self.error.is_some() || self.batch.is_full(self.max_rows) {
            return ControlFlow::Break(());
        }
        if self.to_pass > 0 {
            self.to_pass -= 1;
            return ControlFlow::Continue(());
        }
        match self.value(record) {
            Ok((type_name, value)) => self.batch.push(type_name, value),
            Err(error) => self.error = Some(error),
        }
        ControlFlow::Continue(())
    }
}

/// What a block's events are read from.
enum EventReader {
    Records(RecordReader),
    Otlp(OtlpReader),
}

/// Records of the wire format.
struct RecordReader {
    layout: StreamLayout,
    buffers: BlockBuffers,
    /// Of the next record, in bytes.
    position: usize,
}

impl RecordReader {
    fn read(&mut self, batch: &mut EventValues, max_rows: usize) -> std::result::Result<(), String> {
        let text = |error: WireError| error.to_string();
        let dependencies = Dependencies::parse(&self.layout.dependencies, &self.buffers.dependencies).map_err(text)?;
        let types = &self.layout.objects;
        let forms: Vec<Result<EventForm>> = types.iter().map(|each| EventForm::of(types, each)).collect();
        let mut records = Records::resume(types, &self.buffers.objects, self.position);
        while !batch.is_full(max_rows) {
            let Some(record) = records.next() else { break };
            let made = record.map_err(text).and_then(|record| {
                let type_name = &record.record_type.name;
                let mut maker = EventValue {
                    dependencies: &dependencies,
                    bytes_left: MAX_EVENT_BYTES,
                };
                let value = maker
                    .event(&forms[record.index], &record)
                    .map_err(text)
                    .and_then(|tree| encode(&tree))
                    .map_err(|error| format!("event {} ({type_name}): {error}", batch.index()))?;
                Ok((type_name, value))
            });
            match made {
                Ok((type_name, value)) => {
                    batch.push(type_name, value);
                    self.position = records.position();
                }
                // the events before it go first, and the next call comes back to it
                Err(_) if batch.rows() > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// See `_engine.pyi`.
#[pyclass(module = "micromegas._engine")]
pub struct BlockEvents {
    reader: EventReader,
    /// Events given so far.
    count: usize,
}

impl BlockEvents {
    fn read_rows(&mut self, max_rows: usize) -> std::result::Result<RecordBatch, String> {
        let mut batch = EventValues::new(self.count);
        match &mut self.reader {
            EventReader::Records(reader) => reader.read(&mut batch, max_rows)?,
            EventReader::Otlp(reader) => reader.read(&mut batch, max_rows)?,
        }
        self.count = batch.index();
        batch.into_batch()
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
            let reader = if let Some(signal) = Signal::of_format(format) {
                EventReader::Otlp(OtlpReader::open(signal, &payload)?)
            } else {
                let format = Format::parse(format)?;
                let layout = StreamLayout::parse(&dependencies_metadata, &objects_metadata)?;
                let buffers = BlockBuffers::open(format, &layout, &payload, MAX_DECOMPRESSED_BYTES)?;
                EventReader::Records(RecordReader {
                    layout,
                    buffers,
                    position: 0,
                })
            };
            Ok(Self { reader, count: 0 })
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
