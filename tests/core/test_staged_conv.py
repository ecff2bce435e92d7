"""Stems (1 to 4 channels) and groups of few channels on tensor cores, against float64, with the emulator's checks on and
threads in random order."""

from __future__ import annotations

import dataclasses
import math
import random

import pytest
import torch

from fastconv import emulator
from tests.core.family_support import FamilyCase, assert_same_with_a_residual_of_zeros
from tests.core.mma_support import assert_exact

F16, BF16, F32 = torch.float16, torch.bfloat16, torch.float32


def stem(
    dtype: torch.dtype, x: tuple[int, ...], w: tuple[int, ...], conv_pass: str = "fprop", **rest: object
) -> FamilyCase:
    return FamilyCase(conv_pass, dtype, x, w, family="stem", **rest)


def grouped(conv_pass: str, dtype: torch.dtype, x: tuple[int, ...], w: tuple[int, ...], **rest: object) -> FamilyCase:
    return FamilyCase(conv_pass, dtype, x, w, family="grouped", **rest)


SAME = (1, 1, 1, 1)
STEMS = {
    "7x7 s2 of three channels": stem(
        F16, (2, 3, 17, 19), (16, 3, 7, 7), stride=(2, 2), padding=(3, 3, 3, 3), bias=True, activation="relu"
    ),
    "more filters than a product has": stem(BF16, (1, 3, 13, 12), (70, 3, 3, 3), stride=(2, 2), padding=SAME),
    "3x3 s1 of three channels: pixels get a fourth place": stem(
        F16, (2, 3, 17, 19), (70, 3, 3, 3), padding=SAME, bias=True, residual=True
    ),
    "3x3 s1, NCHW": stem(F16, (2, 3, 9, 24), (33, 3, 3, 3), padding=SAME, residual=True, x_last=False, y_last=False),
    "y has whole chunks of NCHW pixels": stem(
        BF16, (2, 3, 16, 32), (8, 3, 3, 3), stride=(2, 2), padding=SAME, x_last=False, y_last=False, bias=True
    ),
    "one channel": stem(F32, (1, 1, 17, 19), (16, 1, 3, 3), stride=(2, 2), padding=SAME, bias=True, residual=True),
    "one channel, 5x5 s1": stem(F16, (2, 1, 12, 13), (8, 1, 5, 5), padding=(2, 2, 2, 2)),
    "two channels": stem(BF16, (2, 2, 11, 12), (24, 2, 3, 5), stride=(1, 2), padding=(1, 1, 2, 2)),
    "patches of 4x4": stem(F32, (1, 4, 16, 19), (40, 4, 4, 4), stride=(4, 4), allow_tf32=True),
    "patches of 4x4, three channels": stem(F16, (2, 3, 16, 20), (96, 3, 4, 4), stride=(4, 4), bias=True),
    "patches of 8x8": stem(F16, (1, 3, 32, 48), (64, 3, 8, 8), stride=(8, 8)),
    "dilation": stem(F16, (1, 3, 15, 14), (8, 3, 3, 3), dilation=(2, 3), padding=(2, 2, 3, 3)),
    "stride larger than the filter": stem(F16, (1, 3, 20, 21), (8, 3, 2, 2), stride=(5, 3)),
    "uneven padding, split TF32": stem(
        F32, (2, 3, 9, 11), (16, 3, 5, 3), stride=(2, 1), padding=(2, 1, 0, 2), bias=True
    ),
    "a single column": stem(F16, (2, 3, 9, 1), (8, 3, 3, 3), padding=SAME),
    "a single column, NCHW": stem(BF16, (2, 3, 9, 1), (8, 3, 3, 3), padding=SAME, x_last=False),
    "padding beyond the filter": stem(F16, (1, 3, 4, 5), (8, 3, 2, 2), padding=(4, 3, 5, 2)),
}
GROUPED = {
    "groups of 4": grouped("fprop", F16, (1, 16, 10, 11), (16, 4, 3, 3), padding=SAME, groups=4, bias=True),
    "groups of 4, TF32": grouped("fprop", F32, (2, 16, 7, 9), (16, 4, 3, 3), padding=SAME, groups=4, allow_tf32=True),
    "groups of 8, s2, y is NCHW": grouped(
        "fprop", BF16, (1, 16, 10, 11), (16, 8, 3, 3), padding=SAME, stride=(2, 2), groups=2, bias=True, y_last=False
    ),
    "groups of 16": grouped("fprop", F16, (1, 80, 7, 9), (80, 16, 3, 3), padding=SAME, groups=5, activation="relu"),
    "groups of 32": grouped("fprop", F32, (1, 64, 6, 9), (64, 32, 3, 3), padding=SAME, groups=2, residual=True),
    "1x1 s2": grouped("fprop", F16, (1, 64, 9, 11), (64, 16, 1, 1), groups=4, stride=(2, 2), residual=True),
    "groups of 3: units end inside a chunk": grouped("fprop", F16, (2, 9, 6, 7), (9, 3, 3, 3), padding=SAME, groups=3),
    "groups of 6 to 5": grouped("fprop", F16, (1, 30, 6, 9), (25, 6, 3, 2), padding=(1, 0, 1, 1), groups=5, bias=True),
    "groups of 4 to 12": grouped("fprop", BF16, (1, 20, 8, 8), (60, 4, 3, 3), groups=5, dilation=(2, 1)),
    "all NCHW": grouped(
        "fprop", F16, (2, 24, 5, 16), (24, 8, 3, 3), padding=SAME, groups=3, x_last=False, w_last=False, y_last=False
    ),
    "more groups than a slab": grouped("fprop", F16, (1, 72, 5, 6), (72, 8, 3, 3), padding=SAME, groups=9),
    "dgrad, s2": grouped(
        "dgrad", F16, (1, 64, 9, 11), (32, 16, 3, 3), groups=4, stride=(2, 2), padding=SAME, bias=True
    ),
    "dgrad, NCHW": grouped("dgrad", F32, (1, 16, 9, 11), (16, 4, 3, 3), groups=4, padding=(1, 0, 1, 2), x_last=False),
    "dgrad, groups of 4": grouped("dgrad", BF16, (2, 32, 8, 7), (32, 4, 3, 3), groups=8, padding=SAME),
    "dgrad, residues without taps": grouped(
        "dgrad", F16, (1, 16, 9, 10), (16, 8, 1, 2), groups=2, stride=(3, 2), bias=True
    ),
    "dgrad, stride and dilation": grouped(
        "dgrad", F16, (1, 16, 13, 14), (16, 4, 3, 3), groups=4, stride=(2, 3), dilation=(2, 2), padding=(2, 2, 2, 2)
    ),
}
FEW = {"bias": True, "residual": False, "activation": "identity"}
WGRADS = (
    {
        f"wgrad, {name}": dataclasses.replace(STEMS[name], conv_pass="wgrad", **FEW)
        for name in STEMS
        if name != "patches of 8x8"
    }
    | {
        f"wgrad, {name}": dataclasses.replace(GROUPED[name], conv_pass="wgrad", **FEW)
        for name in (
            "groups of 4",
            "groups of 4, TF32",
            "groups of 8, s2, y is NCHW",
            "groups of 16",
            "1x1 s2",
            "all NCHW",
        )
    }
    | {
        "wgrad, groups of 32": grouped("wgrad", F16, (1, 96, 6, 7), (96, 32, 3, 3), padding=SAME, groups=3, bias=True),
        "wgrad, groups of 8 in split TF32": grouped("wgrad", F32, (1, 40, 9, 5), (40, 8, 3, 3), padding=SAME, groups=5),
        "wgrad, groups of 4 to 8": grouped(
            "wgrad", BF16, (1, 12, 9, 9), (24, 4, 3, 3), groups=3, stride=(2, 1), bias=True
        ),
        "wgrad, many filters and terms": stem(F16, (1, 4, 20, 21), (72, 4, 9, 7), conv_pass="wgrad", bias=True),
        "wgrad, x is NCHW, groups": grouped("wgrad", F16, (2, 32, 6, 8), (16, 8, 1, 1), groups=4, x_last=False),
    }
)
CASES = STEMS | GROUPED | WGRADS


