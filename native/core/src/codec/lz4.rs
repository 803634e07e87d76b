//! The LZ4 frame that each buffer of a payload is. Reading one never yields more than the cap it is given, and
//! never reads beyond the first frame (what senders append after it is not theirs to decide).

use std::io::{BufRead, Read, Write};

use lz4_flex::frame::{FrameDecoder, FrameEncoder};

use super::error::{wire_error, Result};

const FRAME_MAGIC: u32 = 0x184d_2204;
/// Sixteen magics of frames that carry user data: everybody else reads them as an empty buffer.
const SKIPPABLE_MAGIC: u32 = 0x184d_2a50;

/// Tells apart a frame that ends from an input that ends: the decoder takes a missing end mark for an end.
struct Input<'a> {
    rest: &'a [u8],
    ran_out: bool,
}

impl Read for Input<'_> {
    fn read(&mut self, target: &mut [u8]) -> std::io::Result<usize> {
        self.ran_out |= target.len() > self.rest.len();
        self.rest.read(target)
    }
}

/// The content of the first frame of `input`, checksums verified.
///
/// Errors: no frame, an incomplete one, a wrong checksum, corrupt data, more than `cap` bytes.
pub fn decompress_frame(input: &[u8], cap: usize) -> Result<Vec<u8>> {
    let Some(magic) = input.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes)) else {
        return Err(wire_error!("{} bytes are no lz4 frame", input.len()));
    };
    if magic & !0xf == SKIPPABLE_MAGIC {
        return skippable_frame(input);
    }
    if magic != FRAME_MAGIC {
        return Err(wire_error!("{magic:#010x} is not the magic of an lz4 frame"));
    }
    let mut decoder = FrameDecoder::new(Input {
        rest: input,
        ran_out: false,
    });
    let mut content = Vec::new();
    loop {
        let piece = decoder.fill_buf().map_err(|error| wire_error!("lz4 frame: {error}"))?;
        if piece.is_empty() {
            break;
        }
        if piece.len() > cap - content.len() {
            return Err(wire_error!("lz4 frame: more than {cap} bytes"));
        }
        content.extend_from_slice(piece);
        let length = piece.len();
        decoder.consume(length);
    }
    if decoder.get_ref().ran_out {
        return Err(wire_error!("lz4 frame: the input ends inside the frame"));
    }
    Ok(content)
}

/// One frame without checksums.
pub fn compress_frame(content: &[u8]) -> Vec<u8> {
    let mut encoder = FrameEncoder::new(Vec::with_capacity(content.len() / 2 + 64));
    // Writing to a Vec has no error of its own.
    let _ = encoder.write_all(content);
    encoder.finish().unwrap_or_default()
}

fn skippable_frame(input: &[u8]) -> Result<Vec<u8>> {
    let length = input
        .get(4..8)
        .and_then(|bytes| bytes.first_chunk::<4>())
        .map(|bytes| u32::from_le_bytes(*bytes));
    match length {
        Some(length) if length as usize <= input.len() - 8 => Ok(Vec::new()),
        _ => Err(wire_error!("lz4 frame: the input ends inside a skippable frame")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

    use super::decompress_frame;

    const CAP: usize = 64 << 20;

    fn frame(content: &[u8], mode: BlockMode, checksums: bool) -> Vec<u8> {
        let info = FrameInfo::new()
            .block_mode(mode)
            .block_size(BlockSize::Max64KB)
            .block_checksums(checksums)
            .content_checksum(checksums);
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn varied(length: usize) -> Vec<u8> {
        let mut state = 1u32;
        (0..length)
            .map(|index| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if index % 7 == 0 {
                    (state >> 24) as u8
                } else {
                    (index % 251) as u8
                }
            })
            .collect()
    }

    #[test]
    fn linked_and_independent_blocks() {
        for length in [0, 1, 65_535, 65_536, 65_537, 1_000_003] {
            let content = varied(length);
            for mode in [BlockMode::Linked, BlockMode::Independent] {
                for checksums in [false, true] {
                    let mut bytes = frame(&content, mode, checksums);
                    assert_eq!(decompress_frame(&bytes, CAP).unwrap(), content);
                    bytes.extend_from_slice(b"whatever follows");
                    assert_eq!(decompress_frame(&bytes, CAP).unwrap(), content);
                }
            }
        }
    }

    #[test]
    fn every_cut_is_an_error() {
        let whole = frame(&varied(200_000), BlockMode::Linked, true);
        for length in (0..300).chain(whole.len() - 300..whole.len()) {
            assert!(
                decompress_frame(&whole[..length], CAP).is_err(),
                "{length} of {}",
                whole.len()
            );
        }
        let bare = frame(b"", BlockMode::Independent, false);
        for length in 0..bare.len() {
            assert!(
                decompress_frame(&bare[..length], CAP).is_err(),
                "{length} of {}",
                bare.len()
            );
        }
    }

    #[test]
    fn every_flipped_bit_behind_the_header_is_an_error() {
        let whole = frame(&varied(5000), BlockMode::Linked, true);
        for index in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[index] ^= 0x10;
            assert!(decompress_frame(&bytes, CAP).is_err(), "byte {index}");
        }
    }

    #[test]
    fn a_bomb_stops_at_the_cap() {
        let bomb = frame(&vec![0; 8 << 20], BlockMode::Linked, true);
        assert!(decompress_frame(&bomb, 1 << 20)
            .unwrap_err()
            .to_string()
            .contains("more than 1048576 bytes"));
        assert_eq!(decompress_frame(&bomb, 8 << 20).unwrap().len(), 8 << 20);
    }

    #[test]
    fn a_skippable_frame_is_an_empty_buffer() {
        assert_eq!(decompress_frame(b"\x53\x2a\x4d\x18\x02\0\0\0ab", CAP).unwrap(), b"");
        assert!(decompress_frame(b"\x53\x2a\x4d\x18\x03\0\0\0ab", CAP).is_err());
        assert!(decompress_frame(b"\x53\x2a\x4d\x18\x03", CAP).is_err());
    }
}
