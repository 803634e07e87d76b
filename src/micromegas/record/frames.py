"""Frames: work that comes again and again and should be done in time, as in games and control loops."""

import sys
from collections.abc import Mapping

from micromegas import _core
from micromegas.record.metrics import declared_metric

_LONGEST_BUDGET_MS = 86_400_000.0


def frame(
    name: str = "main",
    *,
    budget_ms: float | None = None,
    properties: Mapping[str, object] | None = None,
    target: str | None = None,
) -> "_core.Frame":
    """Measure a frame: `with mm.frame("main", budget_ms=16.6):` around each.

    Each leaves a measure `DeltaTime` in seconds with the property `frame`. How many took longer than `budget_ms` is
    measured by `FramesOverBudget`, and told by a warning in the log, once per flush period. With
    `init(span_sampling="spikes")`, spans are sent only from around slow frames. Frames may be nested; each belongs to
    the thread that begins it. Other parameters as for `metric`. Errors: ValueError for a budget that can't be.
    """
    if budget_ms is not None and not 0 < budget_ms <= _LONGEST_BUDGET_MS:
        raise ValueError(f"frame budget of {budget_ms} ms: not above 0 and at most a day")
    own = dict(properties or {}) | {"frame": name}
    metric = declared_metric("DeltaTime", "seconds", own, target, sys._getframe(1))
    return _core.make_frame(metric, max(1, int(budget_ms * 1e6)) if budget_ms is not None else 0)
