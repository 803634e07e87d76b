"""What happens when the server is away, slow, angry or comes back."""

import json
import socket
import threading
import time

import pytest

from micromegas import _core


def test_server_that_is_away_costs_the_program_nothing(run):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    done = run(
        f"""
        import time
        mm.init(url={url!r})
        for i in range(1000): mm.log.info("x %d", i)
        assert mm.flush(0.2) is False
        status = mm.status()
        assert status["sent_events"] == 0 and "insert_process" in status["last_error"], status
        assert mm.shutdown(5.0) is False
        print("ok")
        """
    )
    assert done.stdout == "ok\n"


@pytest.mark.parametrize("answer", [None, 500, 502, 503, 504])
def test_passing_trouble_loses_nothing(run, server, answer):
    """Each request fails once or twice (hang-up or 5xx), then the same body is taken: no loss, no doubles."""
    failures: dict[str, int] = {}

    def answers(route: str, number: int) -> int | None:
        failures[route] = failures.get(route, 0) + 1
        return answer if failures[route] == 1 else 200

    server.answer = answers
    run(
        """
        mm.init(flush_period=0.05)
        m = mm.metric("m")
        for i in range(100):
            mm.log.info("x %d", i); m.record(i)
            with mm.span("s"): pass
        assert mm.flush(30)
        """
    )
    captured = server.captured
    assert captured.messages() == [f"x {i}" for i in range(100)]
    assert captured.measures("m") == list(range(100))
    assert len(captured.events("cpu")) == 200
    failed = [request for request in captured.requests if request.status != 200]
    assert len(failed) == len(failures) == 3
    for request in failed:
        assert request.body in captured.accepted(request.route)


def test_a_server_that_comes_back_gets_everything(run, server):
    """Away for longer than the one retry that a block of spans has when only it fails."""
    server.answer = lambda route, number: 503 if number < 3 else 200
    run(
        """
        import time
        mm.init(flush_period=0.02)
        for i in range(50):
            mm.log.info("x %d", i)
            with mm.span("s"): time.sleep(0.002)
        assert mm.flush(60)
        """
    )
    assert server.captured.messages() == [f"x {i}" for i in range(50)]
    assert len(server.captured.events("cpu")) == 100


def test_4xx_is_final_and_counted(run, server):
    server.answer = lambda route, number: 400 if route == "insert_block" and number < 3 else 200
    done = run(
        """
        mm.init(flush_period=30)
        for i in range(10): mm.log.info("x")
        mm.flush()
        print(mm.status()["lost_events"], mm.status()["last_error"])
        mm.log.info("after")
        mm.flush()
        """
    )
    assert done.stdout == "10 insert_block: status 400: \n"
    captured = server.captured
    bodies = [request.body for request in captured.requests]
    assert len(set(bodies)) == len(bodies)
    assert "after" in captured.messages()
    assert any("refused by the server: 10 logs, 0 measures, 0 span events" in text for text in captured.messages())
    assert sum(captured.measures("lost_events")) == 10


def test_a_block_that_always_fails_does_not_stop_the_others(run, server):
    seen: list[bytes] = []

    def answers(route: str, number: int) -> int:
        if route == "insert_block" and not seen:
            seen.append(b"")
            return 500
        return 200

    server.answer = answers
    run("mm.init()\nmm.log.info('a')\nmm.metric('m').record(1)\nassert mm.flush(20)\n")
    assert server.captured.messages() == ["a"]
    assert server.captured.measures("m") == [1]


def test_full_queue_drops_the_newest_and_counts_exactly(run, server):
    """The server is away for the first three requests, about 100 ms, while more is recorded than the queue holds."""
    server.answer = lambda route, number: 503 if number < 3 else 200
    done = run(
        """
        import random, time
        mm.init(flush_period=0.01, queue_bytes=20_000, spool=False)
        random.seed(1)
        for i in range(200):
            mm.log.info("%d %s", i, random.randbytes(200).hex())
            time.sleep(0.0005)
        assert not mm.flush(0.05)
        for _ in range(200):
            if mm.flush(30): break
        mm.log.info("0 recovered")
        assert mm.flush(30)
        print(mm.status()["lost_events"])
        """
    )
    messages = [text for text in server.captured.messages() if text[0].isdigit()]
    reports = [text for text in server.captured.messages() if "queue full" in text]
    numbers = [int(text.split()[0]) for text in messages[:-1]]
    lost = int(done.stdout)
    assert lost > 0
    assert numbers == sorted(numbers)
    assert len(numbers) + lost >= 200
    assert reports


