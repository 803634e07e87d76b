"""Who asks, as servers write it into their audit log: the headers `x-client-…`."""

from __future__ import annotations

import re
import sys
import uuid
from collections.abc import Mapping

_VALUE = re.compile(r"[\x20-\x7e]{1,64}", re.ASCII)
# One for all connections of this process: what belongs together is found together.
_SESSION = str(uuid.uuid4())


def attribution_headers(entrypoint: str | None, environment: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Type, agent, entry point and session of this client.

    `entrypoint` (else MICROMEGAS_CLIENT_ENTRYPOINT, else what Python says of itself) is what the person uses: a tool's
    name, `script`, `repl`, `jupyter`. MICROMEGAS_CLIENT_AGENT names what acts for the person. `ValueError` for values
    that aren't 1 to 64 printable ASCII characters.
    """
    in_agent = bool(environment.get("CLAUDECODE"))
    values = {
        "type": "python",
        "agent": environment.get("MICROMEGAS_CLIENT_AGENT") or ("claude-code" if in_agent else "none"),
        "entrypoint": entrypoint or environment.get("MICROMEGAS_CLIENT_ENTRYPOINT") or _entrypoint(),
        "session": (environment.get("CLAUDE_CODE_SESSION_ID") if in_agent else None) or _SESSION,
    }
    for name, value in values.items():
        if _VALUE.fullmatch(value) is None:
            raise ValueError(f"client {name} {value[:80]!r}: must be 1 to 64 printable ASCII characters")
    return [(f"x-client-{name}".encode(), value.encode()) for name, value in values.items()]


def _entrypoint() -> str:
    # IPython is loaded in a notebook's kernel and in its terminal, both of which have a shell to ask.
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is not None:
        return "jupyter" if type(shell).__name__ == "ZMQInteractiveShell" else "repl"
    return "repl" if hasattr(sys, "ps1") else "script"
