"""What `init()` is given and what the environment says, refused by name where it can't be."""

import os
from collections.abc import Mapping, Sequence

_YES = ("1", "true", "yes", "on")
_NO = ("0", "false", "no", "off")
_DEFAULT_BYTES = 64 << 20
_LEAST_BUFFER_BYTES = 256 << 10
"""Each thread begins with 16 KiB, and goes on with another block before that one comes free."""
_MOST_BYTES = 1 << 63

_PATH = (str, os.PathLike), "a path"
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "url": ((str,), "a text"),
    "process_name": ((str,), "a text"),
    "properties": ((Mapping,), "a mapping"),
    "api_key": ((str,), "a text"),
    "headers": ((Mapping,), "a mapping"),
    "proxy": ((str,), "a text"),
    "ca_file": _PATH,
    "client_certificate": _PATH,
    "client_key": _PATH,
    "encoding": ((str,), "a text"),
    "spool_dir": _PATH,
    "scrub": ((bool, Sequence), "True, False or a list of patterns"),
}


def check_kinds(given: Mapping[str, object]) -> None:
    """Raise TypeError for a setting that is not of its kind, without showing its value, which may be a secret."""
    for name, (kinds, told) in _KINDS.items():
        value = given[name]
        # A text would be a list of patterns of one letter each.
        is_text_for_patterns = name == "scrub" and isinstance(value, (str, bytes))
        if value is not None and (is_text_for_patterns or not isinstance(value, kinds)):
            raise TypeError(f"init(): {name} is {told}, not {type(value).__name__}")


def is_wanted(given: object, variable: str) -> bool:
    """What was given, else what the environment says, else yes."""
    if given is not None:
        return bool(given)
    text = os.environ.get(variable, "")
    word = text.strip().lower()
    if word and word not in _YES and word not in _NO:
        raise ValueError(f"{variable} {text!r}: neither on nor off")
    return word not in _NO


def seconds(given: object, variable: str) -> float:
    """Raises ValueError for what is no number; the native half says which numbers can be."""
    name, value = ("flush_period", given) if given is not None else (variable, os.environ.get(variable) or 1.0)
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} {value!r}: not a number of seconds") from None


def byte_count(name: str, given: object, default: int = _DEFAULT_BYTES) -> int:
    """Of the setting `name`: given, else MICROMEGAS_…, else `default`; raises ValueError for what is no such number."""
    if given is None:
        name = f"MICROMEGAS_{name.upper()}"
        given = os.environ.get(name) or default
        count = int(given) if isinstance(given, int) or given.isdecimal() else -1
    else:
        index = getattr(given, "__index__", None)
        count = index() if index is not None else -1
    if not 0 <= count < _MOST_BYTES:
        raise ValueError(f"{name} {given!r}: not a number of bytes")
    return count


def buffer_byte_count(given: object) -> int:
    size = byte_count("buffer_bytes", given)
    if size < _LEAST_BUFFER_BYTES:
        name = "buffer_bytes" if given is not None else "MICROMEGAS_BUFFER_BYTES"
        raise ValueError(f"{name} {size}: at least {_LEAST_BUFFER_BYTES}, or threads find no room for events")
    return size


def is_clock_monotonic() -> bool:
    text = os.environ.get("MICROMEGAS_RECORDER_CLOCK", "")
    if text not in ("", "counter", "monotonic"):
        raise ValueError(f"MICROMEGAS_RECORDER_CLOCK {text!r}: neither counter nor monotonic")
    return text == "monotonic"


def properties_of_environment() -> dict[str, str]:
    """MICROMEGAS_PROCESS_PROPERTIES, `name=value,name=value`; a part without a name is no reason not to record."""
    properties: dict[str, str] = {}
    for pair in os.environ.get("MICROMEGAS_PROCESS_PROPERTIES", "").split(","):
        name, separator, value = pair.partition("=")
        if separator and name.strip():
            properties[name.strip()] = value.strip()
    return properties
