"""Ways to sign in, for `connect(auth_provider=…)`."""

from micromegas.client.credentials import StaticTokenAuthProvider
from micromegas.client.oidc import OidcClientCredentialsProvider

__all__ = ["OidcClientCredentialsProvider", "StaticTokenAuthProvider"]
