//! Copies of the blocks that are cut while somebody captures: what a test reads in place of a server.
//!
//! A session begun while a capture is open sends nothing at all; one begun before goes on sending beside it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyModule};

use super::session;

/// A collector that does not answer for so long never will.
const PATIENCE: Duration = Duration::from_secs(30);

/// A block with all that is needed to read it: the bodies of three requests.
pub struct CapturedBlock {
    pub process: Vec<u8>,
    pub stream: Vec<u8>,
    pub block: Vec<u8>,
}

struct Capture {
    serial: u64,
    blocks: Vec<Arc<CapturedBlock>>,
}

#[derive(Default)]
struct State {
    last_serial: u64,
    open: Vec<Capture>,
}

/// The captures of this process, shared by the collector and the threads that capture.
#[derive(Default)]
pub struct Captures {
    state: Mutex<State>,
    open: AtomicUsize,
}

impl Captures {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether blocks are wanted.
    pub fn any_open(&self) -> bool {
        self.open.load(Ordering::Acquire) > 0
    }

    fn open(&self) -> u64 {
        let mut state = self.lock();
        state.last_serial += 1;
        let serial = state.last_serial;
        state.open.push(Capture {
            serial,
            blocks: Vec::new(),
        });
        self.open.store(state.open.len(), Ordering::Release);
        serial
    }

    /// Gives a block to all captures that are open now.
    pub fn keep(&self, block: CapturedBlock) {
        let block = Arc::new(block);
        for capture in &mut self.lock().open {
            capture.blocks.push(Arc::clone(&block));
        }
    }

    /// What came since the last time. None: there is no such capture.
    fn take(&self, serial: u64) -> Option<Vec<Arc<CapturedBlock>>> {
        let mut state = self.lock();
        let capture = state.open.iter_mut().find(|capture| capture.serial == serial)?;
        Some(std::mem::take(&mut capture.blocks))
    }

    fn close(&self, serial: u64) {
        let mut state = self.lock();
        state.open.retain(|capture| capture.serial != serial);
        self.open.store(state.open.len(), Ordering::Release);
    }
}

/// Locked only by threads that hold the GIL, and never while they give it up: free in a forked child.
static CURRENT: Mutex<Option<Arc<Captures>>> = Mutex::new(None);

/// The captures of this process.
pub fn captures() -> Arc<Captures> {
    let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(current.get_or_insert_default())
}

/// In a forked child: the parent's captures are the parent's. Their lock may be held for ever, so they are never dropped.
pub fn leave_to_parent() {
    let inherited = CURRENT.lock().unwrap_or_else(PoisonError::into_inner).take();
    std::mem::forget(inherited);
}

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
