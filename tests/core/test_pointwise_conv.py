"""1x1 convolutions of NCHW tensors in place, and patches as whole chunks, against float64, with the emulator's checks on
and threads in random order."""

from __future__ import annotations

import dataclasses
import itertools
import random

import pytest
import torch

from fastconv import emulator
from tests.core.family_support import FamilyCase, assert_same_with_a_residual_of_zeros
from tests.core.mma_support import assert_exact

F16, BF16, F32 = torch.float16, torch.bfloat16, torch.float32
PASSES = ["fprop", "dgrad", "wgrad"]


def pointwise(conv_pass: str, dtype: torch.dtype, x: tuple[int, ...], filters: int, **rest: object) -> FamilyCase:
    layouts = {"x_last": False, "w_last": False, "y_last": False}
    return FamilyCase(conv_pass, dtype, x, (filters, x[1], 1, 1), family="pointwise", **(layouts | rest))


def patch(conv_pass: str, dtype: torch.dtype, x: tuple[int, ...], w: tuple[int, ...], **rest: object) -> FamilyCase:
    return FamilyCase(conv_pass, dtype, x, w, family="patch", stride=w[2:], **rest)


NCHW = {"x_last": False, "w_last": False, "y_last": False}
CASES = {
    f"{name} {conv_pass}": dataclasses.replace(case, conv_pass=conv_pass, residual=residual and conv_pass == "fprop")
    for conv_pass in PASSES
    for name, case, residual in [
        ("whole chunks", pointwise("fprop", F16, (3, 40, 4, 12), 72, bias=True), True),
        ("pieces of 8 bytes", pointwise("fprop", BF16, (2, 24, 14, 14), 16, bias=True), True),
        ("odd planes and channels", pointwise("fprop", F16, (3, 13, 7, 7), 21, bias=True), True),
        ("one pixel an image", pointwise("fprop", F16, (5, 24, 1, 1), 16), False),
        ("whole chunks of float32", pointwise("fprop", F32, (3, 40, 4, 6), 72, bias=True), True),
        ("whole chunks in TF32", pointwise("fprop", F32, (3, 20, 4, 12), 72, bias=True, allow_tf32=True), True),
        ("odd planes of float32", pointwise("fprop", F32, (3, 13, 7, 7), 21, bias=True), True),
        ("pieces of 8 bytes in TF32", pointwise("fprop", F32, (2, 24, 3, 14), 18, bias=True, allow_tf32=True), False),
    ]
} | {
    "patches of 16x16": patch("fprop", F16, (2, 3, 32, 48), (24, 3, 16, 16), bias=True),
    "patches of 16x16 dgrad": patch("dgrad", BF16, (2, 3, 32, 48), (24, 3, 16, 16)),
    "patches of 16x16 wgrad": patch("wgrad", F16, (2, 3, 32, 48), (24, 3, 16, 16), bias=True),
    "patches of 16x16, NCHW": patch("fprop", BF16, (2, 3, 32, 48), (24, 3, 16, 16), residual=True, **NCHW),
    "patches of 16x16, NCHW wgrad": patch("wgrad", F16, (2, 3, 32, 48), (24, 3, 16, 16), bias=True, **NCHW),
    "patches of 4x4 in float32": patch("fprop", F32, (2, 3, 12, 16), (24, 3, 4, 4), bias=True, activation="relu"),
    "patches of 2x4 in TF32": patch("wgrad", F32, (2, 5, 8, 16), (24, 5, 2, 4), allow_tf32=True, **NCHW),
}


@pytest.mark.parametrize("name", CASES)
def test_every_configuration_is_exact_and_free_of_races(name: str) -> None:
    case = CASES[name]
    configs = case.configs()
    assert configs, case.candidates()[0].reason
    if case.family == "patch":  # the kernels are those of mma_fprop, mma_dgrad and mma_wgrad
        configs = configs[:2] + configs[-1:]
    for config in configs:
        with emulator.check(seed=len(name)):
            assert_exact(case, config)


