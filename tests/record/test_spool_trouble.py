"""The spool in trouble: no room, limits, folders that go away, crowds. The program goes on; what is lost is counted."""

import fcntl
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
import time
import uuid

import pytest
from deadlines import started
from record.conftest import KILL, WAIT_RECOVERED
from record.test_spool import leave, sessions
from spools import BUFFERS

COUNTED = """
def record(count):
    m = mm.metric("m")
    for i in range(count):
        mm.log.info("x %d %s", i, os.urandom(100).hex()); m.record(i)
        with mm.span("s"): pass
"""


def numbers(messages: list[str]) -> list[int]:
    return [int(found[1]) for message in messages if (found := re.match(r"x (\d+)", message))]


# ---- no room


@pytest.fixture(scope="module")
def namespace() -> list[str]:
    """What runs a shell where it may mount file systems of its own."""
    command = ["unshare", "--map-root-user", "--mount", "sh", "-euc"]
    try:
        done = subprocess.run(
            [*command, "mount -t tmpfs none /mnt"], capture_output=True, text=True, timeout=30, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    if done.returncode != 0:
        pytest.skip(f"file systems can't be mounted here: {done.stderr.strip()}")
    return command


@pytest.fixture
def run_mounted(namespace, server, tmp_path):
    """Runs programs one after the other where a small file system is mounted on a folder; gives what they printed."""

    def run(size: str, folder: str, *programs: tuple[str, int]) -> str:
        lines = ["mount -t tmpfs -o size=64m,mode=1777 none /dev/shm"]  # who is root here need not be root outside
        lines += [f"mkdir -p {folder}", f"mount -t tmpfs -o size={size},mode=700 none {folder}"]
        for number, (text, returncode) in enumerate(programs):
            script = tmp_path / f"program-{number}.py"
            script.write_text("import os\nimport micromegas as mm\n" + COUNTED + textwrap.dedent(text))
            lines.append(f"status=0; {shlex.quote(sys.executable)} {script} || status=$?; test $status = {returncode}")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MICROMEGAS_")} | {
            "MICROMEGAS_TELEMETRY_URL": server.url,
            "MICROMEGAS_SPOOL_DIR": str(tmp_path / "spool"),
            "MICROMEGAS_SYSTEM_METRICS": "off",
        }
        done = subprocess.run(
            [*namespace, "\n".join(lines)],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_full_disk_costs_nothing_but_safety(run_mounted, server, tmp_path):
    """Without a server, in a spool of 256 KiB: what has no room there waits in memory."""
    is_open = tmp_path / "open"
    server.answer = lambda route, number: 200 if is_open.exists() else 503
    said = run_mounted(
        "256k",
        "spool",
        (
            """
            import json
            mm.init(flush_period=0.02)
            for part in range(20):
                record(200)
                mm.flush(0.05)
            before = mm.status()
            open("open", "w").close()
            assert mm.flush(60)
            print(json.dumps([before["spool_error"], before["waiting_bytes"], mm.status()["lost_events"]]))
            """,
            0,
        ),
    )
    error, waited, lost = json.loads(said)
    assert "No space left" in error
    assert waited > 256 << 10
    assert lost == 0
    captured = server.captured
    assert sorted(numbers(captured.messages())) == sorted(list(range(200)) * 20)
    assert sorted(captured.measures("m")) == sorted(list(range(200)) * 20)
    assert sum("No space left" in message for message in captured.messages()) == 1  # told, once


def test_when_there_is_room_again_the_spool_is_whole_again(run_mounted, server):
    """Also the descriptions of events that were first recorded while there was none."""
    run_mounted(
        "256k",
        "spool",
        (
            f"""
            mm.init(flush_period=0.02)
            mm.log.info("first")
            assert mm.flush(30)
            with open("spool/filler", "wb", buffering=0) as filler:
                try:
                    while True: filler.write(bytes(4096))
                except OSError: pass
                try:
                    while True: filler.write(b"x")
                except OSError: pass
            for i in range(500):
                exec(f"mm.log.info('described while full {{i}} ' + 'y' * 50)")
            mm.flush(0.2)
            assert "journal" in mm.status()["spool_error"] or "No space" in mm.status()["spool_error"]
            os.remove("spool/filler")
            mm.log.info("room again")
            assert mm.flush(30)
            for i in range(500):
                exec(f"mm.log.info('described while full {{i}} ' + 'y' * 50)")
            record(100)
            {KILL}
            """,
            137,
        ),
        ("mm.init()\n" + WAIT_RECOVERED, 0),
    )
    messages = server.captured.messages()
    assert sorted(numbers(messages)) == list(range(100))
    assert not [message for message in messages if "could not be read" in message]
    found = [int(match[1]) for message in messages if (match := re.match(r"described while full (\d+)", message))]
    assert len(found) == 1000
    assert sorted(found) == sorted([*range(500), *range(500)])


def test_no_room_for_buffers(run_mounted, server):
    run_mounted(
        "100k",
        "/dev/shm",
        (
            """
            mm.init()
            record(5000)
            assert mm.status()["private_buffers"] > 0
            assert mm.flush(30)
            """,
            0,
        ),
    )
    assert numbers(server.captured.messages()) == list(range(5000))


@pytest.mark.parametrize("limit", [0, 1000, 20_000, 300_000])
def test_files_that_may_not_grow(run, server, tmp_path, limit):
    """Not even where the signal that tells of it would end the program; Python ignores it, other hosts need not."""
    done = run(
        f"""
        import json, os, resource, signal
        mm.init(flush_period=0.02)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
        {COUNTED.replace(chr(10), chr(10) + " " * 8)}
        for part in range(5):
            record(1000)
            exec(f"mm.log.info('a new place {{part}}')")
            mm.flush(0.05)
        counter = mm.counter("c"); counter.add(5)
        assert mm.flush(60)
        try:
            open("file", "wb", buffering=0).write(bytes({limit} + 1))
        except OSError as error:
            print(error)
        print(json.dumps(mm.status()["losses"]), flush=True)
        """,
        returncode=None,
    )
    # The signal is still the program's: its own file ends it, as without us.
    assert done.returncode in (-25, 0), done.stderr
    captured = server.captured
    assert sorted(numbers(captured.messages())) == sorted(list(range(1000)) * 5)
    assert sorted(captured.measures("m")) == sorted(list(range(1000)) * 5)
    assert captured.measures("c") == [5]


# ---- more than there may be


def test_what_the_spool_may_not_hold_is_dropped_by_rank_and_counted(run, server, tmp_path):
    server.answer = lambda route, number: 503
    done = run(
        f"""
        import json, os
        mm.init(flush_period=0.01)
        m = mm.metric("m")
        for i in range(20_000):
            m.record(i * 0.7)
            with mm.span("s"): pass
        mm.flush(0.05)
        for i in range(2000):
            mm.log.info("x %d %s", i, os.urandom(10).hex())
            if i % 100 == 0: mm.flush(0.01)
        mm.flush(0.1)
        status = mm.status()
        assert status["waiting_bytes"] < 40_000, status
        print(json.dumps([status["process_id"], status["losses"]]), flush=True)
        {KILL}
        """,
        env={"MICROMEGAS_SPOOL_BYTES": "15000"},
        returncode=-9,
    )
    dead, losses = json.loads(done.stdout)
    lost = losses["queue_full"]
    assert lost == {kind: sum(of_reason[kind] for of_reason in losses.values()) for kind in lost}
    server.answer = lambda route, number: 200
    run("mm.init()\n" + WAIT_RECOVERED)
    captured = server.captured
    # Logs take all the room there is, so that nothing of less rank is left; of logs the older ones are kept.
    assert lost["spans"] == 40_000
    assert captured.events("cpu", dead) == []
    assert captured.measures("m", dead) == []
    arrived = numbers(captured.messages(dead))
    assert arrived == sorted(set(arrived))
    assert arrived[:100] == list(range(100))
    # Beside the program's events, the recorder's own are among those lost: what it told of its losses.
    assert 0 <= lost["measures"] - 20_000 < 200
    assert lost["logs"] > 0
    assert 0 <= len(arrived) + lost["logs"] - 2000 < 200


# ---- folders that go away


@pytest.mark.parametrize("how", ["removed", "replaced by a file", "of the whole spool", "not writable"])
def test_a_folder_that_goes_away(run, server, tmp_path, how):
    if how == "not writable" and os.geteuid() == 0:
        pytest.skip("root writes into any folder")
    done = run(
        f"""
        import json, os, shutil
        mm.init(flush_period=0.02)
        {COUNTED.replace(chr(10), chr(10) + " " * 8)}
        record(1000)
        assert mm.flush(30)
        folder = mm.status()["spool"]
        if {how!r} == "not writable":
            os.chmod(folder, 0o500)
        else:
            shutil.rmtree(os.path.dirname(folder) if {how!r} == "of the whole spool" else folder)
        if {how!r} == "replaced by a file":
            open(folder, "w").close()
        for part in range(4):
            record(1000)
            exec(f"mm.log.info('a new place {{part}}')")
            assert mm.flush(30)
        print(json.dumps(mm.status()))
        """
    )
    assert done.stderr == ""
    status = json.loads(done.stdout)
    assert status["lost_events"] == 0
    assert status["spool_error"] is not None
    captured = server.captured
    assert sorted(numbers(captured.messages())) == sorted(list(range(1000)) * 5)
    told = [message for message in captured.messages() if message.startswith("spool: ")]
    assert len(told) == 1
    assert "lost if the process is killed" in told[0]


# ---- recovery


def test_many_programs_recover_at_once(run, server, tmp_path):
    server.answer = lambda route, number: 503
    deads = [leave(run, 50) for _ in range(6)]
    server.answer = lambda route, number: 200
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MICROMEGAS_")} | {
        "MICROMEGAS_TELEMETRY_URL": server.url,
        "MICROMEGAS_SPOOL_DIR": str(tmp_path / "spool"),
    }
    program = """
    import os, sys, time
    import micromegas as mm
    sys.stdin.readline()
    mm.init(system_metrics=False)
    mm.log.info("recovering")
    assert mm.flush(30)
    deadline = time.monotonic() + 60
    while set(sys.argv[1:]) & set(os.listdir("spool")) and time.monotonic() < deadline:
        time.sleep(0.01)
    print(mm.status()["recovered_processes"], mm.status()["recovered_events"])
    """
    script = tmp_path / "recovering.py"
    script.write_text(textwrap.dedent(program))
    others = [
        subprocess.Popen(
            [sys.executable, str(script), *deads],
            env=environment,
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for other in others:
        assert other.stdin is not None
        other.stdin.write("go\n")
        other.stdin.flush()
    told = [other.communicate(timeout=120) for other in others]
    assert [error for _, error in told] == [""] * 4
    assert sessions(tmp_path) == []
    captured = server.captured
    for dead in deads:
        assert numbers(captured.messages(dead)) == list(range(50))
    assert sum(message == "recovering" for message in captured.messages()) == 4
    assert not [message for message in captured.messages() if message.startswith("spool: ")]


LARGE = """
    import threading
    mm.init(flush_period=86400)
    c = mm.counter("c")
    text = "y" * 1_000_000
    def work(number):
        m = mm.metric(f"m{number}")
        with mm.span("outer"):
            for i in range(20):
                with mm.span("s"):
                    mm.log.info("x %d %s", number * 20 + i, text); m.record(i); c.add(1)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print(mm.status()["process_id"], flush=True)
"""


def leave_large(run) -> str:
    """The id of a process that died with many megabytes in its buffers: it wrote faster than these are read."""
    for _ in range(10):
        env = {"MICROMEGAS_BUFFER_BYTES": str(256 << 20)}
        dead = str(run(LARGE + f"    {KILL}\n", env=env, returncode=-9).stdout.strip())
        if sum(file.stat().st_size for file in (BUFFERS / dead).glob("buffer-*")) > 30_000_000:
            return dead
    raise AssertionError("the buffers are always empty")


def test_memory_of_a_recovery_is_bounded(run, server, tmp_path):
    dead = leave_large(run)
    grown = run(
        """
        def peak():
            return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM:"))
        mm.init()
        before = peak()
        """
        + textwrap.indent(WAIT_RECOVERED, " " * 8)
        + "\n        print(peak() - before)\n"
    ).stdout
    assert sorted(numbers(server.captured.messages(dead))) == list(range(60))
    assert int(grown) < 48 << 10  # KiB, of the 60 MB


def test_a_recovery_in_parts_that_is_killed_between_them(run, server, tmp_path):
    """What it has kept by then is not made again, and streams, counters and open spans go on in the next part."""
    dead = leave_large(run)
    server.answer = lambda route, number: 503

    def kept() -> int:
        return sum(file.stat().st_size for file in (tmp_path / "spool" / dead).glob("segment-*"))

    environment = {name: value for name, value in os.environ.items() if not name.startswith("MICROMEGAS_")} | {
        "MICROMEGAS_TELEMETRY_URL": server.url,
        "MICROMEGAS_SPOOL_DIR": str(tmp_path / "spool"),
    }
    pages = BUFFERS / dead
    kills = 0
    while pages.exists():
        before = kept()
        program = "import micromegas as mm\nmm.init()\n__import__('time').sleep(60)\n"
        with started([sys.executable, "-c", program], env=environment) as process:
            while pages.exists() and kept() == before:
                assert process.poll() is None
                time.sleep(0.001)
            process.kill()
        kills += pages.exists()
    assert kills > 1
    server.answer = lambda route, number: 200
    run("mm.init()\n" + WAIT_RECOVERED)
    captured = server.captured
    assert sorted(numbers(captured.messages(dead))) == list(range(60))
    assert [captured.measures(f"m{number}", dead) for number in range(3)] == [list(range(20))] * 3
    assert sum(captured.measures("c", dead)) == 60
    threads: dict[str, list[str]] = {}
    for block in captured.blocks:
        if block.process_id == dead and block.tag == "cpu":
            kinds = [f"{event['$type'][0]} {event['thread_span_desc']['name']}" for event in block.events]
            threads.setdefault(block.stream_id, []).extend(kinds)
    assert list(threads.values()) == [["B outer", *["B s", "E s"] * 20, "E outer"]] * 3
    ends = [message for message in captured.messages(dead) if "without shutdown" in message]
    assert len(ends) == 1


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "ended"])
def test_secrets_are_those_of_the_process_that_died(run, server, tmp_path, killed):
    """Whatever the one that sends them had decided."""
    ends = KILL if killed else ""
    server.answer = lambda route, number: 503
    deads = [
        run(
            f"mm.init(flush_period=86400, scrub={scrub})\nmm.log.info('card 4111 of password=hunter2')\n"
            f"mm.log.info('%s', 'card 4222 of password=hunter2', who='card 4333')\n"
            f"print(mm.status()['process_id'], flush=True)\n{ends}\n",
            returncode=-9 if killed else 0,
        ).stdout.strip()
        for scrub in (["card \\d+"], False, True)
    ]
    server.answer = lambda route, number: 200
    run("mm.init(scrub=['of'])\n" + WAIT_RECOVERED)
    found = []
    for dead in deads:
        events = server.captured.events("log", dead)
        texts = [event.get("msg", event["desc"]["fmt_str"]) for event in events]
        found.append([text for text in texts if "of" in text and "buffers" not in text])
        properties = [dict(event["properties"]) for event in events if event.get("properties")]
        assert properties == [{"who": "[scrubbed]" if dead == deads[0] else "card 4333"}]
    assert found == [
        ["[scrubbed] of password=[scrubbed]"] * 2,
        ["card 4111 of password=hunter2", "card 4222 of password=hunter2"],
        ["card 4111 of password=[scrubbed]", "card 4222 of password=[scrubbed]"],
    ]