def test_exit_without_server_is_quick_and_quiet(run):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    done = run("mm.init()\nmm.log.info('x')\n", env={"MICROMEGAS_TELEMETRY_URL": url})
    assert (done.stdout, done.stderr) == ("", "")


def test_a_trailing_slash_of_the_url_is_no_problem(run, server):
    run("mm.init()\nmm.log.info('x')\n", env={"MICROMEGAS_TELEMETRY_URL": server.url + "/"})
    assert server.captured.messages() == ["x"]


def test_only_the_process_to_announce_and_no_server(run):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    run(f"mm.init(url={url!r})\nassert mm.shutdown(5.0) is False\n")


def test_a_server_that_came_back_is_found_at_exit(run, server):
    """The pause after four failures is 10 seconds, more than the end of the process waits."""
    server.answer = lambda route, number: 503 if number < 4 else 200
    run(
        """
        import time
        mm.init(flush_period=0.02)
        mm.log.info("x")
        time.sleep(1.6)
        """
    )
    assert server.captured.messages()[0] == "x"


@pytest.mark.parametrize("away", [False, True])
def test_the_queue_is_bounded_also_for_streams(run, server, away):
    """Each thread has a stream to announce; these must not pile up, nor be sent without a block."""
    server.answer = lambda route, number: 503 if away else 200
    done = run(
        """
        import threading
        mm.init(flush_period=0.01, queue_bytes=QUEUE, spool=False)
        def work():
            with mm.span("s"): pass
        for _ in range(20):
            threads = [threading.Thread(target=work) for _ in range(20)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            mm.flush(0.05)
        print(mm.status()["waiting_bytes"], mm.status()["lost_events"])
        """.replace("QUEUE", "30_000" if away else "1")
    )
    waiting, lost = map(int, done.stdout.split())
    assert waiting <= 32_000
    assert lost > 0
    if not away:
        assert server.routes() == {"insert_process": 1}


def test_three_requests_are_under_way_at_once_and_none_before_its_announcement(run, server):
    """Streams wait for the process and blocks for their stream: as seen when requests begin and when they end."""
    begun: list[tuple[str, set[str]]] = []
    ended: set[str] = set()
    together = threading.Condition()
    most = 0

    def answers(route: str, headers: dict[str, str], body: bytes) -> int:
        nonlocal most
        parsed = {"insert_process": _core.parse_process, "insert_stream": _core.parse_stream}.get(
            route, _core.parse_block
        )(body)
        needs = {"insert_process": set(), "insert_stream": {parsed[0]}}.get(route, {parsed[1], parsed[2]})
        with together:
            begun.append((route, needs - ended))
            if route == "insert_block":
                # the third block releases the others: they would wait for each other's answer otherwise
                most = max(most, sum(1 for name, _ in begun if name == "insert_block"))
                together.notify_all()
                together.wait_for(lambda: most >= 3, timeout=5)
            ended.add({"insert_process": parsed[0], "insert_stream": parsed[1]}.get(route, ""))
        return 200

    server.answer_request = answers
    run(
        """
        import threading
        mm.init(flush_period=30)
        mm.log.info("a"); mm.metric("m").record(1)
        def work():
            with mm.span("s"): pass
        threads = [threading.Thread(target=work) for _ in range(10)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert mm.flush(30)
        """
    )
    assert most >= 3
    assert [needs for _, needs in begun if needs] == []
    assert begun[0][0] == "insert_process"
    assert server.captured.messages() == ["a"]


@pytest.mark.parametrize("refused", ["insert_process", "insert_stream"])
def test_events_of_a_refused_announcement_are_counted_and_not_sent(run, server, refused):
    server.answer = lambda route, number: 403 if route == refused else 200
    done = run(
        """
        import json
        mm.init(flush_period=30)
        for i in range(7): mm.log.info("x")
        mm.metric("m").record(1)
        with mm.span("s"): pass
        assert mm.flush()
        mm.log.info("later")
        assert mm.flush()
        status = mm.status()
        print(json.dumps(status["losses"]["refused"]), status["lost_events"])
        """
    )
    counts, _, total = done.stdout.rpartition(" ")
    # the second flush tells of the trouble and of the first losses: two log events and a measure for each class more
    assert json.loads(counts) == {"logs": 10, "measures": 4, "spans": 2}
    assert int(total) == 16
    assert "insert_block" not in server.routes()


