//! Exact counts of what did not arrive, by cause and by kind of event.

use super::layouts::StreamKind;
use super::{hotpath, record};

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Losses {
    /// The buffers of the threads were full.
    pub buffers: [u64; 3],
    /// The queue of blocks to send was full, or the process ended before they could be sent.
    pub queue: [u64; 3],
    /// The server refused the blocks.
    pub server: [u64; 3],
    /// Values that were no numbers, properties beyond the limit.
    pub refused_values: u64,
}

pub fn class_of(kind: StreamKind) -> usize {
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
                record::METRIC_INT | record::METRIC_FLOAT => 1,
                record::LOG_LITERAL | record::LOG_VALUES | record::LOG_TEXT => 0,
                _ => 2,
            };
            losses.buffers[class] += hotpath::dropped_events(kind);
        }
        losses
    }

    /// What the hot path has counted since an earlier look.
    pub fn since(self, earlier: &Self) -> Self {
        let mut losses = self;
        for class in 0..3 {
            losses.buffers[class] -= earlier.buffers[class];
        }
        losses.refused_values -= earlier.refused_values;
        losses
    }

    pub fn plus(self, other: &Self) -> Self {
        let add = |left: [u64; 3], right: [u64; 3]| [left[0] + right[0], left[1] + right[1], left[2] + right[2]];
        Self {
            buffers: add(self.buffers, other.buffers),
            queue: add(self.queue, other.queue),
            server: add(self.server, other.server),
            refused_values: self.refused_values + other.refused_values,
        }
    }

    pub fn events(&self) -> u64 {
        self.buffers.iter().chain(&self.queue).chain(&self.server).sum()
    }

    /// For the log event that tells about them.
    pub fn message(&self) -> String {
        let part = |cause: &str, counts: [u64; 3]| {
            let [logs, measures, spans] = counts;
            format!("{cause}: {logs} logs, {measures} measures, {spans} span events")
        };
        format!(
            "lost since the start of the process: {}; {}; {}; values refused: {}",
            part("buffers full", self.buffers),
            part("queue full", self.queue),
            part("refused by the server", self.server),
            self.refused_values
        )
    }
}
