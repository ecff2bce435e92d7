"""The build backend: setuptools', plus NVIDIA's compiler wheels as requirements where the build needs them.

This runs before the build requirements are there, so it imports no more than setuptools and the standard library.
"""

from __future__ import annotations

import os
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

from build_support import nvcc
from build_support.settings import BuildError, Settings

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    return [*build_meta.get_requires_for_build_wheel(config_settings), *_compiler_wheels()]


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    return [*build_meta.get_requires_for_build_editable(config_settings), *_compiler_wheels()]


def _compiler_wheels() -> list[str]:
    try:
        return list(nvcc.WHEELS) if nvcc.wants_wheels(Settings.read(os.environ), os.environ) else []
    except BuildError as error:
        raise SystemExit(f"\nfastconv: {error}") from error
