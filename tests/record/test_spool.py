"""What was recorded survives the process: killed at any moment, every event arrives once with the next start."""

import os
import random
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from record.conftest import KILL, WAIT_RECOVERED, Captured
from record.killed import Found, Killed

SEEDS = [int(seed) for seed in os.environ.get("MICROMEGAS_TEST_KILL_SEEDS", "1 2 3 4").split()]


def sessions(tmp_path: Path) -> list[str]:
    return sorted(entry.name for entry in (tmp_path / "spool").iterdir())


def test_a_killed_process_loses_nothing(run, server, tmp_path):
    """Nothing was sent nor cut: the flush period is a day."""
    dead = run(
        f"""
        mm.init(flush_period=86400)
        m, c = mm.metric("m", properties={{"a": "b"}}), mm.counter("c")
        for i in range(5000):
            mm.log.info("x %d", i); m.record(i); c.add(2)
            with mm.span("outer"):
                with mm.span("inner"): pass
        print(mm.status()["process_id"], flush=True)
        {KILL}
        """,
        returncode=-9,
    ).stdout.strip()
    assert sessions(tmp_path) == [dead]
    run("mm.init()\n" + WAIT_RECOVERED)
    captured = server.captured
    messages = captured.messages(dead)
    assert messages[:-1] == [f"x {i}" for i in range(5000)]
    assert messages[-1].startswith("the process ended without shutdown; 30000 events were recovered")
    assert captured.measures("m", dead) == list(range(5000))
    assert captured.measures("c", dead) == [10000]
    assert len(captured.events("cpu", dead)) == 20000
    assert sessions(tmp_path) == []


def test_a_clean_exit_leaves_nothing(run, server, tmp_path):
    run("mm.init()\nmm.log.info('x')\n")
    assert server.captured.messages() == ["x"]
    assert sessions(tmp_path) == []


def test_what_could_not_be_sent_at_exit_is_sent_by_the_next_start(run, server, tmp_path):
    server.answer = lambda route, number: 503
    dead = run(
        "mm.init()\nfor i in range(100): mm.log.info('x %d', i)\nprint(mm.status()['process_id'])\n"
    ).stdout.strip()
    assert sessions(tmp_path) == [dead]
    assert not any(entry.name.startswith(("buffer", "control")) for entry in (tmp_path / "spool" / dead).iterdir())
    server.answer = lambda route, number: 200
    run("mm.init()\n" + WAIT_RECOVERED)
    assert server.captured.messages(dead) == [f"x {i}" for i in range(100)]
    assert sessions(tmp_path) == []


def test_a_removal_that_was_cut_short_is_finished_without_a_word(run, server, tmp_path):
    """What a process leaves that is killed while it removes a session, all of which has arrived."""
    left = tmp_path / "spool" / "5644dc59-4d87-48be-9dd9-17b650a4542a"
    left.mkdir(parents=True, mode=0o700)
    (tmp_path / "spool").chmod(0o700)
    (left / "journal").write_bytes(b"anything")
    run("mm.init()\nmm.log.info('x')\n" + WAIT_RECOVERED)
    assert set(server.captured.messages()) <= {"x", "are you there"}
    assert sessions(tmp_path) == []


def found_of(killed: Killed, captured: Captured) -> Found:
    mine = {found["process_id"] for found in captured.processes if found["properties"].get("seed") == str(killed.seed)}
    found = Found()
    for block in captured.blocks:
        if block.process_id not in mine:
            continue
        for event in block.events:
            if block.tag == "log":
                found.add_log(event.get("msg", ""))
            elif block.tag == "metrics":
                found.add_measure(event["desc"]["name"], event["value"])
            else:
                description = event.get("thread_span_desc") or event["span_desc"]
                found.spans[event["$type"].startswith("Begin"), description["name"]] += 1
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_killed_at_a_random_moment(run, server, tmp_path, seed):
    """With the server there, away, or failing now and then; recovery is killed once, too."""
    pace = random.Random(seed)
    mood = pace.choice(["there", "away", "flaky"])
    server.answer = {
        "there": lambda route, number: 200,
        "away": lambda route, number: 503,
        "flaky": lambda route, number: pace.choice([200, 200, 503, None]),
    }[mood]
    killed = Killed(server.url, tmp_path, seed, pace.random() * 0.5)
    server.answer = lambda route, number: 200
    recover = "import time\nmm.init()\nmm.log.info('first')\nmm.flush(5)\ntime.sleep(SECONDS)\n" + KILL
    run(recover.replace("SECONDS", str(pace.random() * 0.1)), returncode=-9)
    run("mm.init()\n" + WAIT_RECOVERED)
    assert sessions(tmp_path) == []
    killed.check(found_of(killed, server.captured))


