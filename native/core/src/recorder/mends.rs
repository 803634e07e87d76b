//! How often the spans of a thread had to be mended, so that what is sent are trees: exact counts by what was done.

use std::sync::atomic::{AtomicU64, Ordering};

/// What was wrong with a span.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mend {
    /// An end without a begin, which was left out: the span had begun before the recording, or in another thread.
    NoBegin = 0,
    /// A begin without an end before that of the span around it, with which it ended.
    NoEnd = 1,
    /// Still open when its thread ended, or the recording.
    LeftOpen = 2,
}

/// By `Mend`.
pub const MENDS: [&str; 3] = ["no_begin", "no_end", "left_open"];

/// Counts of one thread since they were last taken.
#[derive(Default)]
pub struct Mended([u64; MENDS.len()]);

impl Mended {
    pub fn count(&mut self, mend: Mend, spans: usize) {
        self.0[mend as usize] += spans as u64;
    }

    fn take(&mut self) -> [u64; MENDS.len()] {
        std::mem::take(&mut self.0)
    }
}

/// Counts of a session, which `status()` reads while the collector adds.
#[derive(Default)]
pub struct AllMended([AtomicU64; MENDS.len()]);

impl AllMended {
    /// Adds what threads have counted; gives the names and counts of what was new.
    pub fn add<'a>(&self, of_threads: impl Iterator<Item = &'a mut Mended>) -> Vec<(&'static str, u64)> {
        let mut new = [0; MENDS.len()];
        for counts in of_threads {
            for (sum, count) in new.iter_mut().zip(counts.take()) {
                *sum += count;
            }
        }
        for (all, count) in self.0.iter().zip(new) {
            all.fetch_add(count, Ordering::Relaxed);
        }
        let named = MENDS.into_iter().zip(new);
        named.filter(|(_, count)| *count > 0).collect()
    }

    /// Names and counts.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        MENDS
            .into_iter()
            .zip(self.0.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_taken_once_and_kept_for_the_session() {
        let (all, mut threads) = (AllMended::default(), [Mended::default(), Mended::default()]);
        threads[0].count(Mend::NoEnd, 2);
        threads[1].count(Mend::NoEnd, 1);
        threads[1].count(Mend::LeftOpen, 4);
        assert_eq!(all.add(threads.iter_mut()), [("no_end", 3), ("left_open", 4)]);
        assert_eq!(all.add(threads.iter_mut()), []);
        threads[0].count(Mend::NoBegin, 1);
        assert_eq!(all.add(threads.iter_mut()), [("no_begin", 1)]);
        let counts: Vec<_> = all.counts().collect();
        assert_eq!(counts, [("no_begin", 1), ("no_end", 3), ("left_open", 4)]);
    }
}
