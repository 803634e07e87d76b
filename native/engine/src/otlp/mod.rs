//! OpenTelemetry's protocol (OTLP): requests into blocks, and blocks into rows and values.
//!
//! The messages are read in place, field by field, and never become objects: two bytes of a request can stand for a
//! record, and a tree of such records would take a hundred times the memory of the bytes. Nothing here panics, recurses
//! without bound or allocates from an announced length, whatever the bytes are.

pub mod check;
pub mod json;
pub mod logs;
pub mod metrics;
pub mod properties;
pub mod python;
pub mod reader;
pub mod records;
pub mod resources;
pub mod row_maker;
pub mod schema;
pub mod spans;
pub mod text_of_bytes;
pub mod value;
pub mod values;

use std::borrow::Cow;

use micromegas_core::codec::payload::Payload;
use micromegas_core::codec::{Result, WireError};

use schema::Message;

/// Messages within messages.
pub const MAX_DEPTH: usize = 100;
/// Records of one request, and of one block: what their rows may take in memory is bounded by this.
pub const MAX_RECORDS: usize = 2_000_000;
/// Attributes of one record or scope, and of all the resources of a request. Two bytes can stand for one, whose text and place take a hundred.
pub const MAX_ATTRIBUTES: usize = 100_000;
/// Ids of any other length are none.
pub const TRACE_ID_BYTES: usize = 16;
pub const SPAN_ID_BYTES: usize = 8;

/// What the records of a request are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    Logs,
    Metrics,
    Traces,
}

impl Signal {
    pub const ALL: [Self; 3] = [Self::Logs, Self::Metrics, Self::Traces];

    /// The last part of the request's path.
    pub fn name(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Metrics => "metrics",
            Self::Traces => "traces",
        }
    }

    /// The format of streams whose blocks hold such records.
    pub fn format(self) -> &'static str {
        match self {
            Self::Logs => "otlp/v1/logs",
            Self::Metrics => "otlp/v1/metrics",
            Self::Traces => "otlp/v1/traces",
        }
    }

    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.name() == name)
    }

    pub fn of_format(format: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.format() == format)
    }

    /// The message of a whole request.
    pub fn request(self) -> &'static Message {
        match self {
            Self::Logs => &schema::EXPORT_LOGS,
            Self::Metrics => &schema::EXPORT_METRICS,
            Self::Traces => &schema::EXPORT_TRACES,
        }
    }
}

/// The message that a block holds: all records of one resource.
pub fn block_objects(stored_payload: &[u8]) -> Result<Cow<'_, [u8]>> {
    let payload = Payload::parse(stored_payload)?;
    if !payload.dependencies.is_empty() {
        return Err(WireError::new(format!(
            "{} bytes of dependencies beside an OTLP message",
            payload.dependencies.len()
        )));
    }
    Ok(payload.objects)
}

/// A time of OTLP as a column has it: None for 0, which says that it is not known. What lies beyond the year 2262 is
/// the end of the range.
pub fn event_time(unix_nano: u64) -> Option<i64> {
    (unix_nano != 0).then(|| i64::try_from(unix_nano).unwrap_or(i64::MAX))
}
