"""Two distributions share one source tree: the one that sits in every instrumented program's image stays small."""

import sysconfig
import tomllib
from pathlib import Path

from setuptools import find_packages

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "src"
LIMIT = 8 << 20


def packages_of(project: Path) -> set[str]:
    """The packages that a distribution takes, as setuptools reads its declaration."""
    declared = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    find = declared["packages"]["find"]
    assert [(project / where).resolve() for where in find["where"]] == [SOURCES]
    return set(find_packages(str(SOURCES), include=find["include"]))


def test_every_package_belongs_to_one_distribution():
    recorder, server = packages_of(ROOT), packages_of(ROOT / "server")
    assert not recorder & server
    assert recorder | server == set(find_packages(str(SOURCES)))


def test_both_have_one_version():
    recorder, server = (
        tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        for project in (ROOT, ROOT / "server")
    )
    assert recorder["version"] == server["version"]
    assert recorder["optional-dependencies"]["server"] == [f"micromegas-server=={server['version']}"]
    assert f"micromegas[client]=={recorder['version']}" in server["dependencies"]


def test_installed_size():
    """As one interpreter gets it: the package's files, its native module, the bytecode that pip compiles."""
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    folders = [SOURCES.joinpath(*package.split(".")) for package in packages_of(ROOT)]
    files = [path for folder in folders for path in folder.iterdir() if path.is_file()]
    installed = [path for path in files if path.suffix not in (".so", ".new")]
    # Bytecode is about as long as its source.
    sizes = [path.stat().st_size * (2 if path.suffix == ".py" else 1) for path in installed]
    sizes.append((SOURCES / "micromegas" / f"_core{suffix}").stat().st_size)
    assert sum(sizes) <= LIMIT, f"{sum(sizes)} bytes"
