"""Exceptions that nobody caught become log events; what the program and its hooks print stays the same."""

import pytest


def levels_and_messages(server):
    return [
        (event["desc"]["level"], event.get("msg", event["desc"]["fmt_str"])) for event in server.captured.events("log")
    ]


def test_in_the_main_thread(run, server):
    done = run(
        """
        def f():
            try: 1 / 0
            except ZeroDivisionError as error: raise RuntimeError("boom") from error
        mm.init()
        f()
        """,
        returncode=1,
    )
    [(level, message)] = levels_and_messages(server)
    assert level == 1
    assert message == "unhandled exception in the main thread\n" + done.stderr.rstrip()
    assert "ZeroDivisionError: division by zero" in message


def test_in_a_thread(run, server):
    done = run(
        """
        import sys, threading
        mm.init()
        def f(end): raise end
        for end in (ValueError("boom"), SystemExit(3)):
            thread = threading.Thread(target=f, args=(end,), name="worker")
            thread.start()
            thread.join()
        """
    )
    [(level, message)] = levels_and_messages(server)
    assert level == 2
    assert message.startswith("unhandled exception in thread worker\nTraceback")
    assert message.endswith("ValueError: boom")
    assert done.stderr.startswith("Exception in thread worker:")


def test_in_a_task_that_nobody_awaits(run, server):
    done = run(
        """
        import asyncio, gc
        mm.init()
        async def bad(): raise IndexError("boom")
        async def main():
            asyncio.create_task(bad(), name="lost")
            await asyncio.sleep(0.01)
            gc.collect()
            asyncio.get_running_loop().call_soon(lambda: [].pop())
            await asyncio.sleep(0.01)
            asyncio.get_running_loop().call_exception_handler({"message": "no exception"})
        asyncio.run(main())
        """
    )
    told = levels_and_messages(server)
    assert [level for level, _ in told] == [2, 2, 2]
    assert told[0][1].startswith("Task exception was never retrieved (task: lost)\nTraceback")
    assert told[0][1].endswith("IndexError: boom")
    assert told[1][1].endswith("IndexError: pop from empty list")
    assert told[2][1] == "no exception (task: none)"
    assert "Task exception was never retrieved" in done.stderr


def test_a_loop_with_a_handler_of_its_own(run, server):
    done = run(
        """
        import asyncio
        async def main():
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: print("theirs", context["message"]))
            asyncio.get_running_loop().call_exception_handler({"message": "m"})
        mm.init()
        asyncio.run(main())
        """
    )
    assert done.stdout == "theirs m\n"
    assert levels_and_messages(server) == [(2, "m (task: none)")]


def test_in_a_destructor(run, server):
    done = run(
        """
        mm.init()
        class D:
            def __del__(self): raise KeyError("boom")
        D()
        """
    )
    [(level, message)] = levels_and_messages(server)
    assert level == 2
    assert message.startswith("Exception ignored")
    assert message.endswith("KeyError: 'boom'")
    assert "KeyError: 'boom'" in done.stderr


@pytest.mark.parametrize("when", ["before", "after"])
def test_hooks_of_the_program_are_called(run, server, when):
    hooks = """
import sys, threading
sys.excepthook = lambda *_: print("theirs: main")
threading.excepthook = lambda *_: print("theirs: thread")
"""
    if when == "after":
        hooks = hooks.replace("lambda *_: print", "lambda *_, old=OLD: (old(*_), print").replace('")', '"))')
        hooks = hooks.replace("OLD", "sys.excepthook", 1).replace("OLD", "threading.excepthook", 1)
    first, second = (hooks, "mm.init()\n")[:: 1 if when == "before" else -1]
    done = run(
        first + second + "t = threading.Thread(target=lambda: [].pop()); t.start(); t.join(); [].pop()", returncode=1
    )
    assert done.stdout == "theirs: thread\ntheirs: main\n"
    assert [level for level, _ in levels_and_messages(server)] == [2, 1]


@pytest.mark.parametrize("ending", ["raise SystemExit(4)", "import sys; sys.exit(4)", "import sys; sys.exit('four')"])
def test_an_orderly_end_is_no_failure(run, server, ending):
    run(f"mm.init()\n{ending}", returncode=1 if "four" in ending else 4)
    assert levels_and_messages(server) == []


def test_exceptions_that_cannot_be_shown(run, server):
    run(
        """
        mm.init()
        class Bad(Exception):
            def __str__(self): raise ValueError
            __repr__ = __str__
        raise Bad
        """,
        returncode=1,
    )
    [(level, message)] = levels_and_messages(server)
    assert level == 1
    assert "Bad" in message


def test_reports_are_bounded(run, server):
    """Whatever size message, chain of causes and traceback have: the program prints all of it, we keep its ends."""
    done = run(
        """
        import sys, threading
        mm.init()
        class Noisy:
            def __del__(self): raise ValueError("destructor" + "d" * 1_000_000 + "end")
        def chain(depth):
            error = None
            for number in range(depth):
                error, cause = KeyError(f"{number} " + "k" * 1000), error
                error.__cause__ = cause
            raise error
        def deep(depth): deep(depth - 1) if depth else 1 / 0
        sys.setrecursionlimit(20_000)
        for target, argument in ((chain, 400), (deep, 900)):
            thread = threading.Thread(target=target, args=(argument,), name=target.__name__)
            thread.start(); thread.join()
        noisy = Noisy(); del noisy
        raise RuntimeError("begin" + "x" * 10_000_000 + "end")
        """,
        returncode=1,
    )
    messages = dict(zip(("chain", "deep", "destructor", "main"), server.captured.messages(), strict=True))
    assert len(done.stderr) > 11_000_000
    assert all(len(message) < 70_000 for message in messages.values())
    assert "KeyError: '399 k" in messages["chain"]
    assert "[cut: " in messages["chain"]
    assert messages["deep"].endswith("ZeroDivisionError: division by zero")
    assert messages["destructor"].endswith("dddend")
    assert "[cut: " in messages["main"]
    assert messages["main"].endswith("xxxend")


def test_endless_recursion(run, server):
    run("mm.init()\ndef f(): f()\nf()", returncode=1)
    [(level, message)] = levels_and_messages(server)
    assert level == 1
    assert "RecursionError" in message


def test_under_pytest_and_in_a_restarted_session(run, server):
    run(
        """
        import sys, threading
        theirs = sys.excepthook
        for _ in range(3):
            mm.init()
            mm.shutdown()
        assert sys.excepthook is theirs
        mm.init()
        ours = sys.excepthook
        sys.excepthook = lambda *_: ours(*_)  # somebody came after us
        mm.shutdown()
        mm.init()
        [].pop()
        """,
        returncode=1,
    )
    assert sum(level == 1 for level, _ in levels_and_messages(server)) >= 1
