"""Whose call it is: events are told of the place that wrote them whatever thread, process or interpreter ran before.

The recorder finds the running thread by the lock that it holds (csrc/running_thread.c), so these are the ways to hand
that lock on.
"""

import ast
import sys

HEAD = """
import inspect, sys, threading
from micromegas.testing import capture

def tell(count=1):
    for _ in range(count):
        mm.log.info("told at %s", inspect.currentframe().f_lineno)
        with mm.span("work"):
            mm.log.info("and at %s in %s", inspect.currentframe().f_lineno, threading.get_ident())

def misplaced(events):
    return [(log.line, log.message) for log in events.logs if f"at {log.line}" not in log.message]
"""

INTERPRETERS = """
if sys.version_info < (3, 13):
    import _xxsubinterpreters as interpreters
    kinds = [{"isolated": True}, {"isolated": False}]
else:
    import _interpreters as interpreters
    kinds = [{"config": "isolated"}, {"config": "legacy"}]
if sys.version_info < (3, 12):
    kinds = [{"isolated": True}]

def run_another(kind):
    interpreter = interpreters.create(**kind)
    interpreters.run_string(interpreter, "import time\\nfor _ in range(1000): pass\\ntime.sleep(.001)")
    tell()
    interpreters.destroy(interpreter)
    tell()
"""


def told(run, text):
    """What was told of another place than its own, and how many events there were."""
    return ast.literal_eval(run(HEAD + text).stdout)


def test_after_other_interpreters(run):
    text = """
with capture() as events:
    tell()
    for kind in kinds:
        run_another(kind)
        thread = threading.Thread(target=run_another, args=(kind,)); thread.start(); tell(); thread.join()
print((misplaced(events), len(events.logs)))
"""
    kinds = 1 if sys.version_info < (3, 12) else 2
    assert told(run, INTERPRETERS + text) == ([], 2 + 10 * kinds)


def test_in_threads_that_take_turns(run):
    text = """
sys.setswitchinterval(1e-6)
with capture() as events:
    threads = [threading.Thread(target=tell, args=(500,)) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
print((misplaced(events), len(events.logs)))
"""
    assert told(run, text) == ([], 8000)


def test_in_a_forked_child(run):
    text = """
import os
tell()
child = os.fork()
if child == 0:
    with capture() as events:
        tell(5)
    print((misplaced(events), len(events.logs)), flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""
    assert told(run, text) == ([], 10)


def test_in_threads_that_python_did_not_start(run):
    """Each call there has a state of its own, which is freed behind it; and one has no frame of Python."""
    text = """
import ctypes
begin = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.py_object)

def run_outside(function, argument):
    library, thread = ctypes.CDLL(None), ctypes.c_ulong()
    library.pthread_create(ctypes.byref(thread), None, function, ctypes.py_object(argument))
    library.pthread_join(thread, None)

def tell_twice(count):
    tell(count)


with capture() as events:
    outside, without_frame = begin(tell_twice), begin(mm.log.info)
    for _ in range(20):
        run_outside(outside, 2)
        run_outside(without_frame, "at 0")
        tell()
print((misplaced(events), len(events.logs)))
"""
    assert told(run, text) == ([], 20 * (4 + 1 + 2))
