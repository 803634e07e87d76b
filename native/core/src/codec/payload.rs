//! A stored payload: the CBOR map of the two compressed buffers of a block, and those buffers decompressed.

use std::borrow::Cow;

use super::cbor::{CborReader, CborWriter};
use super::columns;
use super::error::{wire_error, Result};
use super::format::Format;
use super::layout::StreamLayout;
use super::lz4::decompress_frame;

const KEYS: [&str; 2] = ["dependencies", "objects"];

/// The two buffers of a block, still compressed.
#[derive(Debug, Default)]
pub struct Payload<'a> {
    pub dependencies: Cow<'a, [u8]>,
    pub objects: Cow<'a, [u8]>,
}

impl<'a> Payload<'a> {
    pub fn read(reader: &mut CborReader<'a>) -> Result<Self> {
        let mut payload = Self::default();
        reader.fields(&KEYS, |reader, key| {
            let buffer = reader.byte_buffer()?;
            match KEYS[key] {
                "dependencies" => payload.dependencies = buffer,
                _ => payload.objects = buffer,
            }
            Ok(())
        })?;
        Ok(payload)
    }

    /// Reads what `parts` wrote, or what other servers wrote before.
    pub fn parse(stored: &'a [u8]) -> Result<Self> {
        Self::read(&mut CborReader::new(stored)).map_err(|error| error.within("payload"))
    }

    /// The canonical CBOR in four parts to be written one after the other, so that big buffers are copied once.
    pub fn parts(&self) -> [Cow<'_, [u8]>; 4] {
        let mut first = CborWriter::default();
        first.map(KEYS.len());
        first.text(KEYS[0]);
        first.byte_string_head(self.dependencies.len());
        let mut second = CborWriter::default();
        second.text(KEYS[1]);
        second.byte_string_head(self.objects.len());
        [
            Cow::Owned(first.into_bytes()),
            Cow::Borrowed(&self.dependencies),
            Cow::Owned(second.into_bytes()),
            Cow::Borrowed(&self.objects),
        ]
    }
}

/// The two buffers of a block, decompressed. `Dependencies` and `Records` read them.
pub struct BlockBuffers {
    pub dependencies: Vec<u8>,
    pub objects: Vec<u8>,
}

impl BlockBuffers {
    /// `cap` bounds each buffer, in bytes.
    pub fn open(format: Format, layout: &StreamLayout, stored_payload: &[u8], cap: usize) -> Result<Self> {
        Self::read(format, layout, &Payload::parse(stored_payload)?, cap)
    }

    pub fn read(format: Format, layout: &StreamLayout, payload: &Payload<'_>, cap: usize) -> Result<Self> {
        match format {
            Format::Transit => Ok(Self {
                dependencies: decompress_frame(&payload.dependencies, cap)
                    .map_err(|error| error.within("dependencies"))?,
                objects: decompress_frame(&payload.objects, cap).map_err(|error| error.within("objects"))?,
            }),
            Format::Columns if payload.dependencies.is_empty() => columns::decode(layout, &payload.objects, cap),
            Format::Columns => Err(wire_error!(
                "{} bytes of dependencies beside a block in columns",
                payload.dependencies.len()
            )),
        }
    }
}
