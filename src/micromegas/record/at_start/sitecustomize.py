"""Found first by interpreters that have this folder on PYTHONPATH: begins to record, then runs the one found next.

For children of `python -m micromegas run`, also where the package's `.pth` file is not installed.
"""

import importlib.machinery
import importlib.util
import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))


def _begin() -> None:
    try:
        from micromegas.record.autostart import begin
    except Exception as error:  # another interpreter's children find this folder, too
        print(f"micromegas: {sys.executable} is not recorded: {error!r}", file=sys.stderr)
    else:
        begin()


def _run_next() -> None:
    """What the interpreter would have found without us. It takes our place in `sys.modules`, and raises as it would."""
    others = [path for path in sys.path if os.path.abspath(path) != _HERE]
    spec = importlib.machinery.PathFinder.find_spec(__name__, others)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules[__name__] = module
        spec.loader.exec_module(module)


if os.environ.get("MICROMEGAS_AUTOSTART") and os.environ.get("MICROMEGAS_TELEMETRY_URL"):
    _begin()
_run_next()
