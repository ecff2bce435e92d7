"""What the compiler makes of the kernels, without a GPU: `compilation_table.json` is judged, and a part of it compiled again.

After a change to kernels or configurations: python -m tests.triton.compilation_table; to compile all of it and compare, add
--check.
"""

from __future__ import annotations

import json
import re

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from fastconv.backends.triton import backend
from fastconv.backends.triton.backend import families
from fastconv.backends.triton.compilation import source_of
from fastconv.backends.triton.target import architecture
from tests.triton.compilation_table import PATH, compile_row, load, rows_of
from tests.triton.oracle import conv_problem, inputs_of, plan_of
from tests.triton.problems import PROBLEMS, TARGETS, problem

TABLE = load()
#: Numbers of another Triton are other numbers; what they must satisfy is the same.
SAME_TRITON = json.loads(PATH.read_text())["triton"] == triton.__version__
TENSOR_CORES = {80: ("HMMA",), 90: ("HGMMA", "HMMA"), 100: ("UTCMMA", "HMMA")}


def main_kernel(row: dict) -> dict:
    """The launch that does the work: not the packing before it, nor the sums after it."""
    helpers = ("pack_kernel", "add_splits_kernel", "add_parts_kernel", "channel_sum_kernel")
    names = [name for name in row if name not in helpers] or ["channel_sum_kernel"]
    return row[names[0]]


def uses_tensor_cores(name: str) -> bool:
    return "_f64" not in name and not name.endswith("_f32") and "_f32_" not in name


@pytest.mark.parametrize("capability", TARGETS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_table_has_the_best_configuration_and_none_that_does_not_ship(name, capability):
    shipped = rows_of(name, capability)
    assert shipped[0] in TABLE
    assert {key for key in TABLE if key[:2] == (name, capability)} <= set(shipped)


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
        if "conv_" in family and uses_tensor_cores(name):
            assert any(main_kernel(row).get(kind) for kind in TENSOR_CORES[capability]), key


def test_large_tiles_use_the_instructions_of_their_generation():
    """Warpgroup products on Hopper and the tensor memory's on Blackwell, not the older ones that also run there."""
    for key, row in TABLE.items():
        name, capability, _, config = key
        tile = re.match(r"(\d+)x.*_w(\d+)$", config)
        large = tile is not None and int(tile[1]) >= 64 and int(tile[2]) >= 4
        if large and capability > 80 and uses_tensor_cores(name):
            assert main_kernel(row).get(TENSOR_CORES[capability][0]), key


def test_channels_last_operands_are_copied_asynchronously_in_whole_vectors():
    """Of channels that divide by eight; on Ampere a transposed left operand of wgrad passes through registers."""
    for key, row in TABLE.items():
        name, _, family, _ = key
        plain = family in ("conv_fprop", "conv_dgrad", "conv_wgrad") and "nchw" not in name and uses_tensor_cores(name)
        if plain and not any(word in name for word in ("odd", "stem", "resnext", "depthwise")):
            kernel = main_kernel(row)
            assert kernel.get("LDGSTS.128", 0) + kernel.get("LDG.128", 0) > 0, key
            assert kernel.get("STG.128", 0) > 0 or family == "conv_wgrad", key


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
    "fprop_depthwise_nchw": ("STG.128",),
    "dgrad_depthwise_nchw": ("STG.128",),
}


@pytest.mark.parametrize("capability", TARGETS)
@pytest.mark.parametrize("name", MEMORY_BOUND)
def test_memory_bound_kernels_move_whole_vectors(name, capability):
    """In the configuration that the model ranks first."""
    best = backend.candidates(problem(name, capability))[0]
    kernel = main_kernel(TABLE[name, capability, best.kernel, best.config])
    for instruction in MEMORY_BOUND[name]:
        assert kernel.get(instruction), instruction


#: Compiled in every run: each kernel once, on one capability or another.
QUICK = [
    ("fprop_3x3", 80), ("fprop_3x3_gelu", 90), ("fprop_1x1_nchw", 100), ("fprop_3x3_f32", 90), ("fprop_stem", 90),
    ("fprop_depthwise", 80), ("dgrad_3x3_stride2", 90), ("dgrad_depthwise_stride2", 100), ("wgrad_3x3", 80),
    ("wgrad_depthwise_nchw", 90), ("channel_sum", 80), ("pool_forward_3x3", 90), ("pool_backward_2x2_nchw", 80),
    ("pool_indices_3x3", 100), ("dgrad_3x3_f64", 80), ("fprop_3x3_tf32_nchw", 100),
]  # fmt: skip


@pytest.mark.parametrize(("name", "capability"), QUICK)
def test_the_best_configuration_compiles_to_what_the_table_says(name, capability):
    best = backend.candidates(problem(name, capability))[0]
    key = (name, capability, best.kernel, best.config)
    made = compile_row(key)
    assert not SAME_TRITON or made == TABLE[key]
    assert not any(kernel["local_bytes"] for kernel in made.values())
