//! Request bodies: process, stream, block (CBOR maps of wire-format §4 to §6).

use std::sync::Arc;

use crate::codec::cbor::CborWriter;
use crate::codec::declarations::write_declarations;
use crate::codec::envelope::StreamEnvelope;
use crate::codec::Format;

use super::identity::rfc3339;
use super::layouts::StreamKind;

/// What a process tells about itself. Texts are clean already.
#[derive(Default)]
pub struct Process {
    pub id: Arc<str>,
    pub parent_id: Option<String>,
    pub exe: String,
    pub username: String,
    pub realname: String,
    pub computer: String,
    pub distro: String,
    pub cpu_brand: String,
    pub properties: Vec<(String, String)>,
}

const CBOR_NULL: u8 = 0xf6;

struct Body(Vec<u8>);

impl Body {
    fn map(entries: usize) -> Self {
        let mut body = Self(Vec::new());
        body.write(|cbor| cbor.map(entries));
        body
    }

    fn write(&mut self, item: impl FnOnce(&mut CborWriter)) {
        let mut writer = CborWriter::default();
        item(&mut writer);
        self.0.extend_from_slice(&writer.into_bytes());
    }

    fn text(&mut self, key: &str, value: &str) {
        self.write(|cbor| {
            cbor.text(key);
            cbor.text(value);
        });
    }

    fn unsigned(&mut self, key: &str, value: u64) {
        self.write(|cbor| {
            cbor.text(key);
            cbor.unsigned(value);
        });
    }

    fn raw(&mut self, key: &str, item: &[u8]) {
        self.write(|cbor| cbor.text(key));
        self.0.extend_from_slice(item);
    }

    fn bytes(&mut self, key: &str, value: &[u8]) {
        self.write(|cbor| {
            cbor.text(key);
            cbor.byte_string_head(value.len());
        });
        self.0.extend_from_slice(value);
    }

    fn properties<'p>(&mut self, properties: impl ExactSizeIterator<Item = (&'p String, &'p String)>) {
        self.write(|cbor| {
            cbor.text("properties");
            cbor.map(properties.len());
            for (name, value) in properties {
                cbor.text(name);
                cbor.text(value);
            }
        });
    }
}

/// `start_ticks` are nanoseconds of the monotonic clock.
pub fn process_body(process: &Process, start_wall_ns: i64, start_ticks: u64) -> Vec<u8> {
    let mut body = Body::map(12);
    body.text("process_id", &process.id);
    body.text("exe", &process.exe);
    body.text("username", &process.username);
    body.text("realname", &process.realname);
    body.text("computer", &process.computer);
    body.text("distro", &process.distro);
    body.text("cpu_brand", &process.cpu_brand);
    body.unsigned("tsc_frequency", 1_000_000_000);
    body.text("start_time", &rfc3339(start_wall_ns));
    body.unsigned("start_ticks", start_ticks);
    match &process.parent_id {
        Some(parent_id) => body.text("parent_process_id", parent_id),
        None => body.raw("parent_process_id", &[CBOR_NULL]),
    }
    body.properties(process.properties.iter().map(|(name, value)| (name, value)));
    body.0
}

/// A stream of blocks in columns.
pub fn stream_body(process_id: &str, stream_id: &str, kind: StreamKind, properties: &[(String, String)]) -> Vec<u8> {
    stream_body_of(&StreamEnvelope {
        process_id: process_id.to_owned(),
        stream_id: stream_id.to_owned(),
        dependencies_metadata: write_declarations(&kind.dependency_types()),
        objects_metadata: write_declarations(&kind.object_types()),
        tags: vec![kind.tag().to_owned()],
        properties: properties.iter().cloned().collect(),
        format: Format::Columns.name().to_owned(),
    })
}

/// A format is told only to those who know what that is.
pub fn stream_body_of(stream: &StreamEnvelope) -> Vec<u8> {
    let has_format = stream.format != Format::Transit.name();
    let mut body = Body::map(6 + usize::from(has_format));
    body.text("process_id", &stream.process_id);
    body.text("stream_id", &stream.stream_id);
    body.raw("dependencies_metadata", &stream.dependencies_metadata);
    body.raw("objects_metadata", &stream.objects_metadata);
    body.write(|cbor| {
        cbor.text("tags");
        cbor.array(stream.tags.len());
        stream.tags.iter().for_each(|tag| cbor.text(tag));
    });
    body.properties(stream.properties.iter());
    if has_format {
        body.text("format", &stream.format);
    }
    body.0
}

/// A block's place in its stream. Ticks are relative to the process's `start_ticks`.
pub struct BlockHead<'a> {
    pub block_id: &'a str,
    pub stream_id: &'a str,
    pub process_id: &'a str,
    pub begin_wall_ns: i64,
    pub end_wall_ns: i64,
    pub begin_ticks: u64,
    pub end_ticks: u64,
    pub object_offset: u64,
    pub nb_objects: u64,
}

/// The buffers are compressed already.
pub fn block_body(head: &BlockHead<'_>, dependencies: &[u8], objects: &[u8]) -> Vec<u8> {
    let mut body = Body::map(10);
    body.0.reserve(dependencies.len() + objects.len() + 512);
    body.text("block_id", head.block_id);
    body.text("stream_id", head.stream_id);
    body.text("process_id", head.process_id);
    body.text("begin_time", &rfc3339(head.begin_wall_ns));
    body.text("end_time", &rfc3339(head.end_wall_ns));
    body.unsigned("begin_ticks", head.begin_ticks);
    body.unsigned("end_ticks", head.end_ticks);
    body.write(|cbor| {
        cbor.text("payload");
        cbor.map(2);
    });
    body.bytes("dependencies", dependencies);
    body.bytes("objects", objects);
    body.unsigned("object_offset", head.object_offset);
    body.unsigned("nb_objects", head.nb_objects);
    body.0
}
