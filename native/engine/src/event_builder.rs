//! What all builders that make rows event by event have in common: their face to Python, and the way of one block
//! through them. A macro, because a trait cannot carry Python methods.

/// Gives a builder with the fields `layouts: LayoutCache` and `rows` its methods. The builder itself brings
/// `read(&mut self, &BlockSource, &mut Problems) -> Result<(), String>`, its rows bring `time: TimeColumn`,
/// `largest_column()`, `bytes()`, `fill(&BlockSource, rows added)` for what is the same in all rows of a block, and
/// `take(self) -> Result<RecordBatch, String>`.
macro_rules! event_builder {
    ($builder:ident) => {
        impl $builder {
            fn append_block(
                &mut self,
                source: &crate::block_source::BlockSource,
            ) -> std::result::Result<Vec<String>, String> {
                let mut problems = crate::block_reader::Problems::new(source);
                let rows_before = self.rows.time.rows();
                if let Err(error) = self.read(source, &mut problems) {
                    problems.add(error);
                }
                self.rows.fill(source, self.rows.time.rows() - rows_before)?;
                Ok(problems.into_texts())
            }
        }

        #[pyo3::pymethods]
        impl $builder {
            #[new]
            fn new() -> Self {
                Self::default()
            }

            fn append(
                &mut self,
                py: pyo3::Python<'_>,
                block: crate::block_source::BlockSource,
            ) -> pyo3::PyResult<Vec<String>> {
                crate::block_reader::check_room(self.rows.largest_column())?;
                py.detach(|| self.append_block(&block))
                    .map_err(crate::arrow_py::value_error)
            }

            #[getter]
            fn rows(&self) -> usize {
                self.rows.time.rows()
            }

            #[getter]
            fn estimated_bytes(&self) -> usize {
                self.rows.bytes()
            }

            #[getter]
            fn min_time(&self) -> Option<i64> {
                self.rows.time.bounds().map(|(min, _)| min)
            }

            #[getter]
            fn max_time(&self) -> Option<i64> {
                self.rows.time.bounds().map(|(_, max)| max)
            }

            fn take(&mut self, py: pyo3::Python<'_>) -> pyo3::PyResult<crate::arrow_py::ArrowBatch> {
                py.detach(|| std::mem::take(&mut self.rows).take())
                    .map(crate::arrow_py::ArrowBatch::new)
                    .map_err(crate::arrow_py::value_error)
            }
        }
    };
}

pub(crate) use event_builder;
