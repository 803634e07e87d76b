//! The face of [`CallTreeBuilder`] and [`Clock`] for Python: for events that come from elsewhere than a block.
//! Not for blocks: those go through `ThreadSpansBuilder`, which never makes a Python object of an event.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::arrow_py::{value_error, ArrowBatch};
use crate::call_tree::{CallTreeBuilder, Later, Part, ScopeId};
use crate::clock::Clock;

/// A [`Part`] as Python has it: rows, state, enclosing, continues.
pub type GivenPart<'py> = (ArrowBatch, Bound<'py, PyBytes>, (u32, i64), bool);

/// The part of a builder's blocks; `later` is a [`Later`].
pub fn finished_part<'py>(py: Python<'py>, builder: CallTreeBuilder, later: (u32, i64)) -> PyResult<GivenPart<'py>> {
    let (count, first_id) = later;
    let Part {
        rows,
        state,
        enclosing,
        continues,
    } = py
        .detach(|| builder.finish_part(Later { count, first_id }))
        .map_err(value_error)?;
    let state = PyBytes::new(py, &state);
    Ok((
        ArrowBatch::new(rows),
        state,
        (enclosing.count, enclosing.first_id),
        continues,
    ))
}

/// Call tree of one thread; see `call_tree.rs` for the meaning of its methods.
#[pyclass(module = "micromegas._engine")]
pub struct CallTree {
    builder: Option<CallTreeBuilder>,
    scopes: Vec<ScopeId>,
}

impl CallTree {
    fn open(&mut self) -> PyResult<&mut CallTreeBuilder> {
        self.builder
            .as_mut()
            .ok_or_else(|| PyRuntimeError::new_err("call tree is finished"))
    }

    fn take(&mut self) -> PyResult<CallTreeBuilder> {
        self.builder
            .take()
            .ok_or_else(|| PyRuntimeError::new_err("call tree is finished"))
    }

    fn scope_id(&self, scope: usize) -> PyResult<ScopeId> {
        self.scopes
            .get(scope)
            .copied()
            .ok_or_else(|| value_error(format!("unknown scope {scope}")))
    }
}

#[pymethods]
impl CallTree {
    #[new]
    fn new(thread_name: &str, start_time: i64, start_ticks: i64, frequency: i64) -> PyResult<Self> {
        let clock = Clock::new(start_time, start_ticks, frequency).map_err(value_error)?;
        Ok(Self {
            builder: Some(CallTreeBuilder::new(thread_name, clock)),
            scopes: Vec::new(),
        })
    }

    #[staticmethod]
    fn resume(thread_name: &str, state: &[u8]) -> PyResult<Self> {
        Ok(Self {
            builder: Some(CallTreeBuilder::resume(thread_name, state).map_err(value_error)?),
            scopes: Vec::new(),
        })
    }

    fn scope(&mut self, name: &str, target: &str, filename: &str, line: u32) -> PyResult<usize> {
        let id = self.open()?.scope(name, target, filename, line);
        self.scopes.push(id);
        Ok(self.scopes.len() - 1)
    }

    fn begin_block(&mut self, begin_ticks: i64, end_ticks: i64) -> PyResult<()> {
        self.open()?.begin_block(begin_ticks, end_ticks);
        Ok(())
    }

    fn on_begin(&mut self, ticks: i64, scope: usize, event_id: i64) -> PyResult<()> {
        let scope = self.scope_id(scope)?;
        self.open()?.on_begin(ticks, scope, event_id);
        Ok(())
    }

    fn on_end(&mut self, ticks: i64, scope: usize, event_id: i64) -> PyResult<()> {
        let scope = self.scope_id(scope)?;
        self.open()?.on_end(ticks, scope, event_id);
        Ok(())
    }

    #[getter]
    fn anomalies(&mut self) -> PyResult<u64> {
        Ok(self.open()?.anomalies())
    }

    fn finish(&mut self, py: Python<'_>) -> PyResult<ArrowBatch> {
        let builder = self.take()?;
        py.detach(|| builder.finish()).map(ArrowBatch::new).map_err(value_error)
    }

    fn finish_part<'py>(&mut self, py: Python<'py>, later: (u32, i64)) -> PyResult<GivenPart<'py>> {
        let builder = self.take()?;
        finished_part(py, builder, later)
    }
}

/// Nanoseconds since the epoch of an absolute counter value; saturates at the ends of the range of int64.
#[pyfunction]
fn ticks_to_time(ticks: i64, start_time: i64, start_ticks: i64, frequency: i64) -> PyResult<i64> {
    Ok(Clock::new(start_time, start_ticks, frequency)
        .map_err(value_error)?
        .time_of(ticks))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<CallTree>()?;
    module.add_function(wrap_pyfunction!(ticks_to_time, module)?)
}
