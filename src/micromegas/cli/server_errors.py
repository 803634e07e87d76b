"""What a server or the way to it says against a command, as a line with the next step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from micromegas.cli.errors import CliError
from micromegas.client import ClientError, ServerUnreachable, SignInRefused


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """Raises `CliError` for errors of the client within."""
    try:
        yield
    except ServerUnreachable as error:
        raise CliError(f"{error}; is it running? start one with  micromegas serve --lake DIR") from None
    except SignInRefused as error:
        raise CliError(f"{error}; set --api-key or MICROMEGAS_API_KEY") from None
    except (ClientError, ValueError) as error:
        raise CliError(" ".join(str(error).split())) from None
