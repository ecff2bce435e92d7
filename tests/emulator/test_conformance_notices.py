"""The tests that hold emulator and hardware to the same rules notice a broken one: each fails on a slightly wrong result."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.emulator import build
from tests.emulator import test_pairs as pairs
from tests.emulator import test_tensor_core as tensor_core
from tests.emulator import test_warp_operations as warp
from tests.emulator.conftest import DeviceProbe


def swap_lanes(result: torch.Tensor) -> torch.Tensor:
    """Two neighbours of the outermost dimension that differ have changed places."""
    rows = result.view(32, -1) if result.numel() % 32 == 0 else result.view(result.shape[0], -1)
    for first in range(len(rows) - 1):
        if not torch.equal(rows[first], rows[first + 1]):
            order = list(range(len(rows)))
            order[first], order[first + 1] = first + 1, first
            return rows[order].view(result.shape)
    return lose_the_last(result)


def lose_the_last(result: torch.Tensor) -> torch.Tensor:
    """The last element is what it was before: nobody wrote it."""
    flat = result.reshape(-1).clone()
    bits = flat.view(torch.uint8)
    bits[-flat.element_size() :] ^= 1
    return flat.view(result.shape)


class Wrong:
    """Runs a probe as it should be, and then spoils what it wrote."""

    def __init__(self, probe: Any, spoil: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._probe, self._spoil = probe, spoil

    def __call__(self, name: str, *tensors: Any, **options: Any) -> None:
        self._probe(name, *tensors, **options)
        read_only = options.get("read_only", (0,))
        for i, tensor in enumerate(tensors):
            if tensor is not None and i not in read_only:
                tensor.copy_(self._spoil(tensor.clone()))


CASES = {
    "ldmatrix": (tensor_core.test_ldmatrix_gives_each_lane_its_elements, {"count": 4, "transposed": False}),
    "ldmatrix.trans": (tensor_core.test_ldmatrix_gives_each_lane_its_elements, {"count": 2, "transposed": True}),
    "cp.async 4": (tensor_core.test_cp_async_fills_with_zeros_what_does_not_exist, {"bytes_": 4}),
    "cp.async 16": (tensor_core.test_cp_async_fills_with_zeros_what_does_not_exist, {"bytes_": 16}),
    "cp.async groups": (tensor_core.test_cp_async_groups_are_waited_for_in_order, {}),
    "votes": (warp.test_vote_match_or_reduction_disagrees_with_its_definition, {"values": "small", "masks": "uneven"}),
    "coordinates": (warp.test_thread_and_block_coordinates, {}),
    "pairs converted": (pairs.test_pairs_are_rounded_to_nearest_even, {"dtype": torch.float16}),
    "maxima of pairs": (pairs.test_maxima_of_pairs_keep_nan_and_prefer_positive_zero, {"dtype": torch.bfloat16}),
    "atomics": (warp.test_atomic_operation_loses_an_update, {}),
} | {
    f"mma {name}": (
        tensor_core.test_mma_multiplies_the_matrices_that_the_fragments_are,
        {"name": f"mma_{name}", "dtype": dtype, "rows": 1, "columns": 1},
    )
    for name, dtype in (("float16", torch.float16), ("bfloat16", torch.bfloat16), ("tf32", torch.float32))
} | {
    f"shuffle {width}": (
        warp.test_shuffle_reads_another_lane, {"dtype": torch.int32, "width": width, "masks": "whole"}
    )
    for width in (32, 8)
}  # fmt: skip


@pytest.mark.parametrize("spoil", [swap_lanes, lose_the_last], ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("case", CASES)
def test_a_slightly_wrong_result_is_noticed(run, case, spoil):
    test, options = CASES[case]
    test(run, **options)
    with pytest.raises(AssertionError):
        test(Wrong(run, spoil), **options)


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        (tensor_core.test_tf32_drops_the_low_bits_of_what_was_not_rounded, 1.0),
        (tensor_core.test_rounding_to_tf32_is_to_nearest_ties_away, 1 + 2**-10),
    ],
    ids=["mma's inputs", "rounding"],
)
def test_low_bits_that_tf32_does_not_have_are_noticed(run, test, expected):
    """Results as they would be if TF32 had float32's bits: kept where the hardware drops or rounds them."""

    def keep(result: torch.Tensor) -> torch.Tensor:
        return torch.where(result == expected, 1 + 2**-11, result)

    test(run)
    with pytest.raises(AssertionError):
        test(Wrong(run, keep))


@pytest.mark.parametrize("threads", [1, 96])
def test_a_wrong_count_at_a_barrier_is_noticed(run, threads):
    warp.test_counting_barrier_counts_other_threads_than_those_of_the_block(run, threads)
    with pytest.raises(AssertionError):
        warp.test_counting_barrier_counts_other_threads_than_those_of_the_block(Wrong(run, lose_the_last), threads)


@pytest.mark.parametrize("capability", [80, 90])
def test_the_same_probes_compile_for_a_gpu(tmp_path, capability):
    if shutil.which("nvcc") is None and "CUDA_HOME" not in os.environ:
        pytest.skip("no nvcc here")
    library = DeviceProbe(build.build_for_device(tmp_path, capability))
    with pytest.raises(AssertionError, match=r"no_such_probe .*there is no probe of that name"):
        library("no_such_probe")
