"""What the compiler makes of the kernels, without a GPU: `compilation_table.json` is judged, and a part of it made again.

After a change to kernels or configurations: python -m tests.triton.compilation_table; to make all of it and compare, add
--check. In every run some rows are compiled, the same ones and a few that the seed draws, and of many more it is seen by their
digest that they are of today's kernels.
"""

from __future__ import annotations

import json
import random
import re
import sys

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from fastconv.backends.triton.backend import families
from fastconv.backends.triton.compilation import source_of
from fastconv.backends.triton.runtime import Kernel
from fastconv.backends.triton.target import architecture
from tests.triton.compilation_table import PATH, compile_row, digest_row, load, rows_of
from tests.triton.oracle import conv_problem, inputs_of, plan_of
from tests.triton.problems import PROBLEMS, TARGETS, problem

TABLE = load()
#: Numbers of another Triton are other numbers; what they must satisfy is the same.
SAME_TRITON = json.loads(PATH.read_text())["triton"] == triton.__version__
TENSOR_CORES = {80: ("HMMA",), 90: ("HGMMA", "HMMA"), 100: ("UTCMMA", "HMMA")}


def main_kernel(row: dict) -> dict:
    """The launch that does the work: not the packing before it, nor the sums after it."""
    helpers = (
        "pack_kernel",
        "add_splits_kernel",
        "add_parts_kernel",
        "channel_sum_kernel",
        "fold_kernel",
        "combine_winners_kernel",
    )
    names = [name for name in row if name not in helpers] or ["channel_sum_kernel"]
    return row[names[0]]


def uses_tensor_cores(name: str) -> bool:
    return "_f64" not in name and not name.endswith("_f32") and "_f32_" not in name


