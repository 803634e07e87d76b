"""`FlightSQLClient` where programs written for the original's client look for it."""

from micromegas.client.flight_sql_client import FlightSQLClient
from micromegas.client.prepared import PreparedStatement

__all__ = ["FlightSQLClient", "PreparedStatement"]
