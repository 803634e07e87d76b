//! What the recorder measures of itself, by the names of the field: the queue to the server, requests, what was dropped.

use super::descriptor::Descriptor;
use super::descriptors::metric_descriptor;
use super::metric_stream::{Measure, MetricStream};
use super::outbox::Outbox;

type Metric = Option<&'static Descriptor>;

pub struct SinkMeasures {
    dropped_before: u64,
    queue_size: Metric,
    queue_bytes: Metric,
    in_flight: Metric,
    completion_time: Metric,
    dropped: Metric,
}

impl SinkMeasures {
    pub fn new() -> Self {
        let metric = |name, unit| metric_descriptor(("micromegas.recorder", "", 0), name, unit, &[]);
        Self {
            dropped_before: 0,
            queue_size: metric("QueueSize", "count"),
            queue_bytes: metric("QueueSizeBytes", "bytes"),
            in_flight: metric("HttpInFlightRequests", "count"),
            completion_time: metric("HttpRequestCompletionTime", "ns"),
            dropped: metric("DroppedUploads", "count"),
        }
    }

    /// Adds how the queue stands, how long requests took since the last call, and how many blocks were dropped.
    pub fn measure(&mut self, ns: u64, outbox: &Outbox, metrics: &mut MetricStream) {
        let traffic = outbox.traffic();
        let mut add = |ns: u64, metric: Metric, value: u64| {
            if let Some(metric) = metric {
                metrics.add(ns, metric, Measure::Integer(value as i64));
            }
        };
        for request in traffic.requests {
            let since = request.ended.elapsed().as_nanos() as u64;
            add(
                ns.saturating_sub(since),
                self.completion_time,
                request.took.as_nanos() as u64,
            );
        }
        add(ns, self.queue_size, traffic.waiting as u64);
        add(ns, self.queue_bytes, traffic.bytes as u64);
        add(ns, self.in_flight, traffic.under_way as u64);
        if traffic.dropped > self.dropped_before {
            add(ns, self.dropped, traffic.dropped - self.dropped_before);
            self.dropped_before = traffic.dropped;
        }
    }
}
