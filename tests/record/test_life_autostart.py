"""Recording that the environment asks for: programs that know nothing of us, `init()` after that, guards, settings."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from micromegas.record import autostart

SOURCES = Path(autostart.__file__).parents[2]


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory):
    """An environment of its own with this package and its `.pth` file, as an installation leaves them."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    [packages] = folder.glob("lib/python*/site-packages")
    shutil.copy(SOURCES / "micromegas_autostart.pth", packages)
    (packages / "__editable__.micromegas.pth").write_text(f"{SOURCES}\n")
    return str(folder / "bin" / "python")


@pytest.fixture
def start(server, tmp_path):
    """Runs an interpreter with the environment asking for recording."""

    def run_interpreter(python, *arguments, **environment):
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("MICROMEGAS_", "PYTHONPATH"))
        }
        asked = {"MICROMEGAS_AUTOSTART": "1", "MICROMEGAS_TELEMETRY_URL": server.url}
        return subprocess.run(
            [python, *arguments],
            env=inherited | asked | environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )

    return run_interpreter


def test_a_program_that_knows_nothing_of_us(interpreter, start, server, tmp_path):
    (tmp_path / "program.py").write_text("import sys; print(*sys.argv)")
    assert start(interpreter, "program.py", "a", "b").stdout == "program.py a b\n"
    [process] = server.captured.processes
    assert process["exe"] == str(tmp_path / "program.py")


@pytest.mark.parametrize(
    "environment",
    [{"MICROMEGAS_AUTOSTART": ""}, {"MICROMEGAS_AUTOSTART": "0"}, {"MICROMEGAS_TELEMETRY_URL": ""}],
    ids=str,
)
def test_nothing_begins_unless_both_variables_are_set(interpreter, start, server, environment):
    done = start(
        interpreter, "-c", "import sys; mm = sys.modules.get('micromegas'); print(mm and mm.status())", **environment
    )
    assert done.stdout == "None\n"
    assert server.captured.requests == []


def test_the_name_of_a_module_that_is_run(interpreter, start, server):
    start(interpreter, "-m", "this")
    assert server.captured.processes[0]["exe"] == "this"


def test_children_find_their_parent(interpreter, start, server):
    start(interpreter, "-c", "import subprocess, sys; subprocess.run([sys.executable, '-c', 'pass'], check=True)")
    parents = {process["parent_process_id"]: process["process_id"] for process in server.captured.processes}
    assert len(parents) == 2
    assert parents[None] in parents


def test_an_init_that_follows_takes_the_process_over(interpreter, start, server):
    program = """
import micromegas as mm
running = mm.status()["process_id"]
mm.log.info("before")
assert mm.init(url="http://elsewhere:1", level="info") == running
mm.log.debug("too low")
try:
    mm.init()
except RuntimeError as error:
    print(error)
"""
    assert start(interpreter, "-c", program).stdout == "recorder: already started\n"
    assert len(server.captured.processes) == 1
    assert server.captured.messages() == ["before", "init(): recording began before it; not applied: url"]


def test_a_bad_setting_does_not_keep_the_program_from_starting(interpreter, start):
    done = start(interpreter, "-c", "print('runs')", MICROMEGAS_TELEMETRY_URL="nonsense")
    assert done.stdout == "runs\n"
    assert done.stderr.count("micromegas: this process is not recorded: telemetry url nonsense") == 1


def test_sitecustomize_for_interpreters_without_the_pth_file(start, server, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "sitecustomize.py").write_text("import builtins; builtins.theirs = __file__")
    path = os.pathsep.join([autostart.SITE_FOLDER, str(theirs), str(SOURCES)])
    program = "import sitecustomize; print(theirs == sitecustomize.__file__)"
    assert start(sys.executable, "-c", program, PYTHONPATH=path).stdout == "True\n"
    assert len(server.captured.processes) == 1


def test_sitecustomize_raises_what_the_next_one_raises(start, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import no_such_module")
    path = os.pathsep.join([autostart.SITE_FOLDER, str(tmp_path), str(SOURCES)])
    done = start(sys.executable, "-c", "print('runs')", PYTHONPATH=path)
    assert done.stdout == "runs\n"
    assert "No module named 'no_such_module'" in done.stderr


def test_telemetry_for_the_length_of_a_block(run, server):
    run(
        """
        with mm.telemetry(process_name="outer") as outer:
            mm.log.info("inside")
            with mm.telemetry(process_name="inner") as inner:
                assert inner == outer
            mm.log.info("still inside")
        assert mm.status() is None
        with mm.telemetry():
            pass
        """
    )
    assert server.captured.messages() == ["inside", "still inside"]
    assert [process["exe"] == "outer" for process in server.captured.processes] == [True, False]


@pytest.mark.parametrize("keyword", ["", "async "])
@pytest.mark.parametrize("decorator", ["@mm.main", "@mm.main(process_name='decorated')"])
def test_a_main_function(run, server, keyword, decorator):
    done = run(
        f"""
        {decorator}
        {keyword}def work(number):
            mm.log.info("number %d", number)
            return number + 1
        print(work.__name__, work(number=7), mm.status())
        """
    )
    assert done.stdout == "work 8 None\n"
    assert server.captured.messages() == ["number 7"]
    assert (server.captured.processes[0]["exe"] == "decorated") == ("decorated" in decorator)


def test_everything_comes_from_the_environment(run, server):
    run(
        "mm.init()",
        env={"MICROMEGAS_PROCESS_NAME": "shop", "MICROMEGAS_BUFFER_BYTES": "1000000", "MICROMEGAS_QUEUE_BYTES": "2000"},
    )
    assert server.captured.processes[0]["exe"] == "shop"


def test_the_wheel_brings_the_file_along(tmp_path):
    missing = [name for name in ("pip", "setuptools", "setuptools_rust", "wheel") if not find_spec(name)]
    if missing:
        pytest.skip(f"builds a wheel, which needs {', '.join(missing)}")
    project = SOURCES.parent
    copied = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info")
    shutil.copytree(SOURCES, tmp_path / "project" / "src", ignore=copied)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(project / name, tmp_path / "project")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "-w", tmp_path, "."]
    subprocess.run(
        command, env=os.environ | {"MICROMEGAS_NATIVE": "prebuilt"}, cwd=tmp_path / "project", timeout=100, check=True
    )
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert any(name.endswith(".data/purelib/micromegas_autostart.pth") for name in names)
    assert "micromegas/record/at_start/sitecustomize.py" in names
