//! The encoding of blocks as columns, `micromegas-columns/1`: the records of a block, transposed, and compressed by zstd.
//! Lossless both ways for every stream layout. Described byte by byte in docs/decisions.
//!
//! ```text
//! records ─ Encoder::encode → BodyWriter (columns) → SegmentWriter → the payload's `objects`
//! records ← decode          ← BodyReader           ← read_segments ←
//! ```

mod body;
mod decimals;
mod decoder;
mod encoder;
mod integers;
mod log_columns;
mod record_writer;
mod references;
mod segments;
mod shape;
mod templates;
mod texts;
mod values;

pub use decoder::decode;
pub use encoder::Encoder;
pub use log_columns::{LogColumns, LogHead, TemplateRow, TEMPLATE_BYTES};
pub use shape::TEMPLATE_EVENT;
pub use texts::{Dictionary, Guess, TextHash};
pub use values::{Cell, NUMBER_BYTES, TEXT_HEAD_BYTES};
