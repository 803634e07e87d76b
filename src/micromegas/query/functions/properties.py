"""Functions on property sets: the columns `properties` and `process_properties` of every view."""

import pyarrow as pa

from micromegas import _engine
from micromegas.query.functions.scalar import ANY_JSONB, DICT_JSONB, DICT_TEXT, Argument, ScalarFunction

_PAIRS = pa.list_(pa.struct([("key", pa.utf8()), ("value", pa.utf8())]))

PROPERTY_FUNCTIONS = (
    ScalarFunction(
        "property_get",
        (Argument("properties", ANY_JSONB), Argument("key", pa.utf8())),
        DICT_TEXT,
        _engine.property_get,
        "The value of a property as text, NULL when the set has no such key. Upper and lower case of ASCII letters are "
        "the same in keys, an exact match goes first.",
        "SELECT msg, property_get(properties, 'USER_ID') AS user_id FROM log_entries WHERE level <= 3",
    ),
    ScalarFunction(
        "properties_length",
        (Argument("properties", ANY_JSONB),),
        pa.int32(),
        _engine.properties_length,
        "The number of properties in the set.",
        "SELECT exe, properties_length(properties) AS n FROM processes",
    ),
    ScalarFunction(
        "properties_to_jsonb",
        (Argument("pairs", _PAIRS),),
        DICT_JSONB,
        _engine.properties_to_jsonb,
        "The property set of a list of (key, value) structs; the last of equal keys wins. A NULL key is an error, a "
        "NULL value leaves its key out.",
        "SELECT jsonb_format_json(properties_to_jsonb(make_array(named_struct('key', 'env', 'value', 'test')))) AS j",
    ),
)
