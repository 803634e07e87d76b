//! The cpu stream of one thread: its sync spans in the order of recording, and the async span events it produced.

use super::blocks::{BlockWriter, Office, Stream};
use super::hotpath::ProgramThread;
use super::identity::clean;
use super::layouts::StreamKind;
use super::record::{Record, ASYNC_BEGIN, ASYNC_END, SPAN_END};

const BLOCK_BYTES: usize = 1 << 20;

const BEGIN_EVENT: u8 = 0;
const END_EVENT: u8 = 1;
const BEGIN_ASYNC_EVENT: u8 = 2;
const END_ASYNC_EVENT: u8 = 3;

pub struct CpuStream {
    stream: Stream,
    writer: BlockWriter,
    first_ns: u64,
    last_ns: u64,
}

impl CpuStream {
    pub fn new(thread: &ProgramThread, begin_ns: u64) -> Self {
        let mut properties = vec![("thread-id".to_owned(), thread.native_id.to_string())];
        if !thread.name.is_empty() {
            properties.push(("thread-name".to_owned(), clean(&thread.name)));
        }
        Self {
            stream: Stream::new(StreamKind::Cpu, properties, begin_ns),
            writer: BlockWriter::default(),
            first_ns: 0,
            last_ns: 0,
        }
    }

    pub fn add(&mut self, ns: u64, record: &Record<'_>, office: &Office) {
        if self.writer.size() >= BLOCK_BYTES {
            self.cut(0, office);
        }
        if self.writer.events() == 0 {
            self.first_ns = ns;
            self.last_ns = ns;
        }
        self.last_ns = self.last_ns.max(ns);
        let id = self.writer.describe(record.descriptor);
        match record.kind {
            ASYNC_BEGIN | ASYNC_END => {
                let type_index = if record.kind == ASYNC_BEGIN {
                    BEGIN_ASYNC_EVENT
                } else {
                    END_ASYNC_EVENT
                };
                let depth = record.word(2) as u32;
                let words = [id, record.word(0), record.word(1), ns];
                self.writer.event(type_index, &words, &depth.to_le_bytes());
            }
            kind => {
                let type_index = if kind == SPAN_END { END_EVENT } else { BEGIN_EVENT };
                self.writer.event(type_index, &[id, ns], &[]);
            }
        }
    }

    /// Makes a block of what waits, up to `horizon_ns`, if no event is later.
    pub fn cut(&mut self, horizon_ns: u64, office: &Office) {
        self.stream
            .cut(&mut self.writer, self.first_ns, self.last_ns.max(horizon_ns), office);
    }
}
