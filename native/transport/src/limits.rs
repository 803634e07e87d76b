//! What all calls of a server may take together.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

/// What requests that aren't answered yet may hold together, in largest messages.
const MAX_HELD_MESSAGES: usize = 4;

pub struct Limits {
    pub max_message_bytes: usize,
    pub max_calls: usize,
    /// Paths of calls that begin when their one message is here; all others begin at once.
    pub unary_paths: HashSet<String>,
    /// How long such a call may wait for more of its message.
    pub patience: Duration,
    calls: AtomicUsize,
    last_number: AtomicU64,
    held_bytes: AtomicUsize,
}

impl Limits {
    pub fn new(max_message_bytes: usize, max_calls: usize, unary_paths: HashSet<String>, patience: Duration) -> Limits {
        Limits {
            max_message_bytes,
            max_calls,
            unary_paths,
            patience,
            calls: AtomicUsize::new(0),
            last_number: AtomicU64::new(0),
            held_bytes: AtomicUsize::new(0),
        }
    }

    /// Of a new call.
    pub fn next_number(&self) -> u64 {
        self.last_number.fetch_add(1, Ordering::Relaxed)
    }

    /// A place among the calls; None when there are too many.
    pub fn seat(self: &Arc<Self>) -> Option<Seat> {
        let taken = self.calls.fetch_add(1, Ordering::Relaxed);
        let seat = Seat(self.clone());
        (taken < self.max_calls).then_some(seat)
    }

    /// Counts what a call holds of its request: `now` bytes instead of `before`. False when all hold too much.
    pub fn hold(&self, before: usize, now: usize) -> bool {
        if now <= before {
            self.held_bytes.fetch_sub(before - now, Ordering::Relaxed);
            return true;
        }
        let held = self.held_bytes.fetch_add(now - before, Ordering::Relaxed) + (now - before);
        held <= self.max_message_bytes.saturating_mul(MAX_HELD_MESSAGES)
    }
}

/// Given back when it is dropped.
pub struct Seat(Arc<Limits>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}
