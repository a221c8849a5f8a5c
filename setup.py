"""Say to setuptools what pyproject.toml cannot: conf/ and analysis/ are installed inside the package.

With TOYQS_PREBUILT=1 in the environment a wheel brings the native kernels along, compiled: it is then for
this kind of machine alone.
"""

import os
import sys
import sysconfig
from pathlib import Path

from setuptools import find_namespace_packages, setup
from setuptools.command.build_py import build_py

BESIDE = {"toyqs.analysis": "analysis", "toyqs.conf": "conf"}
packages = find_namespace_packages(include=["toyqs*", "hydra_plugins"])
inside = [*BESIDE, *(f"toyqs.conf.{name}" for name in find_namespace_packages("conf"))]


class BuildWithKernels(build_py):
    """Compile the native kernels into the package that is built."""

    def run(self):
        """Build as always, then compile."""
        super().run()
        sys.path.insert(0, str(Path(__file__).parent))
        from toyqs.model.backbones.kernels import library  # noqa: PLC0415, beside this file

        library.prebuild(Path(self.build_lib) / library.SOURCES.relative_to(Path(__file__).parent))


how = {}
if os.environ.get("TOYQS_PREBUILT") == "1":
    how["cmdclass"] = {"build_py": BuildWithKernels}
    how["options"] = {"bdist_wheel": {"plat_name": sysconfig.get_platform()}}
if "editable_wheel" in sys.argv:
    # pip install -e: they are found beside the package. It is a path to this folder, not a hook that comes
    # after all paths: else `import toyqs` would take any folder of this name in front for it, as a checkout.
    setup(packages=packages, package_dir={"": "."})
else:
    setup(packages=[*packages, *inside], package_dir=BESIDE, **how)
