//! One recording session: a process id, the collector, the uploader. A forked child gets a session of its own.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::announcement::{process_body, Process};
use super::blocks::Office;
use super::captures;
use super::clock::Clock;
use super::collector::{Collector, Control, Habits};
use super::credentials::Credentials;
use super::encoding::{Encoding, Negotiation};
use super::endpoint::Endpoint;
use super::hotpath;
use super::http::Header;
use super::identity::{boot_id, new_id};
use super::last_words;
use super::log_stream::LogOutput;
use super::losses::Losses;
use super::mends::AllMended;
use super::outbox::{Delivery, Outbox};
use super::span_sampling::SpanSampling;
use super::spool::journal::{CounterStart, Opening};
use super::spool::recovery;
use super::spool::{SessionSpool, SpoolFacts, RECORD_LAYOUT};
use super::uploader::Uploader;

/// What `init()` decided, kept for forked children.
#[derive(Clone)]
pub struct Settings {
    /// False: what is recorded goes to captures only.
    pub sends: bool,
    pub endpoint: Arc<Endpoint>,
    pub flush_period: Duration,
    pub buffer_bytes: u64,
    pub queue_bytes: usize,
    /// Whether the machine, the process and the recorder are measured.
    pub system_metrics: bool,
    pub log_output: LogOutput,
    pub encoding: Encoding,
    pub spool: SpoolFacts,
    pub span_sampling: SpanSampling,
    pub exe: String,
    pub username: String,
    pub realname: String,
    pub computer: String,
    pub distro: String,
    pub cpu_brand: String,
    pub properties: Vec<(String, String)>,
    pub parent_id: Option<String>,
}

pub struct Session {
    pub process_id: Arc<str>,
    settings: Settings,
    control: Arc<Control>,
    outbox: Arc<Outbox>,
    credentials: Arc<Credentials>,
    spool: Arc<SessionSpool>,
    losses_before: Losses,
    mended: Arc<AllMended>,
    stands_in: AtomicBool,
}

/// Locked only by threads that hold the GIL, and never while they give it up: free in a forked child.
static CURRENT: Mutex<Option<Arc<Session>>> = Mutex::new(None);
/// Whether an earlier session has sent what counters had come to.
static CONTINUED: AtomicBool = AtomicBool::new(false);

/// The collector last started and the number of the process it runs in. Locked as `CURRENT` is.
static LAST_COLLECTOR: Mutex<Option<(u32, Arc<Control>)>> = Mutex::new(None);

/// The collector of a session that was told to stop and still reads the buffers, which have one reader at a time.
pub fn ending_collector() -> Option<Arc<Control>> {
    let last = LAST_COLLECTOR.lock().unwrap_or_else(PoisonError::into_inner);
    let (process, control) = last.as_ref()?;
    // A parent's collector does not run here, and its lock may be held for ever.
    (*process == std::process::id() && !control.has_ended()).then(|| Arc::clone(control))
}