@pytest.mark.parametrize("name", CASES)
def test_every_configuration_is_exact_and_free_of_races(name: str) -> None:
    # One multiprocessor: blocks go through several tiles each.
    case = dataclasses.replace(CASES[name], multiprocessors=1)
    configs = case.configs()
    assert configs, case.candidates()[0].reason
    for config in configs if len(configs) < 5 or case.conv_pass != "wgrad" else configs[::2]:
        with emulator.check(seed=len(name)):
            assert_exact(case, config)


@pytest.mark.parametrize(
    "name",
    [
        "7x7 s2 of three channels",
        "3x3 s1, NCHW",
        "groups of 4",
        "dgrad, s2",
        "wgrad, groups of 8, s2, y is NCHW",
        "wgrad, one channel",
        "wgrad, groups of 16",
    ],
)
@pytest.mark.parametrize("misaligned", ["x", "w", "y", "residual"])
def test_tensors_at_odd_addresses_and_64_bit_indices(name: str, misaligned: str) -> None:
    case = dataclasses.replace(
        CASES[name], index_bits=64, residual=CASES[name].conv_pass == "fprop", activation="identity"
    )
    tensors = case.tensors(3)
    if misaligned not in tensors:
        pytest.skip("only fprop adds a residual")
    tensor = tensors[misaligned]
    moved = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)[1:].as_strided(tensor.shape, tensor.stride(), 1)
    moved.copy_(tensor)
    tensors[misaligned] = moved
    expected = case.reference(tensors)
    with emulator.check(seed=1):
        for result_name, result in case.run(case.configs()[0], tensors).items():
            assert torch.equal(result.double(), expected[result_name])


