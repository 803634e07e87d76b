"""What happens when the server is away, slow, angry or comes back."""

import socket

import pytest


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
        mm.init(flush_period=0.01, queue_bytes=20_000)
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
    assert server.captured.messages() == ["x"]


@pytest.mark.parametrize("away", [False, True])
def test_the_queue_is_bounded_also_for_streams(run, server, away):
    """Each thread has a stream to announce; these must not pile up, nor be sent without a block."""
    server.answer = lambda route, number: 503 if away else 200
    done = run(
        """
        import threading
        mm.init(flush_period=0.01, queue_bytes=QUEUE)
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
