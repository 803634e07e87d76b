//! Every event of a block as a Python dict, whatever its type: for tests, tools and questions about one block.
//! The views never use this: they read records with the engine's builders.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};
use pyo3::IntoPyObjectExt;

use super::dependencies::{Dependencies, DependencyView};
use super::error::{wire_error, Result, WireError};
use super::events::{EventForm, ImageEvent, TextOrigin};
use super::format::Format;
use super::layout::{RecordType, StreamLayout};
use super::limits::MAX_TYPE_DEPTH;
use super::payload::BlockBuffers;
use super::place::{Field, FieldValue, PlaceKind};
use super::records::Records;

/// Appends the events to `events`, so that those before an error are there when it fails.
pub fn decode_events(
    events: &Bound<'_, PyList>,
    dependencies_metadata: &[u8],
    objects_metadata: &[u8],
    payload: &[u8],
    format: Format,
    max_values: usize,
    max_bytes: usize,
) -> PyResult<()> {
    let py = events.py();
    let (layout, buffers) = py.detach(|| {
        let layout = StreamLayout::parse(dependencies_metadata, objects_metadata)?;
        let buffers = BlockBuffers::open(format, &layout, payload, max_bytes)?;
        Ok::<_, WireError>((layout, buffers))
    })?;
    let dependencies = py.detach(|| Dependencies::parse(&layout.dependencies, &buffers.dependencies))?;
    let mut values = Values {
        py,
        dependencies: &dependencies,
        made: Vec::new(),
        values_left: max_values,
    };
    values.make_dependencies()?;
    let types: Vec<_> = layout
        .objects
        .iter()
        .map(|each| (EventForm::of(&layout.objects, each), each))
        .collect();
    for (index, record) in Records::new(&layout.objects, &buffers.objects).enumerate() {
        let record = record?;
        let (form, record_type) = &types[record.index];
        let event = values
            .event(form, record_type, record.body)
            .map_err(|error| match error {
                Failure::Wire(error) => error.within(format!("event {index} ({})", record_type.name)).into(),
                Failure::Python(error) => error,
            })?;
        events.append(event)?;
    }
    Ok(())
}

enum Failure {
    Wire(WireError),
    Python(PyErr),
}

impl From<WireError> for Failure {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

/// A dependency as a Python value, and how deep it is.
struct Made<'py> {
    value: Bound<'py, PyAny>,
    depth: usize,
}

struct Values<'py, 'd, 'a> {
    py: Python<'py>,
    dependencies: &'d Dependencies<'a>,
    made: Vec<Made<'py>>,
    values_left: usize,
}

impl<'py> Values<'py, '_, '_> {
    fn spend(&mut self, count: usize) -> Result<()> {
        self.values_left = self
            .values_left
            .checked_sub(count)
            .ok_or_else(|| wire_error!("the block has too many values"))?;
        Ok(())
    }

    /// In the order of the buffer: each refers only to those before it.
    fn make_dependencies(&mut self) -> PyResult<()> {
        for index in 0..self.dependencies.len() {
            let made = self.dependency(index as u32).map_err(|error| match error {
                Failure::Wire(error) => error.within(format!("dependency {index}")).into(),
                Failure::Python(error) => error,
            })?;
            self.made.push(made);
        }
        Ok(())
    }

    fn dependency(&mut self, index: u32) -> std::result::Result<Made<'py>, Failure> {
        self.spend(1)?;
        match self.dependencies.view(index) {
            Some(DependencyView::Text(text)) => Ok(Made {
                value: PyString::new(self.py, text).into_any(),
                depth: 0,
            }),
            Some(DependencyView::Object(record_type, body)) => {
                let (value, depth) = self.object(&record_type.name, record_type.fields()?, body)?;
                Ok(Made {
                    value: value.into_any(),
                    depth,
                })
            }
            _ => {
                let list = PyList::empty(self.py);
                for (name, value) in self.dependencies.property_set_at(index)? {
                    list.append(PyList::new(self.py, [name, value])?)?;
                }
                self.spend(list.len())?;
                Ok(Made {
                    value: list.into_any(),
                    depth: 0,
                })
            }
        }
    }

    fn resolve(&self, id: u64) -> Result<&Made<'py>> {
        let index = self.dependencies.find(id)?;
        self.made
            .get(index as usize)
            .ok_or_else(|| wire_error!("dependency {index} is used before it is written"))
    }

    fn object(
        &mut self,
        type_name: &str,
        fields: &[Field],
        body: &[u8],
    ) -> std::result::Result<(Bound<'py, PyDict>, usize), Failure> {
        self.spend(1 + fields.len())?;
        let object = PyDict::new(self.py);
        object.set_item(pyo3::intern!(self.py, "$type"), type_name)?;
        let mut depth = 0;
        for field in fields {
            let within = |error: WireError| Failure::Wire(error.within(format!("member {}", field.name)));
            let place = match &field.value {
                FieldValue::Plain(place) => place,
                FieldValue::Object {
                    offset,
                    type_name,
                    fields,
                } => {
                    let (inner, inner_depth) = self.object(type_name, fields, &body[*offset..])?;
                    depth = depth.max(inner_depth + 1);
                    object.set_item(&field.name, inner)?;
                    continue;
                }
            };
            let value = match place.kind {
                PlaceKind::Reference => {
                    let made = self.resolve(place.reference(body)).map_err(within)?;
                    depth = depth.max(made.depth + 1);
                    made.value.clone()
                }
                PlaceKind::F64 => place.f64(body).into_bound_py_any(self.py)?,
                PlaceKind::I64 => place.i64(body).into_bound_py_any(self.py)?,
                PlaceKind::U64 => place.u64(body).into_bound_py_any(self.py)?,
                PlaceKind::U8 | PlaceKind::U32 => place.u32(body).into_bound_py_any(self.py)?,
            };
            object.set_item(&field.name, value)?;
        }
        if depth > MAX_TYPE_DEPTH {
            return Err(wire_error!("objects refer to one another deeper than {MAX_TYPE_DEPTH}").into());
        }
        Ok((object, depth))
    }

    fn event(
        &mut self,
        form: &Result<EventForm>,
        record_type: &RecordType,
        body: &[u8],
    ) -> std::result::Result<Bound<'py, PyDict>, Failure> {
        let form = form.as_ref().map_err(Clone::clone)?;
        if matches!(form, EventForm::Members) {
            return Ok(self.object(&record_type.name, record_type.fields()?, body)?.0);
        }
        self.spend(8)?;
        let event = PyDict::new(self.py);
        event.set_item("$type", &record_type.name)?;
        match form {
            EventForm::Text(form) => {
                let text = form.read(body)?;
                match text.origin {
                    TextOrigin::Description(id) => event.set_item("desc", &self.resolve(id)?.value)?,
                    TextOrigin::Inline { level, target } => {
                        event.set_item("level", level)?;
                        event.set_item("target", &self.resolve(target)?.value)?;
                    }
                }
                if let Some(id) = text.properties {
                    event.set_item("properties", &self.resolve(id)?.value)?;
                }
                event.set_item("msg", &*text.message)?;
                event.set_item("time", text.time)?;
            }
            EventForm::Image => {
                let image = ImageEvent::read(body)?;
                event.set_item("name", &*image.name)?;
                event.set_item("format", &*image.format)?;
                event.set_item("data", PyBytes::new(self.py, image.data))?;
                event.set_item("time", image.time)?;
            }
            EventForm::Members | EventForm::Unknown => {}
        }
        Ok(event)
    }
}
