"""Begins to record before the program's first line, for programs that know nothing of us.

Called while the interpreter starts, by the `.pth` file of the installation or by `at_start/sitecustomize.py`. Must
never keep the program from starting.
"""

import os
import sys

VARIABLE = "MICROMEGAS_AUTOSTART"
SITE_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "at_start")
"""To be put on the PYTHONPATH of children whose interpreter may not have our `.pth` file."""

_NO = ("", "0", "false", "no", "off")
_has_begun = False
"""CPython 3.11 reads the `.pth` files of a virtual environment twice."""


def is_wanted() -> bool:
    """Whether the environment asks for it: MICROMEGAS_AUTOSTART is set, and MICROMEGAS_TELEMETRY_URL tells where to."""
    answer = os.environ.get(VARIABLE, "").strip().lower()
    return answer not in _NO and bool(os.environ.get("MICROMEGAS_TELEMETRY_URL"))


def begin() -> None:
    """Begin to record if the environment asks for it, once. What goes wrong is told on stderr."""
    global _has_begun
    if _has_begun or not is_wanted() or _is_multiprocessing_helper():
        return
    _has_begun = True
    try:
        from micromegas.record.session import begin_automatically

        begin_automatically({})
    except Exception as error:
        print(f"micromegas: this process is not recorded: {error}", file=sys.stderr)


def _is_multiprocessing_helper() -> bool:
    """A resource tracker or fork server, which does no work of the program, or a worker, whose parent tells it how."""
    words = sys.orig_argv
    return "-c" in words[:-1] and words[words.index("-c") + 1].startswith("from multiprocessing.")
