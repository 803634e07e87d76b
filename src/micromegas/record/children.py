"""Has the children of a recorded process recorded, each as a process of its own with its parent's id.

Forked ones go on by themselves. Those that `multiprocessing` starts anew (spawn, forkserver) get what `init()` was
given through the pipe that brings them their work: no key stands in an environment that other programs see.
"""

import os
import sys
from collections.abc import Callable
from types import CodeType, ModuleType

from micromegas import _core
from micromegas.record import session
from micromegas.record.after_import import AfterImport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CARRIED = "micromegas"


class Carried:
    """Travels with a `multiprocessing` process object; where that is unpickled, recording begins."""

    def __reduce__(self) -> tuple[object, ...]:
        return _arrive, _luggage()


def _luggage() -> tuple[dict[str, object] | None, str | None]:
    status = _core.recorder_status()
    if status is None:
        return None, None
    import pickle

    settings = session.given_settings()
    try:
        pickle.dumps(settings)
    except Exception as error:
        _core.log.warn("a spawned process is not recorded unless it calls init(): its settings: %s", error)
        return None, None
    return settings, str(status["process_id"])


def _arrive(settings: dict[str, object] | None, parent: str | None) -> Carried:
    if settings is not None and parent is not None:
        try:
            session.begin_automatically(settings, parent)
        except Exception as error:
            print(f"micromegas: this process is not recorded: {error}", file=sys.stderr)
    return Carried()


def register() -> None:
    """Once per process, at the first `init()`."""
    AfterImport("multiprocessing.process", _send_along)
    AfterImport("multiprocessing.util", _finish_workers)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_after_fork)


def _send_along(multiprocessing_process: ModuleType) -> None:
    # Every process object copies the configuration of the process that makes it.
    multiprocessing_process.current_process()._config[_CARRIED] = Carried()
    process_class = multiprocessing_process.BaseProcess
    bootstrap = process_class._bootstrap

    def bootstrap_and_tell(process: "Any", *arguments: "Any", **keywords: "Any") -> "Any":
        """The worker's main function: prints what its function raises, then forgets it."""
        process.run = _telling(process.run)
        return bootstrap(process, *arguments, **keywords)

    process_class._bootstrap = bootstrap_and_tell


def _telling(run: Callable[[], None]) -> Callable[[], None]:
    def run_and_tell() -> None:
        try:
            run()
        except BaseException as error:
            session.record_failure_of_worker(error)
            raise

    return run_and_tell


def _after_fork() -> None:
    caller = sys._getframe().f_back
    if caller is None or not _is_about_to_exec(caller.f_code):
        session.restart_in_child()


def _is_about_to_exec(forking: CodeType) -> bool:
    """Between fork and exec, `subprocess` runs Python for the sake of a `preexec_fn`, `os.spawnv` always does."""
    subprocess = sys.modules.get("subprocess")
    known = [getattr(os, "_spawnvef", None), subprocess and subprocess.Popen._execute_child]
    return forking in [function.__code__ for function in known if function is not None]


def _finish_workers(util: ModuleType) -> None:
    """`multiprocessing` workers leave by `os._exit`: nothing but finalizers is run."""
    util.register_after_fork(Carried, _finish_this_worker)  # a worker begins by dropping all finalizers
    _finish_this_worker(Carried)


def _finish_this_worker(_: object) -> None:
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        # The lowest priority goes last.
        sys.modules["multiprocessing.util"].Finalize(None, session.finish_worker, exitpriority=-100)
