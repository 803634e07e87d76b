"""Children of recorded processes: each reports as its own, with its parent's id, however it came into the world."""

import subprocess
import sys

import pytest

METHODS = ["fork", "spawn", "forkserver"]


def parents_of(server):
    """Parent's id by process id; every parent that is named must have reported, too."""
    parents = {process["process_id"]: process["parent_process_id"] for process in server.captured.processes}
    assert set(parents.values()) - {None} <= set(parents)
    return parents


def root_of(server):
    [root] = [process_id for process_id, parent in parents_of(server).items() if parent is None]
    return root


@pytest.mark.parametrize("method", METHODS)
def test_process_pool_executor(run, server, method):
    run(
        f"""
        from concurrent.futures import ProcessPoolExecutor
        import multiprocessing
        @mm.trace
        def work(n):
            mm.log.info("job %d", n)
        if __name__ == "__main__":
            mm.init()
            with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context({method!r})) as pool:
                list(pool.map(work, range(20)))
        """
    )
    assert sorted(server.captured.messages()) == sorted(f"job {n}" for n in range(20))
    assert len(server.captured.events("cpu")) == 40
    root = root_of(server)
    assert {parent for child, parent in parents_of(server).items() if child != root} == {root}


@pytest.mark.parametrize("method", METHODS)
def test_pool_whose_workers_are_replaced(run, server, method):
    run(
        f"""
        import multiprocessing
        def work(n):
            mm.log.info("job %d of %s", n, mm.status()["process_id"])
        if __name__ == "__main__":
            mm.init()
            with multiprocessing.get_context({method!r}).Pool(2, maxtasksperchild=1) as pool:
                pool.map(work, range(4), chunksize=1)
                pool.close()
                pool.join()
        """
    )
    captured = server.captured
    workers = [process_id for process_id in parents_of(server) if process_id != root_of(server)]
    told = sorted(text for worker in workers for text in captured.messages(worker))
    assert [text.split()[1] for text in told] == ["0", "1", "2", "3"]
    assert len({text.split()[-1] for text in told}) == 4
    for worker in workers:
        assert all(text.endswith(worker) for text in captured.messages(worker))


@pytest.mark.parametrize("outer", METHODS)
@pytest.mark.parametrize("inner", METHODS)
def test_workers_of_workers(run, server, outer, inner):
    run(
        f"""
        import multiprocessing
        def leaf():
            mm.log.info("leaf")
        def branch():
            mm.log.info("branch")
            start({inner!r}, leaf)
        def start(method, target):
            process = multiprocessing.get_context(method).Process(target=target)
            process.start()
            process.join()
            assert process.exitcode == 0
        if __name__ == "__main__":
            mm.init()
            start({outer!r}, branch)
        """
    )
    captured = server.captured
    parents = parents_of(server)
    [leaf] = [process for process in parents if captured.messages(process) == ["leaf"]]
    [branch] = [process for process in parents if captured.messages(process) == ["branch"]]
    assert parents == {leaf: branch, branch: root_of(server), root_of(server): None}


def test_a_worker_that_calls_init_itself(run, server):
    run(
        """
        import multiprocessing
        mm.init()  # in the spawned child, too: it imports this file
        def work():
            mm.log.info("worker")
        if __name__ == "__main__":
            process = multiprocessing.get_context("spawn").Process(target=work)
            process.start()
            process.join()
        """
    )
    assert server.captured.messages() == ["worker"]
    assert len(parents_of(server)) == 2


@pytest.mark.parametrize("method", METHODS)
def test_workers_after_shutdown_are_not_recorded(run, server, method):
    run(
        f"""
        import multiprocessing
        def work():
            mm.log.info("worker")
            assert mm.status() is None
        if __name__ == "__main__":
            mm.init()
            mm.shutdown()
            process = multiprocessing.get_context({method!r}).Process(target=work)
            process.start()
            process.join()
            assert process.exitcode == 0
        """
    )
    assert server.captured.messages() == []
    assert len(parents_of(server)) == 1


def test_keys_are_in_no_environment(run, server):
    done = run(
        """
        import multiprocessing, subprocess
        def work():
            subprocess.run(["env"], check=True)
            with open("/proc/self/environ") as environment:
                print(environment.read())
        if __name__ == "__main__":
            mm.init(api_key="very-secret")
            work()
            process = multiprocessing.get_context("spawn").Process(target=work)
            process.start()
            process.join()
        """
    )
    assert "MICROMEGAS_TELEMETRY_PARENT_PROCESS" in done.stdout
    assert "very-secret" not in done.stdout


def test_settings_that_cannot_travel_are_told(run, server):
    done = run(
        """
        import multiprocessing
        class Tag:
            def __str__(self): return "tag"
            def __reduce__(self): raise TypeError("not to be pickled")
        def work():
            print(mm.status())
        if __name__ == "__main__":
            mm.init(properties={"tag": Tag()})
            process = multiprocessing.get_context("spawn").Process(target=work)
            process.start()
            process.join()
            assert process.exitcode == 0
        """
    )
    assert done.stdout == "None\n"
    [message] = server.captured.messages()
    assert message.endswith("its settings: not to be pickled")


