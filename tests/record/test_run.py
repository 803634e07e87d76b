"""`python -m micromegas run`: the program is as if Python had started it, and its functions are traced."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from record.test_spans import tree

import micromegas

SOURCES = str(Path(micromegas.__file__).parents[1])


@pytest.fixture
def python(server, tmp_path):
    def run_python(*arguments):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MICROMEGAS_")}
        environment |= {"MICROMEGAS_TELEMETRY_URL": server.url, "PYTHONPATH": SOURCES}
        return subprocess.run(
            [sys.executable, *arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run_python


TELLS = """
import pickle, sys
def function(): return sys.modules[__name__] is sys.modules["__main__"]
print(__name__, __file__, __package__, getattr(__spec__, "name", None), sys.argv, function())
print([path for path in sys.path if "micromegas" not in path][0], sorted(globals()))
assert pickle.loads(pickle.dumps(function)) is function
"""


@pytest.fixture
def programs(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "app.py").write_text(TELLS)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "__main__.py").write_text(TELLS)
    (tmp_path / "package" / "module.py").write_text(TELLS)
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "__main__.py").write_text(TELLS)
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ("folder/app.py", "a", "--url", "-m"),
        ("-m", "package", "--include", "b"),
        ("-m", "package.module"),
        ("whole", "x"),
    ],
)
def test_the_program_sees_what_python_shows_it(python, programs, server, arguments):
    alone, ours = python(*arguments), python("-m", "micromegas", "run", *arguments)
    assert (ours.returncode, ours.stderr) == (alone.returncode, alone.stderr) == (0, "")
    assert ours.stdout == alone.stdout
    assert [name for name, _ in tree(server.captured.threads()["MainThread"])] == ["function"]


@pytest.mark.parametrize(
    "text",
    [
        "def f(): raise ValueError('wrong')\ndef g(): f()\ng()",
        "import sys; sys.exit(7)",
        "import sys; sys.exit('a message')",
        "import os; os._exit(3)",
        "raise KeyboardInterrupt",
        "def broken(:",
        "try: 1/0\nexcept ZeroDivisionError as e: raise LookupError from e",
        "import threading; go = threading.Event(); late = lambda: (go.wait(), print('late'))\n"
        "threading.Thread(target=late).start(); print('main'); go.set()",
    ],
)
def test_exit_codes_and_tracebacks_are_the_programs(python, tmp_path, text):
    (tmp_path / "app.py").write_text(text + "\n")
    alone, ours = python("app.py"), python("-m", "micromegas", "run", "app.py")
    assert ours.returncode == alone.returncode
    assert sorted(ours.stdout.splitlines()) == sorted(alone.stdout.splitlines())
    if "broken" in text:  # refused before it runs, with our frames above
        assert ours.stderr.splitlines()[-1] == alone.stderr.splitlines()[-1]
    else:
        assert ours.stderr == alone.stderr


def test_what_is_not_there(python, tmp_path):
    done = python("-m", "micromegas", "run", "nothing.py")
    assert done.returncode == 2
    assert "can't open file" in done.stderr
    done = python("-m", "micromegas", "run", "-m", "no.such.module")
    assert done.returncode == 1
    assert "no" in done.stderr
    assert python("-m", "micromegas", "run").returncode == 2


CALLS = """
import json, helper, subprocess, sys
def main(): json.dumps({"a": 1}); return helper.help()
main()
if "child" in sys.argv: subprocess.run([sys.executable, "-c", "def child(): pass\\nchild()"], check=True)
"""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), [["main", [["help", []]]]]),
        (("--exclude", "helper"), [["main", []]]),
        (("--include", "helper"), [["help", []]]),
        (("--no-trace",), None),
    ],
)
def test_what_is_traced(python, tmp_path, server, options, expected):
    (tmp_path / "app.py").write_text(CALLS)
    (tmp_path / "helper.py").write_text("def help(): return 1\n")
    done = python("-m", "micromegas", "run", "--name", "named", *options, "app.py")
    assert (done.returncode, done.stderr) == (0, "")
    [process] = server.captured.processes
    assert process["exe"] == "named"
    threads = server.captured.threads()
    assert (tree(threads["MainThread"]) if threads else None) == expected


def test_children(python, tmp_path, server):
    (tmp_path / "app.py").write_text(CALLS)
    (tmp_path / "helper.py").write_text("def help(): return 1\n")
    done = python("-m", "micromegas", "run", "--children", "--url", server.url, "app.py", "child")
    assert (done.returncode, done.stderr) == (0, "")
    parent, child = sorted(server.captured.processes, key=lambda process: process["parent_process_id"] or "")
    assert child["parent_process_id"] == parent["process_id"]
    assert tree(server.captured.events("cpu", child["process_id"])) == [["child", []]]
