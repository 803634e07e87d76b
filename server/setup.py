"""The engine's native module of the servers' wheel; everything else is declared in pyproject.toml."""

import os

from setuptools import setup
from setuptools_rust import Binding, RustExtension

ENGINE = RustExtension("micromegas._engine", path="../native/engine/Cargo.toml", binding=Binding.PyO3, debug=False)

setup(rust_extensions=[] if os.environ.get("MICROMEGAS_NATIVE") == "prebuilt" else [ENGINE])
