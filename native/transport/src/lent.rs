//! Python's buffers and Arrow's batches while they are on their way out.

use std::sync::{Arc, Mutex};

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::PyBufferError;
use pyo3::prelude::*;

use crate::held::held;
use crate::rows::Rows;

/// What is given back by being dropped.
enum Owner {
    Buffer { _buffer: PyUntypedBuffer },
    Batch { _rows: Arc<Rows> },
}

/// What HTTP/2 is done with. It lets go of it while it holds its locks, and giving it back may run anything, so it waits
/// here until nothing is held.
#[derive(Default)]
pub struct Returned(Mutex<Vec<Owner>>);

impl Returned {
    /// Gives it back; no lock of this crate or of HTTP/2 may be held.
    pub fn give_back(&self, _: Python<'_>) {
        let owners = std::mem::take(&mut *held(&self.0));
        drop(owners);
    }
}

/// The bytes of an object, which must not change meanwhile.
pub struct Lent {
    buffer: Option<PyUntypedBuffer>,
    returned: Arc<Returned>,
}

impl Lent {
    pub fn of(object: &Bound<'_, PyAny>, returned: &Arc<Returned>) -> PyResult<Lent> {
        let buffer = PyUntypedBuffer::get(object)?;
        if !buffer.is_c_contiguous() {
            return Err(PyBufferError::new_err("bytes that lie in one piece are needed"));
        }
        Ok(Lent {
            buffer: Some(buffer),
            returned: returned.clone(),
        })
    }

    pub fn len(&self) -> usize {
        self.as_ref().len()
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        match &self.buffer {
            // an empty one may lie nowhere
            Some(buffer) if buffer.len_bytes() > 0 => {
                // SAFETY: it is contiguous, stays where it is until it is released, and nobody changes it, as the stub
                // says
                unsafe { std::slice::from_raw_parts(buffer.buf_ptr().cast(), buffer.len_bytes()) }
            }
            _ => &[],
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let owner = self.buffer.take().map(|buffer| Owner::Buffer { _buffer: buffer });
        held(&self.returned.0).extend(owner);
    }
}

/// A batch of which pieces are on their way.
pub struct LentRows {
    rows: Option<Arc<Rows>>,
    returned: Arc<Returned>,
}

impl LentRows {
    pub fn of(rows: &Arc<Rows>, returned: &Arc<Returned>) -> Arc<LentRows> {
        Arc::new(LentRows {
            rows: Some(rows.clone()),
            returned: returned.clone(),
        })
    }
}

impl Drop for LentRows {
    fn drop(&mut self) {
        let owner = self.rows.take().map(|rows| Owner::Batch { _rows: rows });
        held(&self.returned.0).extend(owner);
    }
}

/// One buffer of it.
pub struct LentPiece {
    pub of: Arc<LentRows>,
    pub number: usize,
}

impl AsRef<[u8]> for LentPiece {
    fn as_ref(&self) -> &[u8] {
        self.of.rows.as_ref().map_or(&[], |rows| rows.buffer(self.number))
    }
}
