//! The event types whose body has its own layout, known by name: texts of logs, and images. Every other type is read
//! by its declared members. A name that is unknown here is not an error: its records are passed over.

use std::borrow::Cow;

use super::bytes::ByteReader;
use super::error::Result;
use super::layout::{RecordType, RecordTypes, STATIC_STRING_REF, STRING_ID};
use super::place::Place;
use super::strings::{encoded_text, lossy_text};

/// How the body of one event type is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventForm {
    /// By the declared members.
    Members,
    /// A log event with a text of its own.
    Text(TextForm),
    /// A screenshot or any other blob.
    Image,
    /// A length and bytes that we know nothing about.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextForm {
    origin: Origin,
    has_properties: bool,
    /// The legacy forms have the text without codec and length, to the end of the record.
    is_bare: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Description,
    /// Level and target in the event; the target is a handle of `size` bytes.
    Inline {
        is_level_wide: bool,
        size: usize,
        id: Place,
    },
}

/// A log event whose text travels with it. Ids are those of dependencies of the same block.
#[derive(Debug, Clone)]
pub struct TextEvent<'a> {
    /// Absolute ticks.
    pub time: i64,
    pub origin: TextOrigin,
    pub properties: Option<u64>,
    pub message: Cow<'a, str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextOrigin {
    /// Id of the log description.
    Description(u64),
    /// Level and id of the target's text.
    Inline { level: u32, target: u64 },
}

#[derive(Debug, Clone)]
pub struct ImageEvent<'a> {
    /// Absolute ticks.
    pub time: i64,
    pub name: Cow<'a, str>,
    pub format: Cow<'a, str>,
    pub data: &'a [u8],
}

impl EventForm {
    /// The form of the records of `record_type`; an error when the stream lacks the helper type that it needs.
    pub fn of(types: &RecordTypes, record_type: &RecordType) -> Result<Self> {
        if record_type.size.is_some() {
            return Ok(Self::Members);
        }
        let described = |has_properties, is_bare| {
            Ok(Self::Text(TextForm {
                origin: Origin::Description,
                has_properties,
                is_bare,
            }))
        };
        let inline = |handle, is_level_wide, has_properties, is_bare| {
            let (size, id) = types
                .string_handle(handle)
                .map_err(|error| error.within(format!("type {}", record_type.name)))?;
            let origin = Origin::Inline {
                is_level_wide,
                size,
                id,
            };
            Ok(Self::Text(TextForm {
                origin,
                has_properties,
                is_bare,
            }))
        };
        match record_type.name.as_str() {
            "LogStringEvent" => described(false, true),
            "LogStringEventV2" => described(false, false),
            "TaggedLogString" => described(true, false),
            "LogStringInteropEventV2" => inline(STRING_ID, true, false, true),
            "LogStringInteropEventV3" => inline(STATIC_STRING_REF, false, false, false),
            "TaggedLogInteropEvent" => inline(STATIC_STRING_REF, false, true, false),
            "ImageEvent" => Ok(Self::Image),
            _ => Ok(Self::Unknown),
        }
    }
}

impl TextForm {
    pub fn read<'a>(&self, record: &'a [u8]) -> Result<TextEvent<'a>> {
        let mut body = ByteReader::new(record);
        let (time, origin, properties) = match self.origin {
            Origin::Description => {
                let description = TextOrigin::Description(body.u64()?);
                let properties = if self.has_properties { Some(body.u64()?) } else { None };
                (body.i64()?, description, properties)
            }
            Origin::Inline {
                is_level_wide,
                size,
                id,
            } => {
                let time = body.i64()?;
                let level = if is_level_wide {
                    body.u32()?
                } else {
                    u32::from(body.u8()?)
                };
                let handle = body.take(size)?;
                let target = id.reference(handle);
                let properties = if self.has_properties { Some(body.u64()?) } else { None };
                (time, TextOrigin::Inline { level, target }, properties)
            }
        };
        let message = if self.is_bare {
            lossy_text(body.rest())
        } else {
            encoded_text(&mut body)?
        };
        Ok(TextEvent {
            time,
            origin,
            properties,
            message,
        })
    }
}

impl<'a> ImageEvent<'a> {
    pub fn read(record: &'a [u8]) -> Result<Self> {
        let mut body = ByteReader::new(record);
        let time = body.i64()?;
        let name = encoded_text(&mut body)?;
        let format = encoded_text(&mut body)?;
        let length = body.u32()? as usize;
        let data = body.take(length).map_err(|error| error.within("image data"))?;
        Ok(Self {
            time,
            name,
            format,
            data,
        })
    }
}
