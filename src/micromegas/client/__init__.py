"""Asking a Micromegas server in SQL. Needs pyarrow only; nothing of the server.

>>> from micromegas.client import Client
>>> with Client("grpc://localhost:50051") as client:
...     table = client.query("SELECT time, msg FROM log_entries ORDER BY time DESC LIMIT 10")
"""

from micromegas.client.client import Client
from micromegas.client.errors import ClientError, QueryFailed, ServerUnreachable, SignInRefused
from micromegas.client.result import QueryResult

__all__ = ["Client", "ClientError", "QueryFailed", "QueryResult", "ServerUnreachable", "SignInRefused"]
