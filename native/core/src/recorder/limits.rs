//! The ends of what a program could make without end, names made of its data above all, and what is kept for ever of it.
//!
//! Nothing is lost beyond them but what tells events apart cheaply. A session tells of each once.

use std::sync::atomic::{AtomicU32, Ordering};

/// Mirrored by `enum mm_limit` in csrc/recorder.h.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    LogSites = 0,
    Spans = 1,
    Metrics = 2,
    Counters = 3,
    PropertySets = 4,
    Loggers = 5,
}

const LIMITS: [(Limit, &str, &str); 6] = [
    (
        Limit::LogSites,
        "log_sites",
        "places of log calls: events of further ones have no place, and their messages are made by the caller",
    ),
    (
        Limit::Spans,
        "spans",
        "descriptions of spans: further spans have no place, and where they were declared before they begin no name",
    ),
    (
        Limit::Metrics,
        "metrics",
        "metrics: further ones share a description, and every measure brings its name and unit along",
    ),
    (
        Limit::Counters,
        "counters",
        "counters: every call of add() of further ones is an event",
    ),
    (
        Limit::PropertySets,
        "property_sets",
        "property sets: equal ones of further sets are no longer one object",
    ),
    (
        Limit::Loggers,
        "loggers",
        "loggers: further ones share the target micromegas.other_loggers",
    ),
];

/// A bit for each, of the whole process.
static REACHED: AtomicU32 = AtomicU32::new(0);

/// From now on the program is beyond it.
pub fn reach(limit: Limit) {
    REACHED.fetch_or(1 << limit as u32, Ordering::Relaxed);
}

/// See `mm_limit_reached` in csrc/recorder.h.
#[no_mangle]
extern "C" fn mm_limit_reached(limit: u32) {
    REACHED.fetch_or(1 << limit, Ordering::Relaxed);
}

/// Names of those that the program is beyond.
pub fn reached() -> Vec<&'static str> {
    let reached = REACHED.load(Ordering::Relaxed);
    let limits = LIMITS.iter().filter(|(limit, ..)| reached & (1 << *limit as u32) != 0);
    limits.map(|(_, name, _)| *name).collect()
}

/// What a session has told about them.
#[derive(Default)]
pub struct Told(u32);

impl Told {
    /// Messages about those that were reached since the last time.
    pub fn news(&mut self) -> Vec<String> {
        let reached = REACHED.load(Ordering::Relaxed);
        let new = reached & !self.0;
        self.0 = reached;
        let limits = LIMITS.iter().filter(|(limit, ..)| new & (1 << *limit as u32) != 0);
        limits
            .map(|(_, _, consequence)| format!("too many {consequence}; are they made of data?"))
            .collect()
    }
}
