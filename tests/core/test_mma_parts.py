"""Operands that are turned to channels-last in parts: all at once would exceed the workspace, or leave the cache."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from fastconv import emulator
from tests.core.mma_support import Case, assert_exact

NCHW = {"x_last": False, "w_last": False, "y_last": False}
PADDED = {"padding": (1, 1, 1, 1), "bias": True}
# The workspace is twice what a few of the images take.
CASES = {
    "fprop": Case(
        "fprop",
        torch.float16,
        (7, 20, 9, 8),
        (24, 20, 3, 3),
        residual=True,
        most_workspace_bytes=40_000,
        **PADDED,
        **NCHW,
    ),
    "fprop, groups": Case(
        "fprop",
        torch.float32,
        (5, 16, 9, 8),
        (12, 8, 3, 3),
        groups=2,
        activation="relu",
        most_workspace_bytes=40_000,
        **NCHW,
    ),
    "dgrad": Case(
        "dgrad",
        torch.bfloat16,
        (7, 24, 9, 8),
        (20, 24, 3, 3),
        stride=(2, 1),
        most_workspace_bytes=24_000,
        **PADDED,
        **NCHW,
    ),
    "wgrad": Case("wgrad", torch.float16, (7, 12, 9, 8), (10, 12, 3, 3), most_workspace_bytes=60_000, **PADDED, **NCHW),
    "wgrad, one operand": Case(
        "wgrad",
        torch.float32,
        (7, 8, 9, 8),
        (8, 8, 2, 2),
        bias=True,
        allow_tf32=True,
        x_last=False,
        most_workspace_bytes=30_000,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_parts_are_exact_and_within_the_limit(name: str) -> None:
    case = CASES[name]
    legal = [one for one in case.candidates() if not one.reason]
    assert legal, [one.reason for one in case.candidates()]
    with emulator.check(seed=3):
        for candidate in [legal[0], legal[-1], *[one for one in legal if "_k" in one.config][:1]]:
            assert candidate.details["parts"] > 1
            assert candidate.details["workspace_bytes"] <= case.most_workspace_bytes
            assert_exact(case, candidate.config)


@pytest.mark.parametrize("conv_pass", ["fprop", "dgrad", "wgrad"])
def test_large_nchw_problems_keep_tensor_cores(conv_pass: str) -> None:
    """2 GB operands of a first U-Net layer at batch 96, far beyond the 256 MiB of workspace."""
    case = Case(
        conv_pass,
        torch.bfloat16,
        (96, 64, 570, 570),
        (64, 64, 3, 3),
        x_last=False,
        w_last=False,
        y_last=False,
        index_bits=64,
    )
    legal = [one for one in case.candidates() if not one.reason]
    assert legal
    for candidate in legal:
        assert candidate.details["parts"] > 1
        assert candidate.details["workspace_bytes"] <= 256 << 20


def test_an_image_that_is_too_large_alone_is_rejected_in_one_line() -> None:
    case = Case("fprop", torch.float16, (1, 64, 1200, 1200), (8, 64, 3, 3), x_last=False)
    assert {one.reason for one in case.candidates()} == {
        "turning an image to channels-last would take more than the 256 MiB of workspace that there may be"
    }


@pytest.mark.parametrize("name", ["fprop", "fprop, groups", "dgrad"])
def test_parts_equal_the_whole_batch_bit_by_bit(name: str) -> None:
    case = CASES[name]
    whole = dataclasses.replace(case, most_workspace_bytes=256 << 20)
    for candidate in [one for one in case.candidates() if not one.reason][:3]:
        tensors = case.tensors(seed=1, kind="normal")
        parts, at_once = case.run(candidate.config, tensors), whole.run(candidate.config, tensors)
        assert {name: torch.equal(parts[name], at_once[name]) for name in parts} == dict.fromkeys(parts, True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_of_parts_repeat_bit_by_bit_and_take_no_more_workspace(dtype: torch.dtype) -> None:
    case = dataclasses.replace(CASES["wgrad"], x=(16, 12, 9, 8), dtype=dtype, most_workspace_bytes=80_000)
    candidate = next(one for one in case.candidates() if not one.reason and "_k" in one.config)
    assert candidate.details["parts"] > 1
    tensors = case.tensors(seed=1, kind="normal")
    first, second = case.run(candidate.config, tensors), case.run(candidate.config, tensors)
    assert all(torch.equal(first[name], second[name]) for name in first)
    more = dataclasses.replace(case, x=(64, *case.x[1:]))
    many = next(one for one in more.candidates() if one.config == candidate.config)
    assert many.details["parts"] == 4 * candidate.details["parts"]
    assert many.details["workspace_bytes"] == candidate.details["workspace_bytes"]


DEVICES = {"A100": {"capability": 80, "multiprocessors": 108}, "H100": {"capability": 90, "multiprocessors": 132}}


def large(conv_pass: str, dtype: torch.dtype, gpu: str, batch: int = 64, **rest: object) -> Case:
    """1x1 of 256 to 256 channels, 56x56, in NCHW: as many bytes are read as written."""
    sizes = {"x": (batch, 256, 56, 56), "w": (256, 256, 1, 1)}
    return Case(conv_pass, dtype, **sizes, allow_tf32=True, **NCHW, **DEVICES[gpu], **rest)


def chosen(case: Case) -> dict[str, float]:
    return next(one for one in case.candidates() if not one.reason).details


@pytest.mark.parametrize("gpu", DEVICES)
@pytest.mark.parametrize("conv_pass", ["fprop", "dgrad", "wgrad"])
def test_parts_of_a_batch_limited_by_memory_stay_in_the_cache(conv_pass: str, gpu: str) -> None:
    case = large(conv_pass, torch.bfloat16, gpu)
    cache = {"A100": 40e6, "H100": 50e6}[gpu]
    of_image = 256 * 56 * 56 * 2
    details = chosen(case)
    images = -(-64 // details["parts"])
    # What is converted, and beside it the output, or in wgrad the other operand.
    assert 2 * images * of_image <= 0.75 * cache < 4 * images * of_image
    assert details["workspace_bytes"] < 0.75 * cache


@pytest.mark.parametrize("conv_pass", ["fprop", "dgrad", "wgrad"])
def test_the_size_of_the_cache_is_what_parts_go_by(conv_pass: str) -> None:
    parts = {
        megabytes: chosen(large(conv_pass, torch.bfloat16, "A100", batch=32, l2_bytes=megabytes << 20))["parts"]
        for megabytes in (20, 40, 80, 1000)
    }
    assert parts[40] > parts[80] > parts[1000] == 1
    # Parts that are too small to be worth their launches are none.
    assert parts[20] == 1 or parts[20] > parts[40]


def test_small_batches_and_layers_limited_by_tensor_cores_are_done_at_once() -> None:
    assert chosen(large("fprop", torch.bfloat16, "H100", batch=4))["parts"] == 1
    dense = Case("fprop", torch.bfloat16, (256, 256, 14, 14), (256, 256, 3, 3), padding=(1, 1, 1, 1), **NCHW)
    assert chosen(dense)["parts"] == 1


def test_what_stays_in_the_cache_is_predicted_to_take_less_time() -> None:
    small, none = (chosen(large("fprop", torch.float32, "A100", l2_bytes=bytes_)) for bytes_ in (40 << 20, 1))
    assert small["parts"] > none["parts"]
    assert small["predicted_seconds"] < none["predicted_seconds"]
