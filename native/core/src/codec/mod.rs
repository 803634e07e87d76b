//! The wire format: request bodies, stream layouts, payload buffers and the events in them, all as untrusted input.
//!
//! Nothing here panics, recurses without bound or allocates from an announced length, whatever the bytes are. Texts
//! and records borrow the decompressed buffers; reading a block costs one pass and no allocation per event.
//!
//! ```text
//! BlockBuffers::open(payload)       ─┬─ Dependencies::parse(&layout.dependencies, &buffers.dependencies)
//!                                    └─ Records::new(&layout.objects, &buffers.objects) → Record → EventForm
//! ```

pub mod bytes;
pub mod cbor;
pub mod columns;
pub mod declarations;
pub mod dependencies;
pub mod envelope;
pub mod error;
pub mod events;
pub mod format;
pub mod id_hash;
pub mod ids;
pub mod layout;
pub mod limits;
pub mod lz4;
pub mod payload;
pub mod place;
pub mod prefetch;
#[cfg(feature = "python")]
pub mod python;
#[cfg(feature = "python")]
mod python_events;
pub mod records;
pub mod strings;
pub mod timestamp;

pub use dependencies::{Dependencies, DependencyIndex, DependencyView};
pub use error::{Result, WireError};
pub use format::Format;
pub use layout::{RecordType, RecordTypes, StreamLayout};
pub use payload::BlockBuffers;
pub use place::{Place, PlaceKind};
pub use records::{Record, Records};
