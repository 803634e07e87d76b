"""Ways to sign in, for `connect(auth_provider=…)`."""

from micromegas.client.credentials import StaticTokenAuthProvider

__all__ = ["StaticTokenAuthProvider"]
