"""What the kernels share whose rows are output pixels of a convolution: fprop's two, and those that fuse a pool to it.

Which tile a program has, where its pixels and filters lie, the tile loop over the input, the epilogue; and the arguments that
the host passes for them.
"""

from __future__ import annotations

from typing import Any

import triton.language as tl

from fastconv.backends.triton.family import ceil_div
from fastconv.backends.triton.gemm import TileConfig, accumulator_of, instruction_precision
from fastconv.backends.triton.hints import OperandHints, alignment, operand_arguments, step_constants
from fastconv.backends.triton.implicit_gemm import accumulate, finish
from fastconv.backends.triton.numerics import raised, stride_of, widen
from fastconv.backends.triton.padding import padding_constants
from fastconv.backends.triton.runtime import device_function
from fastconv.problem import ConvProblem


@device_function
def tile_of(program, filter_tiles, GROUPS: tl.constexpr):
    """(filter tile, group, pixel tile): the grid is pixel tiles x groups x filter tiles, filters fastest."""
    tile_n = program % filter_tiles
    group = (program // filter_tiles) % GROUPS
    return tile_n, group, program // (filter_tiles * GROUPS)


@device_function
def pixel_of(row, out_height, out_width, WIDE: tl.constexpr):
    """(image, output row, output column) of pixels counted over all images."""
    q = row % out_width
    p = (row // out_width) % out_height
    return widen(row // out_width // out_height, WIDE), p, q


@device_function
def filters_of(tile_n, group, group_filters, BLOCK_N: tl.constexpr, WIDE: tl.constexpr):
    """(filters of the tile, which of them the group has)."""
    column = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    column_valid = column < group_filters
    return widen(group * group_filters + column, WIDE), column_valid


@device_function
def group_images(
    n, group, group_channels, x_stride_n, x_stride_c,
    GROUPS: tl.constexpr, X_UNIT: tl.constexpr, X_ALIGNMENT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Offsets of the images' first channels of a group."""
    offsets = n * stride_of(x_stride_n, 0, X_UNIT, X_ALIGNMENT)
    if GROUPS > 1:
        offsets += widen(group * group_channels, WIDE) * stride_of(x_stride_c, 1, X_UNIT, X_ALIGNMENT)
    return offsets


@device_function
def first_tap(p, q, pad_top, pad_left, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, PADDING: tl.constexpr):
    """Where the window of an output pixel begins."""
    h = p * STRIDE_H
    w = q * STRIDE_W
    if PADDING != "none":
        h -= pad_top
        w -= pad_left
    return h, w


@device_function
def convolve(
    accumulator,  # [M, N]
    x_pointer, image_offsets, h, w, row_valid, height, width, x_stride_h, x_stride_w, x_stride_c,
    w_pointer, w_stride_r, w_stride_s, w_stride_c, w_stride_k, k, column_valid, taps, group_channels,
    R: tl.constexpr, S: tl.constexpr, DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
    X_UNIT: tl.constexpr, X_ALIGNMENT: tl.constexpr, W_UNIT: tl.constexpr, W_ALIGNMENT: tl.constexpr,
    BLOCK_K: tl.constexpr, PADDING: tl.constexpr, PADDING_VALUE: tl.constexpr, ROWS_MASKED: tl.constexpr,
    EVEN_K: tl.constexpr, EVEN_N: tl.constexpr, X_PIXELS_MINOR: tl.constexpr, W_CHANNELS_MINOR: tl.constexpr,
    TAPS_INNER: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """accumulator plus the products of the windows that begin at (h, w) with the filters k."""
    return accumulate(
        accumulator,
        x_pointer, image_offsets, h, w, row_valid, height, width,
        stride_of(x_stride_h, 2, X_UNIT, X_ALIGNMENT), stride_of(x_stride_w, 3, X_UNIT, X_ALIGNMENT),
        stride_of(x_stride_c, 1, X_UNIT, X_ALIGNMENT), DILATION_H, DILATION_W,
        w_pointer, stride_of(w_stride_r, 2, W_UNIT, W_ALIGNMENT), stride_of(w_stride_s, 3, W_UNIT, W_ALIGNMENT),
        stride_of(w_stride_c, 1, W_UNIT, W_ALIGNMENT), k * stride_of(w_stride_k, 0, W_UNIT, W_ALIGNMENT), column_valid,
        taps, R, S, group_channels,
        BLOCK_K, PADDING, PADDING_VALUE, ROWS_MASKED, EVEN_K, EVEN_N, X_PIXELS_MINOR, W_CHANNELS_MINOR, TAPS_INNER,
        PRECISION, WIDE,
    )  # fmt: skip


@device_function
def pixel_offsets(
    n, p, q, stride_n, stride_p, stride_q, UNIT: tl.constexpr, ALIGNMENT: tl.constexpr
):  # fmt: skip
    """Offsets of an operand's pixels, whose indices are wide enough to be multiplied."""
    return (
        n * stride_of(stride_n, 0, UNIT, ALIGNMENT)
        + p * stride_of(stride_p, 2, UNIT, ALIGNMENT)
        + q * stride_of(stride_q, 3, UNIT, ALIGNMENT)
    )


@device_function
def finish_pixels(
    accumulator, y_pointer, bias_pointer, residual_pointer, n, p, q, row_valid, tile_n, group, group_filters,
    y_stride_n, y_stride_k, y_stride_p, y_stride_q,
    residual_stride_n, residual_stride_k, residual_stride_p, residual_stride_q,
    Y_UNIT: tl.constexpr, Y_ALIGNMENT: tl.constexpr, RESIDUAL_UNIT: tl.constexpr, RESIDUAL_ALIGNMENT: tl.constexpr,
    BLOCK_N: tl.constexpr, HALVES: tl.constexpr, Y_PIXELS_MINOR: tl.constexpr, ACTIVATION: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The epilogue of a tile of pixels (n, p, q) x filters, stored to y."""
    p = widen(p, WIDE)
    q = widen(q, WIDE)
    residual_rows = n
    residual_stride_k = stride_of(residual_stride_k, 1, RESIDUAL_UNIT, RESIDUAL_ALIGNMENT)
    if residual_pointer is not None:
        residual_rows = pixel_offsets(
            n, p, q, residual_stride_n, residual_stride_p, residual_stride_q, RESIDUAL_UNIT, RESIDUAL_ALIGNMENT
        )
    finish(
        accumulator, y_pointer, bias_pointer, residual_pointer,
        pixel_offsets(n, p, q, y_stride_n, y_stride_p, y_stride_q, Y_UNIT, Y_ALIGNMENT),
        stride_of(y_stride_k, 1, Y_UNIT, Y_ALIGNMENT), residual_rows, residual_stride_k,
        row_valid, tile_n, group * group_filters, group_filters, BLOCK_N, HALVES, Y_PIXELS_MINOR, ACTIVATION, WIDE,
    )  # fmt: skip


@device_function
def bias_of(bias_pointer, k, column_valid, BLOCK_N: tl.constexpr, ACCUMULATOR: tl.constexpr):
    """[N] of the filters k, zeros where there is none: for kernels that add it to more than one tile."""
    bias = tl.full([BLOCK_N], 0.0, ACCUMULATOR)
    if bias_pointer is not None:
        bias = raised(tl.load(bias_pointer + k, mask=column_valid, other=0.0), ACCUMULATOR)
    return bias


def window_arguments(conv: ConvProblem, config: TileConfig) -> tuple[dict[str, int], dict[str, Any]]:
    """Scalars and constants of x, w and the geometry, which all these kernels take."""
    filters, group_channels, _, columns = conv.w.sizes
    strides, constants = operand_arguments(x=conv.x, w=conv.w)
    scalars = {
        "height": conv.x.sizes[2],
        "width": conv.x.sizes[3],
        "group_channels": group_channels,
        "group_filters": filters // conv.groups,
        "filter_tiles": ceil_div(filters // conv.groups, config.block_n),
        "pad_top": conv.padding[0],
        "pad_left": conv.padding[2],
        **strides,
    }
    constants |= {
        "S": columns,
        **step_constants(conv),
        "GROUPS": conv.groups,
        "ACTIVATION": conv.activation,
        "C_ALIGNMENT": alignment(group_channels),
        "K_ALIGNMENT": alignment(filters // conv.groups),
        "X_PIXELS_MINOR": not OperandHints.of(conv.x).channels_minor_to(2, 3),
        "W_CHANNELS_MINOR": OperandHints.of(conv.w).channels_minor_to(0),
        **padding_constants(conv),
        "EVEN_N": filters // conv.groups % config.block_n == 0,
        "PRECISION": instruction_precision(conv),
        "ACCUMULATOR": accumulator_of(conv.dtype),
        **config.blocks(),
    }
    return scalars, constants


def tile_loop_arguments(conv: ConvProblem, config: TileConfig) -> tuple[dict[str, int], dict[str, Any]]:
    """The same with what `convolve` takes besides."""
    scalars, constants = window_arguments(conv, config)
    _, group_channels, rows, columns = conv.w.sizes
    scalars["taps"] = rows * columns
    constants |= {
        "R": rows,
        "EVEN_K": group_channels % config.block_k == 0,
        "TAPS_INNER": rows * columns > ceil_div(group_channels, config.block_k),
    }
    return scalars, constants


def output_arguments(conv: ConvProblem, config: TileConfig, wide: bool) -> tuple[dict[str, int], dict[str, Any]]:
    """Of `finish_pixels`, and of which pixels there are."""
    batch, _, height, width = conv.y.sizes
    strides, constants = operand_arguments(y=conv.y, residual=conv.residual)
    scalars = {"pixels": batch * height * width, "out_height": height, "out_width": width, **strides}
    constants |= {
        "Q_ALIGNMENT": alignment(width),
        "Y_PIXELS_MINOR": not OperandHints.of(conv.y).channels_minor_to(2, 3),
        "WIDE": wide,
        "HALVES": config.finishes_by_halves(),
    }
    return scalars, constants
