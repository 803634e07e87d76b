//! The thread behind the recorder: reads what the program's threads have committed, makes streams and blocks of it.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::blocks::Office;
use super::clock::Clock;
use super::cpu_stream::ThreadFacts;
use super::descriptor::Descriptor;
use super::descriptors::{log_descriptor, metric_descriptor};
use super::hotpath::{self, ProgramThread};
use super::last_words::{self, LastWords};
use super::limits;
use super::log_stream::LogOutput;
use super::losses::Losses;
use super::metric_stream::Measure;
use super::outbox::{Block, Outbox};
use super::sink_measures::SinkMeasures;
use super::span_sampling::SpanSampling;
use super::spool::segments::{CounterMark, Kept, Marks};
use super::spool::SessionSpool;
use super::streams::Streams;
use super::system_monitor::SystemMonitor;

/// How long an idle collector sleeps; a busy one looks again at once, so that buffers come free.
const POLL: Duration = Duration::from_millis(50);
const BUSY_POLL: Duration = Duration::from_millis(1);
const BUSY_BYTES: usize = 128 << 10;
/// Everything is cut when so much was read since the last time, or a quarter of what the buffers may hold: what is read
/// stays there until it is cut.
const CUT_BYTES: usize = 4 << 20;
/// A thread that ended holds a small buffer at least.
const ENDED_THREAD_BYTES: usize = 16 << 10;
/// More than the ticks of cores, or our conversion of them, can disagree by.
const CLOCK_SLACK_NS: u64 = 1_000_000;

const WARN: u32 = 3;
const OWN_PLACE: (&str, &str, u32) = ("micromegas.recorder", "", 0);

/// What the program asks of the collector.
#[derive(Default)]
struct Orders {
    flushes_wanted: u64,
    flushes_done: u64,
    stop: bool,
    stopped: bool,
}

#[derive(Default)]
pub struct Control {
    orders: Mutex<Orders>,
    changed: Condvar,
}

impl Control {
    /// Has all that is recorded now put into the outbox; gives the number of this flush.
    pub fn order_flush(&self) -> u64 {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.flushes_wanted += 1;
        self.changed.notify_all();
        orders.flushes_wanted
    }

    /// The same, and the collector's end.
    pub fn order_stop(&self) -> u64 {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.order_flush()
    }

    /// Waits for a flush, at most until then. None: it is not done yet. False: it won't be.
    pub fn wait_flushed(&self, flush: u64, until: Instant) -> Option<bool> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if orders.flushes_done >= flush {
                return Some(true);
            }
            if orders.stopped {
                return Some(false);
            }
            let patience = until.saturating_duration_since(Instant::now());
            if patience.is_zero() {
                return None;
            }
            orders = self
                .changed
                .wait_timeout(orders, patience)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Sleeps; gives the number of flushes wanted so far and whether to stop.
    fn wait(&self, patience: Duration, done: u64) -> (u64, bool) {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let (orders, _) = self
            .changed
            .wait_timeout_while(orders, patience, |orders| orders.flushes_wanted == done && !orders.stop)
            .unwrap_or_else(PoisonError::into_inner);
        (orders.flushes_wanted, orders.stop)
    }

    fn done(&self, flushes: u64) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).flushes_done = flushes;
        self.changed.notify_all();
    }

    fn ended(&self) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).stopped = true;
        self.changed.notify_all();
    }

    /// Whether the collector will touch the buffers of the threads no more.
    pub fn has_ended(&self) -> bool {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).stopped
    }

    /// Waits for that.
    pub fn wait_ended(&self) {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(orders, |orders| !orders.stopped));
    }
}

/// Tells of the collector's end, also when it panics: the next session waits for it.
struct LastWord<'a>(&'a Control, Arc<SessionSpool>, Arc<Outbox>);

impl Drop for LastWord<'_> {
    fn drop(&mut self) {
        last_words::deaf();
        self.0.ended();
        // A collector that panicked has not said where the session stands.
        self.1.leave(self.2.keeps() || std::thread::panicking());
    }
}

pub struct Collector {
    streams: Streams,
    clock: Clock,
    spool: Arc<SessionSpool>,
    flush_period: Duration,
    cut_bytes: usize,
    /// What counters had come to when they were last looked at.
    sums: HashMap<u64, (i64, f64)>,
    read_bytes: usize,
    uncut_bytes: usize,
    losses_before: Losses,
    losses_told: Losses,
    /// The process's announcement, if it is for us to make.
    announcement: Option<Vec<u8>>,
    dropped_told: Vec<u64>,
    limits_told: limits::Told,
    own_log: Option<&'static Descriptor>,
    own_measures: Option<OwnMeasures>,
}

