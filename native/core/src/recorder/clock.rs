//! Turns counter ticks into nanoseconds of the monotonic clock, and these into wall-clock time.
//!
//! Blocks carry nanoseconds (frequency 10^9): between two readings of both clocks ticks are interpolated, so neither
//! a frequency has to be guessed when the process is announced, nor does an error in it add up over days.

use std::time::{SystemTime, UNIX_EPOCH};

use super::hotpath;

/// A slope over less than this would mostly be the noise of reading two clocks.
const SHORTEST_SLOPE_NS: u64 = 1_000_000;

pub struct Clock {
    counter: bool,
    anchor: (u64, u64),
    ns_per_tick: f64,
    sloped: bool,
    start_ns: u64,
    start_wall_ns: i64,
}

impl Clock {
    pub fn start() -> Self {
        let anchor = hotpath::clock_pair();
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as i64);
        Self {
            counter: hotpath::clock_uses_counter(),
            anchor,
            ns_per_tick: 1.0,
            sloped: false,
            start_ns: anchor.1,
            start_wall_ns: wall,
        }
    }

    /// The clock of a process that died: it started at the anchor (ticks and nanoseconds), and was read once more later.
    pub fn of_the_dead(counter: bool, anchor: (u64, u64), start_wall_ns: i64, later: Option<(u64, u64)>) -> Self {
        let mut clock = Self {
            counter,
            anchor,
            ns_per_tick: 1.0,
            sloped: false,
            start_ns: anchor.1,
            start_wall_ns,
        };
        if let Some(later) = later {
            clock.observe_pair(later);
        }
        clock
    }

    /// Counter ticks and nanoseconds at the start.
    pub fn anchor(&self) -> (u64, u64) {
        self.anchor
    }

    pub fn uses_counter(&self) -> bool {
        self.counter
    }

    /// Reads both clocks; gives the monotonic nanoseconds. Events stamped before it can then be converted well.
    pub fn observe(&mut self) -> u64 {
        let pair = hotpath::clock_pair();
        self.observe_pair(pair);
        hotpath::note_clock(pair);
        pair.1
    }

    fn observe_pair(&mut self, (ticks, nanoseconds): (u64, u64)) {
        let elapsed_ns = nanoseconds.saturating_sub(self.anchor.1);
        let elapsed_ticks = ticks.saturating_sub(self.anchor.0);
        if elapsed_ticks == 0 || (self.sloped && elapsed_ns < SHORTEST_SLOPE_NS) {
            return;
        }
        self.ns_per_tick = elapsed_ns as f64 / elapsed_ticks as f64;
        if elapsed_ns >= SHORTEST_SLOPE_NS {
            self.anchor = (ticks, nanoseconds);
            self.sloped = true;
        }
    }

    /// Monotonic nanoseconds of an event.
    pub fn nanoseconds(&self, ticks: u64) -> u64 {
        if !self.counter {
            return ticks;
        }
        let difference = ticks.wrapping_sub(self.anchor.0) as i64;
        self.anchor
            .1
            .saturating_add_signed((difference as f64 * self.ns_per_tick) as i64)
    }

    /// `start_ticks` of the process: monotonic nanoseconds.
    pub fn start_ns(&self) -> u64 {
        self.start_ns
    }

    /// Nanoseconds since the epoch. Steps of the wall clock after the start do not show.
    pub fn wall_ns(&self, nanoseconds: u64) -> i64 {
        self.start_wall_ns + (nanoseconds as i64 - self.start_ns as i64)
    }
}
