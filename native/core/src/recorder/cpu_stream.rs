//! The cpu stream of one thread: its sync spans in the order of recording, and the async span events it produced.
//!
//! Sync spans leave here in pairs, properly nested, whatever the program recorded: an end without a begin is left out, a
//! span that was passed over ends with the one around it, and what is open when its thread ends, ends then. What sampling
//! leaves out, it leaves out in pairs, too.

use super::blocks::{BlockWriter, Office, Properties, Stream};
use super::descriptor::{Description, Descriptor};
use super::frames::Frames;
use super::identity::clean;
use super::layouts::StreamKind;
use super::mends::{Mend, Mended};
use super::record::{
    Record, ASYNC_BEGIN, ASYNC_END, ASYNC_NAMED_BEGIN, ASYNC_NAMED_END, NAMED_BEGIN, SPAN_BEGIN, SPAN_END,
};
use super::span_sampling::{SpanSampler, Verdict};
use super::spool::segments::{OpenMark, StreamMark};

const BLOCK_BYTES: usize = 1 << 20;
/// What waits for the end of a frame is left out beyond this.
const MOST_WAITING: usize = 4 << 20;
/// How far down an end looks for its begin: a stray end must not cost a walk over a deep recursion each time.
const DEEPEST_LOOK: usize = 4096;

const BEGIN_EVENT: u8 = 0;
const END_EVENT: u8 = 1;
const BEGIN_ASYNC_EVENT: u8 = 2;
const END_ASYNC_EVENT: u8 = 3;
const BEGIN_NAMED_EVENT: u8 = 4;
const END_NAMED_EVENT: u8 = 5;
const BEGIN_ASYNC_NAMED_EVENT: u8 = 6;
const END_ASYNC_NAMED_EVENT: u8 = 7;

/// A thread whose records are read.
pub struct ThreadFacts<'a> {
    pub serial: u64,
    pub native_id: u64,
    pub name: &'a str,
}

/// A sync span that has begun.
struct Open {
    descriptor: &'static Descriptor,
    /// Of a span named at run time; its descriptor tells the place only.
    name: Option<Box<str>>,
    /// Whether its tree is kept: what sampling leaves out is followed to its end.
    kept: bool,
    /// Whether its begin was written, and not left out since.
    written: bool,
    /// Whether its begin is in a block that was cut.
    sent: bool,
}

pub struct CpuStream {
    stream: Stream,
    name: String,
    native_id: u64,
    /// The thread has another name than its stream was announced with: another stream goes on when no span is open.
    is_renamed: bool,
    writer: BlockWriter,
    open: Vec<Open>,
    /// Ends in the writer whose begins were sent: they are owed even if all else in the writer is left out.
    owed: Vec<(u64, Open)>,
    pub mended: Mended,
    first_ns: u64,
    last_ns: u64,
}

fn name_of(descriptor: &Descriptor) -> String {
    match descriptor.description {
        Description::Span { name } => name.to_owned(),
        _ => String::new(),
    }
}

fn properties_of(native_id: u64, name: &str) -> Properties {
    let mut properties = vec![("thread-id".to_owned(), native_id.to_string())];
    if !name.is_empty() {
        properties.push(("thread-name".to_owned(), clean(name)));
    }
    properties
}

impl CpuStream {
    pub fn new(thread: &ThreadFacts<'_>, begin_ns: u64) -> Self {
        Self {
            stream: Stream::new(StreamKind::Cpu, properties_of(thread.native_id, thread.name), begin_ns),
            name: thread.name.to_owned(),
            native_id: thread.native_id,
            is_renamed: false,
            writer: BlockWriter::default(),
            open: Vec::new(),
            owed: Vec::new(),
            mended: Mended::default(),
            first_ns: 0,
            last_ns: 0,
        }
    }

    /// The name that the thread has now.
    pub fn set_name(&mut self, name: &str) {
        if self.name != name {
            name.clone_into(&mut self.name);
            self.is_renamed = !self.stream.set_properties(&properties_of(self.native_id, name));
        }
    }

