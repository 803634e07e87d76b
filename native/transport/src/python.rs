//! The transport and its calls as Python has them. All are used by one thread.

use std::net::TcpStream;
use std::os::fd::FromRawFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};

use crate::call::{Call, News};
use crate::connection::Keepalive;
use crate::frame::Composer;
use crate::held::held;
use crate::layout::Body;
use crate::lent::{Lent, LentPiece, LentRows, Returned};
use crate::limits::Limits;
use crate::rows::padding;
use crate::status::Status;
use crate::tls;
use crate::transport::Transport;

/// Parts of messages shorter than this are copied, which is cheaper than to keep Python's object.
const COPIED: usize = 4096;

/// Calls that begin, numbers of calls that moved, and whether something is left to do.
type Driven<'py> = (Vec<Bound<'py, PyCall>>, Vec<u64>, bool);

#[pyclass(name = "Call", frozen)]
pub struct PyCall {
    call: Arc<Call>,
    returned: Arc<Returned>,
}

#[pymethods]
impl PyCall {
    #[getter]
    fn number(&self) -> u64 {
        self.call.number
    }

    #[getter]
    fn path(&self) -> &str {
        self.call.head.uri.path()
    }

    #[getter]
    fn peer(&self) -> String {
        self.call.peer.to_string()
    }

    #[getter]
    fn is_gone(&self) -> bool {
        self.call.is_gone()
    }

    #[getter]
    fn is_over(&self) -> bool {
        self.call.is_over()
    }

    #[getter]
    fn has_room(&self) -> bool {
        self.call.has_room()
    }

    #[getter]
    fn has_all(&self) -> bool {
        self.call.has_all()
    }

    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let headers = self.call.head.headers.iter().map(|(name, value)| {
            let value = match value.to_str() {
                Ok(text) => PyString::new(py, text).into_any(),
                Err(_) => PyBytes::new(py, value.as_bytes()).into_any(),
            };
            (name.as_str(), value)
        });
        PyList::new(py, headers.collect::<Vec<_>>())
    }

    fn take<'py>(&self, py: Python<'py>) -> Option<(bool, Bound<'py, PyBytes>)> {
        let message = self.call.take()?;
        Some((message.is_compressed, PyBytes::new(py, &message.body)))
    }

    fn start(&self, headers: Vec<(String, String)>) -> PyResult<()> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::try_from(name).map_err(|error| PyValueError::new_err(error.to_string()))?;
            let value = HeaderValue::try_from(value).map_err(|error| PyValueError::new_err(error.to_string()))?;
            map.append(name, value);
        }
        self.call.start(map);
        Ok(())
    }

    #[pyo3(signature = (*parts))]
    fn write(&self, py: Python<'_>, parts: &Bound<'_, PyTuple>) -> PyResult<usize> {
        let parts = parts
            .iter()
            .map(|part| Part::of(&part, &self.returned))
            .collect::<PyResult<Vec<_>>>()?;
        let length = parts.iter().map(Part::len).sum();
        let short = parts.iter().map(Part::short).sum();
        let mut composer =
            Composer::new(length, short).ok_or_else(|| PyValueError::new_err("a message of 4 GiB or more"))?;
        for part in parts {
            part.put(&mut composer);
        }
        self.call.write(composer.finish());
        self.returned.give_back(py);
        Ok(length)
    }

    fn finish(&self, py: Python<'_>, code: u16, text: String) -> bool {
        let is_over = self.call.finish(Status::new(code, text));
        self.returned.give_back(py);
        is_over
    }

    fn reset(&self, py: Python<'_>) {
        self.call.reset();
        self.returned.give_back(py);
    }
}

/// Of a message.
enum Part<'py> {
    Buffer(Lent),
    Body(PyRef<'py, Body>, Arc<LentRows>),
}