@pytest.mark.parametrize("status", [408, 425, 429])
def test_a_server_that_asks_for_patience_gets_it(run, server, status):
    """More often than a block of spans would be tried if it were the block's fault."""
    server.answer = lambda route, number: status if number in (2, 3, 4) else 200
    run('mm.init()\nwith mm.span("s"): pass\nassert mm.flush(30)\n')
    assert len(server.captured.events("cpu")) == 2


@pytest.mark.parametrize(
    "patience",
    [
        {"retry-after": "1"},
        # A second by the server's clock, whatever ours says.
        {"date": "Sun, 06 Nov 1994 08:49:37 GMT", "retry-after": "Sun, 06 Nov 1994 08:49:38 GMT"},
        {"date": "Fri, 31 Dec 2100 23:59:59 GMT", "retry-after": "Sat, 01 Jan 2101 00:00:00 GMT"},
    ],
    ids=["seconds", "date", "new year"],
)
def test_retry_after_is_heeded(run, server, patience):
    """Without it the second try would come after 10 ms."""
    seen: list[float] = []

    def answers(route: str, headers: dict[str, str], body: bytes) -> int | tuple[int, dict[str, str]]:
        seen.append(time.monotonic())
        return (503, patience) if len(seen) == 1 else 200

    server.answer_request = answers
    run('mm.init()\nmm.log.info("x")\nassert mm.flush(30)\n')
    assert seen[1] - seen[0] >= 1.0
    assert server.captured.messages() == ["x"]


def test_a_block_that_the_server_can_not_bear_holds_up_no_other(run, server):
    """The server hangs up at one block for ever and takes all others: the block is given up, the rest arrives."""
    poison: list[bytes] = []

    def answers(route: str, headers: dict[str, str], body: bytes) -> int | None:
        if route == "insert_block" and not poison:
            poison.append(body)
        return None if body in poison else 200

    server.answer_request = answers
    done = run(
        """
        import time
        mm.init(flush_period=0.01)
        with mm.span("s"): pass
        mm.flush(0.5)
        for i in range(20):
            mm.log.info("x %d", i)
            time.sleep(0.02)
        for _ in range(100):
            if mm.status()["losses"]["given_up"]["spans"]: break
            mm.log.info("y")
            mm.flush(0.1)
        print(mm.status()["losses"]["given_up"])
        """
    )
    assert done.stdout == "{'logs': 0, 'measures': 0, 'spans': 2}\n"
    assert [text for text in server.captured.messages() if text[0] == "x"] == [f"x {i}" for i in range(20)]


def test_what_is_left_at_the_end_is_counted_as_such(run, server):
    server.answer = lambda route, number: 200 if number < 3 else None
    done = run(
        """
        from micromegas import _core
        mm.init(flush_period=30)
        mm.log.info("arrives")
        assert mm.flush()
        mm.log.info("does not")
        print(mm.shutdown(0.3))
        """
    )
    assert done.stdout == "False\n"
    assert server.captured.messages() == ["arrives"]


@pytest.mark.parametrize("call", ["flush", "shutdown"])
def test_ctrl_c_ends_a_wait(run, server, call):
    held = threading.Event()
    server.answer_request = lambda route, headers, body: (held.wait(20), 200)[1]
    done = run(
        f"""
        import os, signal, threading, time
        mm.init()
        mm.log.info("x")
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        begin = time.monotonic()
        try: mm.{call}(60)
        except KeyboardInterrupt: print("interrupted", time.monotonic() - begin < 30, flush=True)
        os._exit(0)
        """
    )
    held.set()
    assert done.stdout == "interrupted True\n"


def test_flush_from_a_signal_handler_inside_a_flush_and_from_many_threads(run, server):
    held = threading.Event()
    server.answer_request = lambda route, headers, body: (held.wait(20), 200)[1]
    threading.Timer(0.6, held.set).start()
    done = run(
        """
        import os, signal, threading
        inner = []
        def handler(*_):
            mm.log.info("from the handler")
            inner.append(mm.flush(0))  # does not wait
            inner.append(mm.flush(30))
        signal.signal(signal.SIGUSR1, handler)
        mm.init(flush_period=30)
        mm.log.info("x")
        results = []
        threads = [threading.Thread(target=lambda: results.append(mm.flush(30))) for _ in range(8)]
        for thread in threads: thread.start()
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        results.append(mm.flush(30))
        for thread in threads: thread.join()
        print(inner, set(results))
        """
    )
    assert done.stdout == "[False, True] {True}\n"
    assert sorted(server.captured.messages()) == ["from the handler", "x"]


