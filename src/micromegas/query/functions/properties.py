"""Functions on property sets: the columns `properties` and `process_properties` of every view."""

from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc

from micromegas import _engine
from micromegas.query.functions.scalar import ANY_JSONB, DICT_JSONB, DICT_TEXT, Argument, ScalarFunction

_PAIRS = pa.list_(pa.struct([("key", pa.utf8()), ("value", pa.utf8())]))
"""The type of property sets in older files, as an argument: of texts that may be NULL, under any name of the child."""

_PAIR = pa.struct([pa.field("key", pa.utf8(), nullable=False), pa.field("value", pa.utf8(), nullable=False)])
PAIRS = pa.list_(pa.field("Property", _PAIR, nullable=False))
"""The type of property sets in older files. Functions take it, and a dictionary of it, wherever they take JSONB."""


def _distinct_lists(lists: pa.Array) -> pa.Array:
    return pa.array(_engine.properties_to_dict(_plain_lists(lists)))


def _plain_lists(lists: pa.Array) -> pa.Array:
    """The lists with keys and values that can't be NULL; an error if one is."""
    if any(column.null_count for column in lists.flatten().flatten()):
        raise ValueError("properties: a key or value is NULL")
    return lists.cast(PAIRS)


def _for_lookups(lists: pa.Array) -> pa.Array:
    pairs = lists.flatten()
    lengths = pc.fill_null(pc.list_value_length(lists), 0)
    ends = pc.cumulative_sum(lengths).to_pylist()
    offsets = pa.array([0, *ends], pa.int32())
    # The last of equal keys will win, so the pairs of each list are turned round.
    backward = [place for begin, end in pairwise([0, *ends]) for place in range(end - 1, begin - 1, -1)]
    keys, values = pairs.take(pa.array(backward, pa.int64())).flatten()
    pairs = pa.StructArray.from_arrays([pc.ascii_lower(keys), values], ["key", "value"])
    return pa.array(_engine.properties_to_jsonb(pa.ListArray.from_arrays(offsets, pairs, mask=lists.is_null())))


PROPERTY_FUNCTIONS = (
    ScalarFunction(
        "property_get",
        (Argument("properties", ANY_JSONB), Argument("key", pa.utf8())),
        DICT_TEXT,
        _engine.property_get,
        "The value of a property as text, NULL when the set has no such key. Upper and lower case of ASCII letters are "
        "the same in keys, an exact match goes first; in a list of (key, value) structs the first match.",
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
        (Argument("properties", _PAIRS),),
        DICT_JSONB,
        _engine.properties_to_jsonb,
        "The property set of a list of (key, value) structs; the last of equal keys wins. A NULL key is an error, a "
        "NULL value leaves its key out. What is JSONB stays as it is.",
        "SELECT jsonb_format_json(properties_to_jsonb(make_array(named_struct('key', 'env', 'value', 'test')))) AS j",
    ),
    ScalarFunction(
        "properties_to_dict",
        (Argument("pairs", _PAIRS),),
        pa.dictionary(pa.int32(), PAIRS),
        _distinct_lists,
        "Lists of (key, value) structs as a dictionary that holds equal ones once.",
        "SELECT properties_length(properties_to_dict(make_array(named_struct('key', 'env', 'value', 'test')))) AS n",
    ),
    ScalarFunction(
        "properties_to_array",
        (Argument("dictionary", _PAIRS),),
        PAIRS,
        _plain_lists,
        "The rows of a dictionary (of lists of (key, value) structs, of JSONB or of texts) as plain values.",
        "SELECT properties_to_array(properties_to_dict(make_array(named_struct('key', 'env', 'value', 'test')))) AS p",
    ),
)

PROPERTY_KERNELS = (
    ScalarFunction(
        "properties_for_lookups",
        (Argument("properties", _PAIRS),),
        DICT_JSONB,
        _for_lookups,
        "The property set of a list that gives what a look at one pair after the other finds, whatever the case of the "
        "key: keys are in lower case, and of equal ones the first wins.",
    ),
)
"""What calls of the functions above become for arguments of other types."""
