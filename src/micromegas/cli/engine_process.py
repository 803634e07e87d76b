"""What the query engine's library reads from the environment when it is loaded: to be set before its first import."""

from __future__ import annotations

import os

ENGINE_ENVIRONMENT = {
    # fewer threads than this can wait for one another
    "TOKIO_WORKER_THREADS": "8",
    # An aggregate over many groups takes and gives back large buffers, of which it fills a part: clearing whole huge
    # pages for them cost more than half of its time.
    "MIMALLOC_ALLOW_THP": "0",
}


def prepare_engine_process() -> None:
    """Sets what isn't set yet, for this process and those that it starts."""
    for name, value in ENGINE_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
