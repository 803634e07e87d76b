"""Functions on JSON in its binary form, which property columns have and which `jsonb_parse` makes of text."""

import pyarrow as pa

from micromegas import _engine
from micromegas.query.functions.scalar import ANY_JSONB, DICT_JSONB, DICT_TEXT, Argument, ScalarFunction

_JSONB = Argument("jsonb", ANY_JSONB)
_PATH = Argument("path", pa.utf8())
_ABOUT_PATHS = (
    'Paths are those of SQL/JSON in lax mode: `$.a`, `$."a b"`, `$.*`, `$[*]`, `$[0, 2 to last]`, `$[last - 1]`, and '
    "filters `? (…)` of `==`, `!=`, `<`, `<=`, `>`, `>=`, `starts with`, `exists(…)`, `(…) is unknown`, `!(…)`, `&&` "
    "and `||` over `@…` (the value at hand), `$…` and literals. A member of an array is that of each of its elements; "
    "names match in their exact case. A malformed path is an error."
)

JSONB_FUNCTIONS = (
    ScalarFunction(
        "jsonb_parse",
        (Argument("text", pa.utf8()),),
        DICT_JSONB,
        _engine.jsonb_parse,
        "The value of a JSON text, NULL when it is none. Numbers may have a leading +, leading zeros, be hexadecimal "
        "or lack digits on one side of the point; an empty array element is null; of equal keys the last one counts. "
        "A text of more than 16 777 216 values is an error.",
        "SELECT jsonb_format_json(jsonb_parse('{\"b\": [1, +2, 0x1F], \"a\": .5}')) AS j, jsonb_parse('{') AS broken",
    ),
    ScalarFunction(
        "jsonb_format_json",
        (_JSONB,),
        DICT_TEXT,
        _engine.jsonb_format_json,
        "The value as compact JSON text, the keys of objects sorted.",
        "SELECT jsonb_format_json(properties) AS j FROM processes",
    ),
    ScalarFunction(
        "jsonb_get",
        (_JSONB, Argument("key", pa.utf8())),
        DICT_JSONB,
        _engine.jsonb_get,
        "A member of an object, NULL when there is none. Upper and lower case of ASCII letters are the same in keys, "
        "an exact match goes first.",
        "SELECT jsonb_format_json(jsonb_get(jsonb_parse(msg), 'Items')) AS items FROM log_entries WHERE msg LIKE '{%' "
        "ORDER BY time",
    ),
    ScalarFunction(
        "jsonb_as_string",
        (_JSONB,),
        DICT_TEXT,
        _engine.jsonb_as_string,
        "The content of a string, NULL for any other value.",
        "SELECT jsonb_as_string(jsonb_get(jsonb_parse(msg), 'event')) AS event, count(*) AS n FROM log_entries WHERE "
        "msg LIKE '{%' GROUP BY event ORDER BY event",
    ),
    ScalarFunction(
        "jsonb_as_f64",
        (_JSONB,),
        pa.float64(),
        _engine.jsonb_as_f64,
        "A number, NULL for any other value.",
        "SELECT jsonb_as_f64(jsonb_parse('2.5')) AS number, jsonb_as_f64(jsonb_parse('\"2.5\"')) AS text",
    ),
    ScalarFunction(
        "jsonb_as_i64",
        (_JSONB,),
        pa.int64(),
        _engine.jsonb_as_i64,
        "A whole number, NULL for one with a fraction or beyond 64 bits and for any other value.",
        "SELECT jsonb_as_i64(jsonb_parse('3')) AS a, jsonb_as_i64(jsonb_parse('3.0')) AS b, "
        "jsonb_as_i64(jsonb_parse('3.5')) AS c",
    ),
    ScalarFunction(
        "jsonb_object_keys",
        (_JSONB,),
        pa.dictionary(pa.int32(), pa.list_(pa.utf8())),
        _engine.jsonb_object_keys,
        "The keys of an object, sorted; NULL for any other value.",
        "SELECT jsonb_object_keys(properties) AS keys FROM processes",
    ),
    ScalarFunction(
        "jsonb_array_length",
        (_JSONB,),
        pa.int64(),
        _engine.jsonb_array_length,
        "The number of elements of an array, NULL for any other value.",
        "SELECT jsonb_array_length(jsonb_get(jsonb_parse(msg), 'items')) AS n FROM log_entries WHERE msg LIKE '{%' "
        "ORDER BY time",
    ),
    ScalarFunction(
        "jsonb_path_query_first",
        (_JSONB, _PATH),
        DICT_JSONB,
        _engine.jsonb_path_query_first,
        f"The first value that a path leads to, NULL when there is none. {_ABOUT_PATHS}",
        "SELECT jsonb_format_json(jsonb_path_query_first(jsonb_parse('[{\"a\":1},{\"a\":2}]'), '$[*] ? (@.a == 2)')) "
        "AS j",
    ),
    ScalarFunction(
        "jsonb_path_query",
        (_JSONB, _PATH),
        DICT_JSONB,
        _engine.jsonb_path_query,
        "A JSON array of all values that a path leads to, an empty one when there is none. An error where those of a "
        "batch of rows are 128 MiB larger than its documents. Paths: see jsonb_path_query_first.",
        "SELECT jsonb_format_json(jsonb_path_query(jsonb_parse(msg), '$.items[*] ? (@.price > 5).sku')) AS dear "
        "FROM log_entries WHERE msg LIKE '{%' ORDER BY time",
    ),
)