def test_folders_of_processes_that_were_killed_while_making_them(run, server, tmp_path):
    spool = tmp_path / "spool"
    spool.mkdir(mode=0o700)
    an_hour_ago = time.time() - 3600
    names = ("with a lock", "without a lock", "held", "young")
    folders = {name: spool / f"new-{uuid.uuid4()}" for name in names}
    pages = BUFFERS / folders["with a lock"].name.removeprefix("new-")
    for name, folder in folders.items():
        folder.mkdir(mode=0o700)
        if name != "without a lock":
            (folder / "lock").touch(mode=0o600)
        if name != "young":
            os.utime(folder, (an_hour_ago, an_hour_ago))
    pages.mkdir(mode=0o700, parents=True)
    (pages / "control").write_bytes(bytes(4096))
    with open(folders["held"] / "lock", "r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run("mm.init()\nmm.log.info('x')\nassert mm.flush(30)\n")
    assert sessions(tmp_path) == sorted([folders["held"].name, folders["young"].name])
    assert not pages.exists()
    assert server.captured.messages() == ["x"]


def test_a_message_names_a_folder_once(run, server, tmp_path):
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o755)
    program = """
    import time
    mm.init(spool_dir="open")
    mm.flush(30)
    time.sleep(1)  # whoever recovers has looked into the folder by then
    """
    run(program)
    told = [message for message in server.captured.messages() if message.startswith("spool: ")]
    recovery = f"spool: recovery: {folder}: others have access to it (its mode should be 0700)"
    assert recovery in told
    assert [message.count(str(folder)) for message in told] == [1] * len(told)
