//! What the outbox holds: a request to send, and how its tries went.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::subject::Subject;
use crate::recorder::layouts::StreamKind;
use crate::recorder::spool::segments::{Kept, Stored};

/// Of this process's own items. Behind them comes what other processes left.
pub const OWN_RANKS: usize = 4;

/// What the blocks of a stream need.
pub struct Announcement {
    pub(super) subject: Subject,
    pub(super) body: Vec<u8>,
    /// Whether the outbox has it, or had it until it was settled. Changed only under the outbox's lock.
    pub(super) put: AtomicBool,
}

impl Announcement {
    pub fn new(subject: Subject, body: Vec<u8>) -> Arc<Self> {
        Arc::new(Self {
            subject,
            body,
            put: AtomicBool::new(false),
        })
    }
}

/// A block as the collector cuts it.
pub struct Block {
    pub announcement: Arc<Announcement>,
    pub subject: Subject,
    pub body: Vec<u8>,
}

impl Block {
    pub fn kept(&self) -> Kept<'_> {
        let (stream_id, kind) = match &self.subject {
            Subject::Block { stream_id, kind, .. } => (&**stream_id, *kind),
            _ => ("", StreamKind::Cpu),
        };
        Kept {
            stream_id,
            kind,
            events: self.subject.events(),
            announcement: &self.announcement.body,
            body: &self.body,
        }
    }
}

/// What a process that died left, and what became of it.
#[derive(Default)]
pub struct Remains {
    pub waiting: AtomicU64,
    pub sent_events: AtomicU64,
    pub lost_events: AtomicU64,
}

/// A request to send.
pub struct Item {
    pub subject: Subject,
    /// Empty while it is only `stored`.
    pub body: Vec<u8>,
    /// Bytes of the body.
    pub(super) size: usize,
    pub(super) stored: Option<Stored>,
    pub(super) remains: Option<Arc<Remains>>,
    /// Of a block: what announces its stream.
    pub(super) announcement: Option<Arc<Announcement>>,
    /// How often the server failed at it.
    pub(super) failures: u32,
    /// How often nobody answered.
    pub(super) absences: u32,
    /// Requests that the server had taken when nobody answered this one.
    pub(super) sent_before: u64,
    pub(super) not_before: Option<Instant>,
    pub(super) serial: u64,
}

impl Item {
    pub(super) fn new(subject: Subject, body: Vec<u8>, announcement: Option<Arc<Announcement>>) -> Self {
        Self {
            subject,
            size: body.len(),
            body,
            stored: None,
            remains: None,
            announcement,
            failures: 0,
            absences: 0,
            sent_before: 0,
            not_before: None,
            serial: 0,
        }
    }

    pub(super) fn rank(&self) -> usize {
        match self.remains {
            Some(_) => OWN_RANKS,
            None => self.subject.rank(),
        }
    }
}

/// What came of trying to send an item.
pub enum Outcome {
    /// The server took it, in so many bytes: another encoding than the queue's has another length.
    Sent { bytes: usize },
    /// The server will never take it.
    Refused(String),
    /// The server failed at this one.
    Failed(String),
    /// Nothing to be let in with, as the server said or as we know without asking: wait until there is.
    NoPass(Option<String>),
    /// The server is away or asks for patience, of this long if it said so.
    Away(String, Option<Duration>),
}
