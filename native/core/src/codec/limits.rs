//! How much one block may cost. Everything here bounds work on input that anybody can send; nothing here is
//! reached by a real sender.

/// Largest metadata of one record list, in bytes of CBOR.
pub const MAX_METADATA_BYTES: usize = 1 << 20;
/// Members of one type, after the inline types were followed.
pub const MAX_FIELDS_PER_TYPE: usize = 4096;
/// Members of all the types of one list, after the inline types were followed.
pub const MAX_FIELDS_PER_LIST: usize = 65_536;
/// How deep types may lie inline in one another (a cycle ends here).
pub const MAX_TYPE_DEPTH: usize = 8;
/// Size of the type index of a record: one byte.
pub const MAX_RECORD_TYPES: usize = 256;
/// Nesting of CBOR items that are skipped because their key is unknown.
pub const MAX_CBOR_DEPTH: usize = 256;
/// Default cap of each decompressed buffer, in bytes. Real senders reach 10 MiB plus one big event.
pub const MAX_DECOMPRESSED_BYTES: usize = 256 << 20;
