//! The thread behind the recorder: reads what the program's threads have committed, makes streams and blocks of it.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::blocks::Office;
use super::clock::Clock;
use super::cpu_stream::CpuStream;
use super::descriptor::{log_descriptor, metric_descriptor, Descriptor};
use super::hotpath::{self, ProgramThread};
use super::last_words::{self, LastWords};
use super::log_stream::LogStream;
use super::losses::Losses;
use super::metric_stream::{Measure, MetricStream};
use super::record::{self, Record};
use super::sink_measures::SinkMeasures;
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
struct LastWord<'a>(&'a Control);

impl Drop for LastWord<'_> {
    fn drop(&mut self) {
        last_words::deaf();
        self.0.ended();
    }
}

pub struct Collector {
    office: Office,
    clock: Clock,
    flush_period: Duration,
    cut_bytes: usize,
    log: LogStream,
    metrics: MetricStream,
    threads: HashMap<u64, CpuStream>,
    sums: HashMap<usize, (i64, f64)>,
    read_bytes: usize,
    uncut_bytes: usize,
    losses_before: Losses,
    losses_told: Losses,
    /// The process's announcement, if it is for us to make.
    announcement: Option<Vec<u8>>,
    own_log: Option<&'static Descriptor>,
    own_measures: Option<OwnMeasures>,
}

/// What is measured without the program's doing.
struct OwnMeasures {
    system: SystemMonitor,
    sink: SinkMeasures,
}

impl Collector {
    /// Takes over from an earlier session (or the parent process): what counters and losses have come to is not ours.
    pub fn new(office: Office, clock: Clock, flush_period: Duration, buffer_bytes: u64, system_metrics: bool) -> Self {
        let begin_ns = clock.start_ns();
        Self {
            office,
            clock,
            flush_period,
            cut_bytes: CUT_BYTES.min(buffer_bytes as usize / 4),
            log: LogStream::new(begin_ns),
            metrics: MetricStream::new(begin_ns),
            threads: HashMap::new(),
            sums: HashMap::new(),
            read_bytes: 0,
            uncut_bytes: 0,
            losses_before: Losses::of_hot_path(),
            losses_told: Losses::default(),
            announcement: None,
            own_log: log_descriptor(WARN, OWN_PLACE, "%s"),
            own_measures: system_metrics.then(|| OwnMeasures {
                system: SystemMonitor::new(),
                sink: SinkMeasures::new(),
            }),
        }
    }

    /// In a forked child, or after a stop: what was added before belongs to another session.
    pub fn skip_counters(&mut self) {
        for total in hotpath::counter_totals() {
            self.sums.insert(total.descriptor.index, (total.integers, total.floats));
        }
    }

    /// The process is announced with the first look at the buffers: a forked child that goes on by `exec` is none.
    pub fn announce_later(&mut self, announcement: Vec<u8>) {
        self.announcement = Some(announcement);
    }

