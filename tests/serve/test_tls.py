"""Certificates that can't be used: a server says so, and asks nobody."""

from __future__ import annotations

from pathlib import Path

import pytest
from servers.authority import Authority

from micromegas.config import FlightSettings
from micromegas.serve.tls import tls_context


def test_a_key_that_is_encrypted_is_refused_without_asking_at_the_terminal(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    from cryptography.hazmat.primitives import serialization

    encrypted = tmp_path / "key.pem"
    encrypted.write_bytes(
        authority.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    settings = FlightSettings(tls_certificate=Path(authority.file), tls_key=encrypted)
    with pytest.raises(OSError, match=r"ca\.pem or its key can't be used: it is encrypted"):
        tls_context(settings)
