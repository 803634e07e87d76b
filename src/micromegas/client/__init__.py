"""Asking a Micromegas server in SQL. Needs pyarrow only, and pandas or polars for data frames; nothing of the server.

>>> import micromegas
>>> with micromegas.connect("grpc://localhost:50051") as client:
...     frame = client.query("SELECT time, msg FROM log_entries ORDER BY time DESC LIMIT 10", begin="-1h")

`FlightSQLClient` is what `connect` gives; `Client` is the plain connection below it, with Arrow only.
"""

from micromegas.client.async_client import AsyncFlightSQLClient
from micromegas.client.client import Client
from micromegas.client.connecting import connect, connect_async, connect_with_profile
from micromegas.client.credentials import AuthProvider, StaticTokenAuthProvider
from micromegas.client.errors import (
    AddressInvalid,
    ClientError,
    NotOffered,
    NotPermitted,
    QueryCancelled,
    QueryFailed,
    ServerFailed,
    ServerUnreachable,
    SignInRefused,
    StatementRefused,
)
from micromegas.client.flight_sql_client import FlightSQLClient
from micromegas.client.notebook import load_ipython_extension
from micromegas.client.prepared import PreparedStatement
from micromegas.client.profiles import ProfileError
from micromegas.client.progress import Progress
from micromegas.client.result import QueryResult

__all__ = [
    "AddressInvalid",
    "AsyncFlightSQLClient",
    "AuthProvider",
    "Client",
    "ClientError",
    "FlightSQLClient",
    "NotOffered",
    "NotPermitted",
    "PreparedStatement",
    "ProfileError",
    "Progress",
    "QueryCancelled",
    "QueryFailed",
    "QueryResult",
    "ServerFailed",
    "ServerUnreachable",
    "SignInRefused",
    "StatementRefused",
    "StaticTokenAuthProvider",
    "connect",
    "connect_async",
    "connect_with_profile",
    "load_ipython_extension",
]