pub fn current() -> Option<Arc<Session>> {
    CURRENT.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn replace(session: Option<Arc<Session>>) -> Option<Arc<Session>> {
    std::mem::replace(&mut CURRENT.lock().unwrap_or_else(PoisonError::into_inner), session)
}

/// Begins to record. The caller holds the GIL and has seen that there is no session, and none that is ending.
pub fn start(settings: Settings) -> io::Result<Arc<Session>> {
    begin(settings, false)
}

fn begin(settings: Settings, is_forked: bool) -> io::Result<Arc<Session>> {
    let session = Arc::new(Session::start(settings, is_forked)?);
    if !is_forked {
        session.recover_others();
    }
    restart_span_ids(&session.process_id);
    replace(Some(Arc::clone(&session)));
    // SAFETY: the GIL is held, which serialises the producers' side.
    unsafe { hotpath::mm_set_recording(hotpath::RECORDING_ON) };
    Ok(session)
}

/// Span ids begin at a number of the process's own below 2^52, so that a parent can be a span of another process; its
/// trace is the process id. Needs the GIL.
fn restart_span_ids(process_id: &str) {
    let trace: String = process_id.chars().filter(|&digit| digit != '-').collect();
    let first = trace.get(20..).and_then(|digits| u64::from_str_radix(digits, 16).ok());
    // SAFETY: the GIL is held, and the text has the 32 digits of a uuid, which are copied.
    unsafe { hotpath::mm_async_ids_restart((first.unwrap_or(0) << 4) + 1, trace.as_ptr().cast()) };
}

/// Ends recording: no event from now on. The session given must still be told to `stop`.
pub fn end() -> Option<Arc<Session>> {
    // SAFETY: the GIL is held, which serialises the producers' side.
    unsafe { hotpath::mm_set_recording(hotpath::RECORDING_OFF) };
    replace(None)
}

/// In a forked child: a session with the parent's settings, and the parent as its parent. Needs the GIL.
pub fn restart_in_child() -> Option<Arc<Session>> {
    let inherited = replace(None)?;
    let settings = Settings {
        parent_id: Some(inherited.process_id.to_string()),
        ..inherited.settings.clone()
    };
    // Its threads do not exist here and its locks may be held for ever: never touched again, never dropped.
    std::mem::forget(inherited);
    captures::leave_to_parent();
    match begin(settings, true) {
        Ok(session) => Some(session),
        Err(_) => {
            end();
            None
        }
    }
}

/// The hot path's call before the session's first buffer is made.
#[no_mangle]
extern "C" fn mm_spool_make_folder() {
    if let Some(session) = current() {
        session.spool.open();
    }
}

/// The hot path's call when the first event of a forked child comes before `restart_in_child`'s other callers.
#[no_mangle]
extern "C" fn mm_recorder_restart() -> std::ffi::c_int {
    std::ffi::c_int::from(restart_in_child().is_some())
}

impl Session {
    fn start(settings: Settings, is_forked: bool) -> io::Result<Self> {
        let clock = Clock::start();
        let endpoint = Arc::clone(&settings.endpoint);
        // A forked child gets its own: its parent's are behind a lock that may be held for ever.
        let credentials = Arc::new(Credentials::new(endpoint.headers.clone(), endpoint.renewed));
        let process = Arc::new(Process {
            id: new_id().into(),
            parent_id: settings.parent_id.clone(),
            exe: settings.exe.clone(),
            username: settings.username.clone(),
            realname: settings.realname.clone(),
            computer: settings.computer.clone(),
            distro: settings.distro.clone(),
            cpu_brand: settings.cpu_brand.clone(),
            properties: settings.properties.clone(),
        });
        let announcement = process_body(&process, clock.wall_ns(clock.start_ns()), clock.start_ns());
        let mut sums = HashMap::new();
        if CONTINUED.swap(true, Ordering::Relaxed) || !settings.sends {
            // In a forked child, or after a stop: what was added before belongs to another session. A capture has what
            // was added while it was open, also when it is the first to look.
            sums.extend(
                hotpath::counter_totals()
                    .iter()
                    .map(|total| (total.address(), (total.integers, total.floats))),
            );
        }
        let (scrubs, scrub_patterns) = settings.log_output.scrubber.decision();
        let opening = Opening {
            layout: RECORD_LAYOUT,
            process_id: process.id.to_string(),
            url: settings.endpoint.server.url.text(),
            pages: String::new(),
            boot_id: boot_id(),
            announcement: announcement.clone(),
            uses_counter: clock.uses_counter(),
            start_ticks: clock.anchor().0,
            start_ns: clock.start_ns(),
            start_wall_ns: clock.wall_ns(clock.start_ns()),
            dropped: hotpath::all_dropped_events(),
            scrubs,
            scrub_patterns,
        };
        let counters = sums.iter().map(|(&descriptor, &(integers, floats))| CounterStart {
            descriptor,
            integers,
            floats,
        });
        let spool = SessionSpool::new(settings.spool.clone(), opening, counters.collect());
        hotpath::begin_buffers(settings.spool.folder.is_some());
        let outbox = Arc::new(Outbox::new(
            settings.queue_bytes,
            Arc::clone(&credentials),
            Some(Arc::clone(&spool)),
        ));
        let office = Office::new(Arc::clone(&process), Arc::clone(&outbox), captures::captures(), &clock);
        let session = Self {
            process_id: Arc::clone(&process.id),
            control: Arc::default(),
            outbox: Arc::clone(&outbox),
            credentials: Arc::clone(&credentials),
            spool: Arc::clone(&spool),
            losses_before: Losses::of_hot_path(),
            mended: Arc::clone(&office.mended),
            stands_in: AtomicBool::new(false),
            settings,
        };
        // A stand-in for a server has only what the program under test records.
        let system_metrics = session.settings.system_metrics && session.settings.sends;
        let mut collector = Collector::new(
            office,
            clock,
            spool,
            sums,
            &Habits {
                flush_period: session.settings.flush_period,
                buffer_bytes: session.settings.buffer_bytes,
                system_metrics,
                span_sampling: &session.settings.span_sampling,
                log_output: &session.settings.log_output,
            },
        );
        if is_forked {
            collector.announce_later(announcement);
        } else {
            outbox.announce_process(&process.id, announcement);
        }
        let uploader = Uploader {
            sends: session.settings.sends,
            outbox,
            server: Arc::clone(&endpoint.server),
            credentials,
            negotiation: Negotiation::new(session.settings.encoding),
        };
        thread::Builder::new().name("mm-uploader".to_owned()).spawn(move || {
            hotpath::block_signals();
            uploader.run();
        })?;
        let control = Arc::clone(&session.control);
        last_words::listen(); // before the thread that hears, so that no signal finds neither
        let started = thread::Builder::new().name("mm-collector".to_owned()).spawn(move || {
            hotpath::block_signals();
            collector.run(&control);
        });
        if let Err(error) = started {
            last_words::deaf();
            session.outbox.stop(Instant::now()); // or the uploader would wait for ever
            return Err(error);
        }
        let last = Some((std::process::id(), Arc::clone(&session.control)));
        let before = std::mem::replace(
            &mut *LAST_COLLECTOR.lock().unwrap_or_else(PoisonError::into_inner),
            last,
        );
        // A parent's is never dropped, as its session is not.
        std::mem::forget(before.filter(|(process, _)| *process != std::process::id()));
        Ok(session)
    }

    /// Waits until what is recorded now is in blocks; tells whether that came to pass. Without the GIL.
    pub fn collect(&self, deadline: Instant) -> bool {
        let flush = self.control.order_flush();
        self.control.wait_flushed(flush, deadline) == Some(true)
    }

    /// Headers that requests carry from now on, beside those of `init()`.
    pub fn renew_credentials(&self, headers: Vec<Header>) {
        self.credentials.renew(headers);
        self.outbox.pass_came();
    }

    /// Whether the server did not let us in with the last ones.
    pub fn are_credentials_refused(&self) -> bool {
        self.credentials.refused()
    }

    pub fn sends(&self) -> bool {
        self.settings.sends
    }

    /// From now on this session may be replaced by one that the program asks for.
    pub fn stand_in(&self) {
        self.stands_in.store(true, Ordering::Relaxed);
    }

    pub fn stands_in(&self) -> bool {
        self.stands_in.load(Ordering::Relaxed)
    }

    /// Has what is recorded now sent.
    pub fn flush(self: Arc<Self>) -> Delivering {
        let flush = self.control.order_flush();
        Delivering {
            session: self,
            flush,
            horizon: None,
            end: None,
        }
    }

    /// The same as the last act of this session, which is over at the deadline at the latest, and earlier when no server
    /// answers.
    pub fn stop(self: Arc<Self>, deadline: Instant) -> Delivering {
        let flush = self.control.order_stop();
        Delivering {
            session: self,
            flush,
            horizon: None,
            end: Some(deadline),
        }
    }

    pub fn delivery(&self) -> Delivery {
        let mut delivery = self.outbox.delivery();
        delivery.losses = delivery.losses.plus(&Losses::of_hot_path().since(&self.losses_before));
        delivery
    }

    /// How often spans of threads had to be balanced.
    pub fn mended(&self) -> &AllMended {
        &self.mended
    }

    pub fn spool(&self) -> &SessionSpool {
        &self.spool
    }

    /// Sends what dead processes left in the spool, once the server has taken something of ours.
    fn recover_others(&self) {
        let Some(folder) = self.settings.spool.folder.clone() else {
            return;
        };
        let (url, outbox, spool) = (
            self.settings.endpoint.server.url.text(),
            Arc::clone(&self.outbox),
            Arc::clone(&self.spool),
        );
        let recover = move || {
            hotpath::block_signals();
            spool.tell_tidied(recovery::tidy(&folder, spool.facts.bytes));
            if outbox.wait_sent() {
                spool.tell_recovered(recovery::recover_all(&folder, Some(&url), &outbox));
            }
        };
        // If there is no thread to be had, the next start does it.
        let _started = thread::Builder::new().name("mm-recovery".to_owned()).spawn(recover);
    }

    /// Bytes of compressed blocks that wait to be sent.
    pub fn waiting_bytes(&self) -> usize {
        self.outbox.waiting_bytes()
    }
}

/// What was recorded before some moment, on its way to the server.
pub struct Delivering {
    session: Arc<Session>,
    /// The collector's flush that puts it into the outbox.
    flush: u64,
    /// Where it ends in the outbox, once it is there.
    horizon: Option<u64>,
    /// When the session is over, if this is its end.
    end: Option<Instant>,
}

impl Delivering {
    /// Waits at most until then, without the GIL. None: it has not been answered for. True: it has arrived (a flush:
    /// or was refused, or lost before it).
    pub fn wait(&mut self, until: Instant) -> Option<bool> {
        if self.horizon.is_none() && !self.session.control.wait_flushed(self.flush, until)? {
            self.end_outbox();
            return Some(false);
        }
        let horizon = match self.horizon {
            Some(horizon) => horizon,
            None => {
                self.end_outbox();
                *self.horizon.insert(self.session.outbox.horizon())
            }
        };
        let settled = self.session.outbox.wait_settled(horizon, until)?;
        // The process may end now: whoever finds its folder then would send all of it again.
        if self.end.is_some() && !self.session.spool.wait_closed(until) {
            return None;
        }
        Some(settled && (self.end.is_none() || self.session.delivery().losses.events() == 0))
    }

    fn end_outbox(&mut self) {
        if let Some(deadline) = self.end {
            self.session.outbox.stop(deadline);
        }
    }
}

impl Drop for Delivering {
    /// Nobody waits any more; what was begun goes on.
    fn drop(&mut self) {
        if self.horizon.is_none() {
            self.end_outbox();
        }
    }
}
