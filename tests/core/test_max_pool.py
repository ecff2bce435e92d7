"""Max pooling through the raw interface: PyTorch's winners, PyTorch's gradients."""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.core import raw

INF = float("inf")


@dataclasses.dataclass(frozen=True)
class Window:
    shape: tuple[int, int, int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    ceil_mode: bool = False

    @property
    def keywords(self) -> dict[str, Any]:
        return {"kernel": self.kernel, "stride": self.stride, "padding": self.padding, "dilation": self.dilation}

    def reference(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return F.max_pool2d(
            x, self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode, return_indices=True
        )


WINDOWS = {
    "2x2": Window((2, 3, 8, 6), (2, 2), (2, 2)),
    "overlapping": Window((1, 4, 9, 10), (3, 3), (2, 2), (1, 1)),
    "gaps between windows": Window((2, 2, 9, 11), (2, 1), (3, 4)),
    "dilated": Window((1, 3, 11, 12), (3, 2), (1, 2), (1, 1), (2, 3)),
    "ceil": Window((2, 3, 8, 7), (3, 3), (2, 3), (1, 0), ceil_mode=True),
    "whole image": Window((2, 5, 7, 5), (7, 5), (1, 1)),
    "window with nothing in it": Window((1, 1, 1, 4), (2, 2), (1, 1), (1, 1), (2, 2)),
    "empty batch": Window((0, 3, 6, 6), (2, 2), (2, 2)),
}


def forward(
    core: ModuleType, x: torch.Tensor, window: Window, layout: str = "contiguous", **keywords: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(y, indices, offsets)"""
    shape = tuple(window.reference(x.double())[0].shape)
    offsets_dtype = keywords.pop("offsets_dtype", torch.uint8)
    y, offsets = raw.unwritten(shape, x.dtype, layout), raw.unwritten(shape, offsets_dtype, layout)
    raw.pool(core, "forward", x.dtype, x, y, offsets, **window.keywords, **keywords)
    indices = raw.unwritten(shape, torch.int64, layout)
    raw.pool(core, "indices", x.dtype, x, indices, offsets, **window.keywords, **keywords)
    return y, indices, offsets


def all_passes(
    core: ModuleType, window: Window, dtype: torch.dtype, layout: str = "contiguous", **keywords: Any
) -> None:
    x = raw.laid_out(raw.integers(window.shape, 3, dtype), layout)
    expected, expected_indices = window.reference(x)
    y, indices, offsets = forward(core, x, window, layout, **keywords)
    keywords.pop("offsets_dtype", None)
    assert torch.equal(y, expected)
    assert torch.equal(indices, expected_indices)

    # Windows with nothing in them have a winner outside of x, which nothing flows to.
    columns = window.shape[2] * window.shape[3]
    inside = indices < columns
    places = torch.where(inside, indices, 0).flatten(2)
    dy = raw.laid_out(raw.integers(tuple(y.shape), 4, dtype), layout)
    dx = raw.unwritten(window.shape, dtype, layout)
    raw.pool(core, "backward", dtype, dx, dy, offsets, **window.keywords, **keywords)
    sums = torch.zeros(*window.shape[:2], columns, dtype=torch.float64)
    sums.scatter_add_(2, places, (dy.double() * inside).flatten(2))
    assert torch.equal(dx, sums.view(window.shape).to(dtype))

    z = raw.laid_out(torch.randn(window.shape).to(dtype), layout)
    picked = raw.unwritten(tuple(y.shape), dtype, layout)
    raw.pool(core, "gather", dtype, z, picked, offsets, **window.keywords, **keywords)
    wanted = z.flatten(2).gather(2, places).view(y.shape)
    assert torch.equal(picked, torch.where(inside, wanted, torch.zeros_like(wanted)))


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_every_window_has_pytorchs_winner(core: ModuleType, name: str, layout: str) -> None:
    all_passes(core, WINDOWS[name], torch.float32, layout)


@pytest.mark.parametrize("dtype", raw.DTYPES, ids=str)
@pytest.mark.parametrize("index_bits", [32, 64])
@pytest.mark.parametrize("offsets_dtype", [torch.uint8, torch.int32], ids=str)
def test_every_type_and_index_width(
    core: ModuleType, dtype: torch.dtype, index_bits: int, offsets_dtype: torch.dtype
) -> None:
    all_passes(core, WINDOWS["overlapping"], dtype, index_bits=index_bits, offsets_dtype=offsets_dtype)


@pytest.mark.parametrize("layout", raw.LAYOUTS)
def test_operands_are_read_and_written_where_they_lie(core: ModuleType, layout: str) -> None:
    all_passes(core, WINDOWS["ceil"], torch.float32, layout)


def test_a_window_of_more_than_256_elements_is_not_cut_to_a_byte(core: ModuleType) -> None:
    window = Window((1, 1, 17, 16), (17, 16), (1, 1))
    x = torch.zeros(window.shape)
    x[0, 0, 16, 15] = 1
    _, indices, offsets = forward(core, x, window, offsets_dtype=torch.int32)
    assert offsets.item() == 17 * 16 - 1
    assert indices.item() == 17 * 16 - 1


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", raw.DTYPES, ids=str)
def test_ties_nan_and_infinities_are_won_as_in_pytorch(core: ModuleType, dtype: torch.dtype, layout: str) -> None:
    values = torch.tensor([0.0, -0.0, 1.0, 1.0, INF, -INF, -INF, float("nan")])
    window = Window((2, 3, 12, 13), (3, 3), (2, 1), (1, 1))
    for probabilities in (
        torch.ones(8),
        torch.tensor([0, 0, 0, 0, 0, 1.0, 1, 0]),
        torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 1]),
    ):
        picks = torch.multinomial(probabilities, 2 * 3 * 12 * 13, replacement=True)
        x = raw.laid_out(values[picks].reshape(window.shape).to(dtype), layout)
        expected, expected_indices = window.reference(x)
        y, indices, _ = forward(core, x, window, layout)
        assert torch.equal(indices, expected_indices)
        torch.testing.assert_close(y, expected, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(torch.signbit(y[~y.isnan()]), torch.signbit(expected[~y.isnan()]))


def test_float64_is_not_compared_in_float32(core: ModuleType) -> None:
    window = Window((1, 1, 1, 2), (1, 2), (1, 1))
    x = torch.tensor([1.0, 1.0 + 2.0**-40], dtype=torch.float64).reshape(window.shape)
    y, indices, _ = forward(core, x, window)
    assert y.item() == 1.0 + 2.0**-40
    assert indices.item() == 1


def test_gradients_of_16_bits_are_added_in_float32(core: ModuleType) -> None:
    """In float16 itself 2048 + 1 is 2048."""
    window = Window((1, 1, 9, 9), (5, 5), (1, 1))
    x = torch.zeros(window.shape, dtype=torch.float16)
    x[0, 0, 4, 4] = 1  # wins all 25 windows
    _, _, offsets = forward(core, x, window)
    dy = torch.ones(1, 1, 5, 5, dtype=torch.float16)
    dy[0, 0, 0, 0] = 2048
    dx = raw.unwritten(window.shape, torch.float16)
    raw.pool(core, "backward", torch.float16, dx, dy, offsets, **window.keywords)
    assert dx[0, 0, 4, 4].item() == 2048 + 24
    assert dx.double().sum().item() == 2048 + 24


def test_offsets_that_no_window_has_read_nothing(core: ModuleType) -> None:
    """A tensor of offsets may come from anywhere; the checked module finds a read outside of x."""
    window = WINDOWS["overlapping"]
    x = torch.randn(window.shape)
    y, _, offsets = forward(core, x, window, offsets_dtype=torch.int32)
    offsets.fill_(2**31 - 1)
    raw.pool(core, "gather", torch.float32, x, y, offsets, **window.keywords)
    dx = raw.unwritten(window.shape, torch.float32)
    raw.pool(core, "backward", torch.float32, dx, y, offsets, **window.keywords)
    assert torch.equal(dx, torch.zeros_like(dx))
