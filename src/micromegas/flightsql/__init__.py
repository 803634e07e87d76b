"""The client by the names that the original's has."""

from micromegas.flightsql import client

__all__ = ["client"]
