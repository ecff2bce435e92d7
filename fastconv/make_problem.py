"""Makes problems: output sizes and strides, and the index width, from what a pass is given.

Pure but for `force_index_bits`. What comes out may still be impossible; fastconv.validity says why.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch

from fastconv.problem import (
    ActivationBackwardProblem,
    AdaptivePoolProblem,
    ChannelSumProblem,
    ConvGlobalMaxProblem,
    ConvMaxPoolProblem,
    ConvPass,
    ConvProblem,
    Operand,
    PoolPass,
    PoolProblem,
    Target,
    UnpoolPass,
    UnpoolProblem,
)
from fastconv.shapes import (
    conv_output_sizes,
    dense_strides,
    offsets_dtype,
    pool_output_sizes,
    suggests_channels_last,
)
from fastconv.validity import check_numbers, check_padding_mode, check_ranks

IndexBits = Literal[32, 64]

_LARGEST_INT32 = 2**31 - 1
# Kernels count positions in the padded input and a block past its end, so leave them room below 2**31.
_INDEX_MARGIN = 65536

# --- index width ------------------------------------------------------------------------------------------------------

_forced: IndexBits | None = None


@contextlib.contextmanager
def force_index_bits(bits: IndexBits) -> Iterator[None]:
    """Makes every problem planned inside use this index width, in all threads: for tests of the 64-bit kernels."""
    global _forced
    if bits not in (32, 64):
        raise ValueError(f"bits is {bits}, but must be 32 or 64")
    before, _forced = _forced, bits
    try:
        yield
    finally:
        _forced = before


def forced_index_bits() -> IndexBits | None:
    """What `force_index_bits` asks for now."""
    return _forced


def index_bits(*operands: Operand, positions: Sequence[int] = ()) -> IndexBits:
    """The narrowest index type that reaches and counts every element of the operands, and these positions."""
    if _forced is not None:
        return _forced
    furthest = max(max(operand.last_offset(), math.prod(operand.sizes), *operand.sizes) for operand in operands)
    return 64 if max(furthest, *positions, 0) > _LARGEST_INT32 - _INDEX_MARGIN else 32


def _furthest_positions(x: Operand, low_high: Sequence[int], taps: Sequence[int], dilation: Sequence[int]) -> list[int]:
    """Where a kernel may look in each dimension of the padded input, and past its end."""
    return [
        x.sizes[2 + axis] + low_high[2 * axis] + low_high[2 * axis + 1] + dilation[axis] * taps[axis] for axis in (0, 1)
    ]


# --- problems ---------------------------------------------------------------------------------------------------------


def _output_like(sizes: Sequence[int], *inputs: Operand) -> Operand:
    """A fresh tensor of these sizes: channels_last if PyTorch would say so of one of the inputs."""
    channels_last = any(suggests_channels_last(operand.sizes, operand.strides) for operand in inputs)
    sizes = tuple(sizes)
    return Operand(sizes, dense_strides(sizes, channels_last and 0 not in sizes))


def make_conv_problem(
    conv_pass: ConvPass,
    dtype: torch.dtype,
    target: Target,
    *,
    x: Operand | Sequence[int],
    w: Operand | Sequence[int],
    y: Operand | None = None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    padding_mode: str = "zeros",
    padding_value: float = 0.0,
    has_bias: bool = False,
    residual: Operand | None = None,
    activation: str = "identity",
    allow_tf32: bool = False,
    deterministic: bool = True,
) -> ConvProblem:
    """The problem of a pass. What the pass writes is left out (fprop's y) or given by its sizes (dgrad's x, wgrad's w).

    Its padding mode is "zeros" wherever that computes the same, because more kernels know that: without padding, for a constant
    of zero, and in dgrad for any constant, whose derivative is zero.
    """
    op = f"conv2d_{conv_pass}"
    check_ranks(op, x=x, w=w, y=y, residual=residual)
    check_numbers(op, 2, 1, stride=stride, dilation=dilation)
    check_numbers(op, 4, 0, padding=padding)
    check_padding_mode(op, padding_mode, padding_value)
    if not any(padding) or (padding_mode == "constant" and (padding_value == 0 or conv_pass == "dgrad")):
        padding_mode, padding_value = "zeros", 0.0
    if conv_pass == "fprop":
        y = _output_like(conv_output_sizes(x.sizes, w.sizes, stride, padding, dilation), x, w)
    elif conv_pass == "dgrad":
        x = _output_like(x, y, w)
    else:
        w = _output_like(w, y, x)
    return ConvProblem(
        conv_pass=conv_pass,
        dtype=dtype,
        x=x,
        w=w,
        y=y,
        stride=tuple(stride),
        padding=tuple(padding),
        dilation=tuple(dilation),
        groups=groups,
        target=target,
        has_bias=has_bias,
        residual=residual,
        activation=activation,
        index_bits=index_bits(
            *(operand for operand in (x, w, y, residual) if operand is not None),
            positions=_furthest_positions(x, padding, w.sizes[2:], dilation),
        ),
        allow_tf32=allow_tf32,
        deterministic=deterministic,
        padding_mode=padding_mode,
        padding_value=math.nan if math.isnan(padding_value) else padding_value,  # the one NaN that is equal to itself
    )


def make_pool_problem(
    pool_pass: PoolPass,
    dtype: torch.dtype,
    target: Target,
    *,
    x: Operand | Sequence[int],
    y: Operand | None = None,
    offsets: Operand | None = None,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> PoolProblem:
    """The problem of a pass. x is given by its sizes where the pass does not read it; what it writes is left out."""
    op = f"max_pool2d_{pool_pass}"
    check_ranks(op, x=x, y=y, offsets=offsets)
    check_numbers(op, 2, 1, kernel=kernel, stride=stride, dilation=dilation)
    check_numbers(op, 2, 0, padding=padding)
    if pool_pass == "forward":
        y = offsets = _output_like(pool_output_sizes(x.sizes, kernel, stride, padding, dilation, ceil_mode), x)
    elif pool_pass == "gather" or pool_pass == "indices":
        y = _output_like(offsets.sizes, offsets)
    if not isinstance(x, Operand):
        x = _output_like(x, offsets)
    return PoolProblem(
        pool_pass=pool_pass,
        dtype=dtype,
        x=x,
        y=y,
        offsets=offsets,
        offsets_dtype=offsets_dtype(kernel),
        kernel=tuple(kernel),
        stride=tuple(stride),
        padding=tuple(padding),
        dilation=tuple(dilation),
        target=target,
        index_bits=index_bits(
            x,
            y,
            offsets,
            positions=_furthest_positions(x, [pad for pad in padding for _ in (0, 1)], kernel, dilation),
        ),
    )


def make_conv_max_pool_problem(
    dtype: torch.dtype,
    target: Target,
    *,
    pool_kernel: Sequence[int],
    pool_stride: Sequence[int],
    pool_padding: Sequence[int],
    **convolution: Any,
) -> ConvMaxPoolProblem:
    """A convolution, given as make_conv_problem takes it, and a pool over its output."""
    conv = make_conv_problem("fprop", dtype, target, **convolution)
    check_numbers("conv2d_max_pool2d", 2, 1, pool_kernel=pool_kernel, pool_stride=pool_stride)
    check_numbers("conv2d_max_pool2d", 2, 0, pool_padding=pool_padding)
    sizes = pool_output_sizes(conv.y.sizes, pool_kernel, pool_stride, pool_padding, (1, 1), ceil_mode=False)
    return ConvMaxPoolProblem(
        *_joined(conv, pool_kernel, pool_stride, pool_padding, _output_like(sizes, conv.x, conv.w))
    )


def make_conv_global_max_problem(dtype: torch.dtype, target: Target, **convolution: Any) -> ConvGlobalMaxProblem:
    """A convolution, given as make_conv_problem takes it, and one window over all of its output."""
    conv = make_conv_problem("fprop", dtype, target, **convolution)
    batch, filters, *map_size = conv.y.sizes
    window = [max(1, size) for size in map_size]  # where no filter fits there is none; validity will say so
    y = Operand((batch, filters, 1, 1), (filters, 1, 1, 1))
    return ConvGlobalMaxProblem(*_joined(conv, window, window, (0, 0), y))


def _joined(
    conv: ConvProblem, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], y: Operand
) -> tuple[ConvProblem, PoolProblem]:
    """The convolution and the pool over its output, with one index width."""
    pool = make_pool_problem(
        "forward",
        conv.dtype,
        conv.target,
        x=conv.y,
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=(1, 1),
        ceil_mode=False,
    )
    bits = max(conv.index_bits, pool.index_bits)
    return (
        dataclasses.replace(conv, index_bits=bits),
        dataclasses.replace(pool, y=y, offsets=y, index_bits=bits),
    )


def make_adaptive_pool_problem(
    pool_pass: Literal["forward", "backward"], dtype: torch.dtype, target: Target, *, x: Operand, y: Operand
) -> AdaptivePoolProblem:
    check_ranks(f"adaptive_max_pool2d_{pool_pass}", x=x, y=y)
    return AdaptivePoolProblem(pool_pass, dtype, x, y, target, index_bits(x, y))


def make_unpool_problem(
    unpool_pass: UnpoolPass,
    dtype: torch.dtype,
    target: Target,
    *,
    indices: Operand,
    x: Operand | None = None,
    y: Operand | Sequence[int],
) -> UnpoolProblem:
    """The problem of a pass. What it writes is left out (gather's x) or given by its sizes (y)."""
    op = f"max_unpool2d_{unpool_pass}"
    check_ranks(op, x=x, indices=indices, y=y)
    if x is None:
        x = _output_like(indices.sizes, indices)
    if not isinstance(y, Operand):
        check_numbers(op, 4, 0, sizes_of_y=y)
        y = _output_like(y, x)
    return UnpoolProblem(unpool_pass, dtype, x, indices, y, target, index_bits(x, indices, y))


def make_channel_sum_problem(dtype: torch.dtype, target: Target, x: Operand) -> ChannelSumProblem:
    check_ranks("channel_sum", x=x)
    return ChannelSumProblem(dtype=dtype, x=x, target=target, index_bits=index_bits(x))


def make_activation_backward_problem(
    dtype: torch.dtype, target: Target, dy: Operand, saved: Operand, activation: str
) -> ActivationBackwardProblem:
    """dz lies in memory as `saved` does, which is the convolution's output or what went into its activation."""
    check_ranks("activation_backward", dy=dy, saved=saved)
    dz = _output_like(saved.sizes, saved)
    return ActivationBackwardProblem(dtype, dy, saved, dz, activation, target, index_bits(dy, saved, dz))
