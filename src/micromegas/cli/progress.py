"""How far long work is, on standard error while that is a terminal; nothing otherwise."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(what: str, total: int | None = None, *, is_bytes: bool = False) -> Iterator[Callable[[int], None]]:
    """Gives a function to be called with each amount done; without `total` only the sum is shown."""
    if not sys.stderr.isatty():
        yield lambda amount: None
        return
    import rich.console
    import rich.progress as shown

    counter = shown.DownloadColumn() if is_bytes else shown.MofNCompleteColumn()
    columns = [shown.SpinnerColumn(), shown.TextColumn("{task.description}", markup=False), counter]
    if total is not None:
        columns += [shown.BarColumn(), shown.TimeRemainingColumn()]
    console = rich.console.Console(stderr=True)
    # what is printed meanwhile goes above the bar where both are on the terminal, and else where it was going anyway
    is_shared = sys.stdout.isatty()
    with shown.Progress(*columns, console=console, transient=True, redirect_stdout=is_shared) as bar:
        task = bar.add_task(what, total=total)
        yield lambda amount: bar.advance(task, amount)