/// What is measured without the program's doing.
struct OwnMeasures {
    system: SystemMonitor,
    sink: SinkMeasures,
}

/// What `init()` decided about the collector.
pub struct Habits<'a> {
    pub flush_period: Duration,
    pub buffer_bytes: u64,
    pub system_metrics: bool,
    pub span_sampling: &'a SpanSampling,
    pub log_output: &'a LogOutput,
}

impl Collector {
    /// Takes over from an earlier session (or the parent process): what counters (`sums`) and losses have come to is not
    /// ours.
    pub fn new(
        office: Office,
        clock: Clock,
        spool: Arc<SessionSpool>,
        sums: HashMap<u64, (i64, f64)>,
        habits: &Habits<'_>,
    ) -> Self {
        Self {
            streams: Streams::new(office, &clock, habits.span_sampling, habits.log_output),
            clock,
            spool,
            flush_period: habits.flush_period,
            cut_bytes: CUT_BYTES.min(habits.buffer_bytes as usize / 4),
            sums,
            read_bytes: 0,
            uncut_bytes: 0,
            losses_before: Losses::of_hot_path(),
            losses_told: Losses::default(),
            announcement: None,
            dropped_told: hotpath::all_dropped_events(),
            limits_told: limits::Told::default(),
            own_log: log_descriptor(WARN, OWN_PLACE, "%s"),
            own_measures: habits.system_metrics.then(|| OwnMeasures {
                system: SystemMonitor::new(),
                sink: SinkMeasures::new(),
            }),
        }
    }

    /// The process is announced with the first look at the buffers: a forked child that goes on by `exec` is none.
    pub fn announce_later(&mut self, announcement: Vec<u8>) {
        self.announcement = Some(announcement);
    }

    /// Runs until told to stop.
    pub fn run(mut self, control: &Control) {
        let _last_word = LastWord(
            control,
            Arc::clone(&self.spool),
            Arc::clone(&self.streams.office.outbox),
        );
        let mut flushed = 0;
        let mut last_cut = Instant::now();
        let mut busy = false;
        loop {
            let (wanted, mut stop) = control.wait(if busy { BUSY_POLL } else { POLL }, flushed);
            if let Some(announcement) = self.announcement.take() {
                let office = &self.streams.office;
                office.outbox.announce_process(&office.process.id, announcement);
            }
            if let Some(words) = last_words::wanted() {
                self.log_last_words(&words);
                stop = true;
            }
            let ordered = stop || wanted != flushed;
            let due = ordered || last_cut.elapsed() >= self.flush_period;
            let horizon_ns = self.clock.observe();
            let (threads, bytes) = self.read_all(horizon_ns);
            busy = bytes >= BUSY_BYTES;
            if let Some(own) = &mut self.own_measures {
                own.system.measure(horizon_ns, &mut self.streams.metrics);
            }
            if due {
                self.sample_counters(horizon_ns);
                self.streams.tell_frames(horizon_ns);
                self.tell_troubles(horizon_ns);
                self.tell_losses(horizon_ns);
                self.measure_sink(horizon_ns);
                last_cut = Instant::now();
            }
            if due || self.uncut_bytes >= self.cut_bytes {
                self.cut_all(horizon_ns, threads, stop);
            }
            self.streams.log.print();
            if ordered {
                flushed = wanted;
                control.done(flushed);
            }
            if stop {
                if last_words::wanted().is_some() {
                    last_words::say(&self.streams.office.outbox);
                }
                return;
            }
        }
    }

    /// Reads all buffers once; gives their threads and the bytes read.
    fn read_all(&mut self, horizon_ns: u64) -> (Vec<ProgramThread>, usize) {
        hotpath::prepare_pool();
        let mut bytes = 0;
        let threads = hotpath::program_threads();
        if threads.iter().filter(|thread| thread.has_news()).count() == 1 {
            self.streams.log.expect_one_thread(horizon_ns);
        }
        for thread in &threads {
            thread.drain(|run| {
                bytes += run.len();
                let facts = ThreadFacts {
                    serial: thread.serial,
                    native_id: thread.native_id,
                    name: &thread.name,
                };
                let last_ns = self
                    .streams
                    .read(&facts, run, &self.clock, hotpath::descriptor_at)
                    .last_ns;
                // What came after the pass began waits for the next one, or a thread that records faster than we read
                // would keep us here for ever. One that has ended must be read to its end.
                thread.ended || last_ns <= horizon_ns + CLOCK_SLACK_NS
            });
        }
        self.streams.settle(horizon_ns);
        let ended = threads.iter().filter(|thread| thread.ended).count();
        self.read_bytes += bytes;
        self.uncut_bytes = self.read_bytes + ended * ENDED_THREAD_BYTES;
        (threads, bytes)
    }

