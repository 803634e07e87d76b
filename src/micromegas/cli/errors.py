"""Failures that a person at the command line can do something about, and the exit codes that scripts tell them by."""

from __future__ import annotations

FAILED = 1
WRONG_USAGE = 2
NO_SERVER = 3
KEY_REFUSED = 4
INTERRUPTED = 130
READER_LEFT = 141

_EXTRA_OF_MODULE = {"typer": "client", "rich": "client", "pyarrow": "client"}
# what the distribution `micromegas-server` puts into this package: server/pyproject.toml
_OF_SERVERS = {"daemon", "ingest", "lake", "query", "serve", "views"}


class CliError(Exception):
    """One line: what failed, and the next step."""

    def __init__(self, line: str, exit_code: int = FAILED) -> None:
        super().__init__(line)
        self.exit_code = exit_code


class UsageError(CliError):
    """A command line that says what can't be: a value, or flags that exclude each other."""

    def __init__(self, line: str) -> None:
        super().__init__(line, WRONG_USAGE)


def missing_extra(error: ModuleNotFoundError) -> str:
    """The line for a package that only an extra of ours installs; raises `error` when it isn't one."""
    package, _, rest = (error.name or "").partition(".")
    if package == "micromegas":
        if rest.partition(".")[0] not in _OF_SERVERS:
            raise error
        package = "micromegas-server"
    extra = _EXTRA_OF_MODULE.get(package, "server")
    return f"micromegas: {package} is not installed: run  pip install 'micromegas[{extra}]'"
