"""Overlapping windows where the channel is innermost: PyTorch's winners at every border, rows of a strip after each other."""

from __future__ import annotations

import random
from types import ModuleType

import pytest
import torch

from tests.core import raw
from tests.core.pool_support import Window, all_passes, forward
from tests.core.test_max_pool_bands import candidates

INF = float("inf")
WALK, LAYOUT = "max_pool_walk", "channels_last"
CONFIGS = ("rows8", "rows2", "rows28")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
WINDOWS = {
    "2x2 stride 1": Window((2, 8, 9, 8), (2, 2), (1, 1), (1, 1)),
    "3x3 stride 1": Window((1, 16, 12, 13), (3, 3), (1, 1), (1, 1)),
    "3x3 stride 2": Window((2, 8, 13, 13), (3, 3), (2, 2)),
    "3x3 stride 2, ceil": Window((1, 24, 14, 16), (3, 3), (2, 2), ceil_mode=True),
    "5x5 stride 1": Window((1, 8, 12, 13), (5, 5), (1, 1), (2, 2)),
    "image of one element": Window((3, 8, 1, 1), (5, 5), (1, 1), (2, 2)),
}


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", WINDOWS)
def test_every_window_has_pytorchs_winners(core: ModuleType, name: str, dtype: torch.dtype, config: str) -> None:
    all_passes(core, WINDOWS[name], dtype, LAYOUT, family=WALK, config=config, general_backward=True)


def test_windows_at_every_border(core: ModuleType, seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(24):
        size, step = draw.choice(((2, 1), (3, 1), (3, 2), (5, 1)))
        padding = draw.randint(0, size // 2), draw.randint(0, size // 2)
        shape = draw.randint(1, 2), draw.choice((8, 16, 24)), draw.randint(size, 20), draw.randint(size, 20)
        if (size, step, padding) == (3, 2, (1, 1)):
            continue  # max_pool_channels is made for it
        window = Window(shape, (size, size), (step, step), padding, (1, 1), draw.random() < 0.4)
        dtype, config = draw.choice(DTYPES), draw.choice(CONFIGS)
        try:
            all_passes(core, window, dtype, LAYOUT, family=WALK, config=config, general_backward=True)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {window}, {dtype}, {config}") from error


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", WINDOWS)
def test_ties_nan_and_infinities_are_won_as_in_pytorch(core: ModuleType, name: str, dtype: torch.dtype) -> None:
    values = torch.tensor([0.0, -0.0, 1.0, 1.0, INF, -INF, -INF, float("nan")])
    window = WINDOWS[name]
    for weights in ([1.0] * 8, [0, 0, 0, 0, 0, 1.0, 1, 0], [1.0, 1, 1, 1, 0, 0, 0, 1]):
        picks = torch.multinomial(torch.tensor(weights), torch.Size(window.shape).numel(), replacement=True)
        x = raw.laid_out(values[picks].reshape(window.shape).to(dtype), LAYOUT)
        expected, expected_indices = window.reference(x)
        y, indices, _ = forward(core, x, window, LAYOUT, family=WALK, config="rows8")
        assert torch.equal(indices, expected_indices)
        torch.testing.assert_close(y, expected, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(torch.signbit(y[~y.isnan()]), torch.signbit(expected[~y.isnan()]))


@pytest.mark.parametrize("moved", ["x", "y", "offsets"])
def test_tensors_that_begin_anywhere_are_the_general_kernels(core: ModuleType, moved: str) -> None:
    window, dtype = WINDOWS["3x3 stride 1"], torch.float16
    x = raw.laid_out(raw.integers(window.shape, 3, dtype), LAYOUT)
    expected, _ = window.reference(x)
    shape = tuple(expected.shape)
    operands = {"x": x, "y": raw.unwritten(shape, dtype, LAYOUT), "offsets": raw.unwritten(shape, torch.uint8, LAYOUT)}
    operands[moved] = raw.shifted(operands[moved], 1)
    raw.pool(core, "forward", dtype, *operands.values(), WALK, "rows8", **window.keywords)
    assert torch.equal(operands["y"], expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "window",
    [
        Window((32, 192, 35, 35), (3, 3), (1, 1), (1, 1)),
        Window((8, 512, 20, 20), (5, 5), (1, 1), (2, 2)),
    ],
    ids=["inception", "spp 5"],
)
def test_the_layers_of_known_networks_are_expected_to_be_fastest_so(
    fast_core: ModuleType, window: Window, dtype: torch.dtype
) -> None:
    able = [one for one in candidates(fast_core, window, dtype, LAYOUT) if not one.reason]
    assert min(able, key=lambda one: one.details["predicted_seconds"]).kernel == f"{WALK}_forward"


def test_what_the_kernel_is_not_for_is_said(fast_core: ModuleType) -> None:
    plain = Window((1, 8, 6, 6), (3, 3), (1, 1), (1, 1))
    byte = torch.uint8
    for window, dtype, layout, places, words in (
        (plain, torch.float16, "contiguous", byte, "36 elements apart"),
        (plain, torch.float16, LAYOUT, torch.int32, "int32"),
        (plain, torch.float64, LAYOUT, byte, "float32 and smaller"),
        (Window((1, 12, 6, 6), (3, 3), (1, 1)), torch.float16, LAYOUT, byte, "12 channels are not a multiple of 8"),
        (Window((1, 8, 6, 6), (2, 2), (2, 2)), torch.float16, LAYOUT, byte, "max_pool_channels is made for"),
        (Window((1, 8, 6, 6), (4, 4), (1, 1)), torch.float16, LAYOUT, byte, "this kernel is for 2x2, 3x3 and 5x5"),
        (Window((0, 8, 6, 6), (3, 3), (1, 1)), torch.float16, LAYOUT, byte, "empty"),
    ):
        found = {one.kernel: one.reason for one in candidates(fast_core, window, dtype, layout, places)}
        assert words in found[f"{WALK}_forward"], found
        assert found["max_pool_forward"] == ""
