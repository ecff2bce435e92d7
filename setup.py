"""The compiled modules; everything else about the package is in pyproject.toml."""

import sys
from pathlib import Path

from setuptools import Extension, setup

sys.path.insert(0, str(Path(__file__).resolve().parent))

from build_support.command import Build, BuildExtension

# Which modules are built is decided when building; this one always is, and tells setuptools that the wheel is not pure Python.
setup(
    ext_modules=[Extension("fastconv._emulator", sources=[])],
    cmdclass={"build": Build, "build_ext": BuildExtension},
)
