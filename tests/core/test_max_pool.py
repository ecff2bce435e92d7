"""Max pooling through the raw interface: PyTorch's winners, PyTorch's gradients."""

from __future__ import annotations

import dataclasses
from types import ModuleType

import pytest
import torch

from tests.core import raw
from tests.core.pool_support import Window, all_passes, forward

INF = float("inf")

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


def of_channels(window: Window, channels: int) -> Window:
    return dataclasses.replace(window, shape=(window.shape[0], channels, *window.shape[2:]))


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("dtype", raw.DTYPES, ids=str)
def test_vectors_of_channels_have_pytorchs_winners(core: ModuleType, name: str, dtype: torch.dtype) -> None:
    all_passes(core, of_channels(WINDOWS[name], 16), dtype, "channels_last")


@pytest.mark.parametrize("dtype", raw.DTYPES, ids=str)
@pytest.mark.parametrize("index_bits", [32, 64])
@pytest.mark.parametrize("offsets_dtype", [torch.uint8, torch.int32], ids=str)
def test_vectors_of_every_type_and_index_width(
    core: ModuleType, dtype: torch.dtype, index_bits: int, offsets_dtype: torch.dtype
) -> None:
    """24 channels: three vectors of 16 bits; more of them than a block has threads."""
    window = Window((2, 24, 7, 8), (3, 2), (1, 1), (1, 1))
    all_passes(core, window, dtype, "channels_last", index_bits=index_bits, offsets_dtype=offsets_dtype)


@pytest.mark.parametrize("dtype", raw.DTYPES, ids=str)
@pytest.mark.parametrize("moved", ["x", "y", "offsets"])
def test_what_lies_between_boundaries_of_vectors_is_moved_by_elements(
    core: ModuleType, moved: str, dtype: torch.dtype
) -> None:
    window = of_channels(WINDOWS["overlapping"], 16)
    x = raw.laid_out(raw.integers(window.shape, 3, dtype), "channels_last")
    expected, _ = window.reference(x)
    operands = {
        "x": x,
        "y": raw.unwritten(tuple(expected.shape), dtype, "channels_last"),
        "offsets": raw.unwritten(tuple(expected.shape), torch.uint8, "channels_last"),
    }
    operands[moved] = raw.shifted(operands[moved], 1)
    raw.pool(core, "forward", dtype, *operands.values(), **window.keywords)
    assert torch.equal(operands["y"], expected)

    x.requires_grad_()
    window.reference(x)[0].backward(expected)
    operands["x"] = raw.unwritten(window.shape, dtype, "channels_last")
    operands["x"] = raw.shifted(operands["x"], int(moved == "x"))
    raw.pool(core, "backward", dtype, *operands.values(), **window.keywords)
    assert torch.equal(operands["x"], x.grad)


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


@pytest.mark.parametrize("channels", [3, 16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", raw.DTYPES, ids=str)
def test_ties_nan_and_infinities_are_won_as_in_pytorch(
    core: ModuleType, dtype: torch.dtype, layout: str, channels: int
) -> None:
    values = torch.tensor([0.0, -0.0, 1.0, 1.0, INF, -INF, -INF, float("nan")])
    window = Window((2, channels, 12, 13), (3, 3), (2, 1), (1, 1))
    for probabilities in (
        torch.ones(8),
        torch.tensor([0, 0, 0, 0, 0, 1.0, 1, 0]),
        torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 1]),
    ):
        picks = torch.multinomial(probabilities, 2 * channels * 12 * 13, replacement=True)
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
