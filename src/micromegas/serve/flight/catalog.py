"""Catalogue questions of Flight SQL: catalogs, schemas, tables, types, keys. Answered from the engine's list of global
views alone.

There is one catalog and one schema, both named by the empty text, and every view is of type `table`, as clients of
Micromegas expect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import pyarrow as pa

from micromegas.query import TableDescription
from micromegas.serve.edge_types import edge_schema
from micromegas.serve.flight.flight_data import schema_message
from micromegas.serve.flight.like import is_like
from micromegas.serve.flight.messages import Message
from micromegas.serve.flight.sql_info import SQL_INFO_SCHEMA, sql_info

CATALOG = ""
DB_SCHEMA = ""
TABLE_TYPE = "table"
# What standards call a plain table; the query editor of Grafana asks for both.
_NAMES_OF_TABLE_TYPE = frozenset({TABLE_TYPE, "base table"})

ListTables = Callable[[], Sequence[TableDescription]]


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


_TEXT = pa.string()
_INT = pa.int32()

CATALOGS_SCHEMA = pa.schema([_required("catalog_name", _TEXT)])
DB_SCHEMAS_SCHEMA = pa.schema([pa.field("catalog_name", _TEXT), _required("db_schema_name", _TEXT)])
TABLE_TYPES_SCHEMA = pa.schema([_required("table_type", _TEXT)])
TABLES_SCHEMA = pa.schema(
    [
        pa.field("catalog_name", _TEXT),
        pa.field("db_schema_name", _TEXT),
        _required("table_name", _TEXT),
        _required("table_type", _TEXT),
    ]
)
TABLES_WITH_SCHEMA_SCHEMA = TABLES_SCHEMA.append(_required("table_schema", pa.binary()))
PRIMARY_KEYS_SCHEMA = pa.schema(
    [
        pa.field("catalog_name", _TEXT),
        pa.field("db_schema_name", _TEXT),
        _required("table_name", _TEXT),
        _required("column_name", _TEXT),
        pa.field("key_name", _TEXT),
        _required("key_sequence", _INT),
    ]
)
FOREIGN_KEYS_SCHEMA = pa.schema(
    [
        pa.field("pk_catalog_name", _TEXT),
        pa.field("pk_db_schema_name", _TEXT),
        _required("pk_table_name", _TEXT),
        _required("pk_column_name", _TEXT),
        pa.field("fk_catalog_name", _TEXT),
        pa.field("fk_db_schema_name", _TEXT),
        _required("fk_table_name", _TEXT),
        _required("fk_column_name", _TEXT),
        _required("key_sequence", _INT),
        pa.field("fk_key_name", _TEXT),
        pa.field("pk_key_name", _TEXT),
        _required("update_rule", pa.uint8()),
        _required("delete_rule", pa.uint8()),
    ]
)
XDBC_TYPE_INFO_SCHEMA = pa.schema(
    [
        _required("type_name", _TEXT),
        _required("data_type", _INT),
        pa.field("column_size", _INT),
        pa.field("literal_prefix", _TEXT),
        pa.field("literal_suffix", _TEXT),
        pa.field("create_params", pa.list_(_required("item", _TEXT))),
        _required("nullable", _INT),
        _required("case_sensitive", pa.bool_()),
        _required("searchable", _INT),
        pa.field("unsigned_attribute", pa.bool_()),
        _required("fixed_prec_scale", pa.bool_()),
        pa.field("auto_increment", pa.bool_()),
        pa.field("local_type_name", _TEXT),
        pa.field("minimum_scale", _INT),
        pa.field("maximum_scale", _INT),
        _required("sql_data_type", _INT),
        pa.field("datetime_subcode", _INT),
        pa.field("num_prec_radix", _INT),
        pa.field("interval_precision", _INT),
    ]
)

_SCHEMAS = {
    "CommandGetCatalogs": CATALOGS_SCHEMA,
    "CommandGetDbSchemas": DB_SCHEMAS_SCHEMA,
    "CommandGetTableTypes": TABLE_TYPES_SCHEMA,
    "CommandGetTables": TABLES_SCHEMA,
    "CommandGetSqlInfo": SQL_INFO_SCHEMA,
    "CommandGetXdbcTypeInfo": XDBC_TYPE_INFO_SCHEMA,
    "CommandGetPrimaryKeys": PRIMARY_KEYS_SCHEMA,
    "CommandGetExportedKeys": FOREIGN_KEYS_SCHEMA,
    "CommandGetImportedKeys": FOREIGN_KEYS_SCHEMA,
    "CommandGetCrossReference": FOREIGN_KEYS_SCHEMA,
}


def is_catalog_command(name: str) -> bool:
    return name in _SCHEMAS


def catalog_schema(name: str, command: Message) -> pa.Schema:
    """Schema of the answer to catalogue command `name`."""
    if name == "CommandGetTables" and command.include_schema:
        return TABLES_WITH_SCHEMA_SCHEMA
    return _SCHEMAS[name]


def catalog_answer(name: str, command: Message, tables: ListTables, version: str) -> pa.RecordBatch:
    """Rows of `catalog_schema(name, command)`. Views have no keys and types have no XDBC description, so those answers
    are empty."""
    schema = catalog_schema(name, command)
    if name == "CommandGetSqlInfo":
        return sql_info(version, command.info)
    rows: list[dict[str, object]] = []
    if name == "CommandGetCatalogs":
        rows.append({"catalog_name": CATALOG})
    elif name == "CommandGetDbSchemas":
        if _is_our_catalog(command) and _matches(command, "db_schema_filter_pattern", DB_SCHEMA):
            rows.append({"catalog_name": CATALOG, "db_schema_name": DB_SCHEMA})
    elif name == "CommandGetTableTypes":
        rows.append({"table_type": TABLE_TYPE})
    elif name == "CommandGetTables":
        rows.extend(_table_row(table, command.include_schema) for table in _chosen_tables(command, tables))
    return pa.RecordBatch.from_pylist(rows, schema=schema)


def _chosen_tables(command: Message, tables: ListTables) -> Iterable[TableDescription]:
    wanted = {kind.lower() for kind in command.table_types}
    if wanted and not wanted & _NAMES_OF_TABLE_TYPE:
        return []
    if not _is_our_catalog(command) or not _matches(command, "db_schema_filter_pattern", DB_SCHEMA):
        return []
    chosen = [table for table in tables() if _matches(command, "table_name_filter_pattern", table.name)]
    return sorted(chosen, key=lambda table: table.name)


def _table_row(table: TableDescription, include_schema: bool) -> dict[str, object]:
    row: dict[str, object] = {
        "catalog_name": CATALOG,
        "db_schema_name": DB_SCHEMA,
        "table_name": table.name,
        "table_type": TABLE_TYPE,
    }
    if include_schema:
        row["table_schema"] = schema_message(edge_schema(table.schema, preserve_dictionary=False))
    return row


def _is_our_catalog(command: Message) -> bool:
    return not command.HasField("catalog") or command.catalog == CATALOG


def _matches(command: Message, field: str, name: str) -> bool:
    """Whether `name` fits the pattern in a field. An absent pattern fits everything."""
    return not command.HasField(field) or is_like(name, getattr(command, field))
