"""The native modules of the wheel; everything else is declared in pyproject.toml.

`MICROMEGAS_NATIVE=prebuilt` leaves cargo out: the Makefile builds both modules itself, beside the downloads, and
copies them into the package.
"""

import os

from setuptools import setup
from setuptools_rust import Binding, RustExtension

EXTENSIONS = [
    RustExtension("micromegas._core", path="native/core/Cargo.toml", binding=Binding.PyO3, debug=False),
    RustExtension("micromegas._engine", path="native/engine/Cargo.toml", binding=Binding.PyO3, debug=False),
]

setup(rust_extensions=[] if os.environ.get("MICROMEGAS_NATIVE") == "prebuilt" else EXTENSIONS)
