//! The recorder's native half: drains the buffers that the hot path (`csrc/`) fills, makes blocks of them, sends these.
//!
//! ```text
//! calling threads → csrc/buffer.c → collector (thread: records → streams → blocks) → outbox → uploader (thread: HTTP)
//! ```
//!
//! Neither thread takes the GIL, reads a Python object, or is woken by an event: they look every few milliseconds.

// Without the interpreter only what needs none of it is built, for the tests.
#![cfg_attr(not(feature = "python"), allow(dead_code))]

#[cfg(feature = "python")]
mod announcement;
#[cfg(feature = "python")]
mod blocks;
#[cfg(feature = "python")]
mod capture;
#[cfg(feature = "python")]
mod captures;
#[cfg(feature = "python")]
mod clock;
#[cfg(feature = "python")]
mod collector;
#[cfg(feature = "python")]
mod console;
#[cfg(feature = "python")]
mod cpu_stream;
#[cfg(feature = "python")]
mod credentials;
mod descriptor;
mod descriptors;
#[cfg(feature = "python")]
mod encoding;
#[cfg(feature = "python")]
mod endpoint;
#[cfg(feature = "python")]
mod frames;
#[cfg(feature = "python")]
mod hotpath;
#[cfg(feature = "python")]
mod http;
#[cfg(feature = "python")]
mod hushed;
mod identity;
mod known_texts;
#[cfg(feature = "python")]
mod last_words;
#[cfg(feature = "python")]
mod layouts;
mod limits;
#[cfg(feature = "python")]
mod log_properties;
#[cfg(feature = "python")]
mod log_stream;
#[cfg(feature = "python")]
mod losses;
mod mends;
#[cfg(feature = "python")]
mod metric_stream;
#[cfg(feature = "python")]
mod outbox;
mod pacing;
mod proxy;
#[cfg(feature = "python")]
pub mod python;
mod record;
mod scrubber;
mod secret_beginnings;
#[cfg(feature = "python")]
mod session;
#[cfg(feature = "python")]
mod shown_templates;
#[cfg(feature = "python")]
mod sink_measures;
mod span_sampling;
#[cfg(feature = "python")]
mod spool;
#[cfg(feature = "python")]
mod streams;
#[cfg(feature = "python")]
mod system_monitor;
#[cfg(feature = "python")]
mod tls;
#[cfg(feature = "python")]
mod tls_stream;
#[cfg(feature = "python")]
mod uploader;
mod url;