    /// Makes blocks of all that was read, has them kept and sent together, and gives the buffers back.
    fn cut_all(&mut self, horizon_ns: u64, threads: Vec<ProgramThread>, is_last: bool) {
        self.streams.cut(horizon_ns, is_last, |serial| {
            !threads.iter().any(|thread| !thread.ended && thread.serial == serial)
        });
        let outbox = &self.streams.office.outbox;
        let blocks = self.streams.office.take_cut();
        if self.spool.is_open() && (!blocks.is_empty() || is_last) {
            let blocks = outbox.admit(blocks);
            let kept: Vec<Kept<'_>> = blocks.iter().map(Block::kept).collect();
            let marks = self.marks(&threads, is_last);
            let stored = self.spool.append(&marks, &kept);
            if stored.is_none() {
                // Whoever finds the buffers must not make the same events again, of which the server may have blocks.
                threads.iter().for_each(ProgramThread::forgo);
            }
            let outbox = &self.streams.office.outbox;
            let mut places = stored.into_iter().flatten();
            for block in blocks {
                outbox.push(block, places.next());
            }
        } else {
            for block in blocks {
                outbox.push(block, None);
            }
        }
        for thread in threads {
            if thread.ended {
                self.streams.forget(thread.serial);
                thread.recycle();
            } else {
                thread.release();
            }
        }
        self.read_bytes = 0;
        self.uncut_bytes = 0;
    }

    /// Where the session stands now that everything read was cut.
    fn marks(&mut self, threads: &[ProgramThread], is_sealed: bool) -> Marks {
        let counters = self.sums.iter().map(|(&descriptor, &(integers, floats))| CounterMark {
            descriptor,
            integers,
            floats,
        });
        Marks {
            positions: threads.iter().map(ProgramThread::position).collect(),
            counters: counters.collect(),
            streams: self.streams.marks(),
            dropped: self.dropped_told.clone(),
            is_sealed,
        }
    }

    fn log_last_words(&mut self, words: &LastWords) {
        let ns = self.clock.observe();
        if let Some(descriptor) = log_descriptor(words.level, ("micromegas.end", "", 0), "%s") {
            self.streams.log.add_message(ns, descriptor, &words.text);
        }
    }

    fn sample_counters(&mut self, ns: u64) {
        for total in hotpath::counter_totals() {
            let now = (total.integers, total.floats);
            let before = self.sums.insert(total.address(), now).unwrap_or_default();
            self.streams.add_counter(ns, total.descriptor, before, now);
        }
    }

    /// Troubles of the upload, each once: who asks later why something is missing finds the reason beside it.
    fn tell_troubles(&mut self, ns: u64) {
        for trouble in self.streams.office.outbox.news() {
            if let Some(descriptor) = self.own_log {
                self.streams
                    .log
                    .add_message(ns, descriptor, &format!("upload: {trouble}"));
            }
        }
    }

    /// Exact counts, as a log event and a measure, whenever they have grown.
    fn tell_losses(&mut self, ns: u64) {
        let news = self.limits_told.news();
        for message in news.into_iter().chain(self.spool.news()) {
            if let Some(descriptor) = self.own_log {
                self.streams.log.add_message(ns, descriptor, &message);
            }
        }
        let losses = Losses::of_hot_path().since(&self.losses_before);
        let losses = losses.plus(&self.streams.office.outbox.delivery().losses);
        self.dropped_told = hotpath::all_dropped_events();
        if losses == self.losses_told {
            return;
        }
        if let Some(descriptor) = self.own_log {
            self.streams.log.add_message(ns, descriptor, &losses.message());
        }
        for (reason, class, count) in losses.since(&self.losses_told).parts() {
            let properties = [("class", class), ("reason", reason)];
            if let Some(descriptor) = metric_descriptor(OWN_PLACE, "lost_events", "count", &properties) {
                self.streams.metrics.add(ns, descriptor, Measure::Integer(count as i64));
            }
        }
        self.losses_told = losses;
    }

    /// Only beside events of others: measures of requests would otherwise make requests for ever.
    fn measure_sink(&mut self, ns: u64) {
        if let (Some(own), false) = (&mut self.own_measures, self.streams.are_empty()) {
            own.sink
                .measure(ns, &self.streams.office.outbox, &mut self.streams.metrics);
        }
    }
}
