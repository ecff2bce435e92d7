"""Convolution, bias, activation and max pooling in one kernel: the convolution's output is never written.

A tile is output pixels of the pool x filters. For every place of the pool's window in turn, the tile loop of fprop computes the
convolution at that place, and the larger value stays. Where windows do not overlap nothing is computed twice; where they do,
R'*S' / (u'*v') as much is computed as by the convolution alone, which the model weighs against the memory traffic it saves.
Values are rounded to the output's type before they are compared, so that winners are those of the two ops one by one.
"""

from __future__ import annotations

import dataclasses

import triton.language as tl

from fastconv.backends.triton.conv_fprop import ConvFprop
from fastconv.backends.triton.family import Estimate, Workspaces, ceil_div
from fastconv.backends.triton.gemm import (
    GemmShape,
    TileConfig,
    estimate,
    tile_rejection,
    tiles_for,
)
from fastconv.backends.triton.hints import OperandHints, alignment, is_wide, operand_arguments
from fastconv.backends.triton.implicit_gemm import store_tile
from fastconv.backends.triton.numerics import activate, aligned, narrow, raised, stride_of, widen
from fastconv.backends.triton.output_pixels import (
    bias_of,
    convolve,
    filters_of,
    first_tap,
    group_images,
    pixel_of,
    pixel_offsets,
    tile_loop_arguments,
    tile_of,
)
from fastconv.backends.triton.runtime import Launch, kernel
from fastconv.backends.triton.winners import first_inside, keep_winner
from fastconv.problem import ConvMaxPoolProblem, ConvProblem


