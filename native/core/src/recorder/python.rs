//! Registers the recorder in `micromegas._core`: the hot types of `csrc/`, and the cold functions below.

use std::ffi::c_int;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyModule};

use super::encoding::Encoding;
use super::endpoint::{checked_header, Endpoint, Wishes};
use super::identity::clean;
use super::limits;
use super::log_stream::LogOutput;
use super::losses::{Losses, CLASSES, REASONS};
use super::scrubber::Scrubber;
use super::session::{self, Delivering, Session, Settings};
use super::span_sampling::SpanSampling;
use super::spool::{self, SpoolFacts};
use super::tls::Trust;
use super::{capture, captures::captures, hotpath, outbox::Delivery};
use crate::codec::ids::parse_uuid;

/// Adds the recorder to the native module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    // SAFETY: the module is a valid object and the GIL is held.
    if unsafe { hotpath::mm_module_add(module.as_ptr()) } != 0 {
        return Err(PyErr::fetch(module.py()));
    }
    capture::register(module)?;
    module.add_function(wrap_pyfunction!(recorder_start, module)?)?;
    module.add_function(wrap_pyfunction!(recorder_flush, module)?)?;
    module.add_function(wrap_pyfunction!(recorder_stop, module)?)?;
    module.add_function(wrap_pyfunction!(recorder_set_headers, module)?)?;
    module.add_function(wrap_pyfunction!(recorder_headers_refused, module)?)?;
    module.add_function(wrap_pyfunction!(recorder_after_fork, module)?)?;
    module.add("VERSION", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(begin_exit, module)?)?;
    module.add_function(wrap_pyfunction!(catch_fatal_signals, module)?)?;
    module.add_function(wrap_pyfunction!(leave_fatal_signals, module)?)?;
    module.add_function(wrap_pyfunction!(catch_termination, module)?)?;
    module.add_function(wrap_pyfunction!(die_by, module)?)?;
    module.add_function(wrap_pyfunction!(spool_sessions, module)?)?;
    module.add_function(wrap_pyfunction!(spool_upload, module)?)?;
    module.add_function(wrap_pyfunction!(recorder_status, module)?)
}

fn seconds(name: &str, value: f64) -> PyResult<Duration> {
    match Duration::try_from_secs_f64(value) {
        Ok(duration) if duration <= Duration::from_secs(86_400 * 365) => Ok(duration),
        _ => Err(PyValueError::new_err(format!(
            "{name} of {value} s: not between 0 and a year"
        ))),
    }
}

/// How to reach the server (`record/upload.py`).
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct UploadDecisions {
    url: String,
    api_key: Option<String>,
    headers: Vec<(String, String)>,
    credentials_renewed: bool,
    proxy: Option<String>,
    environment_proxy: Option<String>,
    no_proxy: String,
    ca_file: Option<String>,
    ssl_cert_file: Option<String>,
    ssl_cert_dir: Option<String>,
    client_certificate: Option<String>,
    client_key: Option<String>,
}

impl UploadDecisions {
    fn endpoint(self) -> PyResult<Arc<Endpoint>> {
        let wishes = Wishes {
            url: self.url,
            api_key: self.api_key,
            headers: self.headers,
            renewed: self.credentials_renewed,
            proxy: self.proxy,
            environment_proxy: self.environment_proxy,
            no_proxy: self.no_proxy,
            trust: Trust {
                ca_file: self.ca_file,
                system_file: self.ssl_cert_file,
                system_folders: self.ssl_cert_dir,
                client_certificate: self.client_certificate,
                client_key: self.client_key,
            },
        };
        Endpoint::new(wishes).map(Arc::new).map_err(PyValueError::new_err)
    }
}

/// What `init()` decided, as the mapping that it hands over. A new setting is a field here and an entry there.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Decisions<'py> {
    upload: UploadDecisions,
    /// exe, username, realname, computer, distro, cpu_brand
    facts: [String; 6],
    properties: Vec<(String, String)>,
    parent_process_id: Option<String>,
    flush_period: f64,
    buffer_bytes: u64,
    queue_bytes: usize,
    system_metrics: bool,
    console_level: u32,
    scrub: bool,
    scrub_patterns: Vec<String>,
    encoding: String,
    /// None: no spool.
    spool_folder: Option<PathBuf>,
    spool_bytes: u64,
    /// Whether only spans around slow frames are sent; else shares of call trees by name, none: all spans.
    span_sampling: (bool, Vec<(String, f64)>),
    monotonic_clock: bool,
    thread_namer: Bound<'py, PyAny>,
}

