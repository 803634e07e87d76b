"""Where sessions keep what the server does not have yet."""

import os
from collections.abc import Mapping


def spool_folder(environment: Mapping[str, str]) -> str | None:
    """MICROMEGAS_SPOOL_DIR, else `micromegas/spool` in the user's state folder; None without a home."""
    if chosen := environment.get("MICROMEGAS_SPOOL_DIR"):
        return os.path.abspath(chosen)
    state = environment.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        home = os.path.expanduser("~")
        if not os.path.isabs(home):
            return None
        state = os.path.join(home, ".local", "state")
    return os.path.join(state, "micromegas", "spool")
