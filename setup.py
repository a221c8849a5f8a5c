"""Say to setuptools what pyproject.toml cannot: conf/ and analysis/ are installed inside the package."""

import sys

from setuptools import find_namespace_packages, setup

BESIDE = {"toyqs.analysis": "analysis", "toyqs.conf": "conf"}
packages = find_namespace_packages(include=["toyqs*", "hydra_plugins"])
inside = [*BESIDE, *(f"toyqs.conf.{name}" for name in find_namespace_packages("conf"))]
if "editable_wheel" in sys.argv:
    # pip install -e: they are found beside the package. It is a path to this folder, not a hook that comes
    # after all paths: else `import toyqs` would take any folder of this name in front for it, as a checkout.
    setup(packages=packages, package_dir={"": "."})
else:
    setup(packages=[*packages, *inside], package_dir=BESIDE)
