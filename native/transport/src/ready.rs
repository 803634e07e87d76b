//! Which connections have something to do. A connection that is woken is noted once until it is driven.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Wake;

use crate::held::held;

#[derive(Default)]
pub struct Ready {
    keys: Mutex<Vec<usize>>,
}

impl Ready {
    /// The keys of connections that were woken since the last time.
    pub fn take(&self) -> Vec<usize> {
        std::mem::take(&mut held(&self.keys))
    }

    pub fn is_empty(&self) -> bool {
        held(&self.keys).is_empty()
    }
}

/// Wakes one connection.
pub struct Signal {
    key: usize,
    is_noted: AtomicBool,
    /// It is among the keys, or being driven.
    is_queued: AtomicBool,
    ready: Arc<Ready>,
}

impl Signal {
    pub fn new(key: usize, ready: Arc<Ready>) -> Arc<Signal> {
        Arc::new(Signal {
            key,
            is_noted: AtomicBool::new(false),
            is_queued: AtomicBool::new(false),
            ready,
        })
    }

    pub fn note(&self) {
        self.is_noted.store(true, Ordering::Release);
        if !self.is_queued.swap(true, Ordering::AcqRel) {
            held(&self.ready.keys).push(self.key);
        }
    }

    /// Before a turn of the connection: whatever wakes it from now on counts anew.
    pub fn begin(&self) {
        self.is_noted.store(false, Ordering::Release);
    }

    /// After the turns of the connection: it waits for more of them if something woke it in the last.
    pub fn end(&self) {
        self.is_queued.store(false, Ordering::Release);
        if self.is_noted() {
            self.note();
        }
    }

    pub fn is_noted(&self) -> bool {
        self.is_noted.load(Ordering::Acquire)
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.note();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.note();
    }
}
