"""Log events on the standard error stream."""

import os
import pty
import re
import subprocess
import sys

LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (\w+) +\[([^\]]*)\] (.*)")


def test_lines(run, server):
    done = run(
        """
        mm.init(level="trace", console="info")
        mm.log.info("literal")
        mm.log.warn("two %d %s", 1, "x", user="ann")
        mm.log.debug("below")
        mm.logger("my.target").error("escape \\x1b[31m and\\nnew line")
        mm.log.fatal(f"made {1 + 1}")
        mm.log.info("password=%s", "hunter2")
        """
    )
    lines = done.stderr.splitlines()
    found = [match.groups()[1:] for line in lines if (match := LINE.fullmatch(line))]
    assert found == [
        ("INFO", "__main__", "literal"),
        ("WARN", "__main__", "two 1 x"),
        ("ERROR", "my.target", "escape \\u{1b}[31m and"),
        ("FATAL", "__main__", "made 2"),
        ("INFO", "__main__", "password=[scrubbed]"),
    ]
    assert "new line" in lines
    assert "below" in server.captured.messages()


def test_off_by_default_and_by_the_environment(run):
    assert run("mm.init()\nmm.log.fatal('x')").stderr == ""
    assert "WARN " in run("mm.init()\nmm.log.warn('x')", env={"MICROMEGAS_CONSOLE": "warn"}).stderr
    assert "log level 'loud'" in run("mm.init(console='loud')", returncode=1).stderr


def test_a_pipe_that_nobody_reads_stalls_nothing(run, server):
    """10 000 lines into a pipe of 64 KiB: the events arrive, the program ends, the lines that fit are whole."""
    reading, writing = os.pipe()
    program = "import micromegas as mm\nmm.init(console='info')\n"
    program += "for i in range(10_000): mm.log.info('line %d', i)\nassert mm.flush(30)\nmm.shutdown(30)"
    environment = os.environ | {"MICROMEGAS_TELEMETRY_URL": server.url}
    subprocess.run([sys.executable, "-c", program], env=environment, stderr=writing, timeout=60, check=True)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        lines = pipe.read().splitlines()
    assert server.captured.messages() == [f"line {i}" for i in range(10_000)]
    assert 0 < len(lines) < 10_000
    assert [LINE.fullmatch(line).group(4) for line in lines[:-1]] == [f"line {i}" for i in range(len(lines) - 1)]


def test_colours_for_terminals_only(server):
    ours, theirs = pty.openpty()
    program = "import micromegas as mm\nmm.init(console='info')\nmm.log.error('red')\nmm.shutdown()"
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    for no_colour in ({}, {"NO_COLOR": "1"}):
        subprocess.run(
            [sys.executable, "-c", program],
            env=environment | {"MICROMEGAS_TELEMETRY_URL": server.url} | no_colour,
            stderr=theirs,
            timeout=60,
            check=True,
        )
    os.close(theirs)
    seen = os.read(ours, 10_000).decode()
    os.close(ours)
    first, second = seen.splitlines()
    assert "\x1b[31mERROR\x1b[0m" in first
    assert "\x1b" not in second
