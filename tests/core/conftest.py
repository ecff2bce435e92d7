"""The emulated modules: the fast one, and the one that checks every access. The compiled one, to be read as machine code."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import filelock
import pytest

from fastconv import emulator, machine_code
from tests.core import nvcc_table


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


class CompiledModule(NamedTuple):
    disassembler: str
    folder: Path  # of its machine code

    def skip_unless_from_the_compiler_of(self, table: Path) -> None:
        """table: a checked-in one, whose first line is "# nvcc 13.0" or the like."""
        compiler = nvcc_table.compiler_of(table)
        version = importlib.import_module("fastconv._cuda").build_info()["cuda_version"]
        own = f"{version // 1000}.{version % 1000 // 10}"
        if own != compiler:
            pytest.skip(f"{table.name} is for nvcc {compiler}, the module is of {own}")


@pytest.fixture(scope="session")
def cuda_module(tmp_path_factory: pytest.TempPathFactory) -> CompiledModule:
    """fastconv._cuda, unpacked for all workers of a run, so that each kernel is disassembled once; and what reads it.

    Needs no GPU.
    """
    disassembler, module = machine_code.find_disassembler(), machine_code.find_module()
    if disassembler is None:
        pytest.skip("no cuobjdump with nvdisasm beside it")
    if module is None:
        pytest.skip("fastconv._cuda was not built")
    of_the_run = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        of_the_run = of_the_run.parent
    folder = of_the_run / "machine_code"
    with filelock.FileLock(of_the_run / "machine_code.lock"):
        if not folder.exists():
            unfinished = Path(tempfile.mkdtemp(dir=of_the_run))
            machine_code.unpack(disassembler, module, unfinished)
            unfinished.rename(folder)
    return CompiledModule(disassembler, folder)
