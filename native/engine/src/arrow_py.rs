//! Arrow data in and out of Python by the PyCapsule protocol (`__arrow_c_array__`), without a copy and without pyarrow.
//! It must never keep a capsule's content that it did not mark as taken: the other side would free it twice.

use std::ffi::CStr;
use std::sync::Arc;

use arrow_array::ffi::{from_ffi, to_ffi, FFI_ArrowArray, FFI_ArrowSchema};
use arrow_array::{make_array, Array, ArrayRef, RecordBatch, StructArray};
use arrow_schema::Field;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyTuple};

const SCHEMA_NAME: &CStr = c"arrow_schema";
const ARRAY_NAME: &CStr = c"arrow_array";

/// An error of Arrow as the `ValueError` that Python gets.
pub fn value_error(error: impl ToString) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// The array behind any object with `__arrow_c_array__`.
pub fn import_array(object: &Bound<'_, PyAny>) -> PyResult<ArrayRef> {
    let exporter = object.getattr("__arrow_c_array__").map_err(|_| {
        let type_name = object
            .get_type()
            .name()
            .map_or_else(|_| "object".to_string(), |name| name.to_string());
        PyTypeError::new_err(format!("{type_name} has no __arrow_c_array__"))
    })?;
    let exported = exporter.call0()?;
    let (schema_capsule, array_capsule): (Bound<'_, PyCapsule>, Bound<'_, PyCapsule>) = exported.extract()?;
    let schema_pointer = schema_capsule
        .pointer_checked(Some(SCHEMA_NAME))?
        .cast::<FFI_ArrowSchema>();
    let array_pointer = array_capsule
        .pointer_checked(Some(ARRAY_NAME))?
        .cast::<FFI_ArrowArray>();
    // SAFETY: a capsule of this name holds an ArrowArray by the protocol; from_raw leaves a released one behind,
    // so that the capsule's destructor does nothing.
    let array = unsafe { FFI_ArrowArray::from_raw(array_pointer.as_ptr()) };
    // SAFETY: a capsule of this name holds an ArrowSchema by the protocol, alive as long as `schema_capsule`.
    let schema = unsafe { schema_pointer.as_ref() };
    // SAFETY: the exporter warrants that the buffers fit the schema.
    let data = unsafe { from_ffi(array, schema) }.map_err(value_error)?;
    Ok(make_array(data))
}

/// The rows of a record batch.
pub fn rows_of(batch: &Bound<'_, PyAny>) -> PyResult<StructArray> {
    let array = import_array(batch)?;
    array
        .as_any()
        .downcast_ref::<StructArray>()
        .cloned()
        .ok_or_else(|| PyTypeError::new_err("a record batch is needed"))
}

fn export<'py>(py: Python<'py>, array: &dyn Array, field: &Field) -> PyResult<Bound<'py, PyTuple>> {
    let (ffi_array, _) = to_ffi(&array.to_data()).map_err(value_error)?;
    let ffi_schema = FFI_ArrowSchema::try_from(field).map_err(value_error)?;
    let schema_capsule = PyCapsule::new_with_value(py, ffi_schema, SCHEMA_NAME)?;
    let array_capsule = PyCapsule::new_with_value(py, ffi_array, ARRAY_NAME)?;
    PyTuple::new(py, [schema_capsule, array_capsule])
}

/// A column made here; `pyarrow.array(it)` takes it over without a copy.
#[pyclass(frozen, module = "micromegas._engine")]
pub struct ArrowArray {
    array: ArrayRef,
}

impl ArrowArray {
    pub fn new(array: ArrayRef) -> Self {
        Self { array }
    }
}

#[pymethods]
impl ArrowArray {
    /// Exported as it is: `requested_schema` is a hint of the protocol, and the consumer casts.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let _ = requested_schema;
        export(py, &self.array, &Field::new("", self.array.data_type().clone(), true))
    }

    fn __len__(&self) -> usize {
        self.array.len()
    }

    fn __repr__(&self) -> String {
        format!("ArrowArray({}, {} rows)", self.array.data_type(), self.array.len())
    }
}

/// A record batch made here; `pyarrow.record_batch(it)` takes it over without a copy.
#[pyclass(frozen, module = "micromegas._engine")]
pub struct ArrowBatch {
    batch: RecordBatch,
}

impl ArrowBatch {
    pub fn new(batch: RecordBatch) -> Self {
        Self { batch }
    }
}

#[pymethods]
impl ArrowBatch {
    /// Exported as it is: `requested_schema` is a hint of the protocol, and the consumer casts.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let _ = requested_schema;
        let rows: ArrayRef = Arc::new(StructArray::from(self.batch.clone()));
        export(py, &rows, &Field::new("", rows.data_type().clone(), false))
    }

    #[getter]
    fn num_rows(&self) -> usize {
        self.batch.num_rows()
    }

    fn __len__(&self) -> usize {
        self.batch.num_rows()
    }

    fn __repr__(&self) -> String {
        format!(
            "ArrowBatch({} columns, {} rows)",
            self.batch.num_columns(),
            self.batch.num_rows()
        )
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<ArrowArray>()?;
    module.add_class::<ArrowBatch>()
}
