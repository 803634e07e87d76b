//! The captures of `micromegas.testing`: what a test reads in place of a server.
//!
//! A session begun while a capture is open sends nothing at all; one begun before goes on sending beside it.

use std::time::{Duration, Instant};

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyModule};

use super::captures::captures;
use super::session;

/// A collector that does not answer for so long never will.
const PATIENCE: Duration = Duration::from_secs(30);

/// Adds the functions of `micromegas.testing`.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(capture_begin, module)?)?;
    module.add_function(wrap_pyfunction!(capture_own_session, module)?)?;
    module.add_function(wrap_pyfunction!(capture_take, module)?)?;
    module.add_function(wrap_pyfunction!(capture_end, module)?)
}

/// Waits until all that is recorded now is in blocks.
fn collect(py: Python<'_>) -> PyResult<()> {
    let session = session::current();
    let ending = session::ending_collector();
    let collected = py.detach(|| match (session, ending) {
        (Some(session), _) => session.collect(Instant::now() + PATIENCE),
        (None, Some(ending)) => {
            ending.wait_ended();
            true
        }
        (None, None) => true,
    });
    if collected {
        return Ok(());
    }
    Err(PyRuntimeError::new_err(format!(
        "capture: the recorder's thread did not answer within {} s",
        PATIENCE.as_secs()
    )))
}

/// Begins a capture and gives its number. What was recorded before is not in it.
#[pyfunction]
fn capture_begin(py: Python<'_>) -> PyResult<u64> {
    collect(py)?;
    Ok(captures().open())
}

/// Says that the session was only begun for the sake of a capture: `recorder_start` may replace it.
#[pyfunction]
fn capture_own_session() {
    if let Some(session) = session::current() {
        session.stand_in();
    }
}

type Bodies<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>, Bound<'py, PyBytes>);

/// The blocks of what was recorded since the last time: the bodies of process, stream and block.
#[pyfunction]
fn capture_take(py: Python<'_>, serial: u64) -> PyResult<Vec<Bodies<'_>>> {
    collect(py)?;
    let Some(blocks) = captures().take(serial) else {
        return Err(PyValueError::new_err(format!("capture {serial}: has ended")));
    };
    let bytes = |body: &[u8]| PyBytes::new(py, body);
    Ok(blocks
        .iter()
        .map(|kept| (bytes(&kept.process), bytes(&kept.stream), bytes(&kept.block)))
        .collect())
}

/// Ends a capture; with the last one, a session that was begun meanwhile.
#[pyfunction]
fn capture_end(py: Python<'_>, serial: u64) -> bool {
    let captures = captures();
    captures.close(serial);
    if captures.any_open() || session::current().is_none_or(|session| session.sends()) {
        return false;
    }
    if let Some(session) = session::end() {
        let deadline = Instant::now() + PATIENCE;
        py.detach(|| session.stop(deadline).wait(deadline));
    }
    true
}
