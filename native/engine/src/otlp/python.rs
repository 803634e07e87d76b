//! Requests from Python: what ingestion makes blocks of.

use micromegas_core::codec::payload::Payload;
use micromegas_core::codec::{Result, WireError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use super::resources::resources;
use super::{json, Signal};
use crate::arrow_py::value_error;

/// Attributes, times, number of records, payload, and where in it the message begins.
type ResourceParts<'py> = (
    Vec<(String, String)>,
    Option<(i64, i64)>,
    usize,
    Bound<'py, PyBytes>,
    usize,
);

struct Cut {
    attributes: Vec<(String, String)>,
    times: Option<(i64, i64)>,
    records: usize,
    payload: Vec<u8>,
    message_at: usize,
}

fn cut(signal: Signal, request: &[u8]) -> Result<Vec<Cut>> {
    let parts = |message: &[u8]| {
        let payload = Payload {
            objects: message.into(),
            ..Payload::default()
        };
        payload.parts().concat()
    };
    Ok(resources(signal, request)?
        .into_iter()
        .map(|resource| {
            let payload = parts(resource.message);
            Cut {
                message_at: payload.len() - resource.message.len(),
                attributes: resource
                    .attributes
                    .into_iter()
                    .map(|(key, value)| (key.to_string(), value.into_owned()))
                    .collect(),
                times: resource.times,
                records: resource.records,
                payload,
            }
        })
        .collect())
}

/// See `_engine.pyi`.
#[pyfunction]
pub fn otlp_resources<'py>(
    py: Python<'py>,
    signal: &str,
    request: PyBackedBytes,
    is_json: bool,
    max_bytes: usize,
) -> PyResult<Vec<ResourceParts<'py>>> {
    let signal = Signal::of_name(signal).ok_or_else(|| value_error(format!("unknown signal {signal}")))?;
    let made = py.detach(|| -> Result<Vec<Cut>> {
        if !is_json {
            return cut(signal, &request);
        }
        let text =
            std::str::from_utf8(&request).map_err(|error| WireError::new(format!("json: not UTF-8: {error}")))?;
        cut(signal, &json::to_protobuf(signal.request(), text, max_bytes)?)
    });
    made.map_err(value_error)?
        .into_iter()
        .map(|each| {
            let payload = PyBytes::new(py, &each.payload);
            Ok((each.attributes, each.times, each.records, payload, each.message_at))
        })
        .collect()
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(otlp_resources, module)?)
}
