//! What `micromegas spool` does: shows the sessions of a spool, and sends those that were left.

use std::path::{Path, PathBuf};
use std::sync::{mpsc, Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::claim::Claim;
use super::folder;
use super::recovery;
use crate::recorder::credentials::Credentials;
use crate::recorder::encoding::{Encoding, Negotiation};
use crate::recorder::endpoint::Endpoint;
use crate::recorder::hotpath;
use crate::recorder::outbox::Outbox;
use crate::recorder::uploader::Uploader;

/// How long a wait may keep the interpreter from handling a signal.
const SLICE: Duration = Duration::from_millis(50);
const MEMORY_BYTES: usize = 64 << 20;

/// Process id, url, and whether the process is gone, of each session.
pub fn sessions(folder: &Path) -> PyResult<Vec<(String, String, bool)>> {
    let told = |error: std::io::Error| PyOSError::new_err(error.to_string());
    let mut found = Vec::new();
    for path in folder::sessions(folder).map_err(told)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let url = recovery::opening_of(&path).map_or_else(|error| format!("({error})"), |opening| opening.url);
        let is_left = matches!(Claim::take(&path), Ok(Some(_)));
        found.push((name, url, is_left));
    }
    Ok(found)
}

/// Sends the sessions that were left for `only_url`, or all, to that server; stops at the deadline.
pub fn upload<'py>(
    py: Python<'py>,
    folder: PathBuf,
    endpoint: &Endpoint,
    only_url: Option<String>,
    timeout: Duration,
) -> PyResult<Bound<'py, PyDict>> {
    let deadline = Instant::now() + timeout;
    let credentials = Arc::new(Credentials::new(endpoint.headers.clone(), false));
    let outbox = Arc::new(Outbox::new(MEMORY_BYTES, Arc::clone(&credentials), None));
    let uploader = Uploader {
        outbox: Arc::clone(&outbox),
        sends: true,
        server: Arc::clone(&endpoint.server),
        credentials,
        negotiation: Negotiation::new(Encoding::Auto),
    };
    let run = |name: &str, work: Box<dyn FnOnce() + Send>| {
        let work = move || {
            hotpath::block_signals();
            work();
        };
        thread::Builder::new().name(name.to_owned()).spawn(work)
    };
    run("mm-uploader", Box::new(move || uploader.run()))?;
    let (done, answer) = mpsc::channel();
    let answer = Mutex::new(answer); // so that it can be waited on without the GIL
    let outbox_of_recovery = Arc::clone(&outbox);
    let recover = move || {
        let result = recovery::recover_all(&folder, only_url.as_deref(), &outbox_of_recovery);
        let _nobody_waits = done.send(result);
    };
    let started = run("mm-recovery", Box::new(recover));
    let mut patience = Ok(());
    let mut recovered = None;
    while started.is_ok() && patience.is_ok() && recovered.is_none() && Instant::now() < deadline {
        recovered = py.detach(|| {
            let answer = answer.lock().unwrap_or_else(PoisonError::into_inner);
            answer.recv_timeout(SLICE).ok()
        });
        patience = py.check_signals();
    }
    outbox.stop(Instant::now());
    started?;
    patience?;
    let is_complete = recovered.is_some();
    let recovered = match recovered {
        Some(recovered) => recovered,
        None => py.detach(|| {
            let answer = answer.lock().unwrap_or_else(PoisonError::into_inner);
            answer.recv().unwrap_or_default()
        }),
    };
    let report = PyDict::new(py);
    report.set_item("processes", recovered.sessions)?;
    report.set_item("events", recovered.sent_events)?;
    report.set_item("refused_events", recovered.refused_events)?;
    report.set_item("damaged", recovered.damaged)?;
    report.set_item("complete", is_complete)?;
    report.set_item("last_error", recovered.last_error.or(outbox.delivery().last_error))?;
    Ok(report)
}
