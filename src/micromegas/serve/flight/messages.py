"""Protobuf messages of Arrow Flight and Flight SQL, declared as a table of field numbers in a private descriptor pool.

The pool is private because other packages in one process register their own copies of the same names in the default
pool, and protobuf refuses duplicates. Nothing outside this package may put messages into this pool.

A declaration is a text of `name:type=number` parts. `?` before the type: presence is tracked (proto3 optional); `*`:
repeated. A type that is not a protobuf scalar names another message of the table. Maps are declared as repeated
entries, which is the same on the wire; enums as `int32`, for the same reason.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE_FLIGHT = "arrow.flight.protocol"
PACKAGE_SQL = "arrow.flight.protocol.sql"
TYPE_URL_PREFIX = "type.googleapis.com/"

DESCRIPTOR_TYPE_CMD = 2
SESSION_CLOSED = 1
CANCELLED = 1
NOT_CANCELLABLE = 3
SESSION_OPTION_INVALID_NAME = 1

_FLIGHT = {
    "Any": "type_url:string=1 value:bytes=2",
    "HandshakeRequest": "protocol_version:uint64=1 payload:bytes=2",
    "HandshakeResponse": "protocol_version:uint64=1 payload:bytes=2",
    "ActionType": "type:string=1 description:string=2",
    "Action": "type:string=1 body:bytes=2",
    "Result": "body:bytes=1",
    "SchemaResult": "schema:bytes=1",
    "FlightDescriptor": "type:int32=1 cmd:bytes=2 path:*string=3",
    "Ticket": "ticket:bytes=1",
    "Location": "uri:string=1",
    "FlightEndpoint": "ticket:Ticket=1 location:*Location=2 app_metadata:bytes=4",
    "FlightInfo": (
        "schema:bytes=1 flight_descriptor:FlightDescriptor=2 endpoint:*FlightEndpoint=3 total_records:int64=4"
        " total_bytes:int64=5 ordered:bool=6 app_metadata:bytes=7"
    ),
    "CancelFlightInfoRequest": "info:FlightInfo=1",
    "CancelFlightInfoResult": "status:int32=1",
    "FlightData": "flight_descriptor:FlightDescriptor=1 data_header:bytes=2 app_metadata:bytes=3 data_body:bytes=1000",
    "PutResult": "app_metadata:bytes=1",
    "SessionStringList": "values:*string=1",
    "SessionOptionValue": (
        "string_value:?string=1 bool_value:?bool=2 int64_value:?sfixed64=3 double_value:?double=4"
        " string_list_value:?SessionStringList=5"
    ),
    "SessionOption": "key:string=1 value:SessionOptionValue=2",
    "SetSessionOptionsRequest": "session_options:*SessionOption=1",
    "SessionOptionError": "value:int32=1",
    "SessionOptionErrorEntry": "key:string=1 value:SessionOptionError=2",
    "SetSessionOptionsResult": "errors:*SessionOptionErrorEntry=1",
    "GetSessionOptionsRequest": "",
    "GetSessionOptionsResult": "session_options:*SessionOption=1",
    "CloseSessionRequest": "",
    "CloseSessionResult": "status:int32=1",
}

_KEYS_OF_TABLE = "catalog:?string=1 db_schema:?string=2 table:string=3"

_SQL = {
    "CommandGetSqlInfo": "info:*uint32=1",
    "CommandGetXdbcTypeInfo": "data_type:?int32=1",
    "CommandGetCatalogs": "",
    "CommandGetDbSchemas": "catalog:?string=1 db_schema_filter_pattern:?string=2",
    "CommandGetTables": (
        "catalog:?string=1 db_schema_filter_pattern:?string=2 table_name_filter_pattern:?string=3 table_types:*string=4"
        " include_schema:bool=5"
    ),
    "CommandGetTableTypes": "",
    "CommandGetPrimaryKeys": _KEYS_OF_TABLE,
    "CommandGetExportedKeys": _KEYS_OF_TABLE,
    "CommandGetImportedKeys": _KEYS_OF_TABLE,
    "CommandGetCrossReference": (
        "pk_catalog:?string=1 pk_db_schema:?string=2 pk_table:string=3 fk_catalog:?string=4 fk_db_schema:?string=5"
        " fk_table:string=6"
    ),
    "CommandStatementQuery": "query:string=1 transaction_id:?bytes=2",
    "CommandStatementSubstraitPlan": "transaction_id:?bytes=2",
    # `query_id` is a field of ours in tickets that we hand out, by which a query is cancelled
    "TicketStatementQuery": "statement_handle:bytes=1 query_id:string=15000",
    "CommandPreparedStatementQuery": "prepared_statement_handle:bytes=1 query_id:string=15000",
    "CommandStatementUpdate": "query:string=1 transaction_id:?bytes=2",
    "CommandPreparedStatementUpdate": "prepared_statement_handle:bytes=1",
    "CommandStatementIngest": (
        "table:string=2 schema:?string=3 catalog:?string=4 temporary:bool=5 transaction_id:?bytes=6"
    ),
    "ActionCreatePreparedStatementRequest": "query:string=1 transaction_id:?bytes=2",
    "ActionCreatePreparedStatementResult": (
        "prepared_statement_handle:bytes=1 dataset_schema:bytes=2 parameter_schema:bytes=3"
    ),
    "ActionClosePreparedStatementRequest": "prepared_statement_handle:bytes=1",
    "ActionCancelQueryRequest": "info:bytes=1",
    "ActionCancelQueryResult": "result:int32=1",
    "DoPutUpdateResult": "record_count:int64=1",
    "DoPutPreparedStatementResult": "prepared_statement_handle:?bytes=1",
}

# A message of the pool; protobuf makes the classes at run time, so there is no static type to name.
Message = Any

_FIELD = descriptor_pb2.FieldDescriptorProto


def _declare(message: descriptor_pb2.DescriptorProto, package: str, declaration: str) -> None:
    for part in declaration.split():
        name, rest = part.split(":")
        kind, number = rest.split("=")
        field = message.field.add(name=name, number=int(number), label=_FIELD.LABEL_OPTIONAL)
        if kind[0] == "*":
            field.label = _FIELD.LABEL_REPEATED
            kind = kind[1:]
        elif kind[0] == "?":
            # proto3 tracks the presence of a scalar through a one-field oneof
            kind = kind[1:]
            field.proto3_optional = True
            field.oneof_index = len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{name}")
        if kind[0].isupper():
            field.type = _FIELD.TYPE_MESSAGE
            field.type_name = f".{package}.{kind}"
        else:
            field.type = getattr(_FIELD, f"TYPE_{kind.upper()}")


def _build() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    classes: dict[str, Any] = {}
    for package, table in ((PACKAGE_FLIGHT, _FLIGHT), (PACKAGE_SQL, _SQL)):
        file = descriptor_pb2.FileDescriptorProto(
            name=f"micromegas/{package.rsplit('.', maxsplit=1)[-1]}", package=package, syntax="proto3"
        )
        for name, declaration in table.items():
            _declare(file.message_type.add(name=name), package, declaration)
        pool.Add(file)
        for name in table:
            classes[name] = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
    return classes


_CLASSES = _build()


def new(name: str, **fields: Any) -> Message:
    """A message of the table, e.g. `new("Ticket", ticket=b"…")`."""
    return _CLASSES[name](**fields)


def parse(name: str, body: bytes) -> Message:
    """Decodes `body` as message `name`; raises `google.protobuf.message.DecodeError` on bytes that are no protobuf
    message."""
    return _CLASSES[name].FromString(body)


def is_sql_message(name: str) -> bool:
    return name in _SQL


def pack(name: str, **fields: Any) -> bytes:
    """A Flight SQL message inside a `google.protobuf.Any`, serialized: the form of commands, tickets and action
    results."""
    value = new(name, **fields).SerializeToString()
    packed: bytes = new("Any", type_url=f"{TYPE_URL_PREFIX}{PACKAGE_SQL}.{name}", value=value).SerializeToString()
    return packed
