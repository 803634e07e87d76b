"""Declares metrics and counters, the prepared objects that measures are recorded through."""

import sys
from collections.abc import Mapping
from types import FrameType

from micromegas import _core

TYPE_CHECKING = False  # for type checkers, which know the name, without the cost of importing `typing`
if TYPE_CHECKING:
    from micromegas._core import Counter, Metric


_LONGEST_NAME = 1000
"""Of a name or a unit, in characters; readers repeat it in every row."""


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _declaration(
    name: str, unit: str, properties: Mapping[str, object] | None, target: str | None, caller: FrameType
) -> tuple[str, bytes, bytes, bytes, int, tuple[bytes, ...]]:
    if target is None:
        target = str(caller.f_globals.get("__name__", ""))
    texts: tuple[bytes, ...] = ()
    if properties:
        # Sorted, so that equal sets are the same metric in whatever order they were written.
        named = {_core.text_of(key): value for key, value in properties.items()}
        texts = tuple(_utf8(text) for pair in _core.make_properties(named, False).pairs for text in pair)
    return (
        _core.text_of(name)[:_LONGEST_NAME],
        _utf8(_core.text_of(unit)[:_LONGEST_NAME]),
        _utf8(target),
        _utf8(caller.f_code.co_filename),
        caller.f_lineno,
        texts,
    )


def metric(
    name: str,
    unit: str = "",
    *,
    properties: Mapping[str, object] | None = None,
    target: str | None = None,
    context: bool = False,
) -> "Metric":
    """Declare a metric; `record(value)` of the result records one measure with the time of the call.

    Declare it once, record often: `frame_time = metric("frame_time", "ms")`, then `frame_time.record(16.6)`.
    `unit` is free text (`"ms"`, `"bytes"`, `"count"`). `properties` are fixed for all measures of the result; `target`
    is the name of the calling module unless given. Integers from 0 to 2**63 - 1 stay integers, others become floats.
    A value that is no number is refused and counted in `status()["refused_values"]`, never raised.

    `record_with(value, user="ann")` gives one measure properties of its own, as many as 32, or a set made by
    `mm.properties` as `properties=`; values become text of at most 8192 characters. With `context`, every measure also
    gets what is bound to its context and the properties of the process, as log events do (see `bind`); among equal
    names those of the call win over the metric's own, these over the context's, these over the process's. Readers take
    properties called `name`, `unit` and `target` for those of the measure, so these are sent as `name_`, `unit_` and
    `target_`.
    """
    return declared_metric(name, unit, properties, target, sys._getframe(1), context=context)


def counter(
    name: str, unit: str = "count", *, properties: Mapping[str, object] | None = None, target: str | None = None
) -> "Counter":
    """Declare a counter; `add(amount)` adds to it without leaving an event.

    What was added is sent as one measure per flush period in which something was added, so `sum(value)` over any time
    is what was added in it. For the moment of each addition, use a metric. Integers and finite floats may be added,
    also before `init()`; the rest is refused and counted. Integers beyond 2**32 are summed as floats. Parameters as
    for `metric`. After 4096 counters, each addition to a further one is an event of its own.
    """
    return declared_counter(name, unit, properties, target, sys._getframe(1))


def declared_metric(
    name: str,
    unit: str,
    properties: Mapping[str, object] | None,
    target: str | None,
    caller: FrameType,
    *,
    context: bool = False,
) -> "Metric":
    """A metric declared where `caller` is."""
    return _core.make_metric(*_declaration(name, unit, properties, target, caller), context)


def declared_counter(
    name: str, unit: str, properties: Mapping[str, object] | None, target: str | None, caller: FrameType
) -> "Counter":
    """A counter declared where `caller` is."""
    return _core.make_counter(*_declaration(name, unit, properties, target, caller))