@pytest.mark.parametrize("conv_pass", PASSES)
@pytest.mark.parametrize("misaligned", ["x", "w", "y", "residual"])
@pytest.mark.parametrize("dtype", [F16, F32])
def test_tensors_at_odd_addresses_and_64_bit_indices(conv_pass: str, misaligned: str, dtype: torch.dtype) -> None:
    case = pointwise(conv_pass, dtype, (2, 16, 4, 8), 24, residual=conv_pass == "fprop", index_bits=64)
    tensors = case.tensors()
    if misaligned not in tensors:
        pytest.skip("only fprop adds a residual")
    tensor = tensors[misaligned]
    moved = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)[1:].as_strided(tensor.shape, tensor.stride(), 1)
    moved.copy_(tensor)
    tensors[misaligned] = moved
    expected = case.reference(tensors)
    with emulator.check(seed=1):
        for name, result in case.run(case.configs()[0], tensors).items():
            assert torch.equal(result.double(), expected[name])


@pytest.mark.parametrize("activation", ["identity", "relu"])
@pytest.mark.parametrize(("dtype", "allow_tf32"), [(F16, False), (BF16, False), (F32, True), (F32, False)])
def test_outputs_are_the_same_with_a_residual_of_zeros(dtype: torch.dtype, allow_tf32: bool, activation: str) -> None:
    """Without a residual they take a shorter way; in split TF32, warps with sums to be repaired do not."""
    plain = pointwise("fprop", dtype, (3, 40, 8, 25), 150, allow_tf32=allow_tf32, activation=activation, bias=True)
    assert_same_with_a_residual_of_zeros(plain, plain.configs())


@pytest.mark.parametrize("seed", range(24))
def test_random_problems_are_exact(seed: int) -> None:
    dice = random.Random(seed)
    conv_pass = dice.choice(PASSES)
    dtype = dice.choice((F16, BF16, F32))
    if dice.random() < 0.7:
        size = (dice.choice((1, 4, 7, 8, 13)), dice.choice((1, 6, 8, 16, 11)))
        case = pointwise(
            conv_pass, dtype, (dice.choice((1, 2, 5)), dice.choice((1, 8, 20, 72)), *size), dice.choice((1, 8, 9, 80))
        )
    else:
        kernel = (dice.choice((2, 4, 8)), dice.choice((8, 16)))
        size = (kernel[0] * dice.choice((1, 2)), kernel[1] * dice.choice((1, 3)))
        layout = {} if conv_pass == "dgrad" or dice.random() < 0.5 else NCHW
        channels = dice.choice((1, 2, 3, 4))
        case = patch(conv_pass, dtype, (2, channels, *size), (dice.choice((8, 20)), channels, *kernel), **layout)
    case = dataclasses.replace(
        case,
        bias=dice.random() < 0.5 and (case.family, conv_pass) != ("patch", "dgrad"),
        residual=conv_pass == "fprop" and dice.random() < 0.5,
        allow_tf32=dtype == F32 and dice.random() < 0.5,
        index_bits=dice.choice((32, 64)),
    )
    configs = case.configs()
    assert configs, (case, case.candidates()[0].reason)
    with emulator.check(seed):
        assert_exact(case, configs[seed % len(configs)], seed)


@pytest.mark.parametrize("conv_pass", PASSES)
@pytest.mark.parametrize(
    ("dtype", "allow_tf32", "roundings"),
    [(F16, False, 2**-11), (BF16, False, 2**-8), (F32, True, 2**-10), (F32, False, 2**-22)],
)
def test_error_is_that_of_the_precision(conv_pass: str, dtype: torch.dtype, allow_tf32: bool, roundings: float) -> None:
    for case in (
        pointwise(conv_pass, dtype, (3, 72, 5, 8), 40, allow_tf32=allow_tf32),
        patch(conv_pass, dtype, (2, 3, 32, 16), (24, 3, 16, 16), allow_tf32=allow_tf32),
    ):
        tensors = case.tensors(kind="normal")
        (expected,) = case.reference(tensors).values()
        for config in case.configs()[:2]:
            (result,) = case.run(config, tensors).values()
            assert float((result.double() - expected).norm() / expected.norm()) < roundings, f"{case.kernel} {config}"