@pytest.mark.parametrize("capability", TARGETS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_table_has_every_configuration_that_ships_and_no_other(name, capability):
    assert {key for key in TABLE if key[:2] == (name, capability)} == set(rows_of(name, capability))


def test_the_table_has_every_kernel():
    families()  # imports them
    modules = [module for name, module in sys.modules.items() if name.startswith("fastconv.backends.triton.")]
    kernels = {value.name for module in modules for value in vars(module).values() if isinstance(value, Kernel)}
    assert kernels
    assert kernels == {name for row in TABLE.values() for name in row}


def test_no_shipped_configuration_uses_local_memory():
    spilled = {key: row for key, row in TABLE.items() if any(kernel["local_bytes"] for kernel in row.values())}
    assert not spilled, "\n".join(" ".join(map(str, key)) for key in spilled)


def test_shared_memory_fits_and_the_model_knows_it():
    for key, row in TABLE.items():
        made = problem(*key[:2])
        for kernel in row.values():
            assert kernel["shared_bytes"] <= architecture(made.target).shared_bytes, key


def test_products_run_on_tensor_cores():
    for key, row in TABLE.items():
        name, capability, family, _ = key
        if ("conv_" in family or family == "pointwise_fprop") and uses_tensor_cores(name):
            assert any(main_kernel(row).get(kind) for kind in TENSOR_CORES[capability]), key


def test_large_tiles_use_the_instructions_of_their_generation():
    """Warpgroup products on Hopper and the tensor memory's on Blackwell, not the older ones that also run there."""
    for key, row in TABLE.items():
        name, capability, _, config = key
        tile = re.match(r"(\d+)x.*_w(\d+)$", config)
        large = tile is not None and int(tile[1]) >= 64 and int(tile[2]) >= 4
        if large and capability > 80 and uses_tensor_cores(name):
            assert main_kernel(row).get(TENSOR_CORES[capability][0]), key


#: Of channels that divide by a vector; where a filter row or one element of padding is in the way, others are tested below.
RAGGED = ("nchw", "odd", "stem", "resnext", "depthwise", "four", "twelve", "constant")


def test_channels_last_operands_are_copied_asynchronously_in_whole_vectors():
    for key, row in TABLE.items():
        name, capability, family, _ = key
        plain = family in ("conv_fprop", "conv_dgrad", "conv_wgrad", "conv_max_pool", "conv_global_max")
        if plain and uses_tensor_cores(name) and not any(word in name for word in RAGGED):
            kernel = main_kernel(row)
            assert kernel.get("LDGSTS.128", 0) + kernel.get("LDG.128", 0) > 0, key
            assert kernel.get("STG.128", 0) > 0 or family in ("conv_wgrad", "conv_global_max"), key
            if "tf32" in name and capability > 80 and kernel.get(TENSOR_CORES[capability][0]):
                assert kernel["LDGSTS"] == kernel["LDGSTS.128"], f"{key} copies single elements of TF32"


class AbsentGpu:
    """As much of a driver as Triton's launcher asks before it compiles."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


@pytest.mark.parametrize("conv_pass", ["fprop", "dgrad", "wgrad"])
def test_a_launch_on_tensors_compiles_what_the_table_was_made_of(conv_pass, monkeypatch):
    """The launcher looks at the arguments by itself. It must come to the types and constants that `compilation.py` assumes."""
    monkeypatch.setattr(driver, "_active", AbsentGpu())
    made = conv_problem(conv_pass, (2, 32, 8, 8), (32, 32, 3, 3), torch.float16, channels_last=True, has_bias=True)
    tensors = inputs_of(made, 0)
    for family in families().values():
        configs = family.configs(made) if made.op in family.ops else ()
        plan = plan_of(made, family, configs[-1]) if configs else None
        for launch in plan.launches if plan else ():
            scratch = {role: torch.empty(n, dtype=dtype) for role, (n, dtype) in plan.workspaces.items()}
            pointers = {argument: (tensors | scratch).get(role) for argument, role in launch.roles.items()}
            binary = launch.kernel.compiled.warmup(
                **pointers, **launch.scalars, **launch.constants, **launch.options(), grid=(launch.programs, 1, 1)
            )
            expected = source_of(launch, plan.types())
            assert binary.src.signature == expected.signature
            assert binary.src.constants == expected.constants
            attributes = {index: value for index, value in binary.src.attrs.items() if value}
            assert attributes == {index: value for index, value in expected.attrs.items() if value}


MEMORY_BOUND = {
    "fprop_depthwise": ("LDG.128", "STG.128"),
    "dgrad_depthwise": ("LDG.128", "STG.128"),
    "wgrad_depthwise": ("LDG.128",),
    "channel_sum": ("LDG.128",),
    "channel_sum_nchw": ("LDG.128",),
    "pool_forward_3x3": ("LDG.128", "STG.128"),
    "pool_backward_3x3": ("LDG.128", "STG.128"),
    "pool_global": ("LDG.128",),
    "pool_global_nchw": ("LDG.128",),
    "fprop_depthwise_nchw": ("STG.128",),
    "dgrad_depthwise_nchw": ("STG.128",),
    "activation_backward_relu": ("LDG.128", "STG.128"),
    "unpool_2x2": ("LDG.128", "STG.128"),
    "unpool_2x2_nchw": ("LDG.128", "STG.128"),
    "unpool_add_2x2_f32": ("LDG.128", "STG.128"),
    "unpool_gather_2x2": ("LDG.128", "STG.128"),
    "unpool_gather_2x2_nchw": ("LDG.128", "STG.128"),
}


@pytest.mark.parametrize("capability", TARGETS)
@pytest.mark.parametrize("name", MEMORY_BOUND)
def test_memory_bound_kernels_move_whole_vectors(name, capability):
    """In the configuration that the model ranks first."""
    kernel = main_kernel(TABLE[rows_of(name, capability)[0]])
    for instruction in MEMORY_BOUND[name]:
        assert kernel.get(instruction), instruction


#: Compiled in every run: each kernel once, on one capability or another.
QUICK = [
    ("fprop_3x3", 80), ("fprop_1x1_nchw", 100), ("fprop_3x3_f32", 90), ("fprop_stem", 90), ("fprop_depthwise", 80),
    ("dgrad_3x3_tf32", 90), ("dgrad_depthwise_stride2", 100), ("wgrad_3x3_tf32", 90), ("wgrad_depthwise_nchw", 90),
    ("channel_sum_nchw", 80), ("pool_forward_3x3", 90), ("pool_backward_2x2_nchw", 80), ("pool_indices_3x3", 100),
    ("pool_global", 90), ("unpool_2x2", 90), ("unpool_gather_2x2_nchw", 80),
    ("dgrad_3x3_reflect_tf32", 90), ("conv_max_pool_2x2", 80), ("conv_global_max", 90),
]  # fmt: skip


def assert_compiles_as_the_table_says(key) -> None:
    made = compile_row(key)
    assert not SAME_TRITON or made == TABLE[key]
    assert not any(kernel["local_bytes"] for kernel in made.values())


@pytest.mark.parametrize(("name", "capability"), QUICK)
def test_the_best_configuration_compiles_to_what_the_table_says(name, capability):
    assert_compiles_as_the_table_says(rows_of(name, capability)[0])


@pytest.mark.parametrize("number", range(6))
def test_rows_that_the_seed_draws_compile_to_what_the_table_says(number, seed):
    assert_compiles_as_the_table_says(random.Random(seed).sample(sorted(TABLE), 6)[number])


@pytest.mark.skipif(not SAME_TRITON, reason="the table was made with another version of Triton")
def test_the_table_is_of_these_kernels(seed):
    """By what the assembler would be given; of a hundred rows that the seed draws."""
    for key in random.Random(seed).sample(sorted(TABLE), 100):
        kept = {kernel: row["digest"] for kernel, row in TABLE[key].items()}
        assert digest_row(key) == kept, f"{key}: make the table again, python -m tests.triton.compilation_table"
