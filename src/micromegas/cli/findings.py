"""What `micromegas doctor` says of each thing that it looked at."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARNING, PROBLEM = "ok", "warning", "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check came to: what was seen, and the next step where something is to be done."""

    check: str
    state: str
    found: str
    next_step: str = ""
