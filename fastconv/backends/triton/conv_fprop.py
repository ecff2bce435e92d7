"""Forward convolution as an implicit GEMM: M = N*P*Q pixels, N = K/G filters, K = R*S*C/G; bias, residual and activation fused.

The grid is pixel tiles x groups x filter tiles, filters fastest: the programs that share input pixels run together, and the
filter stays in cache. Filter tiles are counted per group, so groups add no empty programs.
"""

from __future__ import annotations

import torch
import triton.language as tl

from fastconv.backends.triton.family import ceil_div
from fastconv.backends.triton.gemm import (
    GemmFamily,
    GemmShape,
    TileConfig,
    accumulator_of,
    collapsed,
    instruction_precision,
    is_pointwise,
    vector_along,
)
from fastconv.backends.triton.hints import OperandHints, alignment, is_wide, operand_arguments
from fastconv.backends.triton.implicit_gemm import accumulate, finish
from fastconv.backends.triton.numerics import aligned, stride_of, widen
from fastconv.backends.triton.padding import padding_constants
from fastconv.backends.triton.runtime import Launch, kernel
from fastconv.problem import ConvProblem


@kernel
def conv_fprop_kernel(
    x_pointer,  # [N, C, H, W]
    w_pointer,  # [K, C/G, R, S]
    bias_pointer,  # [K] or None
    residual_pointer,  # [N, K, P, Q] or None
    y_pointer,  # [N, K, P, Q]
    pixels, height, width, out_height, out_width, group_channels, group_filters, filter_tiles, taps,
    x_stride_n, x_stride_c, x_stride_h, x_stride_w,
    w_stride_k, w_stride_c, w_stride_r, w_stride_s,
    y_stride_n, y_stride_k, y_stride_p, y_stride_q,
    residual_stride_n, residual_stride_k, residual_stride_p, residual_stride_q,
    pad_top, pad_left,
    R: tl.constexpr, S: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    DILATION_H: tl.constexpr, DILATION_W: tl.constexpr, GROUPS: tl.constexpr, ACTIVATION: tl.constexpr,
    X_UNIT: tl.constexpr, X_ALIGNMENT: tl.constexpr, W_UNIT: tl.constexpr, W_ALIGNMENT: tl.constexpr,
    Y_UNIT: tl.constexpr, Y_ALIGNMENT: tl.constexpr, RESIDUAL_UNIT: tl.constexpr, RESIDUAL_ALIGNMENT: tl.constexpr,
    Q_ALIGNMENT: tl.constexpr, C_ALIGNMENT: tl.constexpr, K_ALIGNMENT: tl.constexpr,
    X_PIXELS_MINOR: tl.constexpr, W_CHANNELS_MINOR: tl.constexpr, Y_PIXELS_MINOR: tl.constexpr,
    PADDING: tl.constexpr, PADDING_VALUE: tl.constexpr, EVEN_K: tl.constexpr, EVEN_N: tl.constexpr, TAPS_INNER: tl.constexpr,
    PRECISION: tl.constexpr, ACCUMULATOR: tl.constexpr, WIDE: tl.constexpr, HALVES: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    tile_n = program % filter_tiles
    group = (program // filter_tiles) % GROUPS
    tile_m = program // (filter_tiles * GROUPS)
    group_channels = aligned(group_channels, C_ALIGNMENT)
    group_filters = aligned(group_filters, K_ALIGNMENT)
    out_width = aligned(out_width, Q_ALIGNMENT)
    pixels = aligned(pixels, Q_ALIGNMENT)

    # Rows: output pixels. Beyond the last one they repeat it, except where clamping would hide that pixels are contiguous.
    row = widen(tile_m, WIDE) * BLOCK_M + tl.arange(0, BLOCK_M)
    row_valid = row < pixels
    if not X_PIXELS_MINOR:
        row = tl.minimum(row, pixels - 1)
    q = row % out_width
    p = (row // out_width) % out_height
    n = widen(row // out_width // out_height, WIDE)

    # Columns: the filters of this group.
    column = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    column_valid = column < group_filters
    k = widen(group * group_filters + column, WIDE)

    h = p * STRIDE_H
    w = q * STRIDE_W
    if PADDING != "none":
        h -= pad_top
        w -= pad_left
    image_offsets = n * stride_of(x_stride_n, 0, X_UNIT, X_ALIGNMENT)
    if GROUPS > 1:
        image_offsets += widen(group * group_channels, WIDE) * stride_of(x_stride_c, 1, X_UNIT, X_ALIGNMENT)
    accumulator = tl.full([BLOCK_M, BLOCK_N], 0.0, ACCUMULATOR)
    accumulator = accumulate(
        accumulator,
        x_pointer, image_offsets, h, w, row_valid, height, width,
        stride_of(x_stride_h, 2, X_UNIT, X_ALIGNMENT), stride_of(x_stride_w, 3, X_UNIT, X_ALIGNMENT),
        stride_of(x_stride_c, 1, X_UNIT, X_ALIGNMENT), DILATION_H, DILATION_W,
        w_pointer, stride_of(w_stride_r, 2, W_UNIT, W_ALIGNMENT), stride_of(w_stride_s, 3, W_UNIT, W_ALIGNMENT),
        stride_of(w_stride_c, 1, W_UNIT, W_ALIGNMENT), k * stride_of(w_stride_k, 0, W_UNIT, W_ALIGNMENT), column_valid,
        taps, R, S, group_channels,
        BLOCK_K, PADDING, PADDING_VALUE, X_PIXELS_MINOR, EVEN_K, EVEN_N, X_PIXELS_MINOR, W_CHANNELS_MINOR, TAPS_INNER,
        PRECISION, WIDE,
    )  # fmt: skip

    p = widen(p, WIDE)
    q = widen(q, WIDE)
    residual_rows = n
    residual_stride_k = stride_of(residual_stride_k, 1, RESIDUAL_UNIT, RESIDUAL_ALIGNMENT)
    if residual_pointer is not None:
        residual_rows = (
            n * stride_of(residual_stride_n, 0, RESIDUAL_UNIT, RESIDUAL_ALIGNMENT)
            + p * stride_of(residual_stride_p, 2, RESIDUAL_UNIT, RESIDUAL_ALIGNMENT)
            + q * stride_of(residual_stride_q, 3, RESIDUAL_UNIT, RESIDUAL_ALIGNMENT)
        )
    finish(
        accumulator, y_pointer, bias_pointer, residual_pointer,
        n * stride_of(y_stride_n, 0, Y_UNIT, Y_ALIGNMENT)
        + p * stride_of(y_stride_p, 2, Y_UNIT, Y_ALIGNMENT)
        + q * stride_of(y_stride_q, 3, Y_UNIT, Y_ALIGNMENT),
        stride_of(y_stride_k, 1, Y_UNIT, Y_ALIGNMENT), residual_rows, residual_stride_k,
        row_valid, tile_n, group * group_filters, group_filters, BLOCK_N, HALVES, Y_PIXELS_MINOR, ACTIVATION, WIDE,
    )  # fmt: skip


_CONFIGS = {
    "half": (
        TileConfig(128, 256, 64, 3, 8),
        TileConfig(256, 128, 32, 4, 8),
        TileConfig(128, 128, 64, 3, 8),
        TileConfig(128, 128, 32, 4, 4),
        TileConfig(256, 64, 32, 4, 8),
        TileConfig(128, 64, 64, 4, 8),
        TileConfig(128, 64, 32, 4, 4),
        TileConfig(64, 128, 32, 4, 4),
        TileConfig(64, 64, 64, 4, 4),
        TileConfig(128, 32, 32, 4, 4),
        TileConfig(64, 32, 32, 4, 4),
        TileConfig(128, 16, 16, 4, 4),
        TileConfig(64, 16, 16, 4, 4),
        TileConfig(32, 32, 16, 4, 2),
    ),
    "tf32": (
        TileConfig(128, 128, 32, 3, 8),
        TileConfig(128, 64, 32, 3, 4),
        TileConfig(64, 128, 32, 3, 4),
        TileConfig(64, 64, 32, 4, 4),
        TileConfig(128, 32, 16, 4, 4),
        TileConfig(64, 32, 16, 4, 4),
        TileConfig(64, 16, 16, 4, 4),
    ),
    "float": (
        TileConfig(64, 64, 16, 3, 8),
        TileConfig(64, 64, 16, 3, 4),
        TileConfig(64, 32, 16, 3, 4),
        TileConfig(32, 32, 16, 3, 4),
        TileConfig(32, 16, 16, 3, 2),
    ),
    "double": (
        TileConfig(32, 32, 1, 2, 4),
        TileConfig(64, 16, 1, 2, 4),
        TileConfig(16, 16, 8, 2, 4),
        TileConfig(16, 16, 2, 2, 4),
    ),
}


class ConvFprop(GemmFamily):
    name = "conv_fprop"
    ops = ("conv2d_fprop",)
    tiles = _CONFIGS

    def shape(self, problem: ConvProblem, config: TileConfig) -> GemmShape:
        batch, filters, height, width = problem.y.sizes
        _, channels, rows, columns = problem.w.sizes
        return GemmShape(
            m=batch * height * width,
            n=filters // problem.groups,
            k=channels,
            taps=rows * columns,
            batches=problem.groups,
            left_vector=max(
                vector_along(problem.x, 1, problem.dtype, channels),
                vector_along(problem.x, 3, problem.dtype, width) if is_pointwise(problem) else 1,
            ),
            right_vector=max(
                vector_along(problem.w, 1, problem.dtype, channels),
                vector_along(problem.w, 0, problem.dtype, filters // problem.groups),
            ),
        )

    def rejection(self, problem: ConvProblem, config: TileConfig) -> str:
        exact = problem.dtype == torch.float32 and not problem.allow_tf32
        if exact and problem.w.sizes[1] % config.block_k and config.accumulators() > 16:
            return (
                f"{problem.w.sizes[1]} channels need masks that do not fit beside {config.accumulators()} sums a thread"
            )
        return super().rejection(problem, config)

    def launches(self, problem: ConvProblem, config: TileConfig) -> list[Launch]:
        problem = collapsed(problem)
        shape = self.shape(problem, config)
        x, w, y = (OperandHints.of(operand) for operand in (problem.x, problem.w, problem.y))
        strides, constants = operand_arguments(x=problem.x, w=problem.w, y=problem.y, residual=problem.residual)
        filter_tiles = ceil_div(shape.n, config.block_n)
        scalars = {
            "pixels": shape.m,
            "height": problem.x.sizes[2],
            "width": problem.x.sizes[3],
            "out_height": problem.y.sizes[2],
            "out_width": problem.y.sizes[3],
            "group_channels": shape.k,
            "group_filters": shape.n,
            "filter_tiles": filter_tiles,
            "taps": shape.taps,
            "pad_top": problem.padding[0],
            "pad_left": problem.padding[2],
            **strides,
        }
        constants |= {
            "R": problem.w.sizes[2],
            "S": problem.w.sizes[3],
            "STRIDE_H": problem.stride[0],
            "STRIDE_W": problem.stride[1],
            "DILATION_H": problem.dilation[0],
            "DILATION_W": problem.dilation[1],
            "GROUPS": problem.groups,
            "ACTIVATION": problem.activation,
            "Q_ALIGNMENT": alignment(problem.y.sizes[3]),
            "C_ALIGNMENT": alignment(shape.k),
            "K_ALIGNMENT": alignment(shape.n),
            "X_PIXELS_MINOR": not x.channels_minor_to(2, 3),
            "W_CHANNELS_MINOR": w.channels_minor_to(0),
            "Y_PIXELS_MINOR": not y.channels_minor_to(2, 3),
            **padding_constants(problem),
            "EVEN_K": shape.k % config.block_k == 0,
            "EVEN_N": shape.n % config.block_n == 0,
            "TAPS_INNER": shape.taps > ceil_div(shape.k, config.block_k),
            "PRECISION": instruction_precision(problem),
            "ACCUMULATOR": accumulator_of(problem.dtype),
            "WIDE": is_wide(problem, shape.m),
            "HALVES": config.finishes_by_halves(),
            **config.blocks(),
        }
        programs = ceil_div(shape.m, config.block_m) * problem.groups * filter_tiles
        return [Launch(conv_fprop_kernel, programs, scalars, constants, **config.launch_options(problem))]


FAMILIES = (ConvFprop(),)
