//! What the records of one type are cut into. Encoder and decoder make it of the stream's layout in the same way.

use super::super::layout::{RecordType, RecordTypes, STATIC_STRING_REF, STRING_ID};
use super::super::place::{Field, FieldValue, PlaceKind};

/// Larger or more divided records are kept as bytes.
const MAX_FIXED_BYTES: usize = 1 << 16;
const MAX_PARTS: usize = 256;

/// The internal event of a log call whose template and values are kept apart.
pub const TEMPLATE_EVENT: &str = "LogTemplateEvent";

/// Which buffer of a block.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Buffer {
    Dependencies,
    Objects,
}

/// A piece of a record that has a column of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// 8 bytes that grow from record to record, whatever their types: a time, an id.
    Running,
    Plain(PlaceKind),
    /// Of this many bytes, of which only the id at this offset is anybody's to read.
    Handle {
        size: usize,
        id_offset: usize,
    },
    /// Codec, length, bytes.
    Text,
    /// Length, bytes.
    Blob,
    /// A count and as many pairs of references; size of a pair, where name and value lie in it.
    Properties {
        size: usize,
        name: usize,
        value: usize,
    },
    /// The typed values of a log call.
    Values,
    /// All bytes to the end of the record.
    Rest,
}

pub enum Shape {
    /// Of a fixed size, with parts at these offsets. No reader reads the bytes between them.
    Fixed {
        size: usize,
        parts: Vec<(usize, Part)>,
        /// The type that begins what this one ends, if all its other parts are the same.
        begin: Option<usize>,
    },
    /// With a length of its own, of parts behind one another.
    Varying(Vec<Part>),
    /// Kept as bytes.
    Bytes { size: Option<usize> },
}

/// One shape per type.
pub fn shapes(types: &RecordTypes, buffer: Buffer) -> Vec<Shape> {
    let mut shapes: Vec<Shape> = types.iter().map(|each| shape(types, each, buffer)).collect();
    let names: Vec<&str> = types.iter().map(|each| each.name.as_str()).collect();
    for (index, name) in names.iter().enumerate() {
        let Some(what) = name.strip_prefix("End") else { continue };
        let Some(other) = names.iter().position(|name| name.strip_prefix("Begin") == Some(what)) else {
            continue;
        };
        let (
            Shape::Fixed {
                size: ended,
                parts: ends,
                ..
            },
            Shape::Fixed {
                size: begun,
                parts: begins,
                ..
            },
        ) = (&shapes[index], &shapes[other])
        else {
            continue;
        };
        if ended == begun && ends == begins && ends.iter().any(|(_, part)| *part == Part::Running) {
            if let Shape::Fixed { begin, .. } = &mut shapes[index] {
                *begin = Some(other);
            }
        }
    }
    shapes
}

fn shape(types: &RecordTypes, record_type: &RecordType, buffer: Buffer) -> Shape {
    match record_type.size {
        Some(size) => fixed(record_type, size, buffer).unwrap_or(Shape::Bytes { size: Some(size) }),
        None => varying(types, record_type, buffer).map_or(Shape::Bytes { size: None }, Shape::Varying),
    }
}

/// The members, in the order of their declaration. Where one covers bytes of another, what is left of it is single bytes.
fn fixed(record_type: &RecordType, size: usize, buffer: Buffer) -> Option<Shape> {
    if size > MAX_FIXED_BYTES {
        return None;
    }
    let running = match buffer {
        Buffer::Dependencies => "id",
        Buffer::Objects => "time",
    };
    let mut members = Vec::new();
    flatten(record_type.fields().ok()?, 0, &mut members);
    let mut is_covered = vec![false; size];
    let mut parts: Vec<(usize, Part)> = Vec::new();
    let mut has_running = false;
    for (offset, kind, name) in members {
        let bytes = offset..offset.checked_add(kind.size() as usize)?;
        let covered = is_covered.get(bytes.clone())?;
        if covered.contains(&true) {
            parts.extend(
                bytes
                    .clone()
                    .filter(|&at| !is_covered[at])
                    .map(|at| (at, Part::Plain(PlaceKind::U8))),
            );
        } else if name == running && !has_running && matches!(kind, PlaceKind::I64 | PlaceKind::U64) {
            has_running = true;
            parts.push((offset, Part::Running));
        } else {
            parts.push((offset, Part::Plain(kind)));
        }
        is_covered[bytes].fill(true);
    }
    (parts.len() <= MAX_PARTS).then_some(Shape::Fixed {
        size,
        parts,
        begin: None,
    })
}

fn flatten<'f>(fields: &'f [Field], start: usize, to: &mut Vec<(usize, PlaceKind, &'f str)>) {
    for field in fields {
        match &field.value {
            FieldValue::Plain(place) => to.push((start + place.offset, place.kind, &field.name)),
            FieldValue::Object { offset, fields, .. } => flatten(fields, start + offset, to),
        }
    }
}

fn varying(types: &RecordTypes, record_type: &RecordType, buffer: Buffer) -> Option<Vec<Part>> {
    const REFERENCE: Part = Part::Plain(PlaceKind::Reference);
    let handle = |name| {
        types.string_handle(name).ok().map(|(size, id)| Part::Handle {
            size,
            id_offset: id.offset,
        })
    };
    let parts = match (buffer, record_type.name.as_str()) {
        (Buffer::Dependencies, "StaticString") => vec![Part::Running, Part::Rest],
        (Buffer::Dependencies, "StaticStringDependency") => vec![Part::Running, Part::Text, Part::Rest],
        (Buffer::Dependencies, "PropertySetDependency") => {
            let (size, name, value) = types.property().ok()?;
            let (name, value) = (name.offset, value.offset);
            if name.abs_diff(value) < 8 || size == 0 {
                return None;
            }
            vec![Part::Running, Part::Properties { size, name, value }, Part::Rest]
        }
        (Buffer::Objects, "LogStringEvent") => vec![REFERENCE, Part::Running, Part::Rest],
        (Buffer::Objects, "LogStringEventV2") => vec![REFERENCE, Part::Running, Part::Text, Part::Rest],
        (Buffer::Objects, "TaggedLogString") => vec![REFERENCE, REFERENCE, Part::Running, Part::Text, Part::Rest],
        (Buffer::Objects, "LogStringInteropEventV2") => {
            let target = handle(STRING_ID)?;
            vec![Part::Running, Part::Plain(PlaceKind::U32), target, Part::Rest]
        }
        (Buffer::Objects, "LogStringInteropEventV3") => {
            let target = handle(STATIC_STRING_REF)?;
            vec![
                Part::Running,
                Part::Plain(PlaceKind::U8),
                target,
                Part::Text,
                Part::Rest,
            ]
        }
        (Buffer::Objects, "TaggedLogInteropEvent") => {
            let target = handle(STATIC_STRING_REF)?;
            let level = Part::Plain(PlaceKind::U8);
            vec![Part::Running, level, target, REFERENCE, Part::Text, Part::Rest]
        }
        (Buffer::Objects, "ImageEvent") => vec![Part::Running, Part::Text, Part::Text, Part::Blob, Part::Rest],
        (Buffer::Objects, TEMPLATE_EVENT) => vec![REFERENCE, REFERENCE, Part::Running, Part::Values],
        _ => return None,
    };
    Some(parts)
}
