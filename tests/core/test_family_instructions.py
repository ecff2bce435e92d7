"""Whether memory, instructions or tensor cores bind stems, groups, patches, 1x1, fused pools, large pools and unpooling on an
H200, by a checked-in table of what their loops issue. That the table is what nvcc makes of the kernels needs fastconv._cuda and
a disassembler; none needs a GPU."""

from __future__ import annotations

import pytest

from tests.core import family_instructions, family_layers
from tests.core.conftest import CompiledModule
from tests.core.family_instructions import Kernel
from tests.core.family_layers import LAYERS, TURNS_A_PRODUCT
from tests.core.loop_paths import rounds

#: Layers whose instructions take longer than their memory: how many times as long, in 16-bit types and in float32 by TF32.
#: docs/stems_and_groups.md and docs/pooling.md say where they go.
SHORTFALLS = {
    "stem fprop 7x7 s2, 3 to 64": (1.2, 1.2),
    "stem wgrad 7x7 s2, 3 to 64": (1.4, 1.6),
    "stem fprop 3x3 s2, 3 to 32": (1.0, 0),
    "stem wgrad 3x3 s2, 3 to 32": (1.8, 2.3),
    "stem wgrad 4x4 s4, 3 to 96": (1.5, 2.0),
    "groups of 4 fprop 3x3": (0, 1.5),
    "groups of 4 wgrad 3x3": (0, 1.3),
    "groups of 8 fprop 3x3": (0, 1.2),
    "groups of 8 wgrad 3x3": (0, 1.3),
    "groups of 16 fprop 3x3": (0, 1.3),
    "groups of 16 wgrad 3x3": (0, 1.3),
    "groups of 32 fprop 3x3": (1.0, 1.5),
    "groups of 32 wgrad 3x3": (0, 1.9),
    "1x1 64 to 256 wgrad": (0, 1.0),
    "pool 7x7 s1": (3.0, 1.5),
    "pool 13x13 s1": (4.2, 2.1),
    "pool 4x4 s4": (1.3, 0),
    "pool 3x3 s1 backward": (1.2, 0),
    "pool 5x5 s1 backward": (1.8, 0),
    "pool 13x13 s1 backward": (5.9, 3.1),
}
#: Layers whose products take longer than their memory.
TENSOR_CORES_BIND = {"patch fprop 16x16 s16, 3 to 768"}


def test_code_is_that_of_the_table(cuda_module: CompiledModule) -> None:
    cuda_module.skip_unless_from_the_compiler_of(family_instructions.TABLE)
    found = family_instructions.measure(*cuda_module)
    assert found, "the module has none of these kernels"
    architectures = {kernel.architecture for kernel, _ in found}
    table = family_instructions.read_table()
    expected = {place: count for place, count in table.items() if place[0].architecture in architectures}
    assert found == expected, "write the table anew if this is meant: see family_instructions.py"


def test_instructions_take_less_time_than_memory_but_where_it_is_said() -> None:
    over: dict[str, dict[bool, float]] = {}
    for name, (turns, has_float32) in LAYERS.items():
        for type_ in family_layers.types(has_float32):
            taken = turns(type_)
            assert (taken.tensor_cores > taken.memory) == (name in TENSOR_CORES_BIND), (name, type_)
            if taken.instructions > max(taken.memory, taken.tensor_cores):
                ratios = over.setdefault(name, {})
                is_float32 = type_.name == "float32"
                ratios[is_float32] = max(ratios.get(is_float32, 0.0), round(taken.instructions / taken.memory, 1))
    assert over == {
        name: {is_float32: ratio for is_float32, ratio in enumerate(both) if ratio} for name, both in SHORTFALLS.items()
    }


@pytest.mark.parametrize("name", ["pool_gemm", "best_gemm"])
def test_widest_tiles_of_fused_pools_issue_no_more_than_tensor_cores_can_use(name: str) -> None:
    """A product takes a tensor core four turns by the data sheet; 3.97 to 4.03 instructions are issued for it."""
    found = {
        kernel: count.each
        for (kernel, _), count in family_instructions.read_table().items()
        if kernel.name == name and kernel.variant.startswith("256x128") and kernel.precision == "native"
    }
    assert len(found) == 4  # two types, two architectures
    assert max(found.values()) < 1.01 * TURNS_A_PRODUCT


def test_every_part_has_a_number_for_every_architecture() -> None:
    table = family_instructions.read_table()
    places = {(kernel.name, kernel.variant, kernel.type, kernel.precision, part) for kernel, part in table}
    assert len(table) == len(places) * len(family_instructions.ARCHITECTURES)
    for name, variant, type_, precision, part in places:
        for architecture in family_instructions.ARCHITECTURES:
            assert (Kernel(name, variant, type_, precision, architecture), part) in table


#: A loop of eight instructions, of which a branch skips three, and in them a loop of two.
CODE = """
MOV R0, R1
LDG.E.128 R4, [R2]
@P0 BRA 0x60
STS [R0], R4
STS [R0+0x4], R5
@P1 BRA 0x40
IADD3 R0, R0, 0x1, RZ
@!P2 BRA 0x10
EXIT
BRA 0x90
"""


@pytest.mark.parametrize(
    ("wanted", "instructions"),
    [
        ({"LDG": 1}, 4),  # the branch is taken
        ({"STS": 1}, 2),  # the innermost loop that has it
        ({"LDG": 1, "STS": 2}, 7),
        ({"LDG": 1, "STS": 4}, 11),  # twice more round the inner loop
    ],
)
def test_the_shortest_way_round_a_loop(wanted: dict[str, int], instructions: int) -> None:
    code = [(16 * i, text) for i, text in enumerate(CODE.strip().splitlines())]
    assert [found.instructions for found in rounds(code, wanted)] == [instructions]


def test_what_a_loop_cannot_do_has_no_way_round() -> None:
    code = [(16 * i, text) for i, text in enumerate(CODE.strip().splitlines())]
    assert rounds(code, {"LDG": 2}) == []
    assert rounds(code, {"STG": 1}) == []