    /// Whether another stream is to go on.
    pub fn wants_another(&self) -> bool {
        self.is_renamed && self.open.is_empty()
    }

    /// Goes on under the new name, unless something waits.
    pub fn begin_another(&mut self, ns: u64) {
        if self.is_empty() {
            let properties = properties_of(self.native_id, &self.name);
            self.stream = Stream::new(StreamKind::Cpu, properties, ns);
            self.is_renamed = false;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.writer.events() == 0
    }

    pub fn mark(&self, serial: u64) -> StreamMark {
        let open = self
            .open
            .iter()
            .filter(|span| span.written && span.sent)
            .map(|span| OpenMark {
                descriptor: std::ptr::from_ref(span.descriptor) as u64,
                name: span.name.as_deref().map(str::to_owned),
            });
        StreamMark {
            open: open.collect(),
            ..self.stream.mark(serial)
        }
    }

    /// Goes on where a process stopped that died.
    pub fn restore(&mut self, mark: &StreamMark, descriptor_at: impl Fn(u64) -> Option<&'static Descriptor>) {
        self.stream.restore(mark);
        self.open = mark
            .open
            .iter()
            .filter_map(|span| {
                Some(Open {
                    descriptor: descriptor_at(span.descriptor)?,
                    name: span.name.as_deref().map(Into::into),
                    kept: true,
                    written: true,
                    sent: true,
                })
            })
            .collect();
    }

    pub fn is_full(&self) -> bool {
        self.writer.size() >= BLOCK_BYTES
    }

    pub fn add(&mut self, ns: u64, record: &Record<'_>, sampler: &mut SpanSampler) {
        let named_at = match record.kind {
            ASYNC_NAMED_BEGIN | ASYNC_NAMED_END => Some(1),
            ASYNC_BEGIN | ASYNC_END => Some(0),
            _ => None,
        };
        if let Some(first) = named_at {
            let is_end = matches!(record.kind, ASYNC_END | ASYNC_NAMED_END);
            let name = || {
                if first == 1 {
                    record.name_after(4)
                } else {
                    name_of(record.descriptor)
                }
            };
            if !sampler.keeps_async(record.word(first), record.word(first + 1), is_end, name) {
                return sampler.left_out(1);
            }
        }
        match record.kind {
            SPAN_BEGIN => self.begin(ns, record.descriptor, None, sampler),
            NAMED_BEGIN => self.begin(ns, record.descriptor, Some(record.name_after(1).into()), sampler),
            SPAN_END => self.end(ns, record.descriptor, sampler),
            ASYNC_BEGIN | ASYNC_END => {
                let id = self.writer.describe(record.descriptor);
                let type_index = if record.kind == ASYNC_BEGIN {
                    BEGIN_ASYNC_EVENT
                } else {
                    END_ASYNC_EVENT
                };
                let words = [id, record.word(0), record.word(1), ns];
                self.write(ns, type_index, &words, &(record.word(2) as u32).to_le_bytes());
            }
            kind => {
                debug_assert!(kind == ASYNC_NAMED_BEGIN || kind == ASYNC_NAMED_END);
                let type_index = if kind == ASYNC_NAMED_BEGIN {
                    BEGIN_ASYNC_NAMED_EVENT
                } else {
                    END_ASYNC_NAMED_EVENT
                };
                let location = self.writer.locate(record.descriptor);
                let name = self.writer.text(&record.name_after(4));
                let words = [location, name, record.word(1), record.word(2), ns];
                self.write(ns, type_index, &words, &(record.word(3) as u32).to_le_bytes());
            }
        }
    }

    fn write(&mut self, ns: u64, type_index: u8, words: &[u64], last: &[u8]) {
        if self.writer.events() == 0 {
            self.first_ns = ns;
            self.last_ns = ns;
        }
        self.first_ns = self.first_ns.min(ns); // some events are told later than they happened
        self.last_ns = self.last_ns.max(ns);
        self.writer.event(type_index, words, last);
    }

    fn write_sync(&mut self, ns: u64, span: &Open, (plain, named): (u8, u8)) {
        match &span.name {
            None => {
                let id = self.writer.describe(span.descriptor);
                self.write(ns, plain, &[id, ns], &[]);
            }
            Some(name) => {
                let location = self.writer.locate(span.descriptor);
                let name = self.writer.text(name);
                self.write(ns, named, &[location, name, ns], &[]);
            }
        }
    }

    fn begin(&mut self, ns: u64, descriptor: &'static Descriptor, name: Option<Box<str>>, sampler: &mut SpanSampler) {
        let kept = match self.open.last() {
            Some(outer) => outer.kept,
            None => sampler.keeps_tree(|| name.as_deref().map_or_else(|| name_of(descriptor), str::to_owned)),
        };
        let span = Open {
            descriptor,
            name,
            kept,
            written: kept,
            sent: false,
        };
        if kept {
            self.write_sync(ns, &span, (BEGIN_EVENT, BEGIN_NAMED_EVENT));
        } else {
            sampler.left_out(1);
        }
        self.open.push(span);
    }

    fn end(&mut self, ns: u64, descriptor: &'static Descriptor, sampler: &mut SpanSampler) {
        let mut look = self.open.iter().rev().take(DEEPEST_LOOK);
        let Some(passed_over) = look.position(|span| std::ptr::eq(span.descriptor, descriptor)) else {
            return self.mended.count(Mend::NoBegin, 1);
        };
        self.mended.count(Mend::NoEnd, passed_over);
        for _ in 0..=passed_over {
            self.end_innermost(ns, sampler);
        }
    }

    fn end_innermost(&mut self, ns: u64, sampler: &mut SpanSampler) {
        let Some(span) = self.open.pop() else { return };
        if !span.written {
            return sampler.left_out(1);
        }
        self.write_sync(ns, &span, (END_EVENT, END_NAMED_EVENT));
        if span.sent {
            self.owed.push((ns, span));
        }
    }

    /// What is open ends with its thread, or with the recording.
    pub fn end_all(&mut self, ns: u64, sampler: &mut SpanSampler) {
        let ns = ns.max(self.last_ns);
        self.mended.count(Mend::LeftOpen, self.open.len());
        while !self.open.is_empty() {
            self.end_innermost(ns, sampler);
        }
    }

    /// Makes a block of what waits, up to `horizon_ns` if no event is later, or leaves it out, or lets it wait for the end
    /// of a frame, as the sampler says. `is_last`: there is no waiting.
    pub fn settle(
        &mut self,
        horizon_ns: u64,
        now_ns: u64,
        is_last: bool,
        (sampler, frames): (&mut SpanSampler, &Frames),
        office: &Office,
    ) {
        if self.is_empty() {
            return;
        }
        match sampler.verdict(self.first_ns, self.last_ns, now_ns, frames.open()) {
            Verdict::Keep => self.cut(horizon_ns, office),
            Verdict::Wait if !is_last && self.writer.size() < MOST_WAITING => {}
            _ => {
                sampler.left_out(self.skip());
                if is_last {
                    self.cut(horizon_ns, office);
                }
            }
        }
    }

    fn cut(&mut self, horizon_ns: u64, office: &Office) {
        self.stream
            .cut(&mut self.writer, self.first_ns, self.last_ns.max(horizon_ns), office);
        self.owed.clear();
        for span in &mut self.open {
            span.sent = true;
        }
    }

    /// Leaves out what waits, but for the ends that are owed; gives the number of events left out.
    fn skip(&mut self) -> u64 {
        let events = Stream::skip(&mut self.writer);
        for span in &mut self.open {
            span.written &= span.sent;
        }
        let owed = std::mem::take(&mut self.owed);
        for (ns, span) in &owed {
            self.write_sync(*ns, span, (END_EVENT, END_NAMED_EVENT));
        }
        self.owed = owed;
        events - self.writer.events()
    }
}
