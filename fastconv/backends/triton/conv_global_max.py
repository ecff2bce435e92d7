"""Convolution, bias, activation and the largest value of every filter's map in one kernel: the map is never written.

A program takes some filters of an image and a part of the map's pixels, walks over these a tile at a time, and keeps for each
row of the tile the best value and where it was; in the end it compares the rows. A second launch compares the parts.
"""

from __future__ import annotations

import dataclasses

import triton.language as tl

from fastconv.backends.triton import winners
from fastconv.backends.triton.conv_fprop import ConvFprop
from fastconv.backends.triton.conv_max_pool import TILES, launch_options
from fastconv.backends.triton.family import Estimate, Workspaces, ceil_div
from fastconv.backends.triton.gemm import GemmShape, TileConfig, estimate, tile_rejection, tiles_for
from fastconv.backends.triton.hints import is_wide
from fastconv.backends.triton.numerics import activate, aligned, narrow, raised, widen
from fastconv.backends.triton.output_pixels import (
    bias_of,
    convolve,
    filters_of,
    first_tap,
    group_images,
    tile_loop_arguments,
)
from fastconv.backends.triton.runtime import Launch, kernel
from fastconv.backends.triton.target import LAUNCH_SECONDS
from fastconv.backends.triton.winners import keep_winner, winner_over
from fastconv.problem import ConvGlobalMaxProblem