def test_flush_at_exit_after_the_recorder_has_ended(run, server):
    """Registered before `init()`, so it runs after the recorder's own end."""
    done = run(
        """
        import atexit
        atexit.register(lambda: print(mm.flush(), mm.shutdown()))
        mm.init()
        mm.log.info("x")
        """
    )
    assert done.stdout == "True True\n"
    assert server.captured.messages() == ["x"]


@pytest.mark.parametrize("timeout", ["-1", "float('nan')", "float('inf')", "1e12"])
def test_a_wait_that_can_not_be(run, server, timeout):
    done = run(
        f"""
        mm.init()
        try: mm.flush({timeout})
        except ValueError as error: print(error)
        """
    )
    assert "timeout" in done.stdout


def test_the_more_important_displaces_the_less(run, server):
    """Spans, then measures, then logs, while the server is away: the logs find the queue full of the others."""
    server.answer = lambda route, number: 503 if number < 3 else 200
    done = run(
        """
        import random
        mm.init(flush_period=60, queue_bytes=18_000, spool=False)
        random.seed(2)
        for i in range(600):
            with mm.span("s"): pass
        mm.flush(0.1)
        m = mm.metric("m")
        for i in range(800): m.record(random.random())
        mm.flush(0.1)
        for i in range(60): mm.log.info("%d %s", i, random.randbytes(200).hex())
        mm.flush(0.1)
        while not mm.flush(30): pass
        print(mm.status()["lost_events"])
        """
    )
    captured = server.captured
    logs = [text for text in captured.messages() if text[0].isdigit()]
    assert [int(text.split()[0]) for text in logs] == list(range(60))
    measures, spans = captured.measures("m"), captured.events("cpu")
    assert spans == []
    # Each report of a loss is a log event and a measure per class that has lost, and those may be lost again.
    reports = sum("queue full" in text for text in captured.messages())
    told = len(captured.measures("lost_events"))
    assert reports <= len(measures) + int(done.stdout) + told - (800 + 1200) <= 2 * reports


def test_what_matters_most_is_sent_first(run, server, tmp_path):
    """All streams are known; then the server is away while the same is recorded over and over."""
    blocks = 0

    def answer(route: str, number: int) -> int:
        nonlocal blocks
        if blocks == 3 and not (tmp_path / "all recorded").exists():
            return 503
        blocks += route == "insert_block"
        return 200

    server.answer = answer
    run(
        """
        mm.init(flush_period=60)
        m = mm.metric("m")
        def all_kinds(i):
            with mm.span("s"): m.record(i)
            mm.log.info("x")
        all_kinds(0)
        assert mm.flush(30)
        for i in range(10):
            before = mm.status()["waiting_bytes"]
            all_kinds(i)
            while mm.status()["waiting_bytes"] <= before:
                mm.flush(0.03)
        mm.flush(0.5)  # the last one's blocks are all made
        open("all recorded", "w").close()
        while not mm.flush(30): pass
        """
    )
    captured = server.captured
    tags = {block.block_id: block.tag for block in captured.blocks}
    order = [tags[_core.parse_block(body)[0]] for body in captured.accepted("insert_block")]
    order = order[3:]
    places = {tag: [place for place, other in enumerate(order) if other == tag] for tag in ("log", "metrics", "cpu")}
    logs, measures, spans = (sum(found) / len(found) for found in places.values())
    # In the order of recording they would be one apart. A few go out of turn: those that the server was tried with.
    assert logs + 5 < measures < spans - 5, order


def test_trouble_that_lasts_is_also_a_log_and_that_once(run, server):
    """The fourth failure, a second after the first, is worth telling; the fifth is nothing new."""

    def answers(route: str, headers: dict[str, str], body: bytes) -> int | tuple[int, dict[str, str]]:
        number = len(server.requests)
        return 200 if number > 4 else (503, {"retry-after": "0"} if number >= 3 else {})

    server.answer_request = answers
    run(
        """
        mm.init(flush_period=0.02)
        mm.log.info("x")
        assert mm.flush(30)
        mm.log.info("y")
        assert mm.flush(30)
        """
    )
    assert sorted(server.captured.messages()) == ["upload: insert_process: status 503: ", "x", "y"]
