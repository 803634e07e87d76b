//! When to try again: the pauses while a server is away, and the last tries before the process ends.

use std::time::{Duration, Instant};

/// The longest pause between two tries of a server that is away, or at a block that it fails at.
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// How often a server that is away is tried while the process waits to end.
const TRIES_AT_END: u32 = 3;
/// Times in a row that the server is away before that is worth telling: the fourth comes a second after the first.
const ABSENCES_TOLD: u32 = 4;

/// 10 ms, 100 ms, 1 s, then 10 s.
pub fn delay(tries: u32) -> Duration {
    let delay = Duration::from_millis(10 * 10_u64.pow(tries.saturating_sub(1).min(6)));
    delay.min(LONGEST_DELAY)
}

#[derive(Default)]
pub struct Pacing {
    /// Times in a row that the server was away, and when it is tried again.
    absences: u32,
    tries_at_end: u32,
    pause_until: Option<Instant>,
    /// The process ends: when to give up.
    pub stop_at: Option<Instant>,
}

impl Pacing {
    /// Whether the server was away when it was last asked.
    pub fn is_away(&self) -> bool {
        self.absences > 0
    }

    /// The server has said something, if it was a refusal.
    pub fn answered(&mut self) {
        self.absences = 0;
    }

    /// The server took something: whoever waits for it may go on.
    pub fn took(&mut self) {
        self.absences = 0;
        self.pause_until = None;
    }

    /// The server was away, or asked for patience. Whether that is worth telling now.
    pub fn was_away(&mut self, now: Instant, patience: Option<Duration>) -> bool {
        // Whoever else was under way when the server went away tells nothing new.
        if self.pause_until.is_some_and(|until| until > now) {
            return false;
        }
        self.absences += 1;
        let mut count = self.absences;
        if self.stop_at.is_some() {
            // While ending, start over with short delays: the last chance must not be slept away.
            self.tries_at_end += 1;
            count = self.tries_at_end;
        }
        self.pause_until = Some(now + patience.unwrap_or_else(|| delay(count)));
        self.absences == ABSENCES_TOLD
    }

    /// When the server is tried again, if that is later.
    pub fn pause(&self, now: Instant) -> Option<Instant> {
        self.pause_until.filter(|&until| until > now)
    }

    pub fn stop(&mut self, deadline: Instant) {
        self.stop_at = Some(deadline);
        self.pause_until = None;
    }

    /// Whether nothing is to be tried any more.
    pub fn is_over(&self, now: Instant) -> bool {
        self.stop_at
            .is_some_and(|stop_at| now >= stop_at || self.tries_at_end >= TRIES_AT_END)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_an_answer_ends_them() {
        let mut pacing = Pacing::default();
        let mut now = Instant::now();
        let mut told = Vec::new();
        for wanted in [10, 100, 1_000, 10_000, 10_000] {
            told.push(pacing.was_away(now, None));
            let until = pacing.pause(now).unwrap();
            assert_eq!(until - now, Duration::from_millis(wanted));
            assert!(!pacing.was_away(now, None), "another request of the same moment");
            now = until;
        }
        assert_eq!(told, [false, false, false, true, false]);
        pacing.took();
        assert!(!pacing.is_away() && pacing.pause(now).is_none());
    }

    #[test]
    fn the_end_gives_three_short_tries() {
        let mut pacing = Pacing::default();
        let mut now = Instant::now();
        pacing.was_away(now, Some(Duration::from_secs(60)));
        pacing.stop(now + Duration::from_secs(60));
        assert!(pacing.pause(now).is_none(), "the end waits for no server");
        for wanted in [10, 100, 1_000] {
            assert!(!pacing.is_over(now));
            pacing.was_away(now, None);
            let until = pacing.pause(now).unwrap();
            assert_eq!(until - now, Duration::from_millis(wanted));
            now = until;
        }
        assert!(pacing.is_over(now));
    }
}