def random_case(seed: int) -> FamilyCase:
    dice = random.Random(seed)
    is_stem = dice.random() < 0.4
    conv_pass = dice.choice(("fprop", "wgrad")) if is_stem else dice.choice(("fprop", "dgrad", "wgrad"))
    groups = 1 if is_stem else dice.choice((2, 3, 4, 7, 16))
    channels = dice.choice((1, 2, 3, 3, 4)) if is_stem else dice.choice((2, 3, 4, 4, 6, 8, 12, 16))
    filters = dice.choice((1, 5, 16, 40)) if is_stem else dice.choice((2, 3, 4, 4, 8, 16))
    kernel = (
        dice.choice(((1, 1), (2, 3), (3, 3), (3, 3), (5, 5), (7, 7)))
        if is_stem
        else dice.choice(((1, 1), (3, 3), (2, 3)))
    )
    dilation = (dice.choice((1, 1, 2)), dice.choice((1, 1, 2)))
    size = tuple(dice.choice((7, 8, 11, 16, 19)) + dilation[i] * (kernel[i] - 1) for i in (0, 1))
    return FamilyCase(
        conv_pass,
        dice.choice((F16, BF16, F32)),
        (dice.choice((1, 2)), channels * groups, *size),
        (filters * groups, channels, *kernel),
        stride=(dice.choice((1, 2, 3)), dice.choice((1, 2, 4))),
        padding=tuple(dice.randrange(kernel[i // 2] + 1) for i in range(4)),
        dilation=dilation,
        groups=groups,
        bias=dice.random() < 0.5,
        residual=conv_pass == "fprop" and dice.random() < 0.3,
        x_last=dice.random() < 0.5,
        w_last=dice.random() < 0.5,
        y_last=dice.random() < 0.5,
        allow_tf32=dice.random() < 0.5,
        multiprocessors=dice.choice((1, 2, 108)),
        index_bits=dice.choice((32, 64)),
        family="stem" if is_stem else "grouped",
    )


@pytest.mark.parametrize("seed", range(36))
def test_random_problems_are_exact(seed: int) -> None:
    case = random_case(seed)
    configs = case.configs()
    if not configs:  # few shapes do not fit a unit, or shared memory
        reason = case.candidates()[0].reason
        assert "accepted are" in reason or "bytes of shared memory" in reason, case
        return
    with emulator.check(seed):
        assert_exact(case, configs[seed % len(configs)], seed)


PLAIN = {
    "7x7 s2, channels_last": stem(F16, (2, 3, 33, 35), (64, 3, 7, 7), stride=(2, 2), padding=(3, 3, 3, 3)),
    "7x7 s2, NCHW": stem(
        F16, (2, 3, 33, 48), (40, 3, 7, 7), stride=(2, 2), padding=(3, 3, 3, 3), x_last=False, y_last=False
    ),
    "3x3 of more filters than a pass": stem(F16, (1, 3, 11, 13), (96, 3, 3, 3), padding=SAME),
    "groups of 4, channels_last": grouped("fprop", F16, (1, 80, 9, 17), (80, 4, 3, 3), padding=SAME, groups=20),
    "groups of 4 to 12, NCHW": grouped(
        "fprop", F16, (1, 20, 9, 24), (60, 4, 3, 3), padding=SAME, groups=5, y_last=False
    ),
    "groups of 8, NCHW": grouped("fprop", F16, (1, 48, 9, 24), (48, 8, 3, 3), padding=SAME, groups=6, y_last=False),
    "groups of 32, channels_last": grouped("fprop", F16, (1, 96, 9, 17), (96, 32, 3, 3), padding=SAME, groups=3),
}


@pytest.mark.parametrize("activation", ["identity", "relu"])
@pytest.mark.parametrize(("dtype", "allow_tf32"), [(F16, False), (BF16, False), (F32, True), (F32, False)])
@pytest.mark.parametrize("name", PLAIN)
def test_outputs_are_the_same_with_a_residual_of_zeros(
    name: str, dtype: torch.dtype, allow_tf32: bool, activation: str
) -> None:
    """Without a residual they take a shorter way; infinities and NaN are repaired on both."""
    plain = dataclasses.replace(
        PLAIN[name], dtype=dtype, allow_tf32=allow_tf32, activation=activation, bias=True, multiprocessors=1
    )
    assert_same_with_a_residual_of_zeros(plain, plain.configs()[::2])


@pytest.mark.parametrize(
    ("dtype", "allow_tf32", "roundings"),
    [(F16, False, 2**-11), (BF16, False, 2**-8), (F32, True, 2**-11), (F32, False, 2**-21)],
)
@pytest.mark.parametrize(
    "name",
    [
        "7x7 s2 of three channels",
        "groups of 8, s2, y is NCHW",
        "dgrad, groups of 4",
        "wgrad, 7x7 s2 of three channels",
        "wgrad, groups of 8, s2, y is NCHW",
    ],
)
def test_error_is_that_of_the_precision(name: str, dtype: torch.dtype, allow_tf32: bool, roundings: float) -> None:
    case = dataclasses.replace(CASES[name], dtype=dtype, allow_tf32=allow_tf32, bias=False)
    tensors = case.tensors(kind="normal")
    (expected,) = case.reference(tensors).values()
    for config in case.configs()[:2]:
        (result,) = case.run(config, tensors).values()
        error = float((result.double() - expected).norm() / expected.norm())
        assert error < roundings, config
        assert not allow_tf32 or error > 2**-16, "this is not TF32"


@pytest.mark.parametrize(
    "name", ["groups of 4", "groups of 4, TF32", "groups of 16", "dgrad, groups of 4", "one channel"]
)
def test_infinities_and_nan_stay_in_their_group(name: str) -> None:
    case = dataclasses.replace(CASES[name], activation="identity", padding=(0, 0, 0, 0), bias=False, residual=False)
    tensors = case.tensors(kind="normal")
    source = tensors["y" if case.conv_pass == "dgrad" else "x"]
    source[0, 0, 2, 3] = math.inf
    source[0, -1, 4, 4] = math.nan
    (expected,) = case.reference(tensors).values()
    (result,) = case.run(case.configs()[0], tensors).values()
    assert torch.equal(result.isnan(), expected.isnan())
    assert torch.equal(result.isposinf(), expected.isposinf())
    assert torch.equal(result.isneginf(), expected.isneginf())
    assert 0 < int(result.isfinite().sum()) < result.numel()


@pytest.mark.parametrize("name", ["wgrad, groups of 4", "wgrad, 7x7 s2 of three channels"])
def test_splits_are_added_in_the_same_order_every_time(name: str) -> None:
    case = dataclasses.replace(CASES[name], multiprocessors=2)
    tensors = case.tensors(kind="normal")
    config = case.configs()[0]
    assert case.candidates()[0].details["splits"] > 1
    first = case.run(config, tensors)
    for seed in range(2):
        with emulator.check(seed):
            again = case.run(config, tensors)
        assert all(torch.equal(first[output], again[output]) for output in first)


REJECTED = {
    "wgrad of 25 taps": (
        grouped("wgrad", F16, (1, 16, 8, 8), (16, 8, 5, 5), groups=2),
        "25 taps; accepted are 1 and 9",
    ),
    "wgrad of groups of 3 filters": (
        grouped("wgrad", F16, (1, 16, 8, 8), (6, 8, 3, 3), groups=2),
        "groups of 3 filters",
    ),
    "wgrad of groups of 64": (grouped("wgrad", F16, (1, 128, 8, 8), (64, 64, 3, 3), groups=2), "have 64 channels"),
    "five channels": (stem(F16, (1, 5, 8, 8), (8, 5, 3, 3)), "5 input channels; accepted are 1 to 4"),
    "an old GPU": (stem(F16, (1, 3, 8, 8), (8, 3, 3, 3), capability=75), "needs compute capability 8.0"),
    "a stem in groups": (stem(F16, (1, 4, 8, 8), (8, 2, 3, 3), groups=2), "grouped"),
    "weights larger than shared memory": (
        stem(F16, (1, 4, 64, 64), (64, 4, 32, 32), stride=(32, 32)),
        "bytes of shared memory, a block has",
    ),
    "a dilation whose image is larger than 32 bits count": (
        grouped(
            "fprop", F16, (1, 8, 4, 4), (16, 4, 3, 2), padding=(6136, 6136, 34187, 1), dilation=(6136, 34187), groups=2
        ),
        "bytes of shared memory, a block has",
    ),
    "a stride of a million": (
        stem(F16, (1, 3, 4, 4), (8, 3, 2, 3), stride=(1 << 20, 1 << 20), padding=(1, 1, 2, 2)),
        "spans 1048576; accepted are up to 65536",
    ),
    "depthwise": (grouped("fprop", F16, (1, 16, 8, 8), (16, 1, 3, 3), groups=16), "groups of 1 reduced channel"),
    "no groups": (grouped("fprop", F16, (1, 16, 8, 8), (16, 16, 3, 3)), "not grouped"),
    "wide groups": (grouped("fprop", F16, (1, 256, 8, 8), (16, 128, 3, 3), groups=2), "groups of 128 reduced channels"),
    "many filters": (grouped("fprop", F16, (1, 8, 8, 8), (64, 4, 3, 3), groups=2), "have 64 outputs"),
}


def test_image_rows_of_more_than_64_kib_are_rejected() -> None:
    """Places in them are told in 16 bits."""
    padding, dilation = (0, 0, 148, 0), (1, 148)
    case = stem(F16, (2, 3, 4, 4), (8, 3, 1, 2), "wgrad", stride=(8, 72), padding=padding, dilation=dilation)
    reasons = {one.config: one.reason for one in case.candidates()}
    assert reasons["1x128"].endswith("bytes; accepted are up to 65536")
    assert reasons["2x64"] == ""
    assert_exact(case, "2x64")


@pytest.mark.parametrize("conv_pass", ["fprop", "wgrad"])
@pytest.mark.parametrize(
    ("image", "dilation"), [((500, 50000), (1, 20000)), ((6050, 6050), (3000, 3000)), ((200, 60000), (90, 29000))]
)
def test_images_that_no_block_has_room_for_are_not_laid_out(
    conv_pass: str, image: tuple[int, int], dilation: tuple[int, int]
) -> None:
    """They had to have an order of words before their size was judged: candidates took minutes, or ran out of memory."""
    case = FamilyCase(conv_pass, F16, (1, 3, *image), (64, 3, 3, 3), dilation=dilation, family="stem")
    for planes in (False, True):
        for one in dataclasses.replace(case, x_last=not planes, y_last=not planes).candidates():
            assert "bytes of shared memory, a block has" in one.reason


@pytest.mark.parametrize("name", REJECTED)
def test_what_no_configuration_takes_is_rejected_in_one_line(name: str) -> None:
    case, reason = REJECTED[name]
    candidates = case.candidates()
    assert candidates
    assert all(reason in one.reason and "\n" not in one.reason for one in candidates)


def test_groups_need_few_blocks() -> None:
    """ResNeXt-50 32x4d: blocks stay, and each goes through tiles of a slab of 16 groups."""
    case = grouped("fprop", BF16, (32, 128, 56, 56), (128, 4, 3, 3), padding=SAME, groups=32)
    details = case.candidates()[0].details
    assert details["slabs"] == 2
    assert details["grid"] <= 3 * case.multiprocessors
    assert details["useful_percent"] >= 45