/// Starts recording and gives the process id.
#[pyfunction]
fn recorder_start(py: Python<'_>, decisions: Decisions<'_>) -> PyResult<String> {
    loop {
        if let Some(session) = session::current() {
            if session.stands_in() {
                session::end();
                session.stop(Instant::now());
                continue;
            }
            return Err(PyRuntimeError::new_err("recorder: already started"));
        }
        let Some(ending) = session::ending_collector() else {
            break;
        };
        py.detach(|| ending.wait_ended());
    }
    let [exe, username, realname, computer, distro, cpu_brand] = decisions.facts.map(|fact| clean(&fact));
    let settings = Settings {
        sends: !captures().any_open(),
        endpoint: decisions.upload.endpoint()?,
        flush_period: seconds("flush period", decisions.flush_period)?.max(Duration::from_millis(10)),
        buffer_bytes: decisions.buffer_bytes,
        queue_bytes: decisions.queue_bytes,
        system_metrics: decisions.system_metrics,
        log_output: LogOutput {
            console_level: decisions.console_level,
            scrubber: Arc::new(
                Scrubber::new(decisions.scrub, &decisions.scrub_patterns).map_err(PyValueError::new_err)?,
            ),
        },
        encoding: Encoding::parse(&decisions.encoding).ok_or_else(|| {
            PyValueError::new_err(format!(
                "encoding {:?}: neither auto nor transit nor columns",
                decisions.encoding
            ))
        })?,
        span_sampling: match decisions.span_sampling {
            (true, _) => SpanSampling::Spikes,
            (false, shares) if shares.is_empty() => SpanSampling::All,
            (false, shares) => SpanSampling::Shares(shares),
        },
        spool: SpoolFacts {
            folder: decisions.spool_folder.filter(|_| !captures().any_open()),
            bytes: decisions.spool_bytes,
        },
        exe,
        username,
        realname,
        computer,
        distro,
        cpu_brand,
        properties: decisions
            .properties
            .iter()
            .map(|(name, value)| (clean(name), clean(value)))
            .collect(),
        // An id that is none would have the server refuse the process.
        parent_id: decisions.parent_process_id.and_then(|id| parse_uuid(&id).ok()),
    };
    // SAFETY: the namer is a valid object and the GIL is held.
    if unsafe { hotpath::mm_buffers_init(decisions.thread_namer.as_ptr(), decisions.buffer_bytes) } != 0 {
        return Err(PyErr::fetch(py));
    }
    // SAFETY: no event is recorded while there is no session, so nobody reads the clock now.
    unsafe { hotpath::mm_clock_choose(c_int::from(decisions.monotonic_clock)) };
    register_at_exit()?;
    let session = session::start(settings).map_err(|error| PyOSError::new_err(format!("recorder: {error}")))?;
    hotpath::want_folder();
    Ok(session.process_id.to_string())
}

