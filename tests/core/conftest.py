"""The emulated modules: the fast one, and the one that checks every access."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from types import ModuleType

import pytest

from fastconv import emulator


@pytest.fixture(params=["fast", "checked"])
def core(request: pytest.FixtureRequest, seed: int) -> Iterator[ModuleType]:
    if request.param == "fast":
        yield importlib.import_module("fastconv._emulator")
        return
    with emulator.check(seed):
        yield emulator.module()


@pytest.fixture
def fast_core() -> ModuleType:
    """For what is decided before a launch, which is the same in every module."""
    return importlib.import_module("fastconv._emulator")
