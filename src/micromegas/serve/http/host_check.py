"""By which names a server may be asked that asks nobody for a key.

A page in a browser on this machine can have its own name point at this machine (DNS rebinding) and ask as if it were
ours. Its requests carry its name, so that only names that can't be a stranger's are answered to.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Set as AbstractSet


def is_known_host(host: str, names: AbstractSet[str]) -> bool:
    """Whether the header `host` is an address, `localhost`, a name without a dot (of this machine or its network: the
    public DNS has none), or one of `names` (in lower case)."""
    if host.startswith("["):
        return _is_address(host[1:].partition("]")[0])
    name = host.partition(":")[0].lower().removesuffix(".")
    if not name or _is_address(name) or name in names:
        return bool(name)
    return "." not in name or name.endswith(".localhost")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
