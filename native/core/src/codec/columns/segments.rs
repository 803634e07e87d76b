//! The outermost form of a block in columns: the body in segments, each compressed or, where that does not pay, as it
//! is. Never gives more than the cap it is given, whatever the segments announce.

use zstd_safe::{CCtx, CParameter, DCtx};

use super::super::error::{wire_error, Result};
use super::body::{BodyReader, BodyWriter};

/// The first byte. An LZ4 frame begins with 0x04.
const MAGIC: u8 = 0xc1;
/// Measured: the next levels save a hundredth of the bytes of columns and take twice the time; those below zero save a
/// tenth of the time and take a fifth more bytes. Shorter matches than of seven bytes are chance in columns of numbers.
const PARAMETERS: [CParameter; 2] = [CParameter::CompressionLevel(1), CParameter::MinMatch(7)];
/// What one block of a zstd frame, which has at least 4 bytes, can hold.
const ZSTD_BLOCK_BYTES: usize = 128 << 10;

/// Packs bodies; keeps what zstd needs from one to the next.
pub struct SegmentWriter {
    zstd: CCtx<'static>,
    compressed: Vec<u8>,
}

impl Default for SegmentWriter {
    fn default() -> Self {
        let mut zstd = CCtx::create();
        for parameter in PARAMETERS {
            zstd.set_parameter(parameter).expect("parameters within their bounds");
        }
        Self {
            zstd,
            compressed: Vec::new(),
        }
    }
}

impl SegmentWriter {
    pub fn write(&mut self, body: &BodyWriter) -> Vec<u8> {
        let mut head = BodyWriter::default();
        let mut packed = vec![MAGIC];
        for segment in body.segments() {
            self.compressed.clear();
            self.compressed.reserve(zstd_safe::compress_bound(segment.len()));
            let is_smaller =
                self.zstd.compress2(&mut self.compressed, segment).is_ok() && self.compressed.len() < segment.len();
            let stored = if is_smaller { &self.compressed[..] } else { segment };
            head.clear();
            head.count(segment.len());
            head.count(if is_smaller { stored.len() } else { 0 });
            head.segments().for_each(|bytes| packed.extend_from_slice(bytes));
            packed.extend_from_slice(stored);
        }
        packed
    }
}

/// The body of at most `cap` bytes.
pub fn read_segments(packed: &[u8], cap: usize) -> Result<Vec<u8>> {
    match packed.first() {
        Some(&MAGIC) => {}
        Some(other) => return Err(wire_error!("{other:#04x} is not how a block in columns begins")),
        None => return Err(wire_error!("0 bytes are no block in columns")),
    }
    let mut input = BodyReader::new(&packed[1..]);
    let mut body = Vec::new();
    let mut zstd = DCtx::create();
    while input.finish().is_err() {
        let length = input.count(cap - body.len(), "bytes in a segment")?;
        let stored = input.count(packed.len(), "bytes of a compressed segment")?;
        if stored == 0 {
            body.extend_from_slice(input.take(length)?);
            continue;
        }
        let compressed = input.take(stored)?;
        if length > (stored / 4 + 1).saturating_mul(ZSTD_BLOCK_BYTES) {
            return Err(wire_error!("a segment of {length} bytes in {stored}"));
        }
        let mut segment = Vec::with_capacity(length);
        match zstd.decompress(&mut segment, compressed) {
            Ok(_) if segment.len() == length => {}
            Ok(_) => return Err(wire_error!("a segment of {} bytes, {length} announced", segment.len())),
            Err(code) => return Err(wire_error!("zstd: {}", zstd_safe::get_error_name(code).to_lowercase())),
        }
        if body.is_empty() {
            body = segment;
        } else {
            body.append(&mut segment);
        }
    }
    Ok(body)
}
