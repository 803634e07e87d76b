//! What a request is about: a process, a stream or a block, and what follows from that for its turn and its tries.

use std::sync::Arc;

use crate::recorder::layouts::StreamKind;

/// What an item is.
#[derive(Clone, Debug)]
pub enum Subject {
    Process {
        process_id: Arc<str>,
    },
    Stream {
        process_id: Arc<str>,
        stream_id: Arc<str>,
    },
    Block {
        process_id: Arc<str>,
        stream_id: Arc<str>,
        kind: StreamKind,
        events: u64,
    },
}

impl Subject {
    pub fn route(&self) -> &'static str {
        match self {
            Self::Process { .. } => "insert_process",
            Self::Stream { .. } => "insert_stream",
            Self::Block { .. } => "insert_block",
        }
    }

    /// What this announces.
    pub fn announces(&self) -> Option<&Arc<str>> {
        match self {
            Self::Process { process_id } => Some(process_id),
            Self::Stream { stream_id, .. } => Some(stream_id),
            Self::Block { .. } => None,
        }
    }

    /// The announcements without which this is of no use.
    pub fn needs(&self) -> impl Iterator<Item = &Arc<str>> {
        let (process_id, stream_id) = match self {
            Self::Process { .. } => (None, None),
            Self::Stream { process_id, .. } => (Some(process_id), None),
            Self::Block {
                process_id, stream_id, ..
            } => (Some(process_id), Some(stream_id)),
        };
        process_id.into_iter().chain(stream_id)
    }

    /// Its queue: the lower goes first.
    pub fn rank(&self) -> usize {
        match self {
            Self::Process { .. } | Self::Stream { .. } => 0,
            Self::Block { kind, .. } => match kind {
                StreamKind::Log => 1,
                StreamKind::Metrics => 2,
                StreamKind::Cpu => 3,
            },
        }
    }

    pub fn events(&self) -> u64 {
        match self {
            Self::Block { events, .. } => *events,
            _ => 0,
        }
    }

    /// How often the server may fail at it, beyond the first time.
    pub fn retries(&self) -> u32 {
        match self {
            Self::Process { .. } | Self::Stream { .. } => 10,
            Self::Block { kind, .. } => match kind {
                StreamKind::Log => 5,
                StreamKind::Metrics => 2,
                StreamKind::Cpu => 1,
            },
        }
    }
}
