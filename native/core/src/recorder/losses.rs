//! Exact counts of what did not arrive, by reason and by class of event.

use super::layouts::StreamKind;
use super::{hotpath, record};

/// Why events were lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The buffers of the threads were full.
    Buffers,
    /// The queue of blocks to send was full.
    Queue,
    /// The server refused them, or the announcement that they need.
    Refused,
    /// The server failed at them too often.
    GivenUp,
    /// The session ended before they could be sent.
    Exit,
}

pub const REASONS: [(Reason, &str); 5] = [
    (Reason::Buffers, "buffers_full"),
    (Reason::Queue, "queue_full"),
    (Reason::Refused, "refused"),
    (Reason::GivenUp, "given_up"),
    (Reason::Exit, "at_exit"),
];

/// The classes of events, by their place in every array of counts.
pub const CLASSES: [&str; 3] = ["logs", "measures", "spans"];

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Losses {
    /// By reason, then by class.
    counts: [[u64; CLASSES.len()]; REASONS.len()],
    /// Values that were no numbers, properties beyond the limit.
    pub refused_values: u64,
}

fn class_of(kind: StreamKind) -> usize {
    match kind {
        StreamKind::Log => 0,
        StreamKind::Metrics => 1,
        StreamKind::Cpu => 2,
    }
}

impl Losses {
    /// What the hot path has counted since the process began.
    pub fn of_hot_path() -> Self {
        let mut losses = Self {
            refused_values: hotpath::refused_values(),
            ..Self::default()
        };
        for kind in 0..record::KINDS {
            let class = match kind {
                record::METRIC_INT | record::METRIC_FLOAT | record::METRIC_WITH | record::FRAME => 1,
                record::LOG_LITERAL | record::LOG_FEW | record::LOG_VALUES | record::LOG_TEXT => 0,
                _ => 2,
            };
            losses.counts[Reason::Buffers as usize][class] += hotpath::dropped_events(kind);
        }
        losses
    }

    pub fn count(&mut self, reason: Reason, kind: StreamKind, events: u64) {
        self.counts[reason as usize][class_of(kind)] += events;
    }

    fn combine(mut self, other: &Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        for (counts, others) in self.counts.iter_mut().zip(&other.counts) {
            for (count, other) in counts.iter_mut().zip(others) {
                *count = combine(*count, *other);
            }
        }
        self.refused_values = combine(self.refused_values, other.refused_values);
        self
    }

    /// What has been counted since an earlier look.
    pub fn since(self, earlier: &Self) -> Self {
        self.combine(earlier, |now, then| now - then)
    }

    pub fn plus(self, other: &Self) -> Self {
        self.combine(other, |left, right| left + right)
    }

    pub fn of(&self, reason: Reason) -> [u64; CLASSES.len()] {
        self.counts[reason as usize]
    }

    /// Reason, class and count of all that is not zero.
    pub fn parts(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
        REASONS
            .iter()
            .flat_map(|&(reason, name)| {
                CLASSES
                    .iter()
                    .zip(self.of(reason))
                    .map(move |(class, count)| (name, *class, count))
            })
            .filter(|(_, _, count)| *count > 0)
    }

    pub fn events(&self) -> u64 {
        self.counts.iter().flatten().sum()
    }

    /// For the log event that tells about them.
    pub fn message(&self) -> String {
        let mut parts = Vec::new();
        for (reason, words) in [
            (Reason::Buffers, "buffers full"),
            (Reason::Queue, "queue full"),
            (Reason::Refused, "refused by the server"),
            (Reason::GivenUp, "given up after failures of the server"),
            (Reason::Exit, "left at the end"),
        ] {
            let [logs, measures, spans] = self.of(reason);
            if logs + measures + spans > 0 {
                parts.push(format!(
                    "{words}: {logs} logs, {measures} measures, {spans} span events"
                ));
            }
        }
        if self.refused_values > 0 {
            parts.push(format!("values refused: {}", self.refused_values));
        }
        format!("lost since the start of the process: {}", parts.join("; "))
    }
}
