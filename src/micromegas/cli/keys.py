"""`micromegas keys`: the file of keys that servers take (`--api-keys`), and what senders need to present one."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import tempfile
from pathlib import Path
from urllib.parse import quote

from micromegas.cli.errors import CliError, UsageError
from micromegas.config import ApiKey, parse_api_keys

SHELLS = ("posix", "powershell", "cmd", "dotenv")
_KEY_BYTES = 32


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """Those of a file; raises `CliError` that never repeats what it holds."""
    try:
        return parse_api_keys(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"keys {path}: {getattr(error, 'strerror', None) or 'not a text in UTF-8'}") from None
    except ValueError as error:
        raise CliError(f"keys {path}: {error}") from None


def run_add(path: Path, name: str, url: str | None, shell: str, as_json: bool) -> None:
    """Makes a key and tells it, this once: with `url` as the variables of a sender. `CliError` for a name that is
    taken."""
    if shell not in SHELLS:
        raise UsageError(f"--shell {shell}: choose one of {', '.join(SHELLS)}")
    if not name.strip():
        raise UsageError("a key needs a name")
    keys = read_keys(path) if path.exists() else ()
    if any(each.name == name for each in keys):
        raise CliError(f"keys {path}: {name} is there already; take another name, or  micromegas keys remove")
    key = ApiKey(name, secrets.token_urlsafe(_KEY_BYTES))
    _write(path, (*keys, key))
    if as_json:
        print(json.dumps({"name": key.name, "key": key.key}))
    elif url is None:
        print(key.key)
    else:
        for variable, value in _variables(url.rstrip("/"), key).items():
            print(_assignment(shell, variable, value))


def run_list(path: Path, format_name: str) -> None:
    """The names, never the keys."""
    import pyarrow as pa

    from micromegas.cli.rows import write_table

    write_table(pa.table({"name": pa.array([each.name for each in read_keys(path)], pa.string())}), format_name)


def run_remove(path: Path, name: str) -> None:
    """`CliError` where there is no such name."""
    keys = read_keys(path)
    left = [each for each in keys if each.name != name]
    if len(left) == len(keys):
        raise CliError(f"keys {path}: no key {name}; see  micromegas keys list")
    _write(path, left)


def _variables(url: str, key: ApiKey) -> dict[str, str]:
    """What our recorder reads, and what OpenTelemetry's SDKs read."""
    return {
        "MICROMEGAS_TELEMETRY_URL": url,
        "MICROMEGAS_INGESTION_API_KEY": key.key,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"{url}/ingestion/otlp",
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={quote(f'Bearer {key.key}')}",
    }


def _assignment(shell: str, variable: str, value: str) -> str:
    match shell:
        case "powershell":
            quoted = value.replace("'", "''")
            return f"$env:{variable} = '{quoted}'"
        case "cmd":
            return f'set "{variable}={value.replace("%", "%%")}"'
        case "dotenv":
            return f"{variable}={json.dumps(value)}"
        case _:
            return f"export {variable}={shlex.quote(value)}"


def _write(path: Path, keys: tuple[ApiKey, ...] | list[ApiKey]) -> None:
    """Whole or not at all, for its owner only."""
    text = json.dumps([{"name": each.name, "key": each.key} for each in keys], indent=1) + "\n"
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, path)
    except OSError as error:
        raise CliError(f"keys {path}: {error.strerror}") from None
