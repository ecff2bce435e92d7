"""Max pooling of dense NCHW planes with any window: PyTorch's winners and gradients, wherever rows, bands and windows begin."""

from __future__ import annotations

import random
from types import ModuleType

import pytest
import torch

from tests.core import raw
from tests.core.pool_support import Window, all_passes, forward

INF = float("inf")
BANDS = "max_pool_bands"
CONFIGS = ("16k", "32k", "8k", "96k")

#: 2x2 s1, 3x3 s1 and s2, and 5x5 s1 have a kernel of their own, so have others from 4x4 with stride 1; float64 never walks.
WINDOWS = {
    "3x3 stride 1": Window((2, 5, 14, 15), (3, 3), (1, 1), (1, 1)),
    "3x3 stride 1 without padding": Window((1, 3, 9, 10), (3, 3), (1, 1)),
    "3x3 stride 2": Window((2, 3, 13, 13), (3, 3), (2, 2)),
    "3x3 stride 2, ceil": Window((1, 3, 14, 15), (3, 3), (2, 2), ceil_mode=True),
    "2x2 stride 1": Window((1, 4, 9, 8), (2, 2), (1, 1), (1, 1)),
    "5x5 stride 1": Window((1, 3, 12, 13), (5, 5), (1, 1), (2, 2)),
    "5x4 stride 1": Window((1, 3, 12, 13), (5, 4), (1, 1), (2, 2)),
    "13x13 stride 1": Window((1, 2, 20, 20), (13, 13), (1, 1), (6, 6)),
    "3x2 stride 1x2": Window((2, 3, 11, 12), (3, 2), (1, 2), (1, 1)),
    "gaps between windows": Window((2, 2, 9, 11), (2, 1), (3, 4)),
    "dilated": Window((1, 3, 11, 12), (3, 2), (1, 2), (1, 1), (2, 3)),
    "8x8 stride 8": Window((2, 3, 24, 24), (8, 8), (8, 8)),
    "whole image": Window((2, 5, 7, 5), (7, 5), (1, 1)),
    "16x16 of 256 places": Window((1, 2, 17, 18), (16, 16), (1, 1)),
    "window with nothing in it": Window((1, 1, 1, 4), (2, 2), (1, 1), (1, 1), (2, 2)),
    "image of one element": Window((3, 4, 1, 1), (3, 3), (1, 1), (1, 1)),
}


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("dtype", raw.DTYPES, ids=str)
def test_every_window_has_pytorchs_winners(core: ModuleType, name: str, dtype: torch.dtype) -> None:
    all_passes(core, WINDOWS[name], dtype, family=BANDS, config="16k")


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", ["3x3 stride 1", "3x3 stride 2", "5x5 stride 1", "5x4 stride 1"])
def test_every_configuration_is_pytorch(core: ModuleType, name: str, config: str) -> None:
    """Several planes a tile, one plane a tile, bands of a plane; strips that end early."""
    of = WINDOWS[name]
    for shape in ((2, 9, 14, 15), (1, 2, 60, 151)) if config == "8k" else ((2, 9, 14, 15),):
        window = Window(shape, of.kernel, of.stride, of.padding)
        chosen = {"family": BANDS, "config": config, "multiprocessors": 1}
        all_passes(core, window, torch.float16, **chosen)


@pytest.mark.parametrize("index_bits", [32, 64])
def test_one_kernel_serves_both_index_widths(core: ModuleType, index_bits: int) -> None:
    for name in ("3x3 stride 1", "dilated"):
        chosen = {"family": BANDS, "config": "16k", "index_bits": index_bits}
        all_passes(core, WINDOWS[name], torch.float32, **chosen)


