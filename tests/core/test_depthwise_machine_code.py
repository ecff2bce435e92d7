"""The compiled depthwise kernels: nothing in local memory, 16-byte accesses of global memory, and main loops as the checked-in
table says. Needs fastconv._cuda and a disassembler, and no GPU; what the table promises is tested without either."""

from __future__ import annotations

import importlib
import re

import pytest

from fastconv import machine_code
from tests.core import depthwise_machine_code
from tests.core.depthwise_machine_code import Instructions, Kernel

#: Instructions that an H200 (132 multiprocessors, 4 a clock of 32 lanes, 1.7 GHz) issues for each byte that its memory moves
#: (4.3 TB/s): a prediction from data-sheet figures.
INSTRUCTIONS_PER_BYTE = 132 * 4 * 32 * 1.7e9 / 4.3e12


@pytest.fixture(scope="module")
def compiled() -> dict[Kernel, Instructions]:
    disassembler, module = machine_code.find_disassembler(), machine_code.find_module()
    if disassembler is None:
        pytest.skip("no cuobjdump with nvdisasm beside it")
    if module is None:
        pytest.skip("fastconv._cuda was not built")
    found = depthwise_machine_code.kernels(disassembler, module)
    assert found, "the module has no depthwise kernel"
    return found


def test_no_kernel_has_local_memory(compiled: dict[Kernel, Instructions]) -> None:
    for kernel, code in compiled.items():
        found = [text for _, text in code if re.search(r"\b(LDL|STL)\b", text)]
        assert not found, f"{kernel}: {found[0]}"


def test_global_memory_is_read_and_written_by_16_bytes(compiled: dict[Kernel, Instructions]) -> None:
    for kernel, code in compiled.items():
        text = "\n".join(line for _, line in code)
        assert re.search(r"LDGSTS\S*\.128", text), f"{kernel} copies nothing by 16 bytes"
        if "wgrad" not in kernel.name:
            assert re.search(r"STG\S*\.128", text), f"{kernel} stores nothing by 16 bytes"


def test_main_loops_are_those_of_the_table(compiled: dict[Kernel, Instructions]) -> None:
    version = importlib.import_module("fastconv._cuda").build_info()["cuda_version"]
    compiler = f"{version // 1000}.{version % 1000 // 10}"
    if compiler != depthwise_machine_code.table_compiler():
        pytest.skip(f"the table is for nvcc {depthwise_machine_code.table_compiler()}, the module is of {compiler}")
    table = depthwise_machine_code.read_table()
    found = {
        kernel: depthwise_machine_code.main_loop(code)
        for kernel, code in compiled.items()
        if kernel.architecture in ("sm_80", "sm_90a")
    }
    different = {kernel: loop for kernel, loop in found.items() if loop is not None and table.get(kernel) != loop}
    assert not different, "write the table anew if this is meant: see depthwise_machine_code.py"


@pytest.mark.parametrize("name", ["channels_last", "channels_last_wgrad", "planes_wgrad"])
def test_memory_takes_longer_than_a_3x3_main_loop_in_float32(name: str) -> None:
    """Of fprop and wgrad with stride 1: 8 bytes move for an output."""
    table = depthwise_machine_code.read_table()
    loops = [
        loop
        for kernel, loop in table.items()
        if (kernel.name, kernel.type) == (name, "float32") and kernel.filter in ("3 columns", "3x3 stride 1")
    ]
    assert loops
    for loop in loops:
        assert 9 * loop.per_product < 8 * INSTRUCTIONS_PER_BYTE
