//! All streams of a process: takes its records, makes their events, cuts blocks. The same for a process that records and
//! for one that died and left its records.

use std::collections::HashMap;
use std::sync::Arc;

use super::blocks::Office;
use super::clock::Clock;
use super::cpu_stream::{CpuStream, ThreadFacts};
use super::descriptor::Descriptor;
use super::descriptors::{log_descriptor, metric_descriptor};
use super::frames::Frames;
use super::known_texts::Questions;
use super::layouts::StreamKind;
use super::log_stream::{LogOutput, LogStream};
use super::metric_stream::{Measure, MetricStream};
use super::record::{self, Record};
use super::span_sampling::{SpanSampler, SpanSampling};
use super::spool::segments::StreamMark;
use crate::codec::id_hash::IdHasher;
use crate::codec::prefetch::prefetch;

const WARN: u32 = 3;

/// Bytes ahead of what is read that the processor is to fetch: records come from another core, and it does not guess across pages.
const AHEAD: usize = 1024;

/// What became of a run of records.
#[derive(Default)]
pub struct Run {
    /// The time of the last event.
    pub last_ns: u64,
    pub events: u64,
    /// Bytes at its end that are no record, or of nothing that was described.
    pub unreadable: usize,
}

pub struct Streams {
    pub office: Office,
    pub log: LogStream,
    pub metrics: MetricStream,
    threads: HashMap<u64, CpuStream, IdHasher>,
    frames: Frames,
    sampler: SpanSampler,
}

impl Streams {
    pub fn new(office: Office, clock: &Clock, span_sampling: &SpanSampling, log_output: &LogOutput) -> Self {
        let begin_ns = clock.start_ns();
        let wall_offset_ns = clock.wall_ns(begin_ns) - begin_ns as i64;
        Self {
            office,
            log: LogStream::new(begin_ns, wall_offset_ns, log_output),
            metrics: MetricStream::new(begin_ns, Arc::clone(&log_output.scrubber)),
            threads: HashMap::default(),
            frames: Frames::default(),
            sampler: SpanSampler::new(span_sampling, begin_ns ^ (u64::from(std::process::id()) << 32)),
        }
    }

    /// Where a process stopped that died. The streams of threads are gone on with if these have more to tell.
    pub fn restore(
        &mut self,
        marks: &[StreamMark],
        thread_of: impl Fn(u64) -> Option<(u64, String)>,
        descriptor_at: impl Fn(u64) -> Option<&'static Descriptor>,
    ) {
        for mark in marks {
            match mark.kind {
                StreamKind::Log => self.log.stream().restore(mark),
                StreamKind::Metrics => self.metrics.stream().restore(mark),
                StreamKind::Cpu => {
                    if let Some((native_id, name)) = thread_of(mark.serial) {
                        let facts = ThreadFacts {
                            serial: mark.serial,
                            native_id,
                            name: &name,
                        };
                        let mut stream = CpuStream::new(&facts, mark.end_ns);
                        stream.restore(mark, &descriptor_at);
                        self.threads.insert(mark.serial, stream);
                    }
                }
            }
        }
    }

    pub fn marks(&mut self) -> Vec<StreamMark> {
        let mut marks = vec![self.log.stream().mark(0), self.metrics.stream().mark(0)];
        marks.extend(self.threads.iter().map(|(&serial, stream)| stream.mark(serial)));
        marks
    }

