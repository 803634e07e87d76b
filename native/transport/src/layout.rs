//! Messages of the batches of one schema. Their metadata is that of one which Arrow wrote, with the numbers of another:
//! all have as many nodes and buffers, so nothing else differs.

use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::rows::{padding, Column, Rows};

const NUMBER: usize = size_of::<i64>();

#[pyclass(frozen)]
pub struct Layout {
    schema: Py<PyAny>,
    columns: Vec<Column>,
    metadata: Vec<u8>,
    /// Where the number of rows stands, the length of the body, the first node, the first buffer.
    places: [usize; 4],
}

#[pymethods]
impl Layout {
    #[new]
    fn new(schema: Py<PyAny>, columns: Vec<Option<usize>>, metadata: Vec<u8>, places: [usize; 4]) -> PyResult<Layout> {
        let columns: Vec<_> = columns
            .into_iter()
            .map(|bits| match bits {
                None => Ok(Column::Text),
                Some(0) => Ok(Column::Null),
                Some(bits) if bits == 1 || bits % 8 == 0 => Ok(Column::Fixed(bits)),
                Some(bits) => Err(PyValueError::new_err(format!("values of {bits} bits"))),
            })
            .collect::<PyResult<_>>()?;
        let buffers: usize = columns.iter().map(|column| column.buffers()).sum();
        let ends = [1, 1, 2 * columns.len(), 2 * buffers].map(|numbers| numbers * NUMBER);
        if places
            .iter()
            .zip(ends)
            .any(|(&place, length)| place.checked_add(length).is_none_or(|end| end > metadata.len()))
        {
            return Err(PyValueError::new_err("the metadata is of another schema"));
        }
        Ok(Layout {
            schema,
            columns,
            metadata,
            places,
        })
    }

    fn message<'py>(&self, py: Python<'py>, batch: &Bound<'py, PyAny>) -> PyResult<(Bound<'py, PyBytes>, Body)> {
        let is_of_schema = batch
            .getattr("schema")?
            .call_method1("equals", (&self.schema,))?
            .is_truthy()?;
        if !is_of_schema {
            return Err(PyValueError::new_err("a batch of another schema"));
        }
        let body = Body::new(Rows::of(batch, &self.columns)?);
        let mut metadata = self.metadata.clone();
        let mut put = |place: usize, numbers: &mut dyn Iterator<Item = usize>| {
            let (places, _) = metadata[place..].as_chunks_mut::<NUMBER>();
            for (place, number) in places.iter_mut().zip(numbers) {
                *place = (number as u64).to_le_bytes();
            }
        };
        let [rows_at, body_at, nodes_at, buffers_at] = self.places;
        put(rows_at, &mut [body.rows.count].into_iter());
        put(body_at, &mut [body.length].into_iter());
        put(
            nodes_at,
            &mut body.rows.nodes.iter().flat_map(|&(rows, nulls)| [rows, nulls]),
        );
        let mut begin = 0;
        put(
            buffers_at,
            &mut body.rows.buffers().flat_map(|buffer| {
                let numbers = [begin, buffer.len()];
                begin += buffer.len() + padding(buffer.len()).len();
                numbers
            }),
        );
        Ok((PyBytes::new(py, &metadata), body))
    }
}

/// What a message carries, in its own order: `Call.write` sends it from where it lies.
#[pyclass(frozen)]
pub struct Body {
    pub rows: Arc<Rows>,
    pub length: usize,
}

#[pymethods]
impl Body {
    fn __len__(&self) -> usize {
        self.length
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let mut bytes = Vec::with_capacity(self.length);
        for buffer in self.rows.buffers() {
            bytes.extend_from_slice(buffer);
            bytes.extend_from_slice(padding(buffer.len()));
        }
        PyBytes::new(py, &bytes)
    }
}

impl Body {
    fn new(rows: Rows) -> Body {
        let length = rows
            .buffers()
            .map(|buffer| buffer.len() + padding(buffer.len()).len())
            .sum();
        Body {
            rows: Arc::new(rows),
            length,
        }
    }
}
