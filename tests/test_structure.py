"""The folders stand in the order of the data's way; an import may only point to the left, or to a leaf."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "micromegas"
ORDER = ["record", "ingest", "lake", "views", "query", "daemon", "serve", "client", "cli"]
LEAVES = {"wire", "config"}
NATIVE = {"_core", "_engine", "_transport"}
# the client under the names that the original's has
CLIENT_NAMES = {"flightsql", "auth.py", "time.py", "perfetto.py", "admin.py", "oidc_connection.py"}


def micromegas_imports(path: Path) -> set[str]:
    """The parts of the package that a file imports, at any depth of its code, relative imports resolved."""
    package = ("micromegas", *path.relative_to(PACKAGE).parent.parts)
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            names = [module] if module != "micromegas" else [f"micromegas.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("micromegas.")}
    return found


def top_level_imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module.split(".")[0])
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


def test_every_folder_has_its_place():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and not path.name.startswith("__")}
    assert folders <= {*ORDER, *LEAVES, *CLIENT_NAMES, "testing"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_leftwards(path: Path):
    parts = path.relative_to(PACKAGE).parts
    folder = parts[0] if len(parts) > 1 else None
    imported = micromegas_imports(path)
    if parts[0] in CLIENT_NAMES:
        allowed = {"client", "flightsql", *LEAVES}
    elif folder is None:
        # the client by its name only: nothing of it is loaded before somebody asks
        allowed = {"record", "testing", "client", *NATIVE}
        if path.name == "__main__.py":  # the command by another name
            allowed.add("cli")
    elif folder in LEAVES:
        allowed = {folder, *NATIVE}
    elif folder == "testing":
        allowed = {"testing", "record", "_core"}
    elif folder == "record":
        allowed = {"record", "_core"}
    elif folder == "cli":
        allowed = {*ORDER, *LEAVES, *NATIVE}
    else:
        allowed = {*ORDER[1 : ORDER.index(folder) + 1], *LEAVES, *NATIVE}
        # the client is a program of its own: it may not pull the server in
        if folder == "client":
            allowed = {"client", *LEAVES}
    allowed |= {"__version__"}
    assert imported <= allowed, f"{'/'.join(parts)} imports {sorted(imported - allowed)}"


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.parent == PACKAGE or "record" in p.parts], ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_the_recorder_needs_the_standard_library_only(path: Path):
    foreign = top_level_imports(path) - set(sys.stdlib_module_names) - {"micromegas"}
    if "otel" in path.parts and path.name != "__init__.py":
        foreign -= {"opentelemetry"}  # the optional extra, behind `install_otel`
    assert not foreign


def test_ingestion_never_decodes_events():
    for path in (PACKAGE / "ingest").rglob("*.py"):
        assert "_engine" not in micromegas_imports(path)
        assert "decode_events" not in path.read_text(encoding="utf-8")
