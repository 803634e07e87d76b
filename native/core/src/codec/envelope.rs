//! The bodies of the three ingestion requests. Strict where the world is strict (a body that no server takes is
//! refused), and nothing of the events is looked at.

use std::collections::BTreeMap;

use super::cbor::CborReader;
use super::declarations::{read_declarations, write_declarations};
use super::error::Result;
use super::format::Format;
use super::ids::parse_uuid;
use super::payload::Payload;
use super::timestamp::parse_rfc3339;

const PROCESS_KEYS: [&str; 12] = [
    "process_id",
    "exe",
    "username",
    "realname",
    "computer",
    "distro",
    "cpu_brand",
    "tsc_frequency",
    "start_time",
    "start_ticks",
    "parent_process_id",
    "properties",
];
const STREAM_KEYS: [&str; 7] = [
    "process_id",
    "stream_id",
    "dependencies_metadata",
    "objects_metadata",
    "tags",
    "properties",
    "format",
];
/// Nobody else announces a format.
const REQUIRED_STREAM_KEYS: usize = 6;
const BLOCK_KEYS: [&str; 10] = [
    "block_id",
    "stream_id",
    "process_id",
    "begin_time",
    "end_time",
    "begin_ticks",
    "end_ticks",
    "payload",
    "object_offset",
    "nb_objects",
];

/// The announcement of a process. `start_time` in ns since the epoch, `tsc_frequency` in ticks per second (0 when
/// unknown), ids in the hyphenated lower-case form.
#[derive(Debug, Default)]
pub struct ProcessEnvelope {
    pub process_id: String,
    pub exe: String,
    pub username: String,
    pub realname: String,
    pub computer: String,
    pub distro: String,
    pub cpu_brand: String,
    pub tsc_frequency: i64,
    pub start_time: i64,
    pub start_ticks: i64,
    pub parent_process_id: Option<String>,
    pub properties: BTreeMap<String, String>,
}

/// The announcement of a stream, its metadata re-encoded in one canonical form. Its format may be one that nobody here
/// reads.
#[derive(Debug)]
pub struct StreamEnvelope {
    pub process_id: String,
    pub stream_id: String,
    pub dependencies_metadata: Vec<u8>,
    pub objects_metadata: Vec<u8>,
    pub tags: Vec<String>,
    pub properties: BTreeMap<String, String>,
    pub format: String,
}

impl Default for StreamEnvelope {
    fn default() -> Self {
        Self {
            process_id: String::new(),
            stream_id: String::new(),
            dependencies_metadata: Vec::new(),
            objects_metadata: Vec::new(),
            tags: Vec::new(),
            properties: BTreeMap::new(),
            format: Format::default().name().to_owned(),
        }
    }
}

/// A block. Times in ns since the epoch, ticks relative to the process's `start_ticks`.
#[derive(Debug, Default)]
pub struct BlockEnvelope<'a> {
    pub block_id: String,
    pub stream_id: String,
    pub process_id: String,
    pub begin_time: i64,
    pub end_time: i64,
    pub begin_ticks: i64,
    pub end_ticks: i64,
    pub payload: Payload<'a>,
    pub object_offset: i64,
    pub nb_objects: i32,
}

fn uuid(reader: &mut CborReader<'_>) -> Result<String> {
    parse_uuid(&reader.text()?)
}

fn owned_text(reader: &mut CborReader<'_>) -> Result<String> {
    Ok(reader.text()?.into_owned())
}

fn time(reader: &mut CborReader<'_>) -> Result<i64> {
    parse_rfc3339(&reader.text()?)
}

fn properties(reader: &mut CborReader<'_>) -> Result<BTreeMap<String, String>> {
    let mut properties = BTreeMap::new();
    let mut entries = reader.map()?;
    while reader.more(&mut entries)? {
        let name = owned_text(reader)?;
        properties.insert(name, owned_text(reader)?);
    }
    Ok(properties)
}

impl ProcessEnvelope {
    pub fn parse(body: &[u8]) -> Result<Self> {
        let mut process = Self::default();
        CborReader::new(body).fields(&PROCESS_KEYS, |reader, key| {
            match PROCESS_KEYS[key] {
                "process_id" => process.process_id = uuid(reader)?,
                "exe" => process.exe = owned_text(reader)?,
                "username" => process.username = owned_text(reader)?,
                "realname" => process.realname = owned_text(reader)?,
                "computer" => process.computer = owned_text(reader)?,
                "distro" => process.distro = owned_text(reader)?,
                "cpu_brand" => process.cpu_brand = owned_text(reader)?,
                "tsc_frequency" => process.tsc_frequency = reader.number()?,
                "start_time" => process.start_time = time(reader)?,
                "start_ticks" => process.start_ticks = reader.number()?,
                "parent_process_id" => process.parent_process_id = parent_id(reader)?,
                _ => process.properties = properties(reader)?,
            }
            Ok(())
        })?;
        Ok(process)
    }
}

/// Null since 0.21, an empty text before and in Unreal.
fn parent_id(reader: &mut CborReader<'_>) -> Result<Option<String>> {
    if reader.null()? {
        return Ok(None);
    }
    let text = reader.text()?;
    if text.is_empty() {
        return Ok(None);
    }
    parse_uuid(&text).map(Some)
}

impl StreamEnvelope {
    pub fn parse(body: &[u8]) -> Result<Self> {
        let mut stream = Self::default();
        CborReader::new(body).some_fields(&STREAM_KEYS, REQUIRED_STREAM_KEYS, |reader, key| {
            match STREAM_KEYS[key] {
                "process_id" => stream.process_id = uuid(reader)?,
                "stream_id" => stream.stream_id = uuid(reader)?,
                "dependencies_metadata" => {
                    stream.dependencies_metadata = write_declarations(&read_declarations(reader)?);
                }
                "objects_metadata" => stream.objects_metadata = write_declarations(&read_declarations(reader)?),
                "tags" => {
                    let mut items = reader.array()?;
                    while reader.more(&mut items)? {
                        stream.tags.push(owned_text(reader)?);
                    }
                }
                "properties" => stream.properties = properties(reader)?,
                _ => stream.format = owned_text(reader)?,
            }
            Ok(())
        })?;
        Ok(stream)
    }
}

impl<'a> BlockEnvelope<'a> {
    pub fn parse(body: &'a [u8]) -> Result<Self> {
        let mut block = Self::default();
        CborReader::new(body).fields(&BLOCK_KEYS, |reader, key| {
            match BLOCK_KEYS[key] {
                "block_id" => block.block_id = uuid(reader)?,
                "stream_id" => block.stream_id = uuid(reader)?,
                "process_id" => block.process_id = uuid(reader)?,
                "begin_time" => block.begin_time = time(reader)?,
                "end_time" => block.end_time = time(reader)?,
                "begin_ticks" => block.begin_ticks = reader.number()?,
                "end_ticks" => block.end_ticks = reader.number()?,
                "payload" => block.payload = Payload::read(reader)?,
                "object_offset" => block.object_offset = reader.number()?,
                _ => block.nb_objects = reader.number()?,
            }
            Ok(())
        })?;
        Ok(block)
    }
}