    pub fn read<'r>(
        &mut self,
        thread: &ThreadFacts<'_>,
        mut run: &'r [u8],
        clock: &Clock,
        descriptor_at: impl Fn(u64) -> Option<&'static Descriptor>,
    ) -> Run {
        let mut result = Run::default();
        let mut questions = Questions::<'r>::default();
        if let Some(stream) = self.threads.get_mut(&thread.serial) {
            stream.set_name(thread.name);
        }
        while let Some((record, rest)) = Record::split(run, &descriptor_at) {
            run = rest;
            prefetch(run, AHEAD);
            let ns = clock.nanoseconds(record.ticks);
            result.last_ns = ns;
            result.events += 1;
            match record.kind {
                record::METRIC_INT => {
                    let measure = Measure::Integer(record.word(0) as i64);
                    self.metrics.add(ns, record.descriptor, measure);
                }
                record::METRIC_FLOAT => {
                    let measure = Measure::Float(f64::from_bits(record.word(0)));
                    self.metrics.add(ns, record.descriptor, measure);
                }
                record::METRIC_WITH => self.metrics.add_tagged(ns, &record),
                record::FRAME => {
                    let frame = (thread.serial, ns, record.descriptor, record.word(0));
                    if let Some((begin_ns, end_ns)) = self.frames.add(frame, &mut self.metrics) {
                        self.sampler.frame(begin_ns, end_ns);
                    }
                }
                record::LOG_LITERAL | record::LOG_FEW | record::LOG_VALUES | record::LOG_TEXT => {
                    self.log.add(ns, &record, &mut questions);
                    if self.log.is_ready() {
                        self.log.settle_ready(&mut questions, &self.office);
                    }
                }
                _ => {
                    let stream = self
                        .threads
                        .entry(thread.serial)
                        .or_insert_with(|| CpuStream::new(thread, ns));
                    if stream.is_full() {
                        stream.settle(0, ns, false, (&mut self.sampler, &self.frames), &self.office);
                    }
                    if stream.wants_another() {
                        stream.settle(0, ns, false, (&mut self.sampler, &self.frames), &self.office);
                        stream.begin_another(ns);
                    }
                    stream.add(ns, &record, &mut self.sampler);
                }
            }
        }
        self.log.answer(&mut questions);
        result.unreadable = run.len();
        result
    }

    /// All threads were read up to that time.
    pub fn settle(&mut self, horizon_ns: u64) {
        self.log.settle(horizon_ns, &self.office);
    }

    /// What a counter has come to since it was last looked at.
    pub fn add_counter(&mut self, ns: u64, descriptor: &'static Descriptor, before: (i64, f64), now: (i64, f64)) {
        let added = now.0.wrapping_sub(before.0);
        if added != 0 {
            self.metrics.add(ns, descriptor, Measure::Integer(added));
        }
        if now.1 != before.1 {
            self.metrics.add(ns, descriptor, Measure::Float(now.1 - before.1));
        }
    }

    /// Makes blocks of all that waits: they are in the office then. The most important go first. Spans of threads that
    /// have `ended` end. With sampling, those around an open frame may wait for the next time, unless this `is_last`.
    pub fn cut(&mut self, horizon_ns: u64, is_last: bool, ended: impl Fn(u64) -> bool) {
        for (&serial, stream) in &mut self.threads {
            if is_last || ended(serial) {
                stream.end_all(horizon_ns, &mut self.sampler);
                self.frames.forget(serial);
            }
            let judges = (&mut self.sampler, &self.frames);
            stream.settle(horizon_ns, horizon_ns, is_last, judges, &self.office);
        }
        self.tell_left_out(horizon_ns);
        self.tell_mended(horizon_ns);
        let spans = self.office.take_cut();
        self.log.cut(horizon_ns, &self.office);
        self.metrics.cut(horizon_ns, &self.office);
        self.office.add_cut(spans);
        // Spans of a thread that ended may still wait for the end of a frame.
        self.threads
            .retain(|&serial, stream| !stream.is_empty() || !(is_last || ended(serial)));
    }

    /// Frames over their budget.
    pub fn tell_frames(&mut self, ns: u64) {
        for message in self.frames.tell_over(ns, &mut self.metrics) {
            if let Some(descriptor) = log_descriptor(WARN, ("micromegas.frames", "", 0), "%s") {
                self.log.add_message(ns, descriptor, &message);
            }
        }
    }

    /// How many span events sampling left out.
    fn tell_left_out(&mut self, ns: u64) {
        let left_out = self.sampler.tell_left_out();
        let place = ("micromegas.recorder", "", 0);
        if left_out > 0 {
            if let Some(descriptor) = metric_descriptor(place, "span_events_left_out", "count", &[]) {
                self.metrics.add(ns, descriptor, Measure::Integer(left_out as i64));
            }
        }
    }

    /// Spans of threads that were not balanced.
    fn tell_mended(&mut self, ns: u64) {
        let of_threads = self.threads.values_mut().map(|stream| &mut stream.mended);
        for (mend, spans) in self.office.mended.add(of_threads) {
            let place = ("micromegas.recorder", "", 0);
            if let Some(descriptor) = metric_descriptor(place, "mended_spans", "count", &[("mend", mend)]) {
                self.metrics.add(ns, descriptor, Measure::Integer(spans as i64));
            }
        }
    }

    /// Whether no event waits for a cut.
    pub fn are_empty(&self) -> bool {
        self.log.is_empty() && self.metrics.is_empty() && self.threads.values().all(CpuStream::is_empty)
    }

    /// The thread has ended.
    pub fn forget(&mut self, serial: u64) {
        self.frames.forget(serial);
    }
}
