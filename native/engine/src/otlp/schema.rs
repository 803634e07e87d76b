//! The messages of OTLP (opentelemetry-proto, `opentelemetry/proto/**/v1/*.proto`) as tables: one description for what
//! checks a request, for what makes protobuf of its JSON form, and for what shows it as a value.
//! A field that is not named here is passed over, as protobuf wants it.

use super::reader;

#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Text,
    Bool,
    Double,
    /// Base64 in JSON.
    Bytes,
    /// The id of a trace or of a span: hexadecimal in JSON.
    Id,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Fixed32,
    Fixed64,
    Sfixed64,
    /// With the names of the values, in order of their numbers from 0 on; JSON may give either.
    Enum(&'static [&'static str]),
    Message(&'static Message),
}

impl Kind {
    pub fn wire_type(self) -> u8 {
        match self {
            Self::Text | Self::Bytes | Self::Id | Self::Message(_) => reader::BYTES,
            Self::Double | Self::Fixed64 | Self::Sfixed64 => reader::FIXED64,
            Self::Fixed32 => reader::FIXED32,
            _ => reader::VARINT,
        }
    }

    /// Whether repeated values may stand in one field, one after the other.
    pub fn is_packable(self) -> bool {
        self.wire_type() != reader::BYTES
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    /// Left out when it has its default value.
    Plain,
    /// Written whenever it was given: an alternative of a oneof, or an optional field.
    Explicit,
    Repeated,
}

#[derive(Debug)]
pub struct Field {
    pub number: u32,
    /// As in JSON: lower camel case.
    pub name: &'static str,
    pub kind: Kind,
    pub label: Label,
}

#[derive(Debug)]
pub struct Message {
    pub name: &'static str,
    pub fields: &'static [Field],
}

impl Message {
    pub fn field(&self, number: u32) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.number == number)
    }

    /// The field of a JSON key, which may be spelled as in the .proto files.
    pub fn named(&self, key: &str) -> Option<&'static Field> {
        self.fields
            .iter()
            .find(|field| field.name == key || is_snake_case_of(key, field.name))
    }
}

fn is_snake_case_of(key: &str, name: &str) -> bool {
    let mut expected = name.bytes().flat_map(|byte| {
        [
            byte.is_ascii_uppercase().then_some(b'_'),
            Some(byte.to_ascii_lowercase()),
        ]
    });
    let mut key = key.bytes();
    expected.by_ref().flatten().all(|byte| key.next() == Some(byte)) && key.next().is_none()
}

const fn plain(number: u32, name: &'static str, kind: Kind) -> Field {
    labelled(number, name, kind, Label::Plain)
}

const fn explicit(number: u32, name: &'static str, kind: Kind) -> Field {
    labelled(number, name, kind, Label::Explicit)
}

const fn repeated(number: u32, name: &'static str, kind: Kind) -> Field {
    labelled(number, name, kind, Label::Repeated)
}

const fn labelled(number: u32, name: &'static str, kind: Kind, label: Label) -> Field {
    Field {
        number,
        name,
        kind,
        label,
    }
}

macro_rules! messages {
    ($($id:ident $name:literal { $($label:ident $number:literal $field:literal $kind:expr;)* })*) => {
        $(pub static $id: Message = Message {
            name: $name,
            fields: &[$($label($number, $field, $kind)),*],
        };)*
    };
}

use Kind::{
    Bool, Bytes, Double, Enum, Fixed32, Fixed64, Id, Int64, Message as Of, Sfixed64, Sint32, Text, Uint32, Uint64,
};

