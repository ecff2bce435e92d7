"""Sizes and memory formats of outputs, by PyTorch's rules. Pure arithmetic on integers, plain or symbolic."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def conv_output_size(size: int, padding_low: int, padding_high: int, taps: int, stride: int, dilation: int) -> int:
    """P of one dimension: how often a filter of `taps` fits into the padded input. Below 1 where it does not fit."""
    return (size + padding_low + padding_high - dilation * (taps - 1) - 1) // stride + 1


def conv_output_sizes(
    x: Sequence[int], w: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> tuple[int, int, int, int]:
    """[N, K, P, Q] of x [N, C, H, W] convolved with w [K, C/G, R, S]; padding is (top, bottom, left, right)."""
    top, bottom, left, right = padding
    return (
        x[0],
        w[0],
        conv_output_size(x[2], top, bottom, w[2], stride[0], dilation[0]),
        conv_output_size(x[3], left, right, w[3], stride[1], dilation[1]),
    )


def pool_output_size(size: int, padding: int, taps: int, stride: int, dilation: int, ceil_mode: bool) -> int:
    """P of one dimension of a pool. With ceil_mode a last window may hang over, if it starts inside the padded input."""
    room = size + 2 * padding - dilation * (taps - 1) - 1
    if not ceil_mode:
        return room // stride + 1
    outputs = (room + stride - 1) // stride + 1
    return outputs - 1 if (outputs - 1) * stride >= size + padding else outputs


def empty_pool_window(size: int, padding: int, taps: int, stride: int, dilation: int, outputs: int) -> int | None:
    """The first of the windows along one dimension that has no element of the input in it; None where each has one.

    Padding of at most half a window leaves only those that begin before the input and step over all of it.
    """
    if dilation == 1 or dilation <= size:
        return None
    for window in range(min(outputs, -(-padding // stride))):
        first_inside = (window * stride - padding) % dilation
        if first_inside >= size:
            return window
    return None


def pool_output_sizes(
    x: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> tuple[int, int, int, int]:
    """[N, C, P, Q] of the pool over x [N, C, H, W]."""
    height, width = (
        pool_output_size(x[2 + axis], padding[axis], kernel[axis], stride[axis], dilation[axis], ceil_mode)
        for axis in (0, 1)
    )
    return x[0], x[1], height, width


def offsets_dtype(kernel: Sequence[int]) -> torch.dtype:
    """The smallest type that holds every place r * S + s inside a window."""
    return torch.uint8 if kernel[0] * kernel[1] <= 256 else torch.int32


def suggests_channels_last(sizes: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether PyTorch would allocate results of this tensor channels_last.

    It looks at the order of the strides, not at density, and takes what could be either (C = 1 and H = W = 1, say) for
    NCHW. The rule is that of c10::is_channels_last_strides_2d.
    """
    smallest = 0
    for axis in (1, 3, 2, 0):
        size, stride = sizes[axis], strides[axis]
        if size == 0 or (stride == 0 and axis == 1) or stride < smallest:
            return False
        if axis == 0 and smallest == strides[1]:
            return False
        smallest = stride * size if size > 1 else stride
    return True


def dense_strides(sizes: Sequence[int], channels_last: bool) -> tuple[int, int, int, int]:
    """Strides of a freshly allocated [N, C, H, W]."""
    _, channels, height, width = sizes
    if channels_last:
        return height * width * channels, 1, width * channels, channels
    row = _at_least_one(width)
    plane = row * _at_least_one(height)
    return plane * _at_least_one(channels), plane, row, 1


def _at_least_one(size: int) -> int:
    return size if isinstance(size, int) and size > 0 else torch.sym_max(size, 1)