@kernel
def conv_global_max_kernel(
    x_pointer,  # [N, C, H, W]
    w_pointer,  # [K, C/G, R, S]
    bias_pointer,  # [K] or None
    y_pointer,  # [N, K], whose type values are rounded to before they are compared
    best_pointer,  # [parts, N, K]
    place_pointer,  # [parts, N, K]
    batch, tiles_per_part, height, width, out_height, out_width, group_channels, group_filters, filter_tiles, taps,
    x_stride_n, x_stride_c, x_stride_h, x_stride_w,
    w_stride_k, w_stride_c, w_stride_r, w_stride_s,
    pad_top, pad_left,
    R: tl.constexpr, S: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    DILATION_H: tl.constexpr, DILATION_W: tl.constexpr, GROUPS: tl.constexpr, ACTIVATION: tl.constexpr,
    X_UNIT: tl.constexpr, X_ALIGNMENT: tl.constexpr, W_UNIT: tl.constexpr, W_ALIGNMENT: tl.constexpr,
    C_ALIGNMENT: tl.constexpr, K_ALIGNMENT: tl.constexpr, X_PIXELS_MINOR: tl.constexpr, W_CHANNELS_MINOR: tl.constexpr,
    PADDING: tl.constexpr, PADDING_VALUE: tl.constexpr, EVEN_K: tl.constexpr, EVEN_N: tl.constexpr,
    TAPS_INNER: tl.constexpr, PRECISION: tl.constexpr, ACCUMULATOR: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    # Parts x images x groups x filter tiles, filters fastest: what shares x runs together.
    program = tl.program_id(0)
    tile_n = program % filter_tiles
    program = program // filter_tiles
    group = program % GROUPS
    program = program // GROUPS
    image = program % batch
    part = program // batch
    group_channels = aligned(group_channels, C_ALIGNMENT)
    group_filters = aligned(group_filters, K_ALIGNMENT)

    k, column_valid = filters_of(tile_n, group, group_filters, BLOCK_N, WIDE)
    bias = bias_of(bias_pointer, k, column_valid, BLOCK_N, ACCUMULATOR)
    image_offset = group_images(
        widen(image, WIDE), group, group_channels, x_stride_n, x_stride_c, GROUPS, X_UNIT, X_ALIGNMENT, WIDE
    )  # fmt: skip

    pixels = out_height * out_width
    first_tile = part * tiles_per_part
    rows = tl.arange(0, BLOCK_M)
    best = tl.full([BLOCK_M, BLOCK_N], -float("inf"), ACCUMULATOR)
    # A row that never has a pixel has the last place, so that the first pixel wins where all are minus infinity.
    place = tl.full([BLOCK_M, BLOCK_N], 0, tl.int32) + (first_tile * BLOCK_M + rows)[:, None]
    for tile in range(first_tile, tl.minimum(first_tile + tiles_per_part, (pixels + BLOCK_M - 1) // BLOCK_M)):
        row = tile * BLOCK_M + rows
        row_valid = row < pixels
        pixel = tl.minimum(row, pixels - 1)
        p = pixel // out_width
        h, w = first_tap(p, pixel - p * out_width, pad_top, pad_left, STRIDE_H, STRIDE_W, PADDING)
        value = tl.full([BLOCK_M, BLOCK_N], 0.0, ACCUMULATOR)
        value = convolve(
            value, x_pointer, widen(pixel * 0, WIDE) + image_offset, h, w, row_valid, height, width,
            x_stride_h, x_stride_w, x_stride_c,
            w_pointer, w_stride_r, w_stride_s, w_stride_c, w_stride_k, k, column_valid, taps, group_channels,
            R, S, DILATION_H, DILATION_W, X_UNIT, X_ALIGNMENT, W_UNIT, W_ALIGNMENT,
            BLOCK_K, PADDING, PADDING_VALUE, False, EVEN_K, EVEN_N, X_PIXELS_MINOR, W_CHANNELS_MINOR, TAPS_INNER,
            PRECISION, WIDE,
        )  # fmt: skip
        value = narrow(activate(value + bias[None, :], ACTIVATION), y_pointer.dtype.element_ty)
        best, place = keep_winner(best, place, raised(value, ACCUMULATOR), row[:, None], row_valid[:, None])

    winner, where = winner_over(best, place, 0)
    features = (widen(part, WIDE) * batch + image) * (group_filters * GROUPS) + k
    tl.store(best_pointer + features, winner, mask=column_valid)
    tl.store(place_pointer + features, where, mask=column_valid)


class ConvGlobalMax:
    name = "conv_global_max"
    ops = ("conv2d_global_max",)

    def configs(self, problem: ConvGlobalMaxProblem) -> tuple[TileConfig, ...]:
        return tiles_for(problem.conv, TILES)

    def _parts(self, problem: ConvGlobalMaxProblem, config: TileConfig) -> tuple[int, int]:
        """Parts that the map is divided into, enough for two programs on every multiprocessor; and tiles of each."""
        batch, filters, height, width = problem.conv.y.sizes
        tiles = ceil_div(height * width, config.block_m)
        groups = problem.conv.groups
        others = batch * groups * ceil_div(filters // groups, config.block_n)
        wanted = max(2 * problem.target.multiprocessors // max(others, 1), 1)
        tiles_per_part = max(ceil_div(tiles, wanted), 1)
        return max(ceil_div(tiles, tiles_per_part), 1), tiles_per_part

    def shape(self, problem: ConvGlobalMaxProblem, config: TileConfig) -> GemmShape:
        batch, _, height, width = problem.conv.y.sizes
        parts, tiles_per_part = self._parts(problem, config)
        base = ConvFprop().shape(problem.conv, config)
        batches = base.batches * batch * parts
        return dataclasses.replace(
            base, m=ceil_div(height * width, parts * tiles_per_part), batches=batches, taps=base.taps * tiles_per_part
        )

    def rejection(self, problem: ConvGlobalMaxProblem, config: TileConfig) -> str:
        shares = {other: self.estimate(problem, other).useful for other in self.configs(problem)}
        return tile_rejection(problem.conv, config, self.estimate(problem, config), shares)

    def estimate(self, problem: ConvGlobalMaxProblem, config: TileConfig) -> Estimate:
        held = 2 * config.accumulators() + 20
        costs = estimate(problem.conv, self.shape(problem, config), config, problem.compulsory_bytes(), held)
        return dataclasses.replace(costs, seconds=costs.seconds + LAUNCH_SECONDS)

    def workspaces(self, problem: ConvGlobalMaxProblem, config: TileConfig) -> Workspaces:
        batch, filters = problem.conv.y.sizes[:2]
        return winners.workspaces(problem.dtype, self._parts(problem, config)[0], batch * filters)

    def launches(self, problem: ConvGlobalMaxProblem, config: TileConfig) -> list[Launch]:
        conv = problem.conv
        batch, filters, out_height, out_width = conv.y.sizes
        parts, tiles_per_part = self._parts(problem, config)
        scalars, constants = tile_loop_arguments(conv, config)
        scalars |= {
            "batch": batch,
            "tiles_per_part": tiles_per_part,
            "out_height": out_height,
            "out_width": out_width,
        }
        wide = is_wide(conv, parts * batch * filters)
        constants |= {"WIDE": wide}
        programs = parts * batch * conv.groups * scalars["filter_tiles"]
        return [
            Launch(conv_global_max_kernel, programs, scalars, constants, **launch_options(config, conv)),
            winners.combine(conv.dtype, parts, batch * filters, wide, "indices"),
        ]


FAMILIES = (ConvGlobalMax(),)
