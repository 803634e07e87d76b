"""What `pip install micromegas` puts on a disk stays small: it sits in every instrumented program's image."""

import sysconfig
from pathlib import Path

import micromegas

LIMIT = 8 << 20


def test_installed_size():
    """As one interpreter gets it: the package's files, its own native modules, the bytecode that pip compiles."""
    package = Path(micromegas.__file__).parent
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    files = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    installed = [path for path in files if path.suffix not in (".so", ".new") or path.name.endswith(suffix)]
    extensions = [path.name for path in installed if path.suffix == ".so"]
    assert sorted(name.partition(".")[0] for name in extensions) == ["_core", "_engine"]
    # Bytecode is about as long as its source.
    sizes = [path.stat().st_size * (2 if path.suffix == ".py" else 1) for path in installed]
    assert sum(sizes) <= LIMIT, f"{sum(sizes)} bytes"