def spool_command(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "micromegas", "spool", *arguments, "--dir", str(tmp_path / "spool")]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def leave(run, count: int = 100) -> str:
    """The id of a process that died with that many log events in its buffer."""
    program = f"mm.init(flush_period=60)\nfor i in range({count}): mm.log.info('x %d', i)\n"
    return str(run(program + "print(mm.status()['process_id'], flush=True)\n" + KILL, returncode=-9).stdout.strip())


def test_a_segment_in_the_file_of_an_earlier_one(run, server, tmp_path):
    """Longer or shorter than what stands there. What had arrived by the kill comes once, and so does the rest."""
    server.answer = lambda route, number: 503 if number > 40 else 200
    program = f"""
        import os, random
        mm.init(encoding="transit", flush_period=86400)
        lengths, files, last = random.Random(7), set(), 0
        for cut in range(60):
            for last in range(last, last + lengths.choice([1, 30, 3000])):
                mm.log.info("x %d %s", last, lengths.randbytes(20).hex())
            last += 1
            mm.flush(30 if cut < 30 else 0.1)
            folder = "spool/" + mm.status()["process_id"]
            found = [name for name in os.listdir(folder) if name.startswith(("segment-", "spare"))]
            files |= {{os.stat(f"{{folder}}/{{name}}").st_ino for name in found}}
        mm.log.info("x %d in a buffer", last)
        print(mm.status()["process_id"], last + 1, len(files), flush=True)
        {KILL}
        """
    dead, count, files = run(program, returncode=-9).stdout.split()
    arrived = server.captured.messages(dead)
    assert 0 < len(arrived) < int(count)
    assert int(files) < 10
    server.answer = lambda route, number: 200
    run("mm.init()\n" + WAIT_RECOVERED)
    numbers = [int(text.split()[1]) for text in server.captured.messages(dead) if text.startswith("x ")]
    assert sorted(numbers) == list(range(int(count)))
    assert sessions(tmp_path) == []


def test_the_command_shows_and_sends(run, server, tmp_path):
    assert spool_command(tmp_path, "upload").stdout == "nothing was left\n"
    dead = leave(run)
    assert spool_command(tmp_path, "list").stdout == f"{dead} left      {server.url}\n"
    sent = spool_command(tmp_path, "upload")
    assert (sent.stdout, sent.stderr) == ("1 processes, 101 events sent\n", "")
    assert server.captured.messages(dead)[:100] == [f"x {i}" for i in range(100)]
    assert sessions(tmp_path) == []


def test_the_command_says_what_remains(run, server, tmp_path):
    dead = leave(run)
    server.answer = lambda route, number: 503
    failed = spool_command(tmp_path, "upload", "--timeout", "0.5")
    assert failed.returncode == 1
    assert "503" in failed.stderr
    assert sessions(tmp_path) == [dead]


def test_nobody_sends_to_a_server_that_was_not_meant(run, server, tmp_path):
    leave_for = "http://127.0.0.1:9"
    program = "mm.init(flush_period=60)\nmm.log.info('x')\nprint(mm.status()['process_id'], flush=True)\n" + KILL
    dead = run(program, env={"MICROMEGAS_TELEMETRY_URL": leave_for}, returncode=-9).stdout.strip()
    run("mm.init()\nmm.log.info('mine')\nassert mm.flush(30)\n")
    assert sessions(tmp_path) == [dead]
    assert spool_command(tmp_path, "upload", "--url", server.url).returncode == 0
    assert "x" in server.captured.messages(dead)


def test_the_folder_of_a_living_process_is_left_alone(run, server, tmp_path):
    run(
        """
        import subprocess, sys
        mm.init(flush_period=60)
        mm.log.info("x")
        command = [sys.executable, "-m", "micromegas", "spool", "upload", "--dir", "spool"]
        assert subprocess.run(command, capture_output=True, text=True).stdout == "0 processes, 0 events sent\\n"
        if not (child := __import__("os").fork()):
            # The child holds none of its parent's files open, or the parent could never be taken for dead.
            import os
            held = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                    if os.path.exists(f"/proc/self/fd/{fd}")]
            os._exit(any(mm.status()["process_id"] not in name and "spool/" in name for name in held))
        assert __import__("os").waitpid(child, 0)[1] == 0
        """
    )
    assert server.captured.messages() == ["x"]
    assert sessions(tmp_path) == []


