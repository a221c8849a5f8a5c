"""Say to setuptools what pyproject.toml cannot: conf/ and analysis/ are installed inside the package."""

from setuptools import find_namespace_packages, setup

BESIDE = {"toyqs.analysis": "analysis", "toyqs.conf": "conf"}
packages = [*find_namespace_packages(include=["toyqs*", "hydra_plugins"]), *BESIDE]
packages += [f"toyqs.conf.{name}" for name in find_namespace_packages("conf")]
setup(packages=packages, package_dir=BESIDE)
