"""Forward convolution with few channels in a group: a whole row of the filter, S*C/G elements, is one step of the product.

A tile that takes channels alone would be mostly padding where there are three of them. Here its depth runs over the taps of one
filter row and their channels together, and the loop runs over the R rows. Which tap and channel an element of the depth is, is
computed once, outside the loop.
"""

from __future__ import annotations

import torch
import triton.language as tl

from fastconv.backends.triton.family import ceil_div
from fastconv.backends.triton.gemm import (
    GemmFamily,
    GemmShape,
    TileConfig,
    vector_along,
)
from fastconv.backends.triton.hints import is_wide
from fastconv.backends.triton.implicit_gemm import load_tile, shifted_tile
from fastconv.backends.triton.numerics import aligned, multiply_accumulate, stride_of, widen
from fastconv.backends.triton.output_pixels import (
    filters_of,
    finish_pixels,
    output_arguments,
    pixel_of,
    tile_of,
    window_arguments,
)
from fastconv.backends.triton.runtime import Launch, kernel
from fastconv.problem import ConvProblem


@kernel
def conv_fprop_rows_kernel(
    x_pointer,  # [N, C, H, W]
    w_pointer,  # [K, C/G, R, S]
    bias_pointer,  # [K] or None
    residual_pointer,  # [N, K, P, Q] or None
    y_pointer,  # [N, K, P, Q]
    pixels, height, width, out_height, out_width, group_channels, group_filters, filter_tiles, taps_h,
    x_stride_n, x_stride_c, x_stride_h, x_stride_w,
    w_stride_k, w_stride_c, w_stride_r, w_stride_s,
    y_stride_n, y_stride_k, y_stride_p, y_stride_q,
    residual_stride_n, residual_stride_k, residual_stride_p, residual_stride_q,
    pad_top, pad_left,
    S: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
    GROUPS: tl.constexpr, ACTIVATION: tl.constexpr,
    X_UNIT: tl.constexpr, X_ALIGNMENT: tl.constexpr, W_UNIT: tl.constexpr, W_ALIGNMENT: tl.constexpr,
    Y_UNIT: tl.constexpr, Y_ALIGNMENT: tl.constexpr, RESIDUAL_UNIT: tl.constexpr, RESIDUAL_ALIGNMENT: tl.constexpr,
    Q_ALIGNMENT: tl.constexpr, C_ALIGNMENT: tl.constexpr, K_ALIGNMENT: tl.constexpr,
    X_PIXELS_MINOR: tl.constexpr, W_CHANNELS_MINOR: tl.constexpr, Y_PIXELS_MINOR: tl.constexpr, EVEN_N: tl.constexpr,
    PADDING: tl.constexpr, PADDING_VALUE: tl.constexpr,
    PRECISION: tl.constexpr, ACCUMULATOR: tl.constexpr, WIDE: tl.constexpr, HALVES: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    tile_n, group, tile_m = tile_of(tl.program_id(0), filter_tiles, GROUPS)
    group_channels = aligned(group_channels, C_ALIGNMENT)
    group_filters = aligned(group_filters, K_ALIGNMENT)
    out_width = aligned(out_width, Q_ALIGNMENT)
    pixels = aligned(pixels, Q_ALIGNMENT)

    row = widen(tile_m, WIDE) * BLOCK_M + tl.arange(0, BLOCK_M)
    row_valid = row < pixels
    n, p, q = pixel_of(row, out_height, out_width, WIDE)
    k, column_valid = filters_of(tile_n, group, group_filters, BLOCK_N, WIDE)

    depth = tl.arange(0, BLOCK_K)
    depth_valid = depth < S * group_channels
    s = depth // group_channels
    c = widen(depth - s * group_channels, WIDE)
    x_stride_c = stride_of(x_stride_c, 1, X_UNIT, X_ALIGNMENT)
    x_stride_h = stride_of(x_stride_h, 2, X_UNIT, X_ALIGNMENT)
    x_stride_w = stride_of(x_stride_w, 3, X_UNIT, X_ALIGNMENT)
    image_offsets = n * stride_of(x_stride_n, 0, X_UNIT, X_ALIGNMENT)
    channel_offsets = (c + widen(group * group_channels, WIDE)) * x_stride_c
    w_stride_r = stride_of(w_stride_r, 2, W_UNIT, W_ALIGNMENT)
    depth_offsets = c * stride_of(w_stride_c, 1, W_UNIT, W_ALIGNMENT) + s * stride_of(
        w_stride_s, 3, W_UNIT, W_ALIGNMENT
    )
    filter_offsets = k * stride_of(w_stride_k, 0, W_UNIT, W_ALIGNMENT)
    h = p * STRIDE_H - pad_top
    w = q * STRIDE_W - pad_left
    shift_w = s * DILATION_W
    accumulator = tl.full([BLOCK_M, BLOCK_N], 0.0, ACCUMULATOR)
    for r in range(0, taps_h):
        if X_PIXELS_MINOR:
            transposed = shifted_tile(
                x_pointer, depth * 0, shift_w, channel_offsets, depth_valid, h + r * DILATION_H, w, image_offsets,
                row_valid, height, width, x_stride_h, x_stride_w, PADDING, PADDING_VALUE, WIDE,
            )  # fmt: skip
            left = tl.trans(transposed)
        else:
            left = shifted_tile(
                x_pointer, h + r * DILATION_H, w, image_offsets, row_valid, depth * 0, shift_w, channel_offsets,
                depth_valid, height, width, x_stride_h, x_stride_w, PADDING, PADDING_VALUE, WIDE,
            )  # fmt: skip
        right = load_tile(
            w_pointer + widen(r, WIDE) * w_stride_r, depth_offsets, filter_offsets, depth_valid, column_valid,
            True, not EVEN_N, W_CHANNELS_MINOR,
        )  # fmt: skip
        accumulator = multiply_accumulate(left, right, accumulator, PRECISION, BLOCK_K)

    finish_pixels(
        accumulator, y_pointer, bias_pointer, residual_pointer, n, p, q, row_valid, tile_n, group, group_filters,
        y_stride_n, y_stride_k, y_stride_p, y_stride_q,
        residual_stride_n, residual_stride_k, residual_stride_p, residual_stride_q,
        Y_UNIT, Y_ALIGNMENT, RESIDUAL_UNIT, RESIDUAL_ALIGNMENT, BLOCK_N, HALVES, Y_PIXELS_MINOR, ACTIVATION, WIDE,
    )  # fmt: skip


_CONFIGS = {
    "half": (
        TileConfig(128, 64, 32, 3, 4),
        TileConfig(64, 64, 32, 3, 4),
        TileConfig(128, 32, 32, 3, 4),
        TileConfig(128, 16, 32, 3, 4),
        TileConfig(64, 64, 64, 2, 4),
        TileConfig(64, 16, 64, 2, 4),
        TileConfig(128, 64, 16, 3, 4),
        TileConfig(128, 16, 16, 3, 4),
        TileConfig(32, 16, 16, 3, 2),
    ),
    "tf32": (
        TileConfig(128, 64, 32, 3, 8),
        TileConfig(64, 16, 32, 3, 4),
        TileConfig(64, 64, 64, 2, 8),
        TileConfig(128, 64, 16, 3, 4),
        TileConfig(64, 16, 16, 3, 4),
    ),
    "float": (
        TileConfig(32, 32, 32, 2, 8),
        TileConfig(32, 16, 32, 2, 4),
        TileConfig(64, 64, 16, 2, 4),
        TileConfig(32, 16, 16, 2, 4),
    ),
    "double": (),
}
#: Elements of a filter row up to which it fits a tile's depth.
_MOST_ELEMENTS = 64


class ConvFpropRows(GemmFamily):
    name = "conv_fprop_rows"
    ops = ("conv2d_fprop",)
    tiles = _CONFIGS

    def shape(self, problem: ConvProblem, config: TileConfig) -> GemmShape:
        batch, filters, height, width = problem.y.sizes
        _, channels, rows, columns = problem.w.sizes
        return GemmShape(
            m=batch * height * width,
            n=filters // problem.groups,
            k=columns * channels,
            taps=rows,
            batches=problem.groups,
            left_vector=vector_along(problem.x, 1, problem.dtype, channels),
            right_vector=vector_along(problem.w, 1, problem.dtype, channels),
        )

    def rejection(self, problem: ConvProblem, config: TileConfig) -> str:
        elements = problem.w.sizes[1] * problem.w.sizes[3]
        if elements > _MOST_ELEMENTS:
            return f"a filter row has {elements} elements: this kernel is for at most {_MOST_ELEMENTS}"
        if not config.block_k // 2 < max(elements, 9) <= config.block_k:
            return f"depth {config.block_k} is not the smallest that holds the {elements} elements of a filter row"
        return super().rejection(problem, config)

    def launches(self, problem: ConvProblem, config: TileConfig) -> list[Launch]:
        shape = self.shape(problem, config)
        scalars, constants = window_arguments(problem, config)
        more_scalars, more_constants = output_arguments(problem, config, is_wide(problem, shape.m))
        scalars |= {"taps_h": shape.taps, **more_scalars}
        constants |= more_constants
        programs = ceil_div(shape.m, config.block_m) * problem.groups * scalars["filter_tiles"]
        options = config.launch_options(problem)
        exact = problem.dtype == torch.float32 and not problem.allow_tf32
        if exact or self.estimate(problem, config).registers > options["max_registers"]:
            # Single elements with masks of their own; products without tensor cores keep a slice of both operands, too.
            options["max_registers"] = 255
        return [Launch(conv_fprop_rows_kernel, programs, scalars, constants, **options)]


FAMILIES = (ConvFpropRows(),)
