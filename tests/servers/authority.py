"""A throw-away authority for tests, and the certificates that it issues."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

import pytest


class Authority:
    """A throw-away authority, its certificate in `ca.pem`."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        pytest.importorskip("cryptography", reason="cryptography makes the certificates of these tests")
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID

        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"throw-away authority {name}")])
        self.certificate = self._build(self.name, self.key.public_key(), is_authority=True)
        self.file = str(self._write(f"{name}.pem", self.certificate))

    def _build(self, subject, public_key, *, names=(), is_authority=False, days=(-1, 1)):
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes

        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(days=days[0]))
            .not_valid_after(now + datetime.timedelta(days=days[1]))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def _write(self, name: str, certificate, key=None) -> Path:
        from cryptography.hazmat.primitives import serialization

        pem = certificate.public_bytes(serialization.Encoding.PEM)
        if key is not None:
            pem += key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        path = self.folder / name
        path.write_bytes(pem)
        return path

    def issue(self, name: str, *, days: tuple[int, int] = (-1, 1)) -> Path:
        """A certificate with its key in one PEM file, for a name or an address."""
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import rsa
        from cryptography.x509.oid import NameOID

        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        try:
            names = [x509.IPAddress(ipaddress.ip_address(name))]
        except ValueError:
            names = [x509.DNSName(name)]
        certificate = self._build(subject, key.public_key(), names=names, days=days)
        return self._write(f"{name}{days[1]}.pem", certificate, key)