def test_children_that_record_nothing_leave_nothing(run, server, tmp_path):
    run(
        """
        import os
        mm.init()
        mm.log.info("x")
        for _ in range(20):
            if not (child := os.fork()): os._exit(0)
            os.waitpid(child, 0)
        assert os.listdir("spool") == [mm.status()["process_id"]], os.listdir("spool")
        """
    )
    assert sessions(tmp_path) == []


def damage(folder: Path, pages: Path, seed: int) -> None:
    chance = random.Random(seed)
    files = [file for place in (folder, pages) for file in sorted(place.iterdir()) if file.name != "lock"]
    for _ in range(chance.choice([1, 1, 3])):
        file = chance.choice(files)
        content = bytearray(file.read_bytes())
        way = chance.choice(["flip", "words", "cut", "empty", "junk", "grow"])
        if way == "flip" and content:
            content[chance.randrange(min(len(content), 4096))] ^= 1 << chance.randrange(8)
        elif way == "words" and content:
            for _ in range(8):
                place = chance.randrange(min(len(content), 2048) // 8 or 1) * 8
                content[place : place + 8] = struct.pack("<Q", chance.choice([0, 1, 2**64 - 1, 2**63, 2**32, 4096]))
        elif way == "cut":
            del content[chance.randrange(len(content) + 1) :]
        elif way == "empty":
            content.clear()
        elif way == "junk":
            content[:] = chance.randbytes(len(content))
        else:
            content += chance.randbytes(chance.randrange(10_000))
        file.write_bytes(content)


@pytest.mark.parametrize("first", SEEDS)
def test_damaged_files_harm_nobody(run, server, tmp_path, first):
    """The recovery ends, whatever it finds; the recovering program goes on; events that come are events that were."""
    deads = []
    for seed in range(first * 10, first * 10 + 6):
        server.answer = lambda route, number: 503
        program = """
        import os, signal
        mm.init(flush_period=60)
        m, c = mm.metric("m"), mm.counter("c")
        for part in range(2):
            for i in range(200):
                mm.log.info("x %d %s", i, "text", user="u"); m.record(i); c.add(1)
                with mm.span("s"): pass
            if part == 0: mm.flush(0.05)
        print(mm.status()["process_id"], flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
        dead = run(program, returncode=-9).stdout.strip()
        damage(tmp_path / "spool" / dead, Path(f"/dev/shm/micromegas-{os.geteuid()}") / dead, seed)
        deads.append(dead)
    server.answer = lambda route, number: 200
    recovered = run("mm.init()\n" + WAIT_RECOVERED + "mm.log.info('alive')\nassert mm.flush(30)\n")
    assert recovered.stderr == ""
    assert "alive" in server.captured.messages()
    left = sessions(tmp_path)
    assert all(name.endswith(".unreadable") for name in left), left
    for dead in deads:
        for text in server.captured.messages(dead):
            assert re.fullmatch(r"x \d+ text|the process ended without shutdown.*", text), text


def test_a_program_that_dies_again_and_again_fills_no_memory(run, server, tmp_path):
    """Without a server: buffers become blocks with the next start, of which the oldest go when there are too many."""
    server.answer = lambda route, number: 503
    env = {"MICROMEGAS_SPOOL_BYTES": "60000"}
    program = """
    import os, random, signal, time
    mm.init(flush_period=60)
    for i in range(100): mm.log.info("%s", random.randbytes(100).hex())
    pages = [name for name in os.listdir(f"/dev/shm/micromegas-{os.geteuid()}") if os.path.exists("spool/" + name)]
    deadline = time.monotonic() + 30
    while len(pages) > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
        pages = [name for name in os.listdir(f"/dev/shm/micromegas-{os.geteuid()}") if os.path.exists("spool/" + name)]
    assert len(pages) == 1, pages
    os.kill(os.getpid(), signal.SIGKILL)
    """
    deads = []
    for _ in range(8):
        run(program, env=env, returncode=-9)
        deads.append(len(sessions(tmp_path)))
    assert max(deads) < 7, deads
