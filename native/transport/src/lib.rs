//! `micromegas._transport`: gRPC over HTTP/2 for the servers, as bytes in and bytes out. Runs on the thread of whoever
//! drives it, which is that of Python's event loop: a call takes microseconds, and handing it to another thread would
//! cost as much again. It must never block, and calls Python when no lock is held only.

mod call;
mod connection;
mod frame;
mod held;
mod layout;
mod lent;
mod limits;
mod line;
mod python;
mod ready;
mod rows;
mod socket;
mod status;
mod tls;
mod transport;
mod waiting;

use pyo3::prelude::*;

#[pymodule]
mod _transport {
    #[pymodule_export]
    use crate::layout::{Body, Layout};
    #[pymodule_export]
    use crate::python::{PyCall, PyTransport};
}