@pytest.mark.parametrize("conv_pass", PASSES)
@pytest.mark.parametrize(("tiny", "huge"), [(2.0**-120, 2.0**60), (2.0**-140, 2.0**124)])
def test_tiny_numbers_times_huge_ones_are_as_accurate_as_float32(conv_pass: str, tiny: float, huge: float) -> None:
    """Split in two, the tiny ones would lose their low parts."""
    case = pointwise(conv_pass, F32, (3, 24, 5, 6), 20, bias=conv_pass == "wgrad")
    tensors = case.tensors(kind="normal")
    scaled = {"fprop": ("x", "w"), "dgrad": ("y", "w"), "wgrad": ("y", "x")}[conv_pass]
    for name, scale in zip(scaled, (tiny, huge), strict=True):
        tensors[name] *= scale
    expected = case.reference(tensors)
    for config in case.configs():
        for name, result in case.run(config, tensors).items():
            error = (result.double() - expected[name]).abs().max()
            assert error <= expected[name].abs().max() * 2**-20 + 2**-149, f"{config} {name}"


def test_nothing_is_converted_and_nothing_written_twice() -> None:
    for conv_pass, dtype in itertools.product(("fprop", "dgrad"), (BF16, F32)):
        case = pointwise(conv_pass, dtype, (32, 256, 56, 56), 64)
        legal = [one for one in case.candidates() if not one.reason]
        assert legal
        assert all(one.details["workspace_bytes"] == 0 for one in legal)
        assert all(one.details["copy_bytes"] == 16 for one in legal)


def test_patches_are_predicted_alike_in_both_layouts() -> None:
    last = patch("fprop", BF16, (32, 3, 224, 224), (768, 3, 16, 16))
    planes = dataclasses.replace(last, **NCHW)
    seconds = [min(one.details["predicted_seconds"] for one in case.candidates()) for case in (last, planes)]
    assert seconds[0] == seconds[1]


REJECTED = {
    "3x3": (FamilyCase("fprop", F16, (1, 8, 8, 8), (8, 8, 3, 3), family="pointwise", **NCHW), "not a 1x1 filter"),
    "channels-last": (pointwise("fprop", F16, (1, 8, 8, 8), 8, x_last=True), "must be NCHW"),
    "a stride": (pointwise("fprop", F16, (1, 8, 8, 8), 8, stride=(2, 2)), "a stride"),
    "overlapping filters": (
        FamilyCase("fprop", F16, (1, 8, 9, 9), (8, 8, 3, 3), stride=(2, 2), family="patch"),
        "the stride is not the size of the filter",
    ),
    "pixels in no patch": (patch("fprop", F16, (1, 8, 9, 10), (8, 8, 2, 2)), "the filter does not divide x"),
    "dgrad with a bias": (patch("dgrad", F16, (1, 8, 8, 8), (8, 8, 2, 2), bias=True), "it would repeat within a patch"),
    "dgrad NCHW": (patch("dgrad", F16, (1, 3, 32, 32), (8, 3, 16, 16), **NCHW), "would overlap"),
    "narrow patches": (patch("fprop", F16, (1, 3, 8, 8), (8, 3, 4, 4)), "is not whole chunks"),
}


@pytest.mark.parametrize("name", REJECTED)
def test_what_no_configuration_takes_is_rejected_in_one_line(name: str) -> None:
    case, reason = REJECTED[name]
    candidates = case.candidates()
    assert candidates
    assert all(reason in one.reason and "\n" not in one.reason for one in candidates)