/// How long a wait may keep the interpreter from handling a signal.
const SLICE: Duration = Duration::from_millis(50);
const AT_EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Waits in slices, so that Ctrl-C and other signals are handled in between; a handler may raise, and may flush.
fn wait(py: Python<'_>, mut delivering: Delivering, deadline: Instant) -> PyResult<bool> {
    loop {
        let until = deadline.min(Instant::now() + SLICE);
        if let Some(answered) = py.detach(|| delivering.wait(until)) {
            return Ok(answered);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        py.check_signals()?;
    }
}

/// Waits at most `timeout` seconds until the server has what was recorded before. False: it has not.
#[pyfunction]
fn recorder_flush(py: Python<'_>, timeout: f64) -> PyResult<bool> {
    let deadline = Instant::now() + seconds("timeout", timeout)?;
    match session::current() {
        Some(session) => wait(py, session.flush(), deadline),
        None => Ok(true),
    }
}

/// Stops recording, waits at most `timeout` seconds until the server has what was recorded before.
#[pyfunction]
fn recorder_stop(py: Python<'_>, timeout: f64) -> PyResult<bool> {
    let deadline = Instant::now() + seconds("timeout", timeout)?;
    match session::end() {
        Some(session) => wait(py, session.stop(deadline), deadline),
        None => Ok(true),
    }
}

/// Headers that requests carry from now on, beside those of `init()`. Without a session nothing happens.
#[pyfunction]
fn recorder_set_headers(headers: Vec<(String, String)>) -> PyResult<()> {
    let headers = headers
        .into_iter()
        .map(|(name, value)| checked_header(&name, value).map_err(PyValueError::new_err))
        .collect::<PyResult<_>>()?;
    if let Some(session) = session::current() {
        session.renew_credentials(headers);
    }
    Ok(())
}

/// Whether the server did not let us in with the headers that were last set.
#[pyfunction]
fn recorder_headers_refused() -> bool {
    session::current().is_some_and(|session| session.are_credentials_refused())
}

/// In a forked child: a session of its own, if the parent had one. Gives its process id.
#[pyfunction]
fn recorder_after_fork() -> Option<String> {
    session::restart_in_child().map(|session| session.process_id.to_string())
}

/// When the time for the last acts began to run.
static EXIT_BEGUN: Mutex<Option<Instant>> = Mutex::new(None);

/// Has the time for the last acts begin to run; `at_exit` gets what is left of it.
#[pyfunction]
fn begin_exit() {
    EXIT_BEGUN
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get_or_insert_with(Instant::now);
}

/// The very last act of the interpreter, when no Python code can run any more: all that was ever recorded is sent.
extern "C" fn at_exit() {
    begin_exit();
    let begun = *EXIT_BEGUN.lock().unwrap_or_else(PoisonError::into_inner);
    let deadline = begun.unwrap_or_else(Instant::now) + AT_EXIT_TIMEOUT;
    if let Some(session) = session::end() {
        session.stop(deadline).wait(deadline);
    }
}

/// Has `at_exit` called, once.
fn register_at_exit() -> PyResult<()> {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    // SAFETY: the GIL is held; the function needs no interpreter.
    if !REGISTERED.swap(true, Ordering::Relaxed) && unsafe { pyo3::ffi::Py_AtExit(Some(at_exit)) } != 0 {
        REGISTERED.store(false, Ordering::Relaxed);
        return Err(PyRuntimeError::new_err(
            "recorder: no exit function left in this process (Py_AtExit)",
        ));
    }
    Ok(())
}

/// From now on a crash is reported: SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT.
#[pyfunction]
fn catch_fatal_signals() {
    hotpath::catch_fatal_signals();
}

/// Gives these signals back, where nobody has taken them after us.
#[pyfunction]
fn leave_fatal_signals() {
    hotpath::leave_fatal_signals();
}

/// Has the rest sent before this signal ends the process; tells whether that could be arranged.
#[pyfunction]
fn catch_termination(signal: c_int, replace_handler: bool) -> bool {
    hotpath::catch_termination(signal, replace_handler)
}

/// Has the rest sent, then ends the process by this signal.
#[pyfunction]
fn die_by(signal: c_int) {
    hotpath::die_by(signal);
}

/// Process id, url, and whether the process is gone, of each session in a spool.
#[pyfunction]
fn spool_sessions(folder: PathBuf) -> PyResult<Vec<(String, String, bool)>> {
    spool::python::sessions(&folder)
}

/// Sends what processes left that died, those that meant `only_url` or all; tells what came of it.
#[pyfunction]
fn spool_upload<'py>(
    py: Python<'py>,
    folder: PathBuf,
    upload: UploadDecisions,
    only_url: Option<String>,
    timeout: f64,
) -> PyResult<Bound<'py, PyDict>> {
    let timeout = seconds("timeout", timeout)?;
    spool::python::upload(py, folder, &*upload.endpoint()?, only_url, timeout)
}

/// What became of the events of this session; None without a session.
#[pyfunction]
fn recorder_status(py: Python<'_>) -> PyResult<Option<Bound<'_, PyDict>>> {
    session::current().map(|session| status_of(py, &session)).transpose()
}

/// Events by reason, then by class: all of them, whether or not there were any.
fn losses_of<'py>(py: Python<'py>, losses: &Losses) -> PyResult<Bound<'py, PyDict>> {
    let by_reason = PyDict::new(py);
    for (reason, name) in REASONS {
        let by_class = PyDict::new(py);
        for (class, events) in CLASSES.iter().zip(losses.of(reason)) {
            by_class.set_item(class, events)?;
        }
        by_reason.set_item(name, by_class)?;
    }
    Ok(by_reason)
}

fn status_of<'py>(py: Python<'py>, session: &Session) -> PyResult<Bound<'py, PyDict>> {
    let Delivery {
        sent_requests,
        sent_events,
        sent_bytes,
        losses,
        last_error,
        server_formats,
    } = session.delivery();
    let status = PyDict::new(py);
    status.set_item("process_id", &*session.process_id)?;
    status.set_item("sent_requests", sent_requests)?;
    status.set_item("sent_events", sent_events)?;
    status.set_item("sent_bytes", sent_bytes)?;
    status.set_item("waiting_bytes", session.waiting_bytes())?;
    status.set_item("lost_events", losses.events())?;
    status.set_item("losses", losses_of(py, &losses)?)?;
    status.set_item("refused_values", losses.refused_values)?;
    status.set_item("limits_reached", limits::reached())?;
    let mended = PyDict::new(py);
    for (mend, spans) in session.mended().counts() {
        mended.set_item(mend, spans)?;
    }
    status.set_item("mended_spans", mended)?;
    let (folder, bytes, trouble) = session.spool().report();
    status.set_item("spool", folder)?;
    status.set_item("spool_bytes", bytes)?;
    status.set_item("spool_error", trouble)?;
    status.set_item("private_buffers", hotpath::blocks_outside_file())?;
    let recovered = session.spool().recovered();
    status.set_item("recovered_processes", recovered.sessions)?;
    status.set_item("recovered_events", recovered.sent_events)?;
    status.set_item("last_error", last_error)?;
    status.set_item("server_formats", server_formats)?;
    Ok(status)
}
