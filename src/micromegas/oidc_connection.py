"""Connecting as a person, where programs written for the original's client look for it."""

from micromegas.client.connecting import connect_as_person as connect
from micromegas.client.person import load_or_login

__all__ = ["connect", "load_or_login"]
