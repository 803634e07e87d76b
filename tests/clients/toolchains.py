"""Programs of other languages that ask the server: compiled once, in folders that git ignores."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from kept import kept

SOURCES = Path(__file__).parent
COMPILE_TIMEOUT_S = 540.0


def needed(program: str) -> str:
    """Path of a program of a toolchain; the test is skipped where there is none."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"there is no {program} on this machine")
    return found


def made(command: Sequence[str], folder: str, environment: Mapping[str, str] | None = None) -> None:
    """Runs a command that compiles or fetches in a folder of sources. Packages that can't be had skip the test, telling
    what was said; anything else that goes wrong fails it."""
    done = subprocess.run(
        command,
        cwd=SOURCES / folder,
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
        timeout=COMPILE_TIMEOUT_S,
        check=False,
    )
    if done.returncode == 0:
        return
    said = (done.stdout + done.stderr).strip()
    unreachable = ("dial tcp", "proxyconnect", "Could not resolve host", "Could not transfer artifact", "ENOTFOUND")
    if any(word in said for word in unreachable):
        pytest.skip(f"the packages of tests/clients/{folder} can't be fetched: {said.splitlines()[-1]}")
    raise AssertionError(f"{' '.join(command)}\n{said}")


def go_program(folder: str) -> Path:
    """The Go program in `folder`."""
    with kept("flight-go") as built:
        program = built / folder
        made([needed("go"), "build", "-o", str(program), "."], folder)
    return program


def node_command(folder: str) -> list[str]:
    """The command that runs `main.js` in `folder` with the packages that its package-lock.json names."""
    node, packages = needed("node"), node_packages(folder)
    with kept("node"):
        # beside its packages, where it looks for them
        shutil.copyfile(SOURCES / folder / "main.js", packages / "main.js")
    return [node, str(packages / "main.js")]


def node_packages(folder: str) -> Path:
    """Where the packages are that package-lock.json in `folder` names, below `node_modules`."""
    npm = needed("npm")
    with kept("node") as built:
        packages = built / folder
        lock, fetched = SOURCES / folder / "package-lock.json", packages / "fetched.json"
        if not fetched.exists() or fetched.read_bytes() != lock.read_bytes():
            shutil.rmtree(packages, ignore_errors=True)
            shutil.copytree(SOURCES / folder, packages)
            made([npm, "ci", "--no-audit", "--no-fund", "--prefix", str(packages)], folder)
            shutil.copyfile(lock, fetched)
    return packages


def rust_program(folder: str, name: str) -> Path:
    """The Rust program in `folder`."""
    with kept("flight-rust") as target:
        made([needed("cargo"), "build", "--locked", "-q"], folder, {"CARGO_TARGET_DIR": str(target)})
    return target / "debug" / f"{name}{sysconfig.get_config_var('EXE') or ''}"


def java_command(folder: str) -> list[str]:
    """The command that runs `Probe.java` in `folder` with the driver that its pom.xml names."""
    java, maven = needed("java"), needed("mvn")
    needed("javac")
    pom = SOURCES / folder / "pom.xml"
    with kept("flight-java") as drivers:
        fetched = drivers / "pom.xml"
        if not fetched.exists() or fetched.read_bytes() != pom.read_bytes():
            made([maven, "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={drivers}"], folder)
            shutil.copyfile(pom, fetched)
    # what the driver asks for in its documentation
    opened = "--add-opens=java.base/java.nio=org.apache.arrow.memory.core,ALL-UNNAMED"
    return [java, opened, "-cp", f"{drivers}/*", str(SOURCES / folder / "Probe.java")]


def told(command: Sequence[str | Path]) -> dict[str, str]:
    """What a program prints: lines of a name, a tab, and a value."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(line.split("\t", 1) for line in done.stdout.splitlines() if "\t" in line)
