"""Answers to GetSqlInfo: facts about this server, each in the union child that clients cast it to. A wrong child breaks
drivers, so each kind of value has its own table here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

SERVER_NAME = "Micromegas Flight SQL Server"

_VALUE_FIELDS = [
    pa.field("string_value", pa.string()),
    pa.field("bool_value", pa.bool_()),
    pa.field("bigint_value", pa.int64()),
    pa.field("int32_bitmask", pa.int32()),
    pa.field("string_list", pa.list_(pa.string())),
    pa.field("int32_to_int32_list_map", pa.map_(pa.int32(), pa.list_(pa.int32()))),
]
_CODES = list(range(len(_VALUE_FIELDS)))

SQL_INFO_SCHEMA = pa.schema(
    [
        pa.field("info_name", pa.uint32(), nullable=False),
        pa.field("value", pa.dense_union(_VALUE_FIELDS, _CODES), nullable=False),
    ]
)

_STRINGS = {
    2: "1.3",  # format version of arrow that results are written in
    504: '"',  # quotes an identifier
    513: "\\",  # escapes % and _ in a pattern
    514: "",  # further characters in unquoted names
    529: "schema",
    530: "procedure",
    531: "catalog",
}

_BOOLS = {
    3: True,  # read only
    4: True,  # sql
    5: False,  # substrait
    10: True,  # bulk ingestion
    11: False,  # transactions of bulk ingestion
    500: False,  # ddl of catalogs
    501: False,  # ddl of schemas
    502: False,  # ddl of tables
    506: True,  # all tables can be selected from
    515: True,  # column aliases
    516: True,  # null plus null is null
    518: True,  # table aliases
    519: False,  # table aliases must differ from table names
    520: True,  # expressions in order by
    521: True,  # order by a column that is not selected
    523: True,  # like … escape
    524: True,  # columns that are never null
    527: False,  # integrity enhancements
    532: True,  # a catalog stands before the name
    536: False,  # select for update
    537: False,  # stored procedures
    539: True,  # correlated subqueries
    556: False,  # the row size limit counts blobs
    563: False,  # transactions
    565: False,  # ddl commits
    566: False,  # ddl in transactions is ignored
    572: False,  # batches of updates
    573: False,  # savepoints
    574: False,  # named parameters
    575: False,  # locators
    576: False,  # stored functions
}

_BIGINTS = {
    8: 0,  # transactions: none
    9: 0,  # cancel by action: no, by closing the stream
    100: 0,  # statement timeout: none
    101: 0,
    503: 3,  # unquoted names are folded to lower case
    505: 1,  # quoted names keep their case
    507: 1,  # nulls sort high
    **dict.fromkeys((*range(541, 556), *range(557, 562)), 0),  # limits of sizes and counts: unknown
    562: 0,  # default isolation: none
}

_BITMASKS = {
    522: 3,  # group by: columns and expressions
    525: 3,  # grammar: minimum and core
    526: 1,  # ansi 92 entry level
    528: 7,  # outer joins: limited, full
    533: 0,
    534: 0,
    535: 0,  # positioned update or delete
    538: 15,  # subqueries in comparison, exists, in, quantified
    540: 3,  # union, union all
    564: 0,  # isolation levels
    567: 2,  # result sets are read forward
    568: 0,
    569: 1,
    570: 0,
    571: 0,
}

_KEYWORDS = """
    all analyze and anti any array as asc asof at between both by case cast cluster collate cross cube current
    date day desc describe distinct distribute else end escape except exclude exists explain extract false fetch filter
    first following for format from full function group grouping having hour ignore ilike in inner intersect interval
    into is isnull join last lateral left like limit minute month natural not notnull null nulls offset on or order
    ordinality outer over overlaps partition position preceding qualify quarter range recursive regexp respect right
    rlike rollup row rows second select semi sets show similar some sort substring table tablesample then time timestamp
    to trailing trim true try_cast unbounded union unnest using values week when where window with within without year
    zone
"""

_NUMERIC_FUNCTIONS = """
    abs acos acosh asin asinh atan atan2 atanh cbrt ceil cos cosh cot degrees exp factorial floor gcd isnan iszero lcm
    ln log log10 log2 nanvl pi pow power radians random round signum sin sinh sqrt tan tanh trunc
"""

_STRING_FUNCTIONS = """
    ascii bit_length btrim char_length character_length chr concat concat_ws contains ends_with find_in_set initcap
    instr left length levenshtein lower lpad ltrim md5 octet_length overlay position regexp_count regexp_like
    regexp_match regexp_replace repeat replace reverse right rpad rtrim sha224 sha256 sha384 sha512 split_part
    starts_with strpos substr substr_index substring to_hex translate trim upper uuid
"""

_SYSTEM_FUNCTIONS = "arrow_cast arrow_typeof array coalesce named_struct nullif nvl struct version"

_DATETIME_FUNCTIONS = """
    current_date current_time current_timestamp date_bin date_format date_part date_trunc datepart datetrunc
    from_unixtime make_date now to_char to_date to_local_time to_timestamp to_timestamp_micros to_timestamp_millis
    to_timestamp_nanos to_timestamp_seconds to_unixtime today
"""

_LISTS = {
    508: _KEYWORDS.split(),
    509: _NUMERIC_FUNCTIONS.split(),
    510: _STRING_FUNCTIONS.split(),
    511: _SYSTEM_FUNCTIONS.split(),
    512: _DATETIME_FUNCTIONS.split(),
}

_CONVERSIONS: dict[int, dict[int, list[int]]] = {
    517: {},  # CONVERT between types: none
}


def sql_info(version: str, wanted: Iterable[int] = ()) -> pa.RecordBatch:
    """Rows of `SQL_INFO_SCHEMA` for the info ids in `wanted`, all known ones when it is empty; unknown ids have no row.

    `version` is the server's own version.
    """
    strings = {0: SERVER_NAME, 1: version, **_STRINGS}
    tables: list[dict[int, Any]] = [strings, _BOOLS, _BIGINTS, _BITMASKS, _LISTS, _CONVERSIONS]
    places: dict[int, tuple[int, Any]] = {}
    for code, table in enumerate(tables):
        for info, value in table.items():
            places[info] = (code, value)
    asked = set(wanted)
    chosen = sorted(asked & places.keys() if asked else places)
    codes = [places[info][0] for info in chosen]
    values: list[list[Any]] = [[] for _ in _VALUE_FIELDS]
    offsets = []
    for info in chosen:
        code, value = places[info]
        offsets.append(len(values[code]))
        values[code].append(value)
    union = pa.UnionArray.from_dense(
        pa.array(codes, pa.int8()),
        pa.array(offsets, pa.int32()),
        [pa.array(children, field.type) for children, field in zip(values, _VALUE_FIELDS, strict=True)],
        [field.name for field in _VALUE_FIELDS],
        _CODES,
    )
    return pa.RecordBatch.from_arrays([pa.array(chosen, pa.uint32()), union], schema=SQL_INFO_SCHEMA)
