//! What outlives the process: its buffers (files mapped shared), a journal of what describes them, and the blocks that the
//! server does not have yet.
//!
//! A folder per session, named by the process id and locked for as long as the process lives:
//!
//! ```text
//! <spool>/<process id>/lock        held by flock: whoever gets it knows that the process has died
//!                      journal     the session, then each description when it is first used
//!                      segment-N   batches: the blocks of one cut, and how far the buffers were read for them
//!                      spare       the file of an earlier segment, for the next one
//! <pages>/<process id>/buffer-N    a block of a thread's chain
//!                      control     counters' sums, dropped counts, clock readings
//! ```
//!
//! A batch is appended by one write and counts only as a whole, so at any instant an event is either in a batch or still
//! to be read from a buffer: never both, never neither.

pub mod claim;
pub mod folder;
pub mod journal;
pub mod pages;
pub mod python;
pub mod recovery;
pub mod segments;
mod session_spool;

pub use session_spool::{SessionSpool, SpoolFacts};

/// Says how records, and what describes them, are laid out: another number is another layout.
pub const RECORD_LAYOUT: u64 = match u64::from_str_radix(env!("MICROMEGAS_RECORD_LAYOUT"), 16) {
    Ok(layout) => layout,
    Err(_) => panic!("build.rs gives 16 digits"),
};

#[no_mangle]
#[allow(non_upper_case_globals)]
pub static mm_record_layout: u64 = RECORD_LAYOUT;
