//! Descriptors: what all events of one call site, metric or span have in common. Made once, interned, never freed.

use crate::message::template::Template;

/// The measures of all metrics beyond the limit have the descriptor of this name; it ends with csrc/metric.c.
pub const METRIC_BEYOND: &str = "(metric beyond the limit of descriptions)";

/// Records keep the event's kind in the four low bits of a descriptor's address.
#[repr(align(16))]
pub struct Descriptor {
    /// Dense: 0, 1, 2 …
    pub index: usize,
    pub target: &'static str,
    pub file: &'static str,
    pub line: u32,
    pub description: Description,
}

pub enum Description {
    Log {
        level: u32,
        template: Template<'static>,
    },
    Metric {
        name: &'static str,
        unit: &'static str,
        properties: Vec<(&'static str, &'static str)>,
    },
    Span {
        name: &'static str,
    },
}