impl<'py> Part<'py> {
    fn of(object: &Bound<'py, PyAny>, returned: &Arc<Returned>) -> PyResult<Part<'py>> {
        match object.cast::<Body>() {
            Ok(body) => {
                let body = body.borrow();
                let lent = LentRows::of(&body.rows, returned);
                Ok(Part::Body(body, lent))
            }
            Err(_) => Lent::of(object, returned).map(Part::Buffer),
        }
    }

    fn len(&self) -> usize {
        match self {
            Part::Buffer(lent) => lent.len(),
            Part::Body(body, _) => body.length,
        }
    }

    /// About how much of it is copied.
    fn short(&self) -> usize {
        match self {
            Part::Buffer(lent) => short(lent.len()),
            Part::Body(body, _) => body.rows.buffers().map(|buffer| short(buffer.len())).sum(),
        }
    }

    fn put(self, composer: &mut Composer) {
        match self {
            Part::Buffer(lent) if lent.len() < COPIED => composer.copy(lent.as_ref()),
            Part::Buffer(lent) => composer.keep(Bytes::from_owner(lent)),
            Part::Body(body, lent) => {
                for (number, buffer) in body.rows.buffers().enumerate() {
                    if buffer.len() < COPIED {
                        composer.copy(buffer);
                    } else {
                        let of = lent.clone();
                        composer.keep(Bytes::from_owner(LentPiece { of, number }));
                    }
                    composer.copy(padding(buffer.len()));
                }
            }
        }
    }
}

fn short(length: usize) -> usize {
    if length < COPIED {
        length
    } else {
        0
    }
}

#[pyclass(name = "Transport", frozen)]
pub struct PyTransport {
    transport: Mutex<Transport>,
    returned: Arc<Returned>,
}

#[pymethods]
impl PyTransport {
    #[new]
    #[pyo3(signature = (*, unary_paths, max_message_bytes, max_calls, patience_s, keepalive_s, keepalive_patience_s))]
    fn new(
        unary_paths: Vec<String>,
        max_message_bytes: usize,
        max_calls: usize,
        patience_s: f64,
        keepalive_s: f64,
        keepalive_patience_s: f64,
    ) -> PyResult<PyTransport> {
        let unary_paths = unary_paths.into_iter().collect();
        let limits = Limits::new(max_message_bytes, max_calls, unary_paths, seconds(patience_s)?);
        let keepalive = Keepalive {
            after: seconds(keepalive_s)?,
            patience: seconds(keepalive_patience_s)?,
        };
        Ok(PyTransport {
            transport: Mutex::new(Transport::new(limits, keepalive)?),
            returned: Arc::default(),
        })
    }

    fn fileno(&self) -> i32 {
        held(&self.transport).fd()
    }

    fn secure(&self, chain: &[u8], key: &[u8]) -> PyResult<()> {
        let acceptor = tls::acceptor(chain, key).map_err(PyValueError::new_err)?;
        held(&self.transport).secure(acceptor);
        Ok(())
    }

    fn add(&self, fd: i32) {
        // SAFETY: the caller gives the socket away, as the stub says
        let stream = unsafe { TcpStream::from_raw_fd(fd) };
        held(&self.transport).add(stream);
    }

    #[getter]
    fn connections(&self) -> usize {
        held(&self.transport).connections()
    }

    fn drive<'py>(&self, py: Python<'py>, asks: bool) -> PyResult<Driven<'py>> {
        let mut news = Vec::new();
        let is_left = held(&self.transport).drive(asks, &mut news)?;
        self.told(py, news, is_left)
    }

    fn look<'py>(&self, py: Python<'py>) -> PyResult<Driven<'py>> {
        let mut news = Vec::new();
        held(&self.transport).look(&mut news);
        self.told(py, news, true)
    }

    fn stop(&self) {
        held(&self.transport).stop();
    }

    #[getter]
    fn is_idle(&self) -> bool {
        held(&self.transport).is_idle()
    }

    fn close<'py>(&self, py: Python<'py>) -> PyResult<Driven<'py>> {
        let mut news = Vec::new();
        held(&self.transport).close(&mut news);
        self.told(py, news, false)
    }
}

impl PyTransport {
    fn told<'py>(&self, py: Python<'py>, news: Vec<(Arc<Call>, News)>, is_left: bool) -> PyResult<Driven<'py>> {
        self.returned.give_back(py);
        let (mut begun, mut moved) = (Vec::new(), Vec::new());
        for (call, of_call) in news {
            let returned = self.returned.clone();
            match of_call {
                News::Begun => begun.push(Bound::new(py, PyCall { call, returned })?),
                News::Moved => moved.push(call.number),
            }
        }
        Ok((begun, moved, is_left))
    }
}

fn seconds(value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value).map_err(|error| PyValueError::new_err(error.to_string()))
}
