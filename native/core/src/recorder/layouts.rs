//! The record layouts of our streams: packed, plain 8-byte references, no helper types but `Property`.
//!
//! A layout may change freely (streams carry their own); the writers in `blocks.rs` and `*_stream.rs` must change with it.

use crate::codec::columns::TEMPLATE_EVENT;
use crate::codec::declarations::{MemberDeclaration, TypeDeclaration};
use crate::codec::{RecordTypes, StreamLayout};

/// What a stream holds: its tag and its layouts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamKind {
    Log,
    Metrics,
    Cpu,
}

/// Type indexes in the dependencies of every stream.
pub const STATIC_STRING: u8 = 0;
pub const DESCRIPTION: u8 = 1;
pub const PROPERTY_SET: u8 = 2;
/// Of cpu streams, which have no property sets.
pub const LOCATION: u8 = 2;

enum Member {
    Reference(&'static str),
    Number(&'static str, &'static str, u64),
}
use Member::{Number, Reference};

const ID: Member = Number("id", "u64", 8);
const LINE: Member = Number("line", "u32", 4);
const TIME: Member = Number("time", "i64", 8);

fn fixed(name: &str, members: &[Member]) -> TypeDeclaration {
    let mut size = 0;
    let mut declared = Vec::new();
    for member in members {
        let (name, type_name, width, is_reference) = match member {
            Reference(name) => (*name, "u64", 8, true),
            Number(name, type_name, width) => (*name, *type_name, *width, false),
        };
        declared.push(MemberDeclaration {
            name: name.to_owned(),
            type_name: type_name.to_owned(),
            offset: size,
            size: width,
            is_reference,
        });
        size += width;
    }
    TypeDeclaration {
        name: name.to_owned(),
        size,
        members: declared,
        is_reference: false,
    }
}

fn varying(name: &str) -> TypeDeclaration {
    fixed(name, &[])
}

impl StreamKind {
    pub const ALL: [Self; 3] = [Self::Log, Self::Metrics, Self::Cpu];

    pub fn tag(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Metrics => "metrics",
            Self::Cpu => "cpu",
        }
    }

    pub fn layout(self) -> StreamLayout {
        StreamLayout {
            dependencies: RecordTypes::compile(&self.dependency_types()),
            objects: RecordTypes::compile(&self.object_types()),
        }
    }

    pub fn dependency_types(self) -> Vec<TypeDeclaration> {
        let references = match self {
            Self::Log => ["fmt_str", "target", "module_path", "file"],
            Self::Metrics => ["name", "unit", "target", "file"],
            Self::Cpu => ["name", "target", "module_path", "file"],
        };
        let (name, last) = match self {
            Self::Log => ("LogMetadataRecord", "level"),
            Self::Metrics => ("MetricMetadataDependency", "lod"),
            Self::Cpu => ("SpanRecord", "lod"),
        };
        let mut members = vec![ID];
        members.extend(references.map(Reference));
        members.extend([LINE, Number(last, "u32", 4)]);
        let mut types = vec![varying("StaticString"), fixed(name, &members)];
        if self == Self::Cpu {
            let mut members = vec![ID];
            members.extend(["target", "module_path", "file"].map(Reference));
            members.extend([LINE, Number("lod", "u32", 4)]);
            types.push(fixed("SpanLocationRecord", &members));
        } else {
            types.push(varying("PropertySetDependency"));
            types.push(fixed("Property", &[Reference("name"), Reference("value")]));
        }
        types
    }

    pub fn object_types(self) -> Vec<TypeDeclaration> {
        match self {
            Self::Log => vec![
                fixed("LogStaticStrEvent", &[Reference("desc"), TIME]),
                varying("LogStringEventV2"),
                varying("TaggedLogString"),
                varying(TEMPLATE_EVENT),
            ],
            Self::Metrics => vec![
                fixed(
                    "IntegerMetricEvent",
                    &[Reference("desc"), Number("value", "u64", 8), TIME],
                ),
                fixed(
                    "FloatMetricEvent",
                    &[Reference("desc"), Number("value", "f64", 8), TIME],
                ),
                fixed(
                    "TaggedIntegerMetricEvent",
                    &[
                        Reference("desc"),
                        Reference("properties"),
                        Number("value", "u64", 8),
                        TIME,
                    ],
                ),
                fixed(
                    "TaggedFloatMetricEvent",
                    &[
                        Reference("desc"),
                        Reference("properties"),
                        Number("value", "f64", 8),
                        TIME,
                    ],
                ),
            ],
            Self::Cpu => {
                let async_members = [
                    Reference("span_desc"),
                    Number("span_id", "u64", 8),
                    Number("parent_span_id", "u64", 8),
                    TIME,
                    Number("depth", "u32", 4),
                ];
                let named_async_members = [
                    Reference("span_location"),
                    Reference("name"),
                    Number("span_id", "u64", 8),
                    Number("parent_span_id", "u64", 8),
                    TIME,
                    Number("depth", "u32", 4),
                ];
                let thread_members = [Reference("thread_span_desc"), TIME];
                let named_thread_members = [Reference("thread_span_location"), Reference("name"), TIME];
                vec![
                    fixed("BeginThreadSpanEvent", &thread_members),
                    fixed("EndThreadSpanEvent", &thread_members),
                    fixed("BeginAsyncSpanEvent", &async_members),
                    fixed("EndAsyncSpanEvent", &async_members),
                    fixed("BeginThreadNamedSpanEvent", &named_thread_members),
                    fixed("EndThreadNamedSpanEvent", &named_thread_members),
                    fixed("BeginAsyncNamedSpanEvent", &named_async_members),
                    fixed("EndAsyncNamedSpanEvent", &named_async_members),
                ]
            }
        }
    }
}
