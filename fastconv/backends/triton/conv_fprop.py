"""Forward convolution as an implicit GEMM: M = N*P*Q pixels, N = K/G filters, K = R*S*C/G; bias, residual and activation fused.

The grid is pixel tiles x groups x filter tiles, filters fastest: the programs that share input pixels run together, and the
filter stays in cache. Filter tiles are counted per group, so groups add no empty programs.
"""

from __future__ import annotations

import torch
import triton.language as tl

from fastconv.backends.triton.family import Estimate, ceil_div
from fastconv.backends.triton.gemm import (
    GemmFamily,
    GemmShape,
    TileConfig,
    collapsed,
    estimate,
    is_pointwise,
    vector_along,
)
from fastconv.backends.triton.hints import is_wide
from fastconv.backends.triton.numerics import aligned, widen
from fastconv.backends.triton.output_pixels import (
    convolve,
    filters_of,
    finish_pixels,
    first_tap,
    group_images,
    output_arguments,
    pixel_of,
    tile_loop_arguments,
    tile_of,
)
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
    tile_n, group, tile_m = tile_of(tl.program_id(0), filter_tiles, GROUPS)
    group_channels = aligned(group_channels, C_ALIGNMENT)
    group_filters = aligned(group_filters, K_ALIGNMENT)
    out_width = aligned(out_width, Q_ALIGNMENT)
    pixels = aligned(pixels, Q_ALIGNMENT)

    # Rows: output pixels. Beyond the last one they repeat it, except where clamping would hide that pixels are contiguous.
    row = widen(tile_m, WIDE) * BLOCK_M + tl.arange(0, BLOCK_M)
    row_valid = row < pixels
    if not X_PIXELS_MINOR:
        row = tl.minimum(row, pixels - 1)
    n, p, q = pixel_of(row, out_height, out_width, WIDE)
    k, column_valid = filters_of(tile_n, group, group_filters, BLOCK_N, WIDE)
    h, w = first_tap(p, q, pad_top, pad_left, STRIDE_H, STRIDE_W, PADDING)
    image_offsets = group_images(
        n, group, group_channels, x_stride_n, x_stride_c, GROUPS, X_UNIT, X_ALIGNMENT, WIDE
    )  # fmt: skip
    accumulator = tl.full([BLOCK_M, BLOCK_N], 0.0, ACCUMULATOR)
    accumulator = convolve(
        accumulator, x_pointer, image_offsets, h, w, row_valid, height, width, x_stride_h, x_stride_w, x_stride_c,
        w_pointer, w_stride_r, w_stride_s, w_stride_c, w_stride_k, k, column_valid, taps, group_channels,
        R, S, DILATION_H, DILATION_W, X_UNIT, X_ALIGNMENT, W_UNIT, W_ALIGNMENT,
        BLOCK_K, PADDING, PADDING_VALUE, X_PIXELS_MINOR, EVEN_K, EVEN_N, X_PIXELS_MINOR, W_CHANNELS_MINOR, TAPS_INNER,
        PRECISION, WIDE,
    )  # fmt: skip
    finish_pixels(
        accumulator, y_pointer, bias_pointer, residual_pointer, n, p, q, row_valid, tile_n, group, group_filters,
        y_stride_n, y_stride_k, y_stride_p, y_stride_q,
        residual_stride_n, residual_stride_k, residual_stride_p, residual_stride_q,
        Y_UNIT, Y_ALIGNMENT, RESIDUAL_UNIT, RESIDUAL_ALIGNMENT, BLOCK_N, HALVES, Y_PIXELS_MINOR, ACTIVATION, WIDE,
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

    def estimate(self, problem: ConvProblem, config: TileConfig) -> Estimate:
        collapsed_problem = collapsed(problem)
        shape = self.shape(collapsed_problem, config)
        masked = shape.k % config.block_k and shape.left_vector == 1  # single elements, each with a mask of its own
        held = config.block_m * config.block_k // (24 * config.num_warps) if masked else 0
        return estimate(collapsed_problem, shape, config, held=held)

    def rejection(self, problem: ConvProblem, config: TileConfig) -> str:
        exact = problem.dtype == torch.float32 and not problem.allow_tf32
        if exact and problem.w.sizes[1] % config.block_k and config.accumulators() > 16:
            return (
                f"{problem.w.sizes[1]} channels need masks that do not fit beside {config.accumulators()} sums a thread"
            )
        return super().rejection(problem, config)

    def launches(self, problem: ConvProblem, config: TileConfig) -> list[Launch]:
        problem = collapsed(problem)
        pixels = self.shape(problem, config).m
        scalars, constants = tile_loop_arguments(problem, config)
        more_scalars, more_constants = output_arguments(problem, config, is_wide(problem, pixels))
        programs = ceil_div(pixels, config.block_m) * problem.groups * scalars["filter_tiles"]
        options = config.launch_options(problem)
        return [Launch(conv_fprop_kernel, programs, scalars | more_scalars, constants | more_constants, **options)]


FAMILIES = (ConvFprop(),)
