//! Recorder and block codec: the part of Micromegas that lives inside every instrumented program.
//!
//! The codec never touches storage or the network; the recorder's uploader never takes the GIL.

pub mod codec;
pub mod message;
#[cfg(any(feature = "python", test))]
mod recorder;

#[cfg(feature = "python")]
#[pyo3::pymodule]
fn _core(module: &pyo3::Bound<'_, pyo3::types::PyModule>) -> pyo3::PyResult<()> {
    codec::python::register(module)?;
    recorder::python::register(module)
}