def drawn(draw: random.Random) -> Window:
    """No window is without an element of x: PyTorch has no winner for it that is in x."""
    while True:
        kind = draw.random()
        if kind < 0.4:
            size, step = draw.choice(((2, 1), (3, 1), (3, 2), (5, 1)))
            kernel, stride, dilation = (size, size), (step, step), (1, 1)
        elif kind < 0.6:  # four windows at a time
            kernel, stride, dilation = (draw.randint(4, 13), draw.randint(4, 13)), (1, 1), (1, 1)
        else:
            kernel = draw.randint(1, 7), draw.randint(1, 7)
            stride = draw.randint(1, 4), draw.randint(1, 4)
            dilation = draw.choice((1, 1, 2, 3)), draw.choice((1, 1, 2, 3))
        padding = draw.randint(0, kernel[0] // 2), draw.randint(0, kernel[1] // 2)
        is_banded = draw.random() < 0.2
        size = (
            (draw.randint(20, 60), draw.randint(80, 160)) if is_banded else (draw.randint(1, 20), draw.randint(1, 40))
        )
        planes = (1, draw.randint(1, 2)) if is_banded else (draw.randint(1, 3), draw.randint(1, 7))
        window = Window((*planes, *size), kernel, stride, padding, dilation, draw.random() < 0.4)
        try:
            values, _ = window.reference(torch.zeros(window.shape))
        except RuntimeError:
            continue  # no window fits
        if not values.isinf().any():
            return window


def test_windows_at_every_border(core: ModuleType, seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(24):
        window, dtype = drawn(draw), draw.choice(raw.DTYPES)
        chosen = {"family": BANDS, "config": draw.choice(CONFIGS[1:]), "multiprocessors": draw.choice((1, 132))}
        if chosen["config"] == "8k" and window.shape[2] > 20:
            dtype = torch.float16  # a row of windows of the others may not fit
        if window.kernel == (2, 2) and window.stride == (2, 2) and window.padding == (0, 0):
            continue  # max_pool_planes is made for it
        if window.kernel == (3, 3) and window.stride == (2, 2) and window.padding == (1, 1):
            continue
        try:
            all_passes(core, window, dtype, **chosen)
        except Exception as error:
            raise AssertionError(f"seed {seed}: all_passes(core, {window}, {dtype}, **{chosen})") from error


@pytest.mark.parametrize("dtype", raw.DTYPES, ids=str)
@pytest.mark.parametrize(
    "name", ["3x3 stride 1", "3x3 stride 2, ceil", "2x2 stride 1", "5x5 stride 1", "5x4 stride 1", "dilated"]
)
def test_ties_nan_and_infinities_are_won_as_in_pytorch(core: ModuleType, name: str, dtype: torch.dtype) -> None:
    values = torch.tensor([0.0, -0.0, 1.0, 1.0, INF, -INF, -INF, float("nan")])
    window = WINDOWS[name]
    for weights in ([1.0] * 8, [0, 0, 0, 0, 0, 1.0, 1, 0], [1.0, 1, 1, 1, 0, 0, 0, 1]):
        picks = torch.multinomial(torch.tensor(weights), torch.Size(window.shape).numel(), replacement=True)
        x = values[picks].reshape(window.shape).to(dtype)
        expected, expected_indices = window.reference(x)
        y, indices, _ = forward(core, x, window, family=BANDS, config="16k")
        assert torch.equal(indices, expected_indices)
        torch.testing.assert_close(y, expected, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(torch.signbit(y[~y.isnan()]), torch.signbit(expected[~y.isnan()]))


def test_float64_is_not_compared_in_float32(core: ModuleType) -> None:
    window = Window((1, 1, 1, 2), (1, 2), (1, 1))
    x = torch.tensor([1.0, 1.0 + 2.0**-40], dtype=torch.float64).reshape(window.shape)
    y, indices, _ = forward(core, x, window, family=BANDS, config="16k")
    assert y.item() == 1.0 + 2.0**-40
    assert indices.item() == 1


@pytest.mark.parametrize("moved", ["x", "y", "offsets"])
@pytest.mark.parametrize("name", ["3x3 stride 1", "5x5 stride 1"])
def test_tensors_that_begin_anywhere_are_the_general_kernels(core: ModuleType, name: str, moved: str) -> None:
    """A slice of a batch need not begin on a boundary of 16 bytes; the plan does not know."""
    window, dtype = WINDOWS[name], torch.float16
    x = raw.integers(window.shape, 3, dtype)
    expected, _ = window.reference(x)
    shape = tuple(expected.shape)
    operands = {"x": x, "y": raw.unwritten(shape, dtype), "offsets": raw.unwritten(shape, torch.uint8)}
    operands[moved] = raw.shifted(operands[moved], 1)
    raw.pool(core, "forward", dtype, *operands.values(), BANDS, "16k", **window.keywords)
    assert torch.equal(operands["y"], expected)

    x.requires_grad_()
    window.reference(x)[0].backward(expected)
    operands["x"] = raw.shifted(raw.unwritten(window.shape, dtype), int(moved == "x"))
    raw.pool(core, "backward", dtype, *operands.values(), BANDS, "16k", **window.keywords)
    assert torch.equal(operands["x"], x.grad)


def test_gradients_of_16_bits_are_added_in_float32(core: ModuleType) -> None:
    """In float16 itself 2048 + 1 is 2048."""
    window = Window((1, 1, 9, 9), (5, 5), (1, 1))
    x = torch.zeros(window.shape, dtype=torch.float16)
    x[0, 0, 4, 4] = 1  # wins all 25 windows
    _, _, offsets = forward(core, x, window, family=BANDS, config="16k")
    dy = torch.ones(1, 1, 5, 5, dtype=torch.float16)
    dy[0, 0, 0, 0] = 2048
    dx = raw.unwritten(window.shape, torch.float16)
    raw.pool(core, "backward", torch.float16, dx, dy, offsets, BANDS, "16k", **window.keywords)
    assert dx[0, 0, 4, 4].item() == 2048 + 24
    assert dx.double().sum().item() == 2048 + 24


@pytest.mark.parametrize("name", ["3x3 stride 1", "dilated", "13x13 stride 1"])
def test_gradients_are_added_in_the_order_of_the_windows(core: ModuleType, name: str) -> None:
    """As the general kernel does: to the last bit the same, infinities and NaN included."""
    window = WINDOWS[name]
    x = torch.randn(window.shape)
    y, _, offsets = forward(core, x, window, family=BANDS, config="16k")
    dy = torch.randn(y.shape)
    dy.view(-1)[::7] = INF
    dy.view(-1)[::11] = -INF
    found = [raw.unwritten(window.shape, torch.float32) for _ in range(2)]
    raw.pool(core, "backward", torch.float32, found[0], dy, offsets, **window.keywords)
    raw.pool(core, "backward", torch.float32, found[1], dy, offsets, BANDS, "8k", multiprocessors=1, **window.keywords)
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0, equal_nan=True)


def test_places_that_no_window_has_give_nothing_to_any_element(core: ModuleType) -> None:
    """A tensor of offsets may come from anywhere; the checked module finds a write outside of the sums."""
    for name in ("3x3 stride 1", "dilated", "8x8 stride 8"):
        window = WINDOWS[name]
        shape = tuple(window.reference(torch.zeros(window.shape))[0].shape)
        offsets = torch.full(shape, 255, dtype=torch.uint8)
        dx = raw.unwritten(window.shape, torch.float16)
        dy = torch.ones(shape, dtype=torch.float16)
        raw.pool(core, "backward", torch.float16, dx, dy, offsets, BANDS, "16k", **window.keywords)
        rows = window.kernel[0] * window.dilation[0]
        if 255 // window.kernel[1] * window.dilation[0] >= window.shape[2] + rows:
            assert torch.equal(dx, torch.zeros_like(dx))


def candidates(
    core: ModuleType,
    window: Window,
    dtype: torch.dtype,
    layout: str = "contiguous",
    places: torch.dtype = torch.uint8,
    pool_pass: str = "forward",
) -> list[object]:
    x = raw.laid_out(torch.empty(window.shape, dtype=dtype, device="meta"), layout)
    y = window.reference(x)[0]
    problem = core.PoolProblem(
        pool_pass=pool_pass,
        dtype=raw.NAMES[dtype],
        x=raw.operand(x),
        y=raw.operand(y),
        offsets=raw.operand(raw.laid_out(y.to(places), layout)),
        offsets_dtype=raw.NAMES[places],
        capability=90,
        **window.keywords,
    )
    return core.candidates(problem)


NETWORKS = {
    "inception": Window((32, 192, 35, 35), (3, 3), (1, 1), (1, 1)),
    "alexnet": Window((128, 64, 55, 55), (3, 3), (2, 2)),
    "squeezenet": Window((32, 64, 111, 111), (3, 3), (2, 2), ceil_mode=True),
    "spp 5": Window((8, 512, 20, 20), (5, 5), (1, 1), (2, 2)),
    "spp 9": Window((8, 512, 20, 20), (9, 9), (1, 1), (4, 4)),
    "spp 13": Window((8, 512, 20, 20), (13, 13), (1, 1), (6, 6)),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", [dtype for dtype in raw.DTYPES if dtype.itemsize < 8], ids=str)
def test_the_layers_of_known_networks_are_expected_to_be_fastest_so(
    fast_core: ModuleType, name: str, dtype: torch.dtype
) -> None:
    for pool_pass in ("forward", "backward"):
        found = candidates(fast_core, NETWORKS[name], dtype, pool_pass=pool_pass)
        able = [one for one in found if not one.reason]
        assert min(able, key=lambda one: one.details["predicted_seconds"]).kernel == f"{BANDS}_{pool_pass}"


def test_what_the_kernels_are_not_for_is_said(fast_core: ModuleType) -> None:
    plain = Window((1, 8, 6, 6), (3, 3), (1, 1), (1, 1))
    byte = torch.uint8
    for window, dtype, layout, places, words in (
        (plain, torch.float16, "channels_last", byte, "not dense NCHW"),
        (plain, torch.float16, "sliced", byte, "not dense NCHW"),
        (plain, torch.float16, "contiguous", torch.int32, "int32"),
        (Window((1, 8, 6, 6), (2, 2), (2, 2)), torch.float16, "contiguous", byte, "max_pool_planes is made for"),
        (Window((1, 1, 4, 40000), (3, 3), (1, 1)), torch.float32, "contiguous", byte, "bytes of shared memory"),
        (Window((0, 8, 6, 6), (3, 3), (1, 1)), torch.float16, "contiguous", byte, "empty"),
    ):
        for pool_pass in ("forward", "backward"):
            able = candidates(fast_core, window, dtype, layout, places, pool_pass)
            found = {one.kernel: one.reason for one in able}
            assert words in found[f"{BANDS}_{pool_pass}"], found
            assert found[f"max_pool_{pool_pass}"] == ""
