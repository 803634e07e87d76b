//! The bounded queue between the collector and the uploader, and what became of its items.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::layouts::StreamKind;
use super::losses::{class_of, Losses};

/// A request to send.
pub struct Item {
    pub route: &'static str,
    pub body: Vec<u8>,
    /// None: an announcement.
    pub kind: Option<StreamKind>,
    pub events: u64,
    pub attempts: u32,
    pub not_before: Option<Instant>,
    serial: u64,
}

impl Item {
    fn new(route: &'static str, body: Vec<u8>, kind: Option<StreamKind>, events: u64) -> Self {
        Self {
            route,
            body,
            kind,
            events,
            attempts: 0,
            not_before: None,
            serial: 0,
        }
    }

    pub fn block(body: Vec<u8>, kind: StreamKind, events: u64) -> Self {
        Self::new("insert_block", body, Some(kind), events)
    }
}

/// Why an item leaves the outbox for good.
pub enum Outcome {
    Sent,
    RefusedByServer(String),
}

/// Figures for `micromegas.status()`.
#[derive(Clone, Default)]
pub struct Delivery {
    pub sent_requests: u64,
    pub sent_events: u64,
    pub sent_bytes: u64,
    pub losses: Losses,
    pub last_error: Option<String>,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    taken: Option<u64>,
    bytes: usize,
    next_serial: u64,
    delivery: Delivery,
    stop_at: Option<Instant>,
    finished: bool,
    /// Something was left at the end, if only an announcement.
    abandoned: bool,
}

pub struct Outbox {
    state: Mutex<State>,
    changed: Condvar,
    limit_bytes: usize,
}

impl Outbox {
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            limit_bytes,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process always finds room: without it the blocks are of no use.
    pub fn announce_process(&self, body: Vec<u8>) {
        self.put(&mut self.lock(), Item::new("insert_process", body, None, 0));
    }

    /// Takes a block, after the announcement of its stream if that is given. Drops both (and counts the block's events)
    /// when the queue is full: what is older explains how it came to this. Tells whether they were taken.
    pub fn push(&self, stream: Option<Vec<u8>>, item: Item) -> bool {
        let mut state = self.lock();
        let size = item.body.len() + stream.as_ref().map_or(0, Vec::len);
        if state.finished || state.bytes + size > self.limit_bytes {
            if let Some(kind) = item.kind {
                state.delivery.losses.queue[class_of(kind)] += item.events;
            }
            return false;
        }
        if let Some(body) = stream {
            self.put(&mut state, Item::new("insert_stream", body, None, 0));
        }
        self.put(&mut state, item);
        true
    }

    fn put(&self, state: &mut State, mut item: Item) {
        item.serial = state.next_serial;
        state.next_serial += 1;
        state.bytes += item.body.len();
        state.items.push_back(item);
        self.changed.notify_all();
    }

    /// The next item that may be tried. None: the end has come, and what is left is lost. A pause that was not begun
    /// `at_end` is cut short by the end.
    pub fn take(&self, pause_until: Option<Instant>, at_end: bool) -> Option<Item> {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if state
                .stop_at
                .is_some_and(|stop_at| now >= stop_at || state.items.is_empty())
            {
                return None;
            }
            let mut wake = state.stop_at;
            let mut later = |instant: Instant| wake = Some(wake.map_or(instant, |earlier| earlier.min(instant)));
            let paused = pause_until.filter(|&until| until > now && (at_end || state.stop_at.is_none()));
            if let Some(until) = paused {
                later(until);
            } else {
                for index in 0..state.items.len() {
                    match state.items[index].not_before {
                        Some(instant) if instant > now => later(instant),
                        _ => {
                            let item = state.items.remove(index);
                            state.taken = item.as_ref().map(|item| item.serial);
                            return item;
                        }
                    }
                }
            }
            let patience = wake.map_or(Duration::from_secs(3600), |wake| wake.saturating_duration_since(now));
            state = self
                .changed
                .wait_timeout(state, patience)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Puts an item back in its place, to be tried again.
    pub fn put_back(&self, item: Item, error: String) {
        let mut state = self.lock();
        state.taken = None;
        state.delivery.last_error = Some(error);
        let place = state.items.partition_point(|other| other.serial < item.serial);
        state.items.insert(place, item);
    }

    pub fn settle(&self, item: &Item, outcome: Outcome) {
        let mut state = self.lock();
        state.taken = None;
        state.bytes -= item.body.len();
        let delivery = &mut state.delivery;
        match (outcome, item.kind) {
            (Outcome::Sent, _) => {
                delivery.sent_requests += 1;
                delivery.sent_events += item.events;
                delivery.sent_bytes += item.body.len() as u64;
            }
            (Outcome::RefusedByServer(error), kind) => {
                if let Some(kind) = kind {
                    delivery.losses.server[class_of(kind)] += item.events;
                }
                delivery.last_error = Some(error);
            }
        }
        self.changed.notify_all();
    }

    /// All that was put so far lies below this serial.
    pub fn horizon(&self) -> u64 {
        self.lock().next_serial
    }

    /// Waits until nothing below `horizon` is left, at most until the deadline. Tells whether it came to that.
    pub fn wait_settled(&self, horizon: u64, deadline: Instant) -> bool {
        let mut state = self.lock();
        loop {
            let first = state
                .items
                .front()
                .map(|item| item.serial)
                .into_iter()
                .chain(state.taken)
                .min();
            if first.is_none_or(|first| first >= horizon) {
                return !state.abandoned;
            }
            let patience = deadline.saturating_duration_since(Instant::now());
            if patience.is_zero() || state.finished {
                return false;
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
        state.stop_at = Some(deadline);
        for item in &mut state.items {
            item.not_before = None; // the last chance must not be slept away
        }
        drop(state);
        self.changed.notify_all();
    }

    pub fn stop_at(&self) -> Option<Instant> {
        self.lock().stop_at
    }

    /// The uploader's last word: what is left is lost.
    pub fn finish(&self) {
        let mut state = self.lock();
        state.finished = true;
        state.taken = None;
        state.bytes = 0;
        let left = std::mem::take(&mut state.items);
        state.abandoned = !left.is_empty();
        for item in left {
            if let Some(kind) = item.kind {
                state.delivery.losses.queue[class_of(kind)] += item.events;
            }
        }
        self.changed.notify_all();
    }

    pub fn delivery(&self) -> Delivery {
        self.lock().delivery.clone()
    }

    /// Bytes that wait.
    pub fn waiting_bytes(&self) -> usize {
        self.lock().bytes
    }
}
