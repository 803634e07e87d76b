"""The native module of the recorder's wheel; everything else is declared in pyproject.toml.

`MICROMEGAS_NATIVE=prebuilt` leaves cargo out: the Makefile builds the native modules itself, beside the downloads, and
copies them into the package. Beside the package lies `micromegas_autostart.pth`, which the interpreter runs when it
starts: it records programs whose environment asks for that (docs/instrumentation.md), and is gone with the package.
"""

import os
import shutil
from pathlib import Path
from typing import Any

from setuptools import Distribution, setup  # isort: skip # it brings distutils along
from distutils.command.install_data import install_data  # isort: skip
from setuptools_rust import Binding, RustExtension

CORE = RustExtension("micromegas._core", path="native/core/Cargo.toml", binding=Binding.PyO3, debug=False)
SERVER = Path(__file__).absolute().parent / "server"

AUTOSTART = "src/micromegas_autostart.pth"


class DistributionOfACheckout(Distribution):
    """With data files in editable installs, too, and with the servers that lie beside it."""

    # Editable installs ask for the first name, and would leave data files out.
    has_data = Distribution.has_data_files

    def parse_config_files(self, *args: Any, **kwargs: Any) -> None:
        """In a checkout (not in a source distribution) the extra `server` is the folder, not a release of it."""
        super().parse_config_files(*args, **kwargs)
        if SERVER.is_dir():
            servers = {"server": [f"micromegas-server @ {SERVER.as_uri()}"]}
            self.extras_require = self.metadata.extras_require = dict(self.extras_require) | servers


class InstallBesideThePackage(install_data):
    """Puts data files where packages go, in wheels and editable installs alike (both have a folder per place)."""

    def run(self) -> None:
        place = os.path.join(os.path.dirname(self.install_dir), "purelib")
        self.mkpath(place)
        for _, files in self.data_files:
            for file in files:
                self.outfiles.append(shutil.copy(file, place))


setup(
    distclass=DistributionOfACheckout,
    data_files=[("", [AUTOSTART])],
    cmdclass={"install_data": InstallBesideThePackage},
    rust_extensions=[] if os.environ.get("MICROMEGAS_NATIVE") == "prebuilt" else [CORE],
)
