"""Sizes and memory formats against PyTorch's own answers, on the meta device and on the CPU."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from fastconv import shapes


def formats(tensor):
    yield tensor
    yield tensor.contiguous(memory_format=torch.channels_last)
    yield tensor.transpose(2, 3).contiguous().transpose(2, 3)
    yield tensor[:, :, :, ::2]
    yield tensor.expand(2, *tensor.shape[1:]) if tensor.shape[0] == 1 else tensor


SIZES = list(itertools.product((0, 1, 2), (1, 3), (1, 4), (1, 5)))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_suggestion_is_pytorchs(sizes):
    """PyTorch's max_pool2d allocates in the format that its input suggests, which is how to ask it."""
    for x in formats(torch.randn(sizes)):
        suggested = F.max_pool2d(x, 1).stride() if 0 not in x.shape else None
        channels_last = shapes.suggests_channels_last(x.shape, x.stride())
        if suggested is not None:
            assert shapes.dense_strides(x.shape, channels_last) == suggested
        else:
            assert not channels_last


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_dense_strides_are_those_of_a_fresh_tensor(sizes):
    assert shapes.dense_strides(sizes, False) == torch.empty(sizes).stride()
    assert shapes.dense_strides(sizes, True) == torch.empty(sizes, memory_format=torch.channels_last).stride()


@pytest.mark.parametrize("size", [4, 7, 12])
@pytest.mark.parametrize("taps", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 5])
def test_output_sizes_are_pytorchs(size, taps, stride):
    x, w = torch.empty(1, 1, size, size, device="meta"), torch.empty(1, 1, taps, taps, device="meta")
    for padding, dilation in itertools.product((0, 1), (1, 2)):
        if dilation * (taps - 1) + 1 > size + 2 * padding:
            continue
        expected = F.conv2d(x, w, None, stride, padding, dilation).shape[2]
        assert shapes.conv_output_size(size, padding, padding, taps, stride, dilation) == expected
        for ceil_mode in (False, True):
            if 2 * padding <= taps:
                expected = F.max_pool2d(x, taps, stride, padding, dilation, ceil_mode).shape[2]
                assert shapes.pool_output_size(size, padding, taps, stride, dilation, ceil_mode) == expected


def test_pool_windows_without_elements_are_found():
    found = 0
    for size, taps, stride, dilation in itertools.product(range(1, 7), range(1, 6), (1, 2, 3, 9), range(1, 10)):
        for padding, ceil_mode in itertools.product(range(taps // 2 + 1), (False, True)):
            outputs = shapes.pool_output_size(size, padding, taps, stride, dilation, ceil_mode)
            starts = [window * stride - padding for window in range(outputs)]
            inside = [any(0 <= start + tap * dilation < size for tap in range(taps)) for start in starts]
            expected = None if all(inside) else inside.index(False)
            assert shapes.empty_pool_window(size, padding, taps, stride, dilation, outputs) == expected
            found += expected is not None
    assert found > 100
