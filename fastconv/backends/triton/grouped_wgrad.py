"""Gradient by the weight of depthwise and narrow grouped convolutions: every tap of every channel is one long sum over pixels.

A program takes some filters, some taps and a part of the pixels. It reads a tile of dy once and a tile of x for each tap, from
cache after the first, and adds their products; the parts are added in order by a second launch.
"""

from __future__ import annotations

import dataclasses

import triton.language as tl

from fastconv.backends.triton import channel_sum
from fastconv.backends.triton.conv_wgrad import add_splits
from fastconv.backends.triton.family import Estimate, Workspaces, ceil_div
from fastconv.backends.triton.gemm import accumulator_of, sum_dtype
from fastconv.backends.triton.grouped import MOST_GROUP_CHANNELS
from fastconv.backends.triton.hints import (
    OperandHints,
    alignment,
    is_wide,
    magic_division,
    operand_arguments,
    step_constants,
)
from fastconv.backends.triton.numerics import aligned, divide, raised, stride_of, sum_over, widen
from fastconv.backends.triton.padding import comes_from_the_image, padded_index, padding_constants, with_constant
from fastconv.backends.triton.runtime import Launch, kernel
from fastconv.backends.triton.target import memory_seconds
from fastconv.problem import ConvProblem


@kernel
def grouped_wgrad_kernel(
    y_pointer,  # [N, K, P, Q], the gradient that comes in
    x_pointer,  # [N, C, H, W]
    workspace_pointer,  # [parts, K, R*S*C/G]
    pixels, pixels_per_part, filters, height, width, filter_tiles, tap_tiles,
    out_width, out_width_magic, out_width_shift, out_height, out_height_magic, out_height_shift,
    x_stride_n, x_stride_c, x_stride_h, x_stride_w,
    y_stride_n, y_stride_k, y_stride_p, y_stride_q,
    R: tl.constexpr, S: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    DILATION_H: tl.constexpr, DILATION_W: tl.constexpr, PAD_TOP: tl.constexpr, PAD_LEFT: tl.constexpr,
    GROUP_CHANNELS: tl.constexpr, GROUP_FILTERS: tl.constexpr,
    X_UNIT: tl.constexpr, X_ALIGNMENT: tl.constexpr, Y_UNIT: tl.constexpr, Y_ALIGNMENT: tl.constexpr,
    K_ALIGNMENT: tl.constexpr, Q_ALIGNMENT: tl.constexpr, PIXELS_MINOR: tl.constexpr,
    PADDING: tl.constexpr, PADDING_VALUE: tl.constexpr, ACCUMULATOR: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_PIXELS: tl.constexpr, BLOCK_TAPS: tl.constexpr,
):  # fmt: skip
    # Parts x group channels x tap tiles x filter tiles: the programs that read the same pixels run together.
    program = tl.program_id(0)
    tile_k = program % filter_tiles
    program = program // filter_tiles
    first_tap = program % tap_tiles * BLOCK_TAPS
    program = program // tap_tiles
    group_channel = program % GROUP_CHANNELS
    part = program // GROUP_CHANNELS
    filters = aligned(filters, K_ALIGNMENT)
    out_width = aligned(out_width, Q_ALIGNMENT)
    pixels = aligned(pixels, Q_ALIGNMENT)

    k = tile_k * BLOCK_C + tl.arange(0, BLOCK_C)
    filter_valid = k < filters
    channel = k if GROUP_CHANNELS == 1 and GROUP_FILTERS == 1 else k // GROUP_FILTERS * GROUP_CHANNELS + group_channel
    k = widen(k, WIDE)
    filter_offsets = k * stride_of(y_stride_k, 1, Y_UNIT, Y_ALIGNMENT)
    channel_offsets = widen(channel, WIDE) * stride_of(x_stride_c, 1, X_UNIT, X_ALIGNMENT)
    x_stride_h = stride_of(x_stride_h, 2, X_UNIT, X_ALIGNMENT)
    x_stride_w = stride_of(x_stride_w, 3, X_UNIT, X_ALIGNMENT)
    column = tl.arange(0, BLOCK_TAPS)[None, :]
    sums = tl.full([BLOCK_C, BLOCK_TAPS], 0.0, ACCUMULATOR)
    first = widen(part, WIDE) * aligned(pixels_per_part, BLOCK_PIXELS)  # where loads start decides how wide they are
    for start in range(first, tl.minimum(first + pixels_per_part, pixels), BLOCK_PIXELS):
        pixel = widen(start + tl.arange(0, BLOCK_PIXELS), WIDE)
        pixel_valid = pixel < pixels
        row = divide(pixel, out_width, out_width_magic, out_width_shift, WIDE or PIXELS_MINOR)
        q = pixel - row * out_width
        n = divide(row, out_height, out_height_magic, out_height_shift, WIDE or PIXELS_MINOR)
        p = row - n * out_height
        pixel_offsets = (
            widen(n, WIDE) * stride_of(y_stride_n, 0, Y_UNIT, Y_ALIGNMENT)
            + widen(p, WIDE) * stride_of(y_stride_p, 2, Y_UNIT, Y_ALIGNMENT)
            + widen(q, WIDE) * stride_of(y_stride_q, 3, Y_UNIT, Y_ALIGNMENT)
        )
        valid = filter_valid[:, None] & pixel_valid[None, :]
        dy = tl.load(y_pointer + (filter_offsets[:, None] + pixel_offsets[None, :]), mask=valid, other=0.0)
        dy = raised(dy, ACCUMULATOR)
        image_offsets = widen(n, WIDE) * stride_of(x_stride_n, 0, X_UNIT, X_ALIGNMENT)
        for t in range(0, tl.minimum(R * S - first_tap, BLOCK_TAPS)):
            r = (first_tap + t) // S
            s = first_tap + t - r * S
            h = p * STRIDE_H - PAD_TOP + r * DILATION_H
            w = q * STRIDE_W - PAD_LEFT + s * DILATION_W
            inside = comes_from_the_image(pixel_valid, h, height, w, width, PADDING)
            h = widen(padded_index(h, height, PADDING), WIDE)
            w = widen(padded_index(w, width, PADDING), WIDE)
            offsets = channel_offsets[:, None] + (image_offsets + (h * x_stride_h + w * x_stride_w))[None, :]
            x = tl.load(x_pointer + offsets, mask=filter_valid[:, None] & inside[None, :], other=0.0)
            x = with_constant(x, filter_valid[:, None] & (pixel_valid & ~inside)[None, :], PADDING, PADDING_VALUE)
            products = sum_over(dy * raised(x, ACCUMULATOR), 1)
            sums += tl.where(column == t, products[:, None], 0.0)
    tap = first_tap + column
    columns = R * S * GROUP_CHANNELS
    offsets = (widen(part, WIDE) * filters + k)[:, None] * columns + (tap * GROUP_CHANNELS + group_channel)
    tl.store(workspace_pointer + offsets, sums, mask=filter_valid[:, None] & (tap < R * S))