    /// Runs until told to stop.
    pub fn run(mut self, control: &Control) {
        let _last_word = LastWord(control);
        let mut flushed = 0;
        let mut last_cut = Instant::now();
        let mut busy = false;
        loop {
            let (wanted, mut stop) = control.wait(if busy { BUSY_POLL } else { POLL }, flushed);
            if let Some(announcement) = self.announcement.take() {
                let process_id = &self.office.process.id;
                self.office.outbox.announce_process(process_id, announcement);
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
                own.system.measure(horizon_ns, &mut self.metrics);
            }
            if due {
                self.sample_counters(horizon_ns);
                self.tell_troubles(horizon_ns);
                self.tell_losses(horizon_ns);
                self.measure_sink(horizon_ns);
                last_cut = Instant::now();
            }
            if due || self.uncut_bytes >= self.cut_bytes {
                self.cut_all(horizon_ns, threads, stop);
            }
            if ordered {
                flushed = wanted;
                control.done(flushed);
            }
            if stop {
                if last_words::wanted().is_some() {
                    last_words::say(&self.office.outbox);
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
        for thread in &threads {
            thread.drain(|run| {
                bytes += run.len();
                let last_ns = self.read(thread, run);
                // What came after the pass began waits for the next one, or a thread that records faster than we read
                // would keep us here for ever. One that has ended must be read to its end.
                thread.ended || last_ns <= horizon_ns + CLOCK_SLACK_NS
            });
        }
        let ended = threads.iter().filter(|thread| thread.ended).count();
        self.read_bytes += bytes;
        self.uncut_bytes = self.read_bytes + ended * ENDED_THREAD_BYTES;
        (threads, bytes)
    }

    /// Makes blocks of all that was read, hands them over together, and gives the buffers back.
    fn cut_all(&mut self, horizon_ns: u64, threads: Vec<ProgramThread>, last: bool) {
        self.log.cut(horizon_ns, &self.office);
        self.metrics.cut(horizon_ns, &self.office);
        for (serial, stream) in &mut self.threads {
            if last || threads.iter().any(|thread| thread.ended && thread.serial == *serial) {
                stream.end_all(horizon_ns);
            }
            stream.cut(horizon_ns, &self.office);
        }
        for block in self.office.take_cut() {
            self.office.outbox.push(block);
        }
        for thread in threads {
            if thread.ended {
                self.threads.remove(&thread.serial);
                thread.recycle();
            } else {
                thread.release();
            }
        }
        self.read_bytes = 0;
        self.uncut_bytes = 0;
    }

    /// Gives the time of the last event.
    fn read(&mut self, thread: &ProgramThread, mut run: &[u8]) -> u64 {
        let mut last_ns = 0;
        while let Some((record, rest)) = Record::split(run, hotpath::descriptor_at) {
            run = rest;
            let ns = self.clock.nanoseconds(record.ticks);
            last_ns = ns;
            match record.kind {
                record::METRIC_INT => {
                    let measure = Measure::Integer(record.word(0) as i64);
                    self.metrics.add(ns, record.descriptor, measure);
                }
                record::METRIC_FLOAT => {
                    let measure = Measure::Float(f64::from_bits(record.word(0)));
                    self.metrics.add(ns, record.descriptor, measure);
                }
                record::LOG_LITERAL | record::LOG_VALUES | record::LOG_TEXT => self.log.add(ns, &record),
                _ => {
                    let stream = self
                        .threads
                        .entry(thread.serial)
                        .or_insert_with(|| CpuStream::new(thread, ns));
                    stream.add(ns, &record, &self.office);
                }
            }
        }
        last_ns
    }

    fn log_last_words(&mut self, words: &LastWords) {
        let ns = self.clock.observe();
        if let Some(descriptor) = log_descriptor(words.level, ("micromegas.end", "", 0), "%s") {
            self.log.add_message(ns, descriptor, &words.text);
        }
    }

    fn sample_counters(&mut self, ns: u64) {
        for total in hotpath::counter_totals() {
            let (integers, floats) = self
                .sums
                .insert(total.descriptor.index, (total.integers, total.floats))
                .unwrap_or_default();
            let added = total.integers.wrapping_sub(integers);
            if added != 0 {
                self.metrics.add(ns, total.descriptor, Measure::Integer(added));
            }
            if total.floats != floats {
                self.metrics
                    .add(ns, total.descriptor, Measure::Float(total.floats - floats));
            }
        }
    }

    /// Troubles of the upload, each once: who asks later why something is missing finds the reason beside it.
    fn tell_troubles(&mut self, ns: u64) {
        for trouble in self.office.outbox.news() {
            if let Some(descriptor) = self.own_log {
                self.log.add_message(ns, descriptor, &format!("upload: {trouble}"));
            }
        }
    }

    /// Exact counts, as a log event and a measure, whenever they have grown.
    fn tell_losses(&mut self, ns: u64) {
        let losses = Losses::of_hot_path().since(&self.losses_before);
        let losses = losses.plus(&self.office.outbox.delivery().losses);
        if losses == self.losses_told {
            return;
        }
        if let Some(descriptor) = self.own_log {
            self.log.add_message(ns, descriptor, &losses.message());
        }
        for (reason, class, count) in losses.since(&self.losses_told).parts() {
            let properties = [("class", class), ("reason", reason)];
            if let Some(descriptor) = metric_descriptor(OWN_PLACE, "lost_events", "count", &properties) {
                self.metrics.add(ns, descriptor, Measure::Integer(count as i64));
            }
        }
        self.losses_told = losses;
    }

    /// Only beside events of others: measures of requests would otherwise make requests for ever.
    fn measure_sink(&mut self, ns: u64) {
        let is_idle = self.log.is_empty() && self.metrics.is_empty() && self.threads.values().all(CpuStream::is_empty);
        if let (Some(own), false) = (&mut self.own_measures, is_idle) {
            own.sink.measure(ns, &self.office.outbox, &mut self.metrics);
        }
    }
}
