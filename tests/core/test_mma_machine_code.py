"""The compiled tensor-core kernels: nothing in local memory, tensor cores and 16-byte asynchronous copies in the main loop,
and the registers that the checked-in table says. Needs fastconv._cuda and a disassembler, and no GPU."""

from __future__ import annotations

import re

import pytest

from fastconv.machine_code import Resources
from tests.core import machine_code
from tests.core.conftest import CompiledModule
from tests.core.machine_code import Kernel


@pytest.fixture(scope="module")
def used(cuda_module: CompiledModule) -> dict[Kernel, Resources]:
    found = machine_code.resources(*cuda_module)
    assert found, "the module has no tensor-core kernel"
    return found


@pytest.fixture(scope="module")
def loops(cuda_module: CompiledModule, used: dict[Kernel, Resources]) -> dict[Kernel, list[str]]:
    found: dict[Kernel, list[str]] = {}
    for architecture in sorted({kernel.architecture for kernel in used}):
        found |= machine_code.main_loops(*cuda_module, architecture)
    return {kernel: loop for kernel, loop in found.items() if kernel is not None}


def test_no_kernel_has_a_stack_or_local_memory(used: dict[Kernel, Resources]) -> None:
    assert not {kernel: usage for kernel, usage in used.items() if usage.stack or usage.local}


def test_main_loops_use_tensor_cores_and_16_byte_asynchronous_copies(loops: dict[Kernel, list[str]]) -> None:
    for kernel, loop in loops.items():
        text = "\n".join(loop)
        assert "HMMA" in text, f"{kernel} has no matrix product in a loop"
        assert "LDGSTS" in text, f"{kernel} copies nothing asynchronously in its main loop"
        assert kernel.narrow or all(".128" in line for line in loop if "LDGSTS" in line), f"{kernel} copies in pieces"
        # ldmatrix cannot transpose 32-bit elements.
        words = kernel.family == "wgrad" and kernel.type == "float32"
        assert ("LDSM" in text) != words, f"{kernel}: ldmatrix in the main loop is {not words} wanted"


def test_main_loops_have_no_division_and_no_local_memory(loops: dict[Kernel, list[str]]) -> None:
    forbidden = re.compile(r"\b(MUFU\.RCP|I2F|F2I|LDL|STL|CALL)\b")
    for kernel, loop in loops.items():
        found = [line for line in loop if forbidden.search(line)]
        assert not found, f"{kernel}: {found[0]}"


def test_registers_are_those_of_the_table(cuda_module: CompiledModule, used: dict[Kernel, Resources]) -> None:
    cuda_module.skip_unless_from_the_compiler_of(machine_code.TABLE)
    table = machine_code.read_table()
    different = {
        kernel: (usage.registers, table[kernel].registers if kernel in table else None)
        for kernel, usage in used.items()
        if kernel.architecture in ("sm_80", "sm_90a")
        and (kernel not in table or table[kernel].registers != usage.registers)
    }
    assert not different, "(found, in the table); write the table anew if this is meant: see machine_code.py"


def test_shared_memory_is_that_of_the_table() -> None:
    shared = machine_code.shared_bytes()
    for kernel, usage in machine_code.read_table().items():
        key = (kernel.family, kernel.type, kernel.precision, kernel.tile, kernel.narrow)
        assert shared[key] == usage.shared_bytes, f"{kernel}"
