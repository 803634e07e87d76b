"""`%load_ext micromegas` in a notebook: `%%span name` around a cell, `%mm_trace` for the functions of modules.

Loaded by IPython only, which is handed in and never imported.
"""

from typing import Any

from micromegas import _core
from micromegas.record.auto_trace import trace_as_environment_says, untrace_modules
from micromegas.record.session import begin_automatically


def load_ipython_extension(shell: Any) -> None:
    """Register the magics, and begin to record unless that has begun."""
    begin_automatically({})

    def span(line: str, cell: str) -> None:
        """`%%span name`: the cell is a span."""
        with _core.span_named(line.strip() or "cell"):
            result = shell.run_cell(cell)
        error = result.error_before_exec or result.error_in_exec
        if error is not None:
            # It is shown already. Without it the cell would pass for one that ran, and those below it would run, too.
            error._render_traceback_ = list
            raise error

    def mm_trace(line: str) -> None:
        """`%mm_trace`: trace all functions of the notebook and the program's own modules; `%mm_trace mine,-mine.hot`:
        those of some modules; `%mm_trace off`: none."""
        if line.strip() == "off":
            untrace_modules()
        else:
            trace_as_environment_says(line)

    shell.register_magic_function(span, "cell", "span")
    shell.register_magic_function(mm_trace, "line", "mm_trace")


def unload_ipython_extension(shell: Any) -> None:
    """Take the magics away; recording goes on."""
    for kind, name in (("cell", "span"), ("line", "mm_trace")):
        shell.magics_manager.magics[kind].pop(name, None)
