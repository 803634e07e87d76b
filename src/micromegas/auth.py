"""Ways to sign in, for `connect(auth_provider=…)`."""

from micromegas.client.credentials import StaticTokenAuthProvider
from micromegas.client.oidc import OidcClientCredentialsProvider
from micromegas.client.person import OidcAuthProvider

__all__ = ["OidcAuthProvider", "OidcClientCredentialsProvider", "StaticTokenAuthProvider"]
