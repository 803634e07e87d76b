"""What the headers `accept` and `accept-encoding` say: names, and how much each is liked."""

from __future__ import annotations

from collections.abc import Iterator


def accepted(header: str) -> Iterator[tuple[str, float]]:
    """Names in lower case, with their qualities from 0 (never) to 1; a quality that is no number counts as 0."""
    for entry in header.split(","):
        name, *parameters = (part.strip().lower() for part in entry.split(";"))
        if name:
            yield name, _quality(parameters)


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                quality = float(value)
            except ValueError:
                return 0.0
            # what is no number fails each comparison
            return min(quality, 1.0) if quality > 0 else 0.0
    return 1.0