@dataclasses.dataclass(frozen=True)
class TapConfig:
    """Filters by pixels that a program multiplies at a time, and the taps that it sums."""

    block_c: int
    block_pixels: int
    block_taps: int
    num_warps: int

    def __str__(self) -> str:
        return f"c{self.block_c}_p{self.block_pixels}_t{self.block_taps}_w{self.num_warps}"


_CHANNELS_MINOR = (
    TapConfig(64, 64, 16, 4),
    TapConfig(64, 64, 4, 4),
    TapConfig(32, 64, 16, 4),
    TapConfig(16, 128, 16, 4),
    TapConfig(8, 256, 64, 4),
)
_PIXELS_MINOR = (
    TapConfig(1, 2048, 16, 4),
    TapConfig(1, 2048, 4, 4),
    TapConfig(4, 512, 16, 4),
    TapConfig(16, 128, 16, 4),
    TapConfig(1, 1024, 64, 4),
)


class GroupedWgrad:
    name = "grouped_wgrad"
    ops = ("conv2d_wgrad",)

    def configs(self, problem: ConvProblem) -> tuple[TapConfig, ...]:
        return _CHANNELS_MINOR if OperandHints.of(problem.y).channels_minor_to(2, 3) else _PIXELS_MINOR

    def _tiles(self, problem: ConvProblem, config: TapConfig) -> tuple[int, int, int, int]:
        """Filter tiles, tap tiles, steps over the pixels, and the parts these are divided into."""
        batch, filters, height, width = problem.y.sizes
        _, channels, rows, columns = problem.w.sizes
        filter_tiles = ceil_div(filters, config.block_c)
        tap_tiles = ceil_div(rows * columns, config.block_taps)
        steps = ceil_div(batch * height * width, config.block_pixels)
        wanted = 4 * problem.target.multiprocessors // max(filter_tiles * tap_tiles * channels, 1)
        return filter_tiles, tap_tiles, steps, max(min(wanted, steps // 2), 1)

    def _useful(self, problem: ConvProblem, config: TapConfig) -> float:
        filter_tiles, tap_tiles, steps, _ = self._tiles(problem, config)
        batch, filters, height, width = problem.y.sizes
        tiles = filter_tiles * config.block_c * tap_tiles * config.block_taps * steps * config.block_pixels
        taps = problem.w.sizes[2] * problem.w.sizes[3]
        return filters * taps * batch * height * width / max(tiles, 1)

    def rejection(self, problem: ConvProblem, config: TapConfig) -> str:
        channels = problem.w.sizes[1]
        if channels > MOST_GROUP_CHANNELS:
            return f"{channels} channels a group: this kernel is for at most {MOST_GROUP_CHANNELS}"
        useful = self._useful(problem, config)
        shares = {other: self._useful(problem, other) for other in self.configs(problem)}
        best = max(shares, key=shares.__getitem__)
        if useful < shares[best] / 2:
            return f"{useful:.1%} of its tiles would be useful, of {best} {shares[best]:.1%}"
        return ""

    def estimate(self, problem: ConvProblem, config: TapConfig) -> Estimate:
        filter_tiles, tap_tiles, steps, parts = self._tiles(problem, config)
        channels = problem.w.sizes[1]
        programs = parts * channels * tap_tiles * filter_tiles
        elements = programs * ceil_div(steps, parts) * config.block_c * config.block_pixels
        reads = tap_tiles * problem.compulsory_bytes()
        taps = min(config.block_taps, problem.w.sizes[2] * problem.w.sizes[3])
        return Estimate(
            seconds=memory_seconds(problem, elements, programs, reads, 2 * taps, launches=2),
            programs=programs,
            steps=ceil_div(steps, parts) * taps,
            useful=self._useful(problem, config),
            registers=40 + 3 * config.block_c * config.block_pixels // (32 * config.num_warps),
        )

    def workspaces(self, problem: ConvProblem, config: TapConfig) -> Workspaces:
        filters, channels, rows, columns = problem.w.sizes
        elements = self._tiles(problem, config)[3] * filters * channels * rows * columns
        spaces = {"workspace": (elements, sum_dtype(problem.dtype))}
        if problem.has_bias:
            spaces["sums_workspace"] = channel_sum.workspace(problem.y, problem.dtype, problem.target)
        return spaces

    def launches(self, problem: ConvProblem, config: TapConfig) -> list[Launch]:
        filter_tiles, tap_tiles, steps, parts = self._tiles(problem, config)
        batch, filters, out_height, out_width = problem.y.sizes
        channels = problem.w.sizes[1]
        pixels = batch * out_height * out_width
        wide = is_wide(problem, pixels, parts * filters * channels * problem.w.sizes[2] * problem.w.sizes[3])
        strides, constants = operand_arguments(x=problem.x, y=problem.y)
        scalars = {
            "pixels": pixels,
            "pixels_per_part": ceil_div(steps, parts) * config.block_pixels,
            "filters": filters,
            "height": problem.x.sizes[2],
            "width": problem.x.sizes[3],
            "filter_tiles": filter_tiles,
            "tap_tiles": tap_tiles,
            **magic_division("out_width", out_width),
            **magic_division("out_height", out_height),
            **strides,
        }
        constants |= {
            "R": problem.w.sizes[2],
            "S": problem.w.sizes[3],
            **step_constants(problem),
            "PAD_TOP": problem.padding[0],
            "PAD_LEFT": problem.padding[2],
            "GROUP_CHANNELS": channels,
            "GROUP_FILTERS": filters // problem.groups,
            "K_ALIGNMENT": alignment(filters),
            "Q_ALIGNMENT": alignment(out_width),
            "PIXELS_MINOR": self.configs(problem) is _PIXELS_MINOR,
            **padding_constants(problem),
            "ACCUMULATOR": accumulator_of(problem.dtype),
            "WIDE": wide,
            "BLOCK_C": config.block_c,
            "BLOCK_PIXELS": config.block_pixels,
            "BLOCK_TAPS": config.block_taps,
        }
        programs = parts * channels * tap_tiles * filter_tiles
        launches = [
            Launch(grouped_wgrad_kernel, programs, scalars, constants, config.num_warps),
            add_splits(problem.w, problem.dtype, parts, wide),
        ]
        if problem.has_bias:
            aliases = {"x": "y", "sums": "bias"}
            launches += channel_sum.launches_of(problem.y, problem.dtype, problem.target, wide, aliases)
        return launches


FAMILIES = (GroupedWgrad(),)
