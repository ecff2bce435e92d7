"""Pooling with large windows and global pooling: PyTorch's winners, however the elements are shared out among threads."""

from __future__ import annotations

import random
from types import ModuleType

import pytest
import torch

from tests.core import raw
from tests.core.pool_support import Window, all_passes, forward

INF = float("inf")
LARGE = "max_pool_large"
LAYOUT_OF = {"warp": "contiguous", "block": "contiguous", "channels": "channels_last"}


def whole_image(shape: tuple[int, int, int, int]) -> Window:
    return Window(shape, shape[2:], shape[2:])


def offsets_of(window: Window) -> torch.dtype:
    return torch.uint8 if window.kernel[0] * window.kernel[1] <= 256 else torch.int32


@pytest.mark.parametrize("dtype", raw.DTYPES, ids=str)
@pytest.mark.parametrize("config", LAYOUT_OF)
def test_global_pooling_is_pytorchs(core: ModuleType, config: str, dtype: torch.dtype) -> None:
    """Planes that begin and end anywhere, offsets of one byte and of four."""
    for shape in ((2, 8, 7, 7), (1, 24, 13, 45)):
        window = whole_image(shape)
        chosen = {"family": LARGE, "config": config, "offsets_dtype": offsets_of(window)}
        all_passes(core, window, dtype, LAYOUT_OF[config], **chosen)


@pytest.mark.parametrize("index_bits", [32, 64])
@pytest.mark.parametrize("config", LAYOUT_OF)
def test_large_windows_are_pytorchs(core: ModuleType, config: str, index_bits: int) -> None:
    """Windows with gaps between their rows, that overlap, that hang over the border."""
    for window in (
        Window((1, 8, 14, 18), (7, 9), (7, 9)),
        Window((2, 8, 13, 20), (8, 9), (3, 5), (4, 3)),
        Window((1, 8, 20, 11), (6, 6), (5, 4), (0, 2), ceil_mode=True),
        Window((1, 8, 16, 9), (4, 9), (4, 9)),
    ):
        chosen = {"family": LARGE, "config": config, "index_bits": index_bits}
        all_passes(core, window, torch.float16, LAYOUT_OF[config], general_backward=True, **chosen)


@pytest.mark.parametrize("config", LAYOUT_OF)
def test_a_padded_window_over_the_whole_image_is_global_too(core: ModuleType, config: str) -> None:
    window = Window((2, 8, 6, 7), (9, 8), (5, 4), (2, 1))
    all_passes(core, window, torch.float32, LAYOUT_OF[config], family=LARGE, config=config)


@pytest.mark.parametrize("dtype", raw.DTYPES, ids=str)
@pytest.mark.parametrize("config", LAYOUT_OF)
def test_ties_nan_and_infinities_are_won_as_in_pytorch(
    core: ModuleType, config: str, dtype: torch.dtype, seed: int
) -> None:
    values = torch.tensor([0.0, -0.0, 1.0, 1.0, INF, -INF, -INF, float("nan")])
    draw = random.Random(seed)
    window = whole_image((2, 8, draw.randint(6, 20), draw.randint(6, 20)))
    count = 16 * window.shape[2] * window.shape[3]
    for weights in ([1.0] * 8, [0, 0, 0, 0, 0, 1.0, 1, 0], [1.0, 1, 1, 1, 0, 0, 0, 1], [1.0, 1, 0, 0, 0, 0, 0, 0.01]):
        picks = torch.multinomial(torch.tensor(weights), count, replacement=True)
        x = raw.laid_out(values[picks].reshape(window.shape).to(dtype), LAYOUT_OF[config])
        expected, expected_indices = window.reference(x)
        chosen = {"family": LARGE, "config": config, "offsets_dtype": offsets_of(window)}
        y, indices, _ = forward(core, x, window, LAYOUT_OF[config], **chosen)
        assert torch.equal(indices, expected_indices), f"seed {seed}: {window}"
        torch.testing.assert_close(y, expected, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(torch.signbit(y[~y.isnan()]), torch.signbit(expected[~y.isnan()]))


@pytest.mark.parametrize("config", ["warp", "block"])
def test_rows_with_gaps_between_them_are_read_where_they_lie(core: ModuleType, config: str) -> None:
    window = whole_image((2, 3, 9, 11))
    larger = raw.integers((2, 3, 9, 16), 3, torch.float16)
    x = larger[..., 3:14]
    expected, expected_indices = window.reference(x)
    y, indices, _ = forward(core, x, window, family=LARGE, config=config)
    assert torch.equal(y, expected)
    assert torch.equal(indices, expected_indices)


def test_offsets_that_lie_outside_give_nothing_to_any_element(core: ModuleType) -> None:
    window = Window((1, 8, 6, 7), (9, 8), (5, 4), (2, 1))
    for config, layout in LAYOUT_OF.items():
        for offset in (0, 2**31 - 1):  # in the padding; far outside
            dy = raw.laid_out(torch.ones(1, 8, 1, 1), layout)
            offsets = raw.laid_out(torch.full((1, 8, 1, 1), offset, dtype=torch.int32), layout)
            dx = raw.unwritten(window.shape, torch.float32, layout)
            raw.pool(core, "backward", torch.float32, dx, dy, offsets, LARGE, config, **window.keywords)
            assert torch.equal(dx, torch.zeros_like(dx))