const TEMPORALITIES: &[&str] = &[
    "AGGREGATION_TEMPORALITY_UNSPECIFIED",
    "AGGREGATION_TEMPORALITY_DELTA",
    "AGGREGATION_TEMPORALITY_CUMULATIVE",
];
const SPAN_KINDS: &[&str] = &[
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];
const STATUS_CODES: &[&str] = &["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];
const SEVERITIES: &[&str] = &[
    "SEVERITY_NUMBER_UNSPECIFIED",
    "SEVERITY_NUMBER_TRACE",
    "SEVERITY_NUMBER_TRACE2",
    "SEVERITY_NUMBER_TRACE3",
    "SEVERITY_NUMBER_TRACE4",
    "SEVERITY_NUMBER_DEBUG",
    "SEVERITY_NUMBER_DEBUG2",
    "SEVERITY_NUMBER_DEBUG3",
    "SEVERITY_NUMBER_DEBUG4",
    "SEVERITY_NUMBER_INFO",
    "SEVERITY_NUMBER_INFO2",
    "SEVERITY_NUMBER_INFO3",
    "SEVERITY_NUMBER_INFO4",
    "SEVERITY_NUMBER_WARN",
    "SEVERITY_NUMBER_WARN2",
    "SEVERITY_NUMBER_WARN3",
    "SEVERITY_NUMBER_WARN4",
    "SEVERITY_NUMBER_ERROR",
    "SEVERITY_NUMBER_ERROR2",
    "SEVERITY_NUMBER_ERROR3",
    "SEVERITY_NUMBER_ERROR4",
    "SEVERITY_NUMBER_FATAL",
    "SEVERITY_NUMBER_FATAL2",
    "SEVERITY_NUMBER_FATAL3",
    "SEVERITY_NUMBER_FATAL4",
];

messages! {
    ANY_VALUE "AnyValue" {
        explicit 1 "stringValue" Text;
        explicit 2 "boolValue" Bool;
        explicit 3 "intValue" Int64;
        explicit 4 "doubleValue" Double;
        explicit 5 "arrayValue" Of(&ARRAY_VALUE);
        explicit 6 "kvlistValue" Of(&KEY_VALUE_LIST);
        explicit 7 "bytesValue" Bytes;
    }
    ARRAY_VALUE "ArrayValue" {
        repeated 1 "values" Of(&ANY_VALUE);
    }
    KEY_VALUE_LIST "KeyValueList" {
        repeated 1 "values" Of(&KEY_VALUE);
    }
    KEY_VALUE "KeyValue" {
        plain 1 "key" Text;
        plain 2 "value" Of(&ANY_VALUE);
    }
    ENTITY_REF "EntityRef" {
        plain 1 "schemaUrl" Text;
        plain 2 "type" Text;
        repeated 3 "idKeys" Text;
        repeated 4 "descriptionKeys" Text;
    }
    RESOURCE "Resource" {
        repeated 1 "attributes" Of(&KEY_VALUE);
        plain 2 "droppedAttributesCount" Uint32;
        repeated 3 "entityRefs" Of(&ENTITY_REF);
    }
    SCOPE "InstrumentationScope" {
        plain 1 "name" Text;
        plain 2 "version" Text;
        repeated 3 "attributes" Of(&KEY_VALUE);
        plain 4 "droppedAttributesCount" Uint32;
    }

    EXPORT_LOGS "ExportLogsServiceRequest" {
        repeated 1 "resourceLogs" Of(&RESOURCE_LOGS);
    }
    RESOURCE_LOGS "ResourceLogs" {
        plain 1 "resource" Of(&RESOURCE);
        repeated 2 "scopeLogs" Of(&SCOPE_LOGS);
        plain 3 "schemaUrl" Text;
    }
    SCOPE_LOGS "ScopeLogs" {
        plain 1 "scope" Of(&SCOPE);
        repeated 2 "logRecords" Of(&LOG_RECORD);
        plain 3 "schemaUrl" Text;
    }
    LOG_RECORD "LogRecord" {
        plain 1 "timeUnixNano" Fixed64;
        plain 2 "severityNumber" Enum(SEVERITIES);
        plain 3 "severityText" Text;
        plain 5 "body" Of(&ANY_VALUE);
        repeated 6 "attributes" Of(&KEY_VALUE);
        plain 7 "droppedAttributesCount" Uint32;
        plain 8 "flags" Fixed32;
        plain 9 "traceId" Id;
        plain 10 "spanId" Id;
        plain 11 "observedTimeUnixNano" Fixed64;
        plain 12 "eventName" Text;
    }

    EXPORT_METRICS "ExportMetricsServiceRequest" {
        repeated 1 "resourceMetrics" Of(&RESOURCE_METRICS);
    }
    RESOURCE_METRICS "ResourceMetrics" {
        plain 1 "resource" Of(&RESOURCE);
        repeated 2 "scopeMetrics" Of(&SCOPE_METRICS);
        plain 3 "schemaUrl" Text;
    }
    SCOPE_METRICS "ScopeMetrics" {
        plain 1 "scope" Of(&SCOPE);
        repeated 2 "metrics" Of(&METRIC);
        plain 3 "schemaUrl" Text;
    }
    METRIC "Metric" {
        plain 1 "name" Text;
        plain 2 "description" Text;
        plain 3 "unit" Text;
        explicit 5 "gauge" Of(&GAUGE);
        explicit 7 "sum" Of(&SUM);
        explicit 9 "histogram" Of(&HISTOGRAM);
        explicit 10 "exponentialHistogram" Of(&EXPONENTIAL_HISTOGRAM);
        explicit 11 "summary" Of(&SUMMARY);
        repeated 12 "metadata" Of(&KEY_VALUE);
    }
    GAUGE "Gauge" {
        repeated 1 "dataPoints" Of(&NUMBER_POINT);
    }
    SUM "Sum" {
        repeated 1 "dataPoints" Of(&NUMBER_POINT);
        plain 2 "aggregationTemporality" Enum(TEMPORALITIES);
        plain 3 "isMonotonic" Bool;
    }
    HISTOGRAM "Histogram" {
        repeated 1 "dataPoints" Of(&HISTOGRAM_POINT);
        plain 2 "aggregationTemporality" Enum(TEMPORALITIES);
    }
    EXPONENTIAL_HISTOGRAM "ExponentialHistogram" {
        repeated 1 "dataPoints" Of(&EXPONENTIAL_HISTOGRAM_POINT);
        plain 2 "aggregationTemporality" Enum(TEMPORALITIES);
    }
    SUMMARY "Summary" {
        repeated 1 "dataPoints" Of(&SUMMARY_POINT);
    }
    NUMBER_POINT "NumberDataPoint" {
        plain 2 "startTimeUnixNano" Fixed64;
        plain 3 "timeUnixNano" Fixed64;
        explicit 4 "asDouble" Double;
        repeated 5 "exemplars" Of(&EXEMPLAR);
        explicit 6 "asInt" Sfixed64;
        repeated 7 "attributes" Of(&KEY_VALUE);
        plain 8 "flags" Uint32;
    }
    HISTOGRAM_POINT "HistogramDataPoint" {
        plain 2 "startTimeUnixNano" Fixed64;
        plain 3 "timeUnixNano" Fixed64;
        plain 4 "count" Fixed64;
        explicit 5 "sum" Double;
        repeated 6 "bucketCounts" Fixed64;
        repeated 7 "explicitBounds" Double;
        repeated 8 "exemplars" Of(&EXEMPLAR);
        repeated 9 "attributes" Of(&KEY_VALUE);
        plain 10 "flags" Uint32;
        explicit 11 "min" Double;
        explicit 12 "max" Double;
    }
    EXPONENTIAL_HISTOGRAM_POINT "ExponentialHistogramDataPoint" {
        repeated 1 "attributes" Of(&KEY_VALUE);
        plain 2 "startTimeUnixNano" Fixed64;
        plain 3 "timeUnixNano" Fixed64;
        plain 4 "count" Fixed64;
        explicit 5 "sum" Double;
        plain 6 "scale" Sint32;
        plain 7 "zeroCount" Fixed64;
        plain 8 "positive" Of(&BUCKETS);
        plain 9 "negative" Of(&BUCKETS);
        plain 10 "flags" Uint32;
        repeated 11 "exemplars" Of(&EXEMPLAR);
        explicit 12 "min" Double;
        explicit 13 "max" Double;
        plain 14 "zeroThreshold" Double;
    }
    BUCKETS "Buckets" {
        plain 1 "offset" Sint32;
        repeated 2 "bucketCounts" Uint64;
    }
    SUMMARY_POINT "SummaryDataPoint" {
        plain 2 "startTimeUnixNano" Fixed64;
        plain 3 "timeUnixNano" Fixed64;
        plain 4 "count" Fixed64;
        plain 5 "sum" Double;
        repeated 6 "quantileValues" Of(&VALUE_AT_QUANTILE);
        repeated 7 "attributes" Of(&KEY_VALUE);
        plain 8 "flags" Uint32;
    }
    VALUE_AT_QUANTILE "ValueAtQuantile" {
        plain 1 "quantile" Double;
        plain 2 "value" Double;
    }
    EXEMPLAR "Exemplar" {
        plain 2 "timeUnixNano" Fixed64;
        explicit 3 "asDouble" Double;
        plain 4 "spanId" Id;
        plain 5 "traceId" Id;
        explicit 6 "asInt" Sfixed64;
        repeated 7 "filteredAttributes" Of(&KEY_VALUE);
    }

    EXPORT_TRACES "ExportTraceServiceRequest" {
        repeated 1 "resourceSpans" Of(&RESOURCE_SPANS);
    }
    RESOURCE_SPANS "ResourceSpans" {
        plain 1 "resource" Of(&RESOURCE);
        repeated 2 "scopeSpans" Of(&SCOPE_SPANS);
        plain 3 "schemaUrl" Text;
    }
    SCOPE_SPANS "ScopeSpans" {
        plain 1 "scope" Of(&SCOPE);
        repeated 2 "spans" Of(&SPAN);
        plain 3 "schemaUrl" Text;
    }
    SPAN "Span" {
        plain 1 "traceId" Id;
        plain 2 "spanId" Id;
        plain 3 "traceState" Text;
        plain 4 "parentSpanId" Id;
        plain 5 "name" Text;
        plain 6 "kind" Enum(SPAN_KINDS);
        plain 7 "startTimeUnixNano" Fixed64;
        plain 8 "endTimeUnixNano" Fixed64;
        repeated 9 "attributes" Of(&KEY_VALUE);
        plain 10 "droppedAttributesCount" Uint32;
        repeated 11 "events" Of(&SPAN_EVENT);
        plain 12 "droppedEventsCount" Uint32;
        repeated 13 "links" Of(&SPAN_LINK);
        plain 14 "droppedLinksCount" Uint32;
        plain 15 "status" Of(&STATUS);
        plain 16 "flags" Fixed32;
    }
    SPAN_EVENT "Event" {
        plain 1 "timeUnixNano" Fixed64;
        plain 2 "name" Text;
        repeated 3 "attributes" Of(&KEY_VALUE);
        plain 4 "droppedAttributesCount" Uint32;
    }
    SPAN_LINK "Link" {
        plain 1 "traceId" Id;
        plain 2 "spanId" Id;
        plain 3 "traceState" Text;
        repeated 4 "attributes" Of(&KEY_VALUE);
        plain 5 "droppedAttributesCount" Uint32;
        plain 6 "flags" Fixed32;
    }
    STATUS "Status" {
        plain 2 "message" Text;
        plain 3 "code" Enum(STATUS_CODES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_two_spellings() {
        for key in ["timeUnixNano", "time_unix_nano"] {
            assert_eq!(LOG_RECORD.named(key).map(|field| field.number), Some(1), "{key}");
        }
        for key in ["time_unix_nan", "time_unix_nano_", "TimeUnixNano", "timeUnix_nano", ""] {
            assert!(LOG_RECORD.named(key).is_none(), "{key}");
        }
    }

    #[test]
    fn fields_stand_in_order() {
        for message in [&ANY_VALUE, &LOG_RECORD, &METRIC, &EXPONENTIAL_HISTOGRAM_POINT, &SPAN] {
            assert!(
                message.fields.is_sorted_by_key(|field| field.number),
                "{}",
                message.name
            );
        }
    }
}