@kernel
def conv_max_pool_kernel(
    x_pointer,  # [N, C, H, W]
    w_pointer,  # [K, C/G, R, S]
    bias_pointer,  # [K] or None
    y_pointer,  # [N, K, P', Q'], of the pool
    offsets_pointer,  # [N, K, P', Q']
    pixels, height, width, conv_height, conv_width, out_height, out_width, group_channels, group_filters, filter_tiles, taps,
    pool_rows, pool_columns, pool_stride_h, pool_stride_w, pool_pad_h, pool_pad_w,
    x_stride_n, x_stride_c, x_stride_h, x_stride_w,
    w_stride_k, w_stride_c, w_stride_r, w_stride_s,
    y_stride_n, y_stride_k, y_stride_p, y_stride_q,
    offsets_stride_n, offsets_stride_k, offsets_stride_p, offsets_stride_q,
    pad_top, pad_left,
    R: tl.constexpr, S: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    DILATION_H: tl.constexpr, DILATION_W: tl.constexpr, GROUPS: tl.constexpr, ACTIVATION: tl.constexpr,
    X_UNIT: tl.constexpr, X_ALIGNMENT: tl.constexpr, W_UNIT: tl.constexpr, W_ALIGNMENT: tl.constexpr,
    Y_UNIT: tl.constexpr, Y_ALIGNMENT: tl.constexpr, OFFSETS_UNIT: tl.constexpr, OFFSETS_ALIGNMENT: tl.constexpr,
    Q_ALIGNMENT: tl.constexpr, C_ALIGNMENT: tl.constexpr, K_ALIGNMENT: tl.constexpr,
    X_PIXELS_MINOR: tl.constexpr, W_CHANNELS_MINOR: tl.constexpr, Y_PIXELS_MINOR: tl.constexpr,
    PADDING: tl.constexpr, PADDING_VALUE: tl.constexpr, EVEN_K: tl.constexpr, EVEN_N: tl.constexpr,
    TAPS_INNER: tl.constexpr, PRECISION: tl.constexpr, ACCUMULATOR: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    tile_n, group, tile_m = tile_of(tl.program_id(0), filter_tiles, GROUPS)
    group_channels = aligned(group_channels, C_ALIGNMENT)
    group_filters = aligned(group_filters, K_ALIGNMENT)
    out_width = aligned(out_width, Q_ALIGNMENT)
    pixels = aligned(pixels, Q_ALIGNMENT)

    # Rows: pixels of the pool's output; beyond the last one they repeat it.
    row = widen(tile_m, WIDE) * BLOCK_M + tl.arange(0, BLOCK_M)
    row_valid = row < pixels
    row = tl.minimum(row, pixels - 1)
    n, pool_p, pool_q = pixel_of(row, out_height, out_width, WIDE)
    first_p = (pool_p * pool_stride_h - pool_pad_h).to(tl.int32)
    first_q = (pool_q * pool_stride_w - pool_pad_w).to(tl.int32)

    k, column_valid = filters_of(tile_n, group, group_filters, BLOCK_N, WIDE)
    bias = bias_of(bias_pointer, k, column_valid, BLOCK_N, ACCUMULATOR)
    image_offsets = group_images(
        n, group, group_channels, x_stride_n, x_stride_c, GROUPS, X_UNIT, X_ALIGNMENT, WIDE
    )  # fmt: skip

    best = tl.full([BLOCK_M, BLOCK_N], -float("inf"), ACCUMULATOR)
    place = tl.full([BLOCK_M, BLOCK_N], 0, tl.int32)
    place += (first_inside(first_p, 1) * pool_columns + first_inside(first_q, 1))[:, None]
    for i in range(pool_rows):
        for j in range(pool_columns):
            p = first_p + i
            q = first_q + j
            inside = (p >= 0) & (p < conv_height) & (q >= 0) & (q < conv_width)
            h, w = first_tap(
                tl.minimum(tl.maximum(p, 0), conv_height - 1), tl.minimum(tl.maximum(q, 0), conv_width - 1),
                pad_top, pad_left, STRIDE_H, STRIDE_W, PADDING,
            )  # fmt: skip
            value = tl.full([BLOCK_M, BLOCK_N], 0.0, ACCUMULATOR)
            value = convolve(
                value, x_pointer, image_offsets, h, w, row_valid, height, width, x_stride_h, x_stride_w, x_stride_c,
                w_pointer, w_stride_r, w_stride_s, w_stride_c, w_stride_k, k, column_valid, taps, group_channels,
                R, S, DILATION_H, DILATION_W, X_UNIT, X_ALIGNMENT, W_UNIT, W_ALIGNMENT,
                BLOCK_K, PADDING, PADDING_VALUE, False, EVEN_K, EVEN_N, X_PIXELS_MINOR, W_CHANNELS_MINOR, TAPS_INNER,
                PRECISION, WIDE,
            )  # fmt: skip
            value = narrow(activate(value + bias[None, :], ACTIVATION), y_pointer.dtype.element_ty)
            best, place = keep_winner(best, place, raised(value, ACCUMULATOR), i * pool_columns + j, inside[:, None])

    pool_p = widen(pool_p, WIDE)
    pool_q = widen(pool_q, WIDE)
    y_rows = pixel_offsets(n, pool_p, pool_q, y_stride_n, y_stride_p, y_stride_q, Y_UNIT, Y_ALIGNMENT)
    place_rows = pixel_offsets(
        n, pool_p, pool_q, offsets_stride_n, offsets_stride_p, offsets_stride_q, OFFSETS_UNIT, OFFSETS_ALIGNMENT
    )
    store_tile(
        y_pointer, narrow(best, y_pointer.dtype.element_ty), y_rows, k * stride_of(y_stride_k, 1, Y_UNIT, Y_ALIGNMENT),
        row_valid, column_valid, Y_PIXELS_MINOR,
    )  # fmt: skip
    store_tile(
        offsets_pointer, place.to(offsets_pointer.dtype.element_ty), place_rows,
        k * stride_of(offsets_stride_k, 1, OFFSETS_UNIT, OFFSETS_ALIGNMENT), row_valid, column_valid, Y_PIXELS_MINOR,
    )  # fmt: skip


#: What the assembler reports beyond a convolution and the winners: the window's place, bounds and the bias.
_WINDOW_REGISTERS = 56
#: A thread holds sums, the best of them and their places, so tiles are a third of those of fprop.
TILES = {
    "half": (
        TileConfig(128, 64, 64, 3, 8),
        TileConfig(128, 64, 32, 4, 8),
        TileConfig(64, 64, 64, 4, 4),
        TileConfig(64, 64, 32, 4, 4),
        TileConfig(64, 32, 32, 4, 4),
        TileConfig(128, 16, 16, 4, 4),
        TileConfig(32, 32, 16, 4, 2),
    ),
    "tf32": (
        TileConfig(128, 64, 32, 3, 8),
        TileConfig(64, 64, 32, 3, 8),
        TileConfig(64, 32, 16, 4, 4),
        TileConfig(64, 16, 16, 4, 4),
    ),
    "float": (
        TileConfig(64, 64, 16, 3, 8),
        TileConfig(64, 32, 16, 3, 8),
        TileConfig(32, 32, 16, 3, 4),
        TileConfig(32, 16, 16, 3, 4),
    ),
    "double": (
        TileConfig(32, 16, 1, 2, 4),
        TileConfig(16, 16, 8, 2, 4),
    ),
}


class ConvMaxPool:
    name = "conv_max_pool"
    ops = ("conv2d_max_pool2d",)

    def configs(self, problem: ConvMaxPoolProblem) -> tuple[TileConfig, ...]:
        return tiles_for(problem.conv, TILES)

    def shape(self, problem: ConvMaxPoolProblem, config: TileConfig) -> GemmShape:
        batch, _, height, width = problem.pool.y.sizes
        window = problem.pool.kernel[0] * problem.pool.kernel[1]
        base = ConvFprop().shape(problem.conv, config)
        return dataclasses.replace(base, m=batch * height * width, taps=base.taps * window)

    def rejection(self, problem: ConvMaxPoolProblem, config: TileConfig) -> str:
        shares = {other: self.estimate(problem, other).useful for other in self.configs(problem)}
        return tile_rejection(problem.conv, config, self.estimate(problem, config), shares)

    def estimate(self, problem: ConvMaxPoolProblem, config: TileConfig) -> Estimate:
        held = 2 * config.accumulators() + _WINDOW_REGISTERS
        return estimate(problem.conv, self.shape(problem, config), config, problem.compulsory_bytes(), held)

    def workspaces(self, problem: ConvMaxPoolProblem, config: TileConfig) -> Workspaces:
        return {}

    def launches(self, problem: ConvMaxPoolProblem, config: TileConfig) -> list[Launch]:
        conv, pool = problem.conv, problem.pool
        pixels = pool.y.sizes[0] * pool.y.sizes[2] * pool.y.sizes[3]
        scalars, constants = tile_loop_arguments(conv, config)
        strides, hints = operand_arguments(y=pool.y, offsets=pool.offsets)
        scalars |= {
            "pixels": pixels,
            "conv_height": conv.y.sizes[2],
            "conv_width": conv.y.sizes[3],
            "out_height": pool.y.sizes[2],
            "out_width": pool.y.sizes[3],
            # Run-time values, lest the assembler unroll the loops over the window around the product's.
            "pool_rows": pool.kernel[0],
            "pool_columns": pool.kernel[1],
            "pool_stride_h": pool.stride[0],
            "pool_stride_w": pool.stride[1],
            "pool_pad_h": pool.padding[0],
            "pool_pad_w": pool.padding[1],
            **strides,
        }
        constants |= {
            **hints,
            "Q_ALIGNMENT": alignment(pool.y.sizes[3]),
            "Y_PIXELS_MINOR": not OperandHints.of(pool.y).channels_minor_to(2, 3),
            "WIDE": is_wide(conv, pixels),
        }
        programs = ceil_div(pixels, config.block_m) * conv.groups * scalars["filter_tiles"]
        return [Launch(conv_max_pool_kernel, programs, scalars, constants, **launch_options(config, conv))]


def launch_options(config: TileConfig, conv: ConvProblem) -> dict[str, int]:
    small = config.accumulators() <= 8 and conv.dtype.itemsize == 2 and conv.index_bits == 32
    return config.launch_options(conv) | {"max_registers": 168 if small else 255}


FAMILIES = (ConvMaxPool(),)
