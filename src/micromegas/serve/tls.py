"""The certificate of a server, as its settings name it."""

from __future__ import annotations

import ssl

from micromegas.config.answering import AnsweringSettings


def tls_context(settings: AnsweringSettings) -> ssl.SSLContext | None:
    """None where there is to be no TLS; `OSError` for files that can't be read or don't fit together."""
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key, password=_refuse_password)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"the certificate {settings.tls_certificate.name} or its key can't be used: {reason}") from None
    return context


def _refuse_password() -> str:
    """Without this, OpenSSL asks at the terminal, which holds up the whole process."""
    raise OSError("it is encrypted")
