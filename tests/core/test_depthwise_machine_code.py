"""The compiled depthwise kernels: 16-byte accesses of global memory, and main loops as the checked-in table says. Needs
fastconv._cuda and a disassembler, and no GPU; what the table promises is tested without either."""

from __future__ import annotations

import itertools
import re

import pytest

from tests.core import depthwise_machine_code
from tests.core.conftest import CompiledModule
from tests.core.depthwise_machine_code import Instructions, Kernel
from tests.core.mma_support import NAMES

#: Instructions that an H200 (132 multiprocessors, 4 a clock of 32 lanes, 1.7 GHz) issues for each byte that its memory moves
#: (4.3 TB/s): a prediction from data-sheet figures.
INSTRUCTIONS_PER_BYTE = 132 * 4 * 32 * 1.7e9 / 4.3e12


@pytest.fixture(scope="module")
def compiled(cuda_module: CompiledModule) -> dict[Kernel, Instructions]:
    found = depthwise_machine_code.kernels(*cuda_module)
    assert found, "the module has no depthwise kernel"
    return found


def test_global_memory_is_read_and_written_by_16_bytes(compiled: dict[Kernel, Instructions]) -> None:
    for kernel, code in compiled.items():
        text = "\n".join(line for _, line in code)
        assert re.search(r"LDGSTS\S*\.128", text), f"{kernel} copies nothing by 16 bytes"
        if "wgrad" not in kernel.name:
            assert re.search(r"STG\S*\.128", text), f"{kernel} stores nothing by 16 bytes"


def test_main_loops_are_those_of_the_table(cuda_module: CompiledModule, compiled: dict[Kernel, Instructions]) -> None:
    cuda_module.skip_unless_from_the_compiler_of(depthwise_machine_code.TABLE)
    table = depthwise_machine_code.read_table()
    found = {
        kernel: depthwise_machine_code.main_loop(code)
        for kernel, code in compiled.items()
        if kernel.architecture in ("sm_80", "sm_90a")
    }
    different = {kernel: loop for kernel, loop in found.items() if loop is not None and table.get(kernel) != loop}
    assert not different, "write the table anew if this is meant: see depthwise_machine_code.py"


#: Of an output of a 3x3 loop, by its filter: products, and elements that memory moves. With stride 2, fprop reads 4 elements
#: for each that it writes, and an output of its gradient has a quarter of the taps.
OUTPUTS_OF_3X3 = {
    "3 columns": (9, 2),
    "3x3 stride 1": (9, 2),
    "3x3 stride 2": (9, 5),
    "3x3 stride 2, transposed": (9 / 4, 5 / 4),
}


@pytest.mark.parametrize(
    ("name", "types", "filters"),
    [
        ("channels_last", ("float32",), ("3 columns",)),
        ("channels_last_wgrad", ("float32",), ("3 columns",)),
        ("planes_wgrad", ("float32",), ("3x3 stride 1",)),
        (
            "planes",
            ("float32", "float16", "bfloat16"),
            ("3x3 stride 1", "3x3 stride 2", "3x3 stride 2, transposed"),
        ),
    ],
)
def test_memory_takes_longer_than_a_3x3_main_loop(name: str, types: tuple[str, ...], filters: tuple[str, ...]) -> None:
    table = depthwise_machine_code.read_table()
    for filter_, type_, architecture in itertools.product(filters, types, ("sm_80", "sm_90a")):
        loop = table[Kernel(name, filter_, type_, architecture)]
        products, elements = OUTPUTS_OF_3X3[filter_]
        bytes_ = elements * (4 if type_ == "float32" else 2)
        assert products * loop.per_product < bytes_ * INSTRUCTIONS_PER_BYTE, (filter_, type_, architecture)


def test_every_loop_of_planes_has_a_number() -> None:
    table = depthwise_machine_code.read_table()
    for filter_, type_, architecture in itertools.product(
        {kernel.filter for kernel in table if kernel.name == "planes"}, NAMES.values(), ("sm_80", "sm_90a")
    ):
        assert Kernel("planes", filter_, type_, architecture) in table
