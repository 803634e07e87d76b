"""The native modules of the servers' wheel; everything else is declared in pyproject.toml."""

import os

from setuptools import setup
from setuptools_rust import Binding, RustExtension

NATIVE = [
    RustExtension(f"micromegas._{name}", path=f"../native/{name}/Cargo.toml", binding=Binding.PyO3, debug=False)
    for name in ("engine", "transport")
]

setup(rust_extensions=[] if os.environ.get("MICROMEGAS_NATIVE") == "prebuilt" else NATIVE)