@pytest.mark.parametrize("method", METHODS)
def test_a_worker_that_fails_or_is_ended(run, server, method):
    run(
        f"""
        import multiprocessing, time
        def fail():
            mm.log.info("before")
            raise LookupError("nothing there")
        def sleep(ready):
            mm.log.info("sleeps")
            ready.set()
            time.sleep(60)
        if __name__ == "__main__":
            mm.init()
            context = multiprocessing.get_context({method!r})
            process = context.Process(target=fail)
            process.start()
            process.join()
            assert process.exitcode == 1
            ready = context.Event()
            process = context.Process(target=sleep, args=(ready,))
            process.start()
            ready.wait()
            process.terminate()
            process.join()
            assert process.exitcode == -15
        """
    )
    messages = sorted(message.splitlines()[0] for message in server.captured.messages())
    assert messages == [
        "before",
        "ended by signal 15",
        "sleeps",
        "unhandled exception in the main function of a worker",
    ]
    assert any("LookupError: nothing there" in message for message in server.captured.messages())


def test_a_thread_that_outlives_the_function_of_a_worker(run, server):
    run(
        """
        import multiprocessing, threading, time
        def late():
            threading.main_thread().join(0.3)
            mm.log.info("late")
            assert mm.flush()
        def work():
            threading.Thread(target=late).start()
        if __name__ == "__main__":
            mm.init()
            process = multiprocessing.get_context("fork").Process(target=work)
            process.start()
            process.join()
        """
    )
    assert server.captured.messages() == ["late"]


def test_subprocesses_of_every_kind(run, server):
    """None of them is a process of ours before it calls init() itself, and their parent is the one that recorded."""
    run(
        """
        import asyncio, os, subprocess, sys, time
        if sys.argv[1:] == ["child"]:
            mm.init()
            sys.exit()
        mm.init()
        child = [sys.executable, __file__, "child"]
        subprocess.run(child, check=True)
        subprocess.run(child, check=True, preexec_fn=lambda: None)
        subprocess.run(child, check=True, preexec_fn=lambda: time.sleep(0.3))
        subprocess.run(child, check=True, start_new_session=True, close_fds=False)
        os.waitpid(os.posix_spawn(sys.executable, child, os.environ), 0)
        os.spawnv(os.P_WAIT, sys.executable, child)
        async def main():
            process = await asyncio.create_subprocess_exec(*child, preexec_fn=os.getpid)
            await process.wait()
        asyncio.run(main())
        """
    )
    parents = parents_of(server)
    assert len(parents) == 8
    assert set(parents.values()) == {None, root_of(server)}


def test_a_fork_that_becomes_another_program(run, server):
    run(
        """
        import os, sys
        mm.init()
        if sys.argv[1:] == ["child"]:
            mm.log.info("exec")
            sys.exit()
        pid = os.fork()
        if pid == 0:
            os.execv(sys.executable, [sys.executable, __file__, "child"])
        os.waitpid(pid, 0)
        """
    )
    captured = server.captured
    parents = parents_of(server)
    [child] = [process for process in parents if captured.messages(process) == ["exec"]]
    assert parents[child] == root_of(server)


def test_a_daemon_by_double_fork(run, server, tmp_path):
    run(
        """
        import os, sys
        mm.init()
        mm.log.info("parent")
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                mm.log.info("daemon")
                mm.shutdown()
                os.write(writer, b"x")
                os._exit(0)
            os._exit(0)  # at once: it has nothing to tell
        os.wait()
        os.read(reader, 1)
        """
    )
    captured = server.captured
    by_message = {captured.messages(process)[0]: process for process in parents_or_middle(captured)}
    assert set(by_message) == {"parent", "daemon"}


def parents_or_middle(captured):
    """Processes that told something: the one in the middle of a double fork need not have had the time."""
    return [process["process_id"] for process in captured.processes if captured.messages(process["process_id"])]


def test_forks_in_a_thread_while_others_record(run, server):
    run(
        """
        import os, threading
        mm.init(flush_period=0.01)
        stop = threading.Event()
        def load():
            while not stop.is_set():
                mm.log.info("load %s", "x" * 50)
                with mm.span("s"): pass
                stop.wait(0.0005)
        def forks():
            for number in range(15):
                child = os.fork()
                if child == 0:
                    mm.log.info("child %d", number)
                    os._exit(0 if mm.shutdown(30) else 1)
                assert os.waitpid(child, 0)[1] == 0
        loads = [threading.Thread(target=load) for _ in range(2)]
        forkers = [threading.Thread(target=forks) for _ in range(2)]
        for thread in loads + forkers: thread.start()
        for thread in forkers: thread.join()
        stop.set()
        """
    )
    captured = server.captured
    root = root_of(server)
    children = [process for process in parents_of(server) if process != root]
    told = sorted(text for child in children for text in captured.messages(child))
    assert told == sorted(2 * [f"child {number}" for number in range(15)])


def test_a_child_that_ends_the_interpreter_tells_everything(run, server):
    run(
        """
        import os, sys
        mm.init(flush_period=60)
        child = os.fork()
        if child == 0:
            mm.log.info("child")
            sys.exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        """
    )
    assert server.captured.messages() == ["child"]


def test_nothing_of_multiprocessing_is_imported_for_it():
    program = (
        "import sys, micromegas; micromegas.init(url='http://127.0.0.1:1'); print('multiprocessing' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False\n"
