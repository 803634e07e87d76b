//! Python's buffers while they are on their way out.

use std::sync::{Arc, Mutex};

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::PyBufferError;
use pyo3::prelude::*;

use crate::held::held;

/// Buffers that HTTP/2 is done with. It lets them go while it holds its locks, and giving one back may run anything, so
/// they wait here until nothing is held.
#[derive(Default)]
pub struct Returned(Mutex<Vec<PyUntypedBuffer>>);

impl Returned {
    /// Gives them back; no lock of this crate or of HTTP/2 may be held.
    pub fn give_back(&self, _: Python<'_>) {
        let buffers = std::mem::take(&mut *held(&self.0));
        drop(buffers);
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
        held(&self.returned.0).extend(self.buffer.take());
    }
}
