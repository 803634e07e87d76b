//! Frames of the program: how long each took, which went over their budget, and which are open.

use std::collections::HashMap;

use super::descriptor::{Description, Descriptor};
use super::descriptors::metric_descriptor;
use super::metric_stream::{Measure, MetricStream};

/// Deeper nesting is a frame object that begins and never ends.
const MOST_OPEN: usize = 64;

struct Open {
    descriptor: &'static Descriptor,
    begin_ns: u64,
}

/// What went over its budget since it was last told.
struct Over {
    descriptor: &'static Descriptor,
    frames: u64,
    longest_ns: u64,
    budget_ns: u64,
}

#[derive(Default)]
pub struct Frames {
    /// By the serial of the thread.
    open: HashMap<u64, Vec<Open>>,
    over: HashMap<usize, Over>,
}

impl Frames {
    /// Reads one boundary; gives begin and end of the frame that it ends.
    pub fn add(
        &mut self,
        (thread, ns, descriptor, budget_and_end): (u64, u64, &'static Descriptor, u64),
        metrics: &mut MetricStream,
    ) -> Option<(u64, u64)> {
        let open = self.open.entry(thread).or_default();
        if budget_and_end & 1 == 0 {
            if open.len() == MOST_OPEN {
                open.remove(0);
            }
            open.push(Open {
                descriptor,
                begin_ns: ns,
            });
            return None;
        }
        // A generator that is dropped may leave frames open inside of this one: they end with it, unmeasured.
        let index = open
            .iter()
            .rposition(|frame| std::ptr::eq(frame.descriptor, descriptor))?;
        let begin_ns = open[index].begin_ns;
        open.truncate(index);
        let took_ns = ns.saturating_sub(begin_ns);
        metrics.add(ns, descriptor, Measure::Float(took_ns as f64 / 1e9));
        let budget_ns = budget_and_end >> 1;
        if budget_ns > 0 && took_ns > budget_ns {
            let over = self.over.entry(descriptor.index).or_insert(Over {
                descriptor,
                frames: 0,
                longest_ns: 0,
                budget_ns,
            });
            over.frames += 1;
            over.longest_ns = over.longest_ns.max(took_ns);
        }
        Some((begin_ns, ns))
    }

    /// Begins of the frames that have not ended.
    pub fn open(&self) -> impl Iterator<Item = u64> + '_ {
        self.open.values().flatten().map(|frame| frame.begin_ns)
    }

    /// The thread has ended, and its frames with it.
    pub fn forget(&mut self, thread: u64) {
        self.open.remove(&thread);
    }

    /// Measures how many frames went over their budget since the last call; gives what to say about it.
    pub fn tell_over(&mut self, ns: u64, metrics: &mut MetricStream) -> Vec<String> {
        let mut messages = Vec::new();
        for (_, over) in self.over.drain() {
            let Description::Metric { properties, .. } = &over.descriptor.description else {
                continue;
            };
            let place = (over.descriptor.target, over.descriptor.file, over.descriptor.line);
            if let Some(metric) = metric_descriptor(place, "FramesOverBudget", "count", properties) {
                metrics.add(ns, metric, Measure::Integer(over.frames as i64));
            }
            let name = properties.iter().find(|(name, _)| *name == "frame");
            messages.push(format!(
                "frame {}: {} over the budget of {:.1} ms, the longest took {:.1} ms",
                name.map_or("", |(_, value)| *value),
                over.frames,
                over.budget_ns as f64 / 1e6,
                over.longest_ns as f64 / 1e6,
            ));
        }
        messages
    }
}
