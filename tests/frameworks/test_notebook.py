"""`%load_ext micromegas` in a real IPython shell."""

from __future__ import annotations

from collections.abc import Callable

from record.conftest import Captured


def test_cells(run_app: Callable[..., Captured]) -> None:
    captured = run_app("notebook")
    names = [
        (event["$type"][:5], event.get("name") or event["thread_span_desc"]["name"]) for event in captured.events("cpu")
    ]
    inside = [("Begin", "traced"), ("Begin", "area"), ("EndTh", "area"), ("EndTh", "traced")]
    plain = ["plain", "waits", "fails", "is no Python", "cell", "again"]
    after = [(kind, name) for name in plain for kind in ("Begin", "EndTh")]
    assert names == [("Begin", "load data"), ("EndTh", "load data"), *inside, *after]
    assert captured.messages() == ["waited in a cell", "after a cell that failed: 6"]
