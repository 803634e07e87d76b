//! Traces for Perfetto out of rows of SQL: spans, counters, log lines. See `encoder` for the whole, docs/decisions/021
//! for why a trace looks as it does. It must never hold more than the rows it was just given, the spans that are open,
//! and bounded tables of names.

pub mod encoder;
pub mod interning;
pub mod lanes;
pub mod packets;
pub mod protobuf;
pub mod rows;
