//! The codec's functions in `micromegas._core`. Documentation for their users is in `_core.pyi`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use pyo3::create_exception;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyModule};

use super::columns::Encoder;
use super::envelope::{BlockEnvelope, ProcessEnvelope, StreamEnvelope};
use super::error::WireError as CodecError;
use super::format::Format;
use super::layout::StreamLayout;
use super::limits::MAX_DECOMPRESSED_BYTES;
use super::lz4::compress_frame;
use super::payload::{BlockBuffers, Payload};
use super::python_events::decode_events;

create_exception!(
    micromegas._core,
    WireError,
    PyValueError,
    "bytes that do not follow the wire format"
);

/// Values that `decode_events` makes before it gives up, unless told otherwise.
const MAX_VALUES: usize = 20_000_000;

/// Bodies above this are read without the GIL. Below, giving it up and waiting for it would take longer than the work.
const DETACH_BYTES: usize = 64 << 10;

impl From<CodecError> for PyErr {
    fn from(error: CodecError) -> Self {
        WireError::new_err(error.to_string())
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("WireError", module.py().get_type::<WireError>())?;
    let [transit, columns] = Format::READABLE.map(Format::name);
    module.add("STREAM_FORMATS", (transit, columns))?;
    module.add_function(wrap_pyfunction!(parse_process, module)?)?;
    module.add_function(wrap_pyfunction!(parse_stream, module)?)?;
    module.add_function(wrap_pyfunction!(parse_block, module)?)?;
    module.add_function(wrap_pyfunction!(decode_block_events, module)?)?;
    module.add_function(wrap_pyfunction!(columns_payload, module)?)?;
    module.add_function(wrap_pyfunction!(transit_payload, module)?)
}

type ProcessFields = (
    String,
    String,
    String,
    String,
    String,
    String,
    String,
    i64,
    i64,
    i64,
    Option<String>,
    BTreeMap<String, String>,
);

#[pyfunction]
#[pyo3(signature = (body, /))]
fn parse_process(body: &[u8]) -> PyResult<ProcessFields> {
    let process = ProcessEnvelope::parse(body).map_err(|error| error.within("insert_process"))?;
    Ok((
        process.process_id,
        process.exe,
        process.username,
        process.realname,
        process.computer,
        process.distro,
        process.cpu_brand,
        process.tsc_frequency,
        process.start_time,
        process.start_ticks,
        process.parent_process_id,
        process.properties,
    ))
}

type StreamFields<'py> = (
    String,
    String,
    Bound<'py, PyBytes>,
    Bound<'py, PyBytes>,
    Vec<String>,
    BTreeMap<String, String>,
    String,
);

#[pyfunction]
#[pyo3(signature = (body, /))]
fn parse_stream<'py>(py: Python<'py>, body: &[u8]) -> PyResult<StreamFields<'py>> {
    let stream = StreamEnvelope::parse(body).map_err(|error| error.within("insert_stream"))?;
    Ok((
        stream.process_id,
        stream.stream_id,
        PyBytes::new(py, &stream.dependencies_metadata),
        PyBytes::new(py, &stream.objects_metadata),
        stream.tags,
        stream.properties,
        stream.format,
    ))
}

type BlockFields<'py> = (
    String,
    String,
    String,
    i64,
    i64,
    i64,
    i64,
    Bound<'py, PyBytes>,
    i64,
    i32,
);

#[pyfunction]
#[pyo3(signature = (body, /))]
fn parse_block<'py>(py: Python<'py>, body: &[u8]) -> PyResult<BlockFields<'py>> {
    let parse = || BlockEnvelope::parse(body).map_err(|error| error.within("insert_block"));
    let block = if body.len() > DETACH_BYTES {
        py.detach(parse)?
    } else {
        parse()?
    };
    Ok((
        block.block_id,
        block.stream_id,
        block.process_id,
        block.begin_time,
        block.end_time,
        block.begin_ticks,
        block.end_ticks,
        canonical(py, &block.payload)?,
        block.object_offset,
        block.nb_objects,
    ))
}

fn canonical<'py>(py: Python<'py>, payload: &Payload<'_>) -> PyResult<Bound<'py, PyBytes>> {
    let parts = payload.parts();
    PyBytes::new_with(py, parts.iter().map(|part| part.len()).sum(), |target| {
        let mut rest = target;
        for part in &parts {
            let (slot, after) = rest.split_at_mut(part.len());
            slot.copy_from_slice(part);
            rest = after;
        }
        Ok(())
    })
}

#[pyfunction]
#[pyo3(
    name = "decode_events",
    signature = (dependencies_metadata, objects_metadata, payload, /, *, format=Format::default().name(), max_values=MAX_VALUES, max_bytes=MAX_DECOMPRESSED_BYTES)
)]
fn decode_block_events<'py>(
    py: Python<'py>,
    dependencies_metadata: &[u8],
    objects_metadata: &[u8],
    payload: &[u8],
    format: &str,
    max_values: usize,
    max_bytes: usize,
) -> PyResult<Bound<'py, PyList>> {
    let format = Format::parse(format)?;
    let events = PyList::empty(py);
    match decode_events(
        &events,
        dependencies_metadata,
        objects_metadata,
        payload,
        format,
        max_values,
        max_bytes,
    ) {
        Ok(()) => Ok(events),
        Err(error) => {
            if error.is_instance_of::<WireError>(py) {
                error.value(py).setattr("events", events)?;
            }
            Err(error)
        }
    }
}

#[pyfunction]
#[pyo3(signature = (dependencies_metadata, objects_metadata, payload, /, *, max_bytes=MAX_DECOMPRESSED_BYTES))]
fn columns_payload<'py>(
    py: Python<'py>,
    dependencies_metadata: &[u8],
    objects_metadata: &[u8],
    payload: &[u8],
    max_bytes: usize,
) -> PyResult<Bound<'py, PyBytes>> {
    let objects = py.detach(|| {
        let layout = StreamLayout::parse(dependencies_metadata, objects_metadata)?;
        let buffers = BlockBuffers::open(Format::Transit, &layout, payload, max_bytes)?;
        Encoder::new(layout).encode(&buffers.dependencies, &buffers.objects)
    })?;
    let columns = Payload {
        dependencies: Cow::Borrowed(&[]),
        objects: Cow::Owned(objects),
    };
    canonical(py, &columns)
}

#[pyfunction]
#[pyo3(signature = (dependencies_metadata, objects_metadata, payload, /, *, max_bytes=MAX_DECOMPRESSED_BYTES))]
fn transit_payload<'py>(
    py: Python<'py>,
    dependencies_metadata: &[u8],
    objects_metadata: &[u8],
    payload: &[u8],
    max_bytes: usize,
) -> PyResult<Bound<'py, PyBytes>> {
    let transit = py.detach(|| {
        let layout = StreamLayout::parse(dependencies_metadata, objects_metadata)?;
        let buffers = BlockBuffers::open(Format::Columns, &layout, payload, max_bytes)?;
        Ok::<_, CodecError>(Payload {
            dependencies: Cow::Owned(compress_frame(&buffers.dependencies)),
            objects: Cow::Owned(compress_frame(&buffers.objects)),
        })
    })?;
    canonical(py, &transit)
}
