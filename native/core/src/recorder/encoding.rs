//! In which of the two encodings a server gets what the recorder has in columns: chosen when it is sent.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::announcement::{block_body, stream_body_of, BlockHead};
use super::outbox::Subject;
use crate::codec::cbor::CborReader;
use crate::codec::columns::TEMPLATE_EVENT;
use crate::codec::declarations::{read_declarations, write_declarations};
use crate::codec::envelope::{BlockEnvelope, StreamEnvelope};
use crate::codec::limits::MAX_DECOMPRESSED_BYTES;
use crate::codec::lz4::compress_frame;
use crate::codec::payload::BlockBuffers;
use crate::codec::{Format, Result, StreamLayout, WireError};

/// What `init()` decided.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Columns for servers that say that they read them.
    Auto,
    Transit,
    Columns,
}

impl Encoding {
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "auto" => Some(Self::Auto),
            "transit" => Some(Self::Transit),
            "columns" => Some(Self::Columns),
            _ => None,
        }
    }
}

#[derive(Default)]
struct State {
    /// Whether the server reads columns, as it said when it was told of a process. A process's streams are announced in
    /// one way, whatever a server says later: what is said first of a stream counts.
    reads_columns: HashMap<Arc<str>, bool>,
    /// Of streams that were announced as records.
    layouts: HashMap<Arc<str>, Arc<StreamLayout>>,
    known: Vec<(Vec<u8>, Vec<u8>, Arc<StreamLayout>)>,
}

/// What the server was told, shared by the threads of the uploader.
pub struct Negotiation {
    encoding: Encoding,
    state: Mutex<State>,
}

impl Negotiation {
    pub fn new(encoding: Encoding) -> Self {
        Self {
            encoding,
            state: Mutex::default(),
        }
    }

    /// The server has taken the announcement of a process; it reads these formats.
    pub fn process_announced(&self, process_id: &Arc<str>, formats: &[String]) {
        let reads = formats.iter().any(|format| format == Format::Columns.name());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.reads_columns.entry(Arc::clone(process_id)).or_insert(reads);
    }

    /// The body to send, of an item whose announcements have been settled.
    pub fn body<'b>(&self, subject: &Subject, body: &'b [u8]) -> Result<Cow<'b, [u8]>> {
        let process_id = match subject {
            Subject::Process { .. } => return Ok(Cow::Borrowed(body)),
            Subject::Stream { process_id, .. } | Subject::Block { process_id, .. } => process_id,
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let in_columns = match self.encoding {
            Encoding::Columns => true,
            Encoding::Transit => false,
            Encoding::Auto => state.reads_columns.get(process_id).copied().unwrap_or(false),
        };
        if in_columns {
            return Ok(Cow::Borrowed(body));
        }
        match subject {
            Subject::Stream { stream_id, .. } => {
                let stream = StreamEnvelope::parse(body)?;
                let layout = state.layout(&stream)?;
                state.layouts.insert(Arc::clone(stream_id), layout);
                stream_in_transit(stream).map(Cow::Owned)
            }
            Subject::Block { stream_id, .. } => {
                let layout = state.layouts.get(stream_id).cloned();
                drop(state);
                let layout = layout.ok_or_else(|| WireError::new("a block of a stream that was not announced"))?;
                block_in_transit(&layout, body).map(Cow::Owned)
            }
            Subject::Process { .. } => Ok(Cow::Borrowed(body)),
        }
    }
}

impl State {
    /// Streams of one kind share theirs.
    fn layout(&mut self, stream: &StreamEnvelope) -> Result<Arc<StreamLayout>> {
        let (dependencies, objects) = (&stream.dependencies_metadata, &stream.objects_metadata);
        let known = self
            .known
            .iter()
            .find(|(one, other, _)| one == dependencies && other == objects);
        if let Some((_, _, layout)) = known {
            return Ok(Arc::clone(layout));
        }
        let layout = Arc::new(StreamLayout::parse(dependencies, objects)?);
        self.known
            .push((dependencies.clone(), objects.clone(), Arc::clone(&layout)));
        Ok(layout)
    }
}

/// Without its format, and without the type that exists in columns only.
fn stream_in_transit(stream: StreamEnvelope) -> Result<Vec<u8>> {
    let mut objects = read_declarations(&mut CborReader::new(&stream.objects_metadata))?;
    objects.retain(|each| each.name != TEMPLATE_EVENT);
    Ok(stream_body_of(&StreamEnvelope {
        objects_metadata: write_declarations(&objects),
        format: Format::Transit.name().to_owned(),
        ..stream
    }))
}

/// The same block as records, in LZ4 frames.
fn block_in_transit(layout: &StreamLayout, body: &[u8]) -> Result<Vec<u8>> {
    let block = BlockEnvelope::parse(body)?;
    let buffers = BlockBuffers::read(Format::Columns, layout, &block.payload, MAX_DECOMPRESSED_BYTES)?;
    let head = BlockHead {
        block_id: &block.block_id,
        stream_id: &block.stream_id,
        process_id: &block.process_id,
        begin_wall_ns: block.begin_time,
        end_wall_ns: block.end_time,
        begin_ticks: block.begin_ticks as u64,
        end_ticks: block.end_ticks as u64,
        object_offset: block.object_offset as u64,
        nb_objects: block.nb_objects as u64,
    };
    let [dependencies, objects] = [&buffers.dependencies, &buffers.objects].map(|buffer| compress_frame(buffer));
    Ok(block_body(&head, &dependencies, &objects))
}
