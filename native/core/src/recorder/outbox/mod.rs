//! The bounded queue between the collector and the uploader's threads, and what became of its items.
//!
//! Several items may be under way at once. What needs an announcement is not given out before that is settled: a stream
//! waits for its process, a block for its stream. Sent first is what tells most for its size (announcements, logs,
//! measures, spans), and dropped first is what tells least.

mod delivery;
mod item;
mod queue;
mod refusals;
mod remains;
mod requests;
mod sending;
mod state;
mod subject;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

pub use delivery::{Delivery, Traffic};
pub use item::{Announcement, Block, Item, Outcome, Remains};
pub use sending::Task;
pub use subject::Subject;

use super::credentials::Credentials;
use super::losses::Reason;
use super::spool::segments::Stored;
use super::spool::SessionSpool;
use state::State;

pub struct Outbox {
    state: Mutex<State>,
    changed: Condvar,
    limit_bytes: usize,
    credentials: Arc<Credentials>,
    /// Of this process's session.
    spool: Option<Arc<SessionSpool>>,
}

impl Outbox {
    pub fn new(limit_bytes: usize, credentials: Arc<Credentials>, spool: Option<Arc<SessionSpool>>) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            limit_bytes,
            credentials,
            spool,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process always finds room: without it the blocks are of no use.
    pub fn announce_process(&self, process_id: &str, body: Vec<u8>) {
        let subject = Subject::Process {
            process_id: process_id.into(),
        };
        self.lock().queue.put(Item::new(subject, body, None));
        self.changed.notify_all();
    }

    /// Lets go of the lock, and of the room in the spool of what was dropped under it.
    fn unlock(&self, mut state: MutexGuard<'_, State>) {
        let freed = std::mem::take(&mut state.freed);
        drop(state);
        for stored in freed {
            stored.settle(true);
        }
        self.changed.notify_all();
    }

    /// The blocks that the spool has room for. Less important ones that are there make room; the others are dropped.
    pub fn admit(&self, blocks: Vec<Block>) -> Vec<Block> {
        let limit = self.spool.as_ref().map_or(0, |spool| spool.facts.bytes);
        let mut state = self.lock();
        let mut admitted = Vec::new();
        let mut bytes = 0;
        for block in blocks {
            let size = block.body.len() as u64;
            let mut fits = true;
            while fits && state.queue.stored + bytes + size > limit {
                fits = state.drop_one(block.subject.rank() + 1, true);
            }
            if fits {
                bytes += size;
                admitted.push(block);
            } else {
                state.lose_own(&block.subject, Reason::Queue);
            }
        }
        self.unlock(state);
        admitted
    }

    /// Takes a block, and the announcement of its stream before the first. One that is not in the spool needs memory: less
    /// important ones make room; else it is dropped itself, for of equals the older explains how it came to this.
    pub fn push(&self, block: Block, stored: Option<Stored>) {
        let mut state = self.lock();
        self.push_locked(&mut state, block, stored);
        self.unlock(state);
    }

    fn push_locked(&self, state: &mut State, block: Block, stored: Option<Stored>) {
        let Block {
            announcement,
            subject,
            body,
        } = block;
        if state.finished {
            state.keeps |= stored.is_some();
            if stored.is_none() {
                state.lose_own(&subject, Reason::Exit);
            }
            return;
        }
        if !state.announce_again(&subject, Instant::now()) {
            state.freed.extend(stored);
            return state.lose_own(&subject, Reason::Refused);
        }
        let announced = announcement.put.load(Ordering::Relaxed);
        let size = body.len() + if announced { 0 } else { announcement.body.len() };
        let mut item = Item::new(subject, body, Some(Arc::clone(&announcement)));
        item.stored = stored;
        let lacking = (state.queue.memory + size).saturating_sub(self.limit_bytes);
        if lacking > 0 && item.stored.is_some() {
            item.body = Vec::new();
        } else if lacking > 0 && !state.queue.unload(lacking) {
            while state.queue.memory + size > self.limit_bytes {
                if !state.drop_one(item.rank() + 1, false) {
                    return state.lose_own(&item.subject, Reason::Queue);
                }
            }
        }
        if !announced {
            announcement.put.store(true, Ordering::Relaxed);
            state
                .queue
                .put(Item::new(announcement.subject.clone(), announcement.body.clone(), None));
        }
        state.queue.stored += item.stored.as_ref().map_or(0, |stored| stored.length() as u64);
        state.queue.put(item);
    }

    /// Whether blocks were left in the spool at the end.
    pub fn keeps(&self) -> bool {
        self.lock().keeps
    }

    /// There is something to be let in with.
    pub fn pass_came(&self) {
        drop(self.lock()); // who looked for it a moment ago must be waiting by now
        self.changed.notify_all();
    }

    /// All that was put so far lies below this serial.
    pub fn horizon(&self) -> u64 {
        self.lock().queue.next_serial
    }

    /// Waits until nothing below `horizon` is left, at most until the deadline. None: not yet. Else whether all of it
    /// was answered.
    pub fn wait_settled(&self, horizon: u64, deadline: Instant) -> Option<bool> {
        let mut state = self.lock();
        loop {
            let under_way = state.requests.under_way().iter().map(|request| request.serial);
            if under_way.chain(state.queue.oldest()).all(|serial| serial >= horizon) {
                return Some(!state.abandoned);
            }
            if state.finished {
                return Some(false);
            }
            let patience = deadline.saturating_duration_since(Instant::now());
            if patience.is_zero() {
                return None;
            }
            state = self
                .changed
                .wait_timeout(state, patience)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// From now on: send what is there, give up at the deadline.
    pub fn stop(&self, deadline: Instant) {
        let mut state = self.lock();
        state.pacing.stop(deadline);
        for item in state.queue.items_mut() {
            item.not_before = None; // the last chance must not be slept away
        }
        drop(state);
        self.changed.notify_all();
    }

    pub fn stop_at(&self) -> Option<Instant> {
        self.lock().pacing.stop_at
    }

    pub fn delivery(&self) -> Delivery {
        self.lock().delivery.clone()
    }

    /// What the server says about itself when it takes a process.
    pub fn learn_formats(&self, formats: Vec<String>) {
        self.lock().delivery.server_formats = Some(formats);
    }

    /// Troubles that were not told yet.
    pub fn news(&self) -> Vec<String> {
        self.lock().news.take()
    }

    pub fn traffic(&self) -> Traffic {
        let mut state = self.lock();
        Traffic {
            waiting: state.queue.len(),
            bytes: state.queue.bytes,
            under_way: state.requests.under_way().len(),
            dropped: state.dropped_blocks,
            requests: state.requests.take_ended(),
        }
    }

    /// Bytes that wait.
    pub fn waiting_bytes(&self) -> usize {
        self.lock().queue.bytes
    }
}
