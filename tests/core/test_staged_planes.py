"""Groups of few channels, and dy of stems, where rows of channels lie in planes (NCHW), wherever those lie: kernels turn them
to channels-last on the way to shared memory. Against float64, with the emulator's checks on and threads in random order."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch

from fastconv import emulator
from tests.core.family_support import FamilyCase

F16, BF16, F32 = torch.float16, torch.bfloat16, torch.float32
INPUTS = {"fprop": ("x",), "dgrad": ("y",), "wgrad": ("x", "y")}


def _part(shape: tuple[int, ...], dtype: torch.dtype, index: tuple[slice, ...]) -> torch.Tensor:
    """What the index takes of a larger tensor that holds NaN."""
    return torch.full(shape, float("nan"), dtype=dtype)[index]


def _at(offset: int) -> Callable[[torch.Tensor], torch.Tensor]:
    def make(like: torch.Tensor) -> torch.Tensor:
        memory = torch.full((like.numel() + offset,), float("nan"), dtype=like.dtype)
        return memory.as_strided(like.shape, like.stride(), offset)

    return make


ALL = slice(None)
#: Where a tensor of the same shape may lie.
PLACES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "as it is": torch.empty_like,
    "one element further": _at(1),
    "two elements further": _at(2),
    "four elements further": _at(4),
    "rows further apart": lambda t: _part((*t.shape[:3], t.shape[3] + 3), t.dtype, (ALL, ALL, ALL, slice(t.shape[3]))),
    "rows of whole chunks": lambda t: _part(
        (*t.shape[:3], t.shape[3] + -t.shape[3] % 8 + 8), t.dtype, (ALL, ALL, ALL, slice(t.shape[3]))
    ),
    "rows turned": lambda t: _part((*t.shape[:2], t.shape[3], t.shape[2]), t.dtype, ()).transpose(2, 3),
    "every other column": lambda t: _part(
        (*t.shape[:3], 2 * t.shape[3]), t.dtype, (ALL, ALL, ALL, slice(None, None, 2))
    ),
    "every other image": lambda t: _part((2 * t.shape[0], *t.shape[1:]), t.dtype, (slice(1, None, 2),)),
    "the last channels": lambda t: _part((t.shape[0], t.shape[1] + 5, *t.shape[2:]), t.dtype, (ALL, slice(5, None))),
}


def assert_exact_at(case: FamilyCase, config: str, places: dict[str, str], seed: int) -> None:
    tensors = case.tensors(seed)
    expected = case.reference(tensors)
    for name, place in places.items():
        tensors[name] = PLACES[place](tensors[name]).copy_(tensors[name])
    with emulator.check(seed):
        results = case.run(config, tensors)
    for name, result in results.items():
        assert torch.equal(result, expected[name].to(result.dtype)), (name, case, config, places, seed)


def grouped(conv_pass: str, dtype: torch.dtype, **rest: object) -> FamilyCase:
    sizes = {"x": (2, 24, 9, 21), "w": (24, 8, 3, 3), "padding": (1, 1, 1, 1), "groups": 3, "multiprocessors": 1} | rest
    layout = {"x_last": False, "y_last": False}
    return FamilyCase(conv_pass, dtype, family="grouped", allow_tf32=True, **layout, **sizes)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("dtype", [F16, F32])
@pytest.mark.parametrize("conv_pass", INPUTS)
def test_planes_are_read_where_they_lie(conv_pass: str, dtype: torch.dtype, place: str) -> None:
    case = grouped(conv_pass, dtype)
    for config in case.configs()[:2]:
        assert_exact_at(case, config, dict.fromkeys(INPUTS[conv_pass], place), seed=len(place))


@pytest.mark.parametrize("dtype", [F16, F32])
@pytest.mark.parametrize("width", [1, 2, 7, 8, 15, 16, 17, 31, 32, 40, 72])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_rows_of_any_width(dtype: torch.dtype, width: int, stride: int) -> None:
    """One block of 16 bytes of a row or many, side by side or in several rows; the last ones where there is no pixel."""
    case = grouped(
        "fprop", dtype, x=(1, 16, 5, width), w=(16, 8, 3, 3), groups=2, stride=(1, stride), padding=(1, 1, 1, 2)
    )
    for config in case.configs():
        assert_exact_at(case, config, {}, seed=width)


@pytest.mark.parametrize("place", ["one element further", "every other column", "the last channels"])
def test_dy_of_a_stem_lies_in_planes_too(place: str) -> None:
    case = FamilyCase(
        "wgrad",
        BF16,
        (2, 3, 17, 19),
        (16, 3, 7, 7),
        stride=(2, 2),
        padding=(3, 3, 3, 3),
        bias=True,
        y_last=False,
        multiprocessors=1,
        family="stem",
    )
    assert_exact_at(case, case.configs()[0], {"y": place}, seed=3)


def test_dy_that_is_one_number_everywhere() -> None:
    """As a sum gives it back: all strides are 0."""
    case = grouped("wgrad", F32)
    tensors = case.tensors(1)
    tensors["y"] = torch.tensor(2.0).expand(case.y)
    expected = case.reference(tensors)["w"]
    for config in case.configs()[:2]:
        assert torch.equal(case.run(config, tensors)["w"], expected.float())


def random_case(seed: int) -> FamilyCase:
    dice = random.Random(seed)
    conv_pass = dice.choice(("fprop", "dgrad", "wgrad"))
    inputs, outputs = dice.choice((2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)), dice.choice((2, 3, 4, 8, 16, 32))
    if conv_pass == "dgrad":
        inputs, outputs = outputs, inputs
    elif conv_pass == "wgrad":
        inputs, outputs = dice.choice((2, 4, 8, 16)), dice.choice((2, 4, 8, 16, 32, 64))
    groups = dice.choice((2, 3, 5, 8)) if inputs < 16 else 2
    kernel = dice.choice(((1, 1), (3, 3), (3, 3)) if conv_pass == "wgrad" else ((1, 1), (3, 3), (2, 3), (3, 5)))
    dilation = (dice.choice((1, 1, 2)), dice.choice((1, 1, 2, 3)))
    size = tuple(dice.choice((5, 7, 8, 14, 16, 24, 37)) + dilation[i] * (kernel[i] - 1) for i in (0, 1))
    return FamilyCase(
        conv_pass,
        dice.choice((F16, BF16, F32)),
        (dice.choice((1, 2)), inputs * groups, *size),
        (outputs * groups, inputs, *kernel),
        stride=(dice.choice((1, 1, 2, 3)), dice.choice((1, 1, 2, 3, 4))),
        padding=tuple(dice.randrange(kernel[i // 2] + 1) for i in range(4)),
        dilation=dilation,
        groups=groups,
        bias=dice.random() < 0.4,
        x_last=False,
        w_last=dice.random() < 0.5,
        y_last=dice.random() < 0.3 and conv_pass != "dgrad",
        allow_tf32=dice.random() < 0.5,
        multiprocessors=dice.choice((1, 2, 108)),
        index_bits=dice.choice((32, 64)),
        family="grouped",
    )


@pytest.mark.parametrize("seed", range(40))
def test_random_problems_are_exact(seed: int) -> None:
    case, dice = random_case(seed), random.Random(~seed)
    configs = case.configs()
    if not configs:  # few shapes do not fit a unit, or shared memory
        reason = case.candidates()[0].reason
        assert "accepted are" in reason or "bytes of shared memory" in reason, case
        return
    places = {name: dice.choice(list(PLACES)) for name in INPUTS[case.conv_pass]}
    assert_exact_at(case, dice.choice(configs), places, seed)


@pytest.mark.parametrize("conv_pass", INPUTS)
@pytest.mark.parametrize("dtype", [F16, BF16, F32])
def test_no_workspace_is_taken_for_a_copy(conv_pass: str, dtype: torch.dtype) -> None:
    """None but for the parts of a sum."""
    case = grouped(conv_pass, dtype)
    for one in case.candidates():
        if not one.reason:
            assert one.details["workspace_bytes"] == one.details.get("splits", 0) * 4 * 24 * 8 * 9
