//! What the builders have in common whose spans go on from one part of the blocks to the next: their face to Python. A
//! macro, because a trait cannot carry Python methods.

/// Gives a builder with the field `rows` its methods. Its rows bring `dictionaries()`, `rows()`, `bytes()` and the time
/// columns `$begin` and `$end`, the builder itself `empty() -> Self`, `resume(&[u8]) -> Result<Self, String>`,
/// `append_block(&mut self, &BlockSource) -> Vec<String>`, `carried_bytes()` for what is not in rows yet,
/// `take_rows(&mut self) -> Result<RecordBatch, String>`, `state() -> Vec<u8>`, and the Python methods `$more` that it alone
/// has.
macro_rules! stateful_builder {
    ($builder:ident, $begin:ident, $end:ident, { $($more:tt)* }) => {
        #[pyo3::pymethods]
        impl $builder {
            #[new]
            #[pyo3(signature = (state = None))]
            fn new(py: pyo3::Python<'_>, state: Option<&[u8]>) -> pyo3::PyResult<Self> {
                match state {
                    Some(state) => py.detach(|| Self::resume(state)).map_err(crate::arrow_py::value_error),
                    None => Ok(Self::empty()),
                }
            }

            fn append(
                &mut self,
                py: pyo3::Python<'_>,
                block: crate::block_source::BlockSource,
            ) -> pyo3::PyResult<Vec<String>> {
                let largest = crate::columns::DictionaryColumn::largest(self.rows.dictionaries());
                crate::block_reader::check_room(largest)?;
                Ok(py.detach(|| self.append_block(&block)))
            }

            #[getter]
            fn rows(&self) -> usize {
                self.rows.rows()
            }

            #[getter]
            fn estimated_bytes(&self) -> usize {
                self.rows.bytes() + self.carried_bytes()
            }

            #[getter]
            fn min_time(&self) -> Option<i64> {
                self.rows.$begin.bounds().map(|(min, _)| min)
            }

            #[getter]
            fn max_time(&self) -> Option<i64> {
                self.rows.$end.bounds().map(|(_, max)| max)
            }

            fn take(&mut self, py: pyo3::Python<'_>) -> pyo3::PyResult<crate::arrow_py::ArrowBatch> {
                py.detach(|| self.take_rows())
                    .map(crate::arrow_py::ArrowBatch::new)
                    .map_err(crate::arrow_py::value_error)
            }

            #[pyo3(name = "state")]
            fn py_state<'py>(&self, py: pyo3::Python<'py>) -> pyo3::Bound<'py, pyo3::types::PyBytes> {
                pyo3::types::PyBytes::new(py, &py.detach(|| self.state()))
            }

            $($more)*
        }
    };
}

pub(crate) use stateful_builder;
