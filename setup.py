"""The native modules of the wheel; everything else is declared in pyproject.toml.

`MICROMEGAS_NATIVE=prebuilt` leaves cargo out: the Makefile builds both modules itself, beside the downloads, and
copies them into the package. Beside the package lies `micromegas_autostart.pth`, which the interpreter runs when it
starts: it records programs whose environment asks for that (docs/instrumentation.md), and is gone with the package.
"""

import os
import shutil

from setuptools import Distribution, setup  # isort: skip # it brings distutils along
from distutils.command.install_data import install_data  # isort: skip
from setuptools_rust import Binding, RustExtension

EXTENSIONS = [
    RustExtension("micromegas._core", path="native/core/Cargo.toml", binding=Binding.PyO3, debug=False),
    RustExtension("micromegas._engine", path="native/engine/Cargo.toml", binding=Binding.PyO3, debug=False),
]

AUTOSTART = "src/micromegas_autostart.pth"


class DistributionWithData(Distribution):
    """Editable installs ask for the first name, and would leave data files out."""

    has_data = Distribution.has_data_files


class InstallBesideThePackage(install_data):
    """Puts data files where packages go, in wheels and editable installs alike (both have a folder per place)."""

    def run(self) -> None:
        place = os.path.join(os.path.dirname(self.install_dir), "purelib")
        self.mkpath(place)
        for _, files in self.data_files:
            for file in files:
                self.outfiles.append(shutil.copy(file, place))


setup(
    distclass=DistributionWithData,
    data_files=[("", [AUTOSTART])],
    cmdclass={"install_data": InstallBesideThePackage},
    rust_extensions=[] if os.environ.get("MICROMEGAS_NATIVE") == "prebuilt" else EXTENSIONS,
)
