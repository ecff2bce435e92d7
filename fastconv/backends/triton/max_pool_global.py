"""Max pooling with one window that is the whole image, as a reduction: the image is read once, by many programs.

A program takes some channels of an image and a part of its pixels, and keeps for every element of its tile the best value and
where it was; in the end it compares within the tile. A second launch compares the parts.
"""

from __future__ import annotations

import triton.language as tl

from fastconv.backends.triton import winners
from fastconv.backends.triton.channel_sum import SumConfig, sum_configs
from fastconv.backends.triton.family import Estimate, Workspaces, ceil_div
from fastconv.backends.triton.gemm import accumulator_of
from fastconv.backends.triton.hints import (
    OperandHints,
    alignment,
    is_wide,
    one_row,
    operand_arguments,
    rows_end_to_end,
)
from fastconv.backends.triton.numerics import aligned, raised, stride_of, widen
from fastconv.backends.triton.runtime import Launch, kernel
from fastconv.backends.triton.target import memory_seconds
from fastconv.backends.triton.winners import keep_winner, winner_over
from fastconv.problem import PoolProblem


@kernel
def max_pool_global_kernel(
    x_pointer,  # [N, C, H, W]
    best_pointer,  # [parts, N, C]
    place_pointer,  # [parts, N, C]
    batch, channels, channel_tiles, pixels, pixels_per_part, width,
    x_stride_n, x_stride_c, x_stride_h, x_stride_w,
    X_UNIT: tl.constexpr, X_ALIGNMENT: tl.constexpr, W_ALIGNMENT: tl.constexpr, C_ALIGNMENT: tl.constexpr,
    ACCUMULATOR: tl.constexpr, WIDE: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_PIXELS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    channel = (program % channel_tiles) * BLOCK_C + tl.arange(0, BLOCK_C)
    program = program // channel_tiles
    image = program % batch
    part = program // batch
    channels = aligned(channels, C_ALIGNMENT)
    width = aligned(width, W_ALIGNMENT)
    pixels = aligned(pixels, W_ALIGNMENT)
    channel_valid = channel < channels
    channel_offsets = widen(image, WIDE) * stride_of(x_stride_n, 0, X_UNIT, X_ALIGNMENT) + widen(
        channel, WIDE
    ) * stride_of(x_stride_c, 1, X_UNIT, X_ALIGNMENT)
    first = part * aligned(pixels_per_part, BLOCK_PIXELS)
    best = tl.full([BLOCK_C, BLOCK_PIXELS], -float("inf"), ACCUMULATOR)
    place = tl.full([BLOCK_C, BLOCK_PIXELS], 0, tl.int32) + (first + tl.arange(0, BLOCK_PIXELS))[None, :]
    for start in range(first, tl.minimum(first + pixels_per_part, pixels), BLOCK_PIXELS):
        pixel = start + tl.arange(0, BLOCK_PIXELS)
        h = pixel // width
        offsets = widen(h, WIDE) * stride_of(x_stride_h, 2, X_UNIT, X_ALIGNMENT) + widen(
            pixel - h * width, WIDE
        ) * stride_of(x_stride_w, 3, X_UNIT, X_ALIGNMENT)
        valid = channel_valid[:, None] & (pixel < pixels)[None, :]
        value = tl.load(x_pointer + (channel_offsets[:, None] + offsets[None, :]), mask=valid, other=0.0)
        best, place = keep_winner(best, place, raised(value, ACCUMULATOR), pixel[None, :], valid)
    winner, where = winner_over(best, place, 1)
    features = (widen(part, WIDE) * batch + image) * channels + channel
    tl.store(best_pointer + features, winner, mask=channel_valid)
    tl.store(place_pointer + features, where, mask=channel_valid)


class MaxPoolGlobal:
    name = "max_pool_global"
    ops = ("max_pool2d_forward",)

    def configs(self, problem: PoolProblem) -> tuple[SumConfig, ...]:
        return sum_configs(problem.x)

    def rejection(self, problem: PoolProblem, config: SumConfig) -> str:
        if problem.kernel != problem.x.sizes[2:] or any(problem.padding) or problem.dilation != (1, 1):
            return "the window is not the whole image"
        if any(not _dense(operand) for operand in (problem.y, problem.offsets)):
            return "the outputs do not lie end to end"
        return ""

    def _parts(self, problem: PoolProblem, config: SumConfig) -> tuple[int, int]:
        """Parts that an image is divided into, enough for four programs on every multiprocessor; and pixels of each."""
        batch, channels, height, width = problem.x.sizes
        steps = ceil_div(height * width, config.block_pixels)
        wanted = 4 * problem.target.multiprocessors // max(batch * ceil_div(channels, config.block_c), 1)
        steps_per_part = ceil_div(steps, max(min(wanted, steps // 2), 1))
        return max(ceil_div(steps, max(steps_per_part, 1)), 1), steps_per_part * config.block_pixels

    def estimate(self, problem: PoolProblem, config: SumConfig) -> Estimate:
        batch, channels, height, width = problem.x.sizes
        channel_tiles, steps = ceil_div(channels, config.block_c), ceil_div(height * width, config.block_pixels)
        parts, pixels_per_part = self._parts(problem, config)
        tiles = batch * channel_tiles * steps
        elements = tiles * config.block_c * config.block_pixels
        return Estimate(
            seconds=memory_seconds(problem, elements, tiles, problem.compulsory_bytes(), 1, launches=2),
            programs=parts * batch * channel_tiles,
            steps=pixels_per_part // config.block_pixels,
            useful=batch * channels * height * width / max(elements, 1),
            registers=40 + 3 * config.block_c * config.block_pixels // (32 * config.num_warps),
        )

    def workspaces(self, problem: PoolProblem, config: SumConfig) -> Workspaces:
        batch, channels = problem.x.sizes[:2]
        return winners.workspaces(problem.dtype, self._parts(problem, config)[0], batch * channels)

    def launches(self, problem: PoolProblem, config: SumConfig) -> list[Launch]:
        x = one_row(problem.x) if rows_end_to_end(problem.x) else problem.x
        batch, channels, height, width = x.sizes
        parts, pixels_per_part = self._parts(problem, config)
        channel_tiles = ceil_div(channels, config.block_c)
        strides, constants = operand_arguments(x=x)
        scalars = {
            "batch": batch,
            "channels": channels,
            "channel_tiles": channel_tiles,
            "pixels": height * width,
            "pixels_per_part": pixels_per_part,
            "width": max(width, 1),
            **strides,
        }
        wide = is_wide(problem, parts * batch * channels)
        constants |= {
            "W_ALIGNMENT": alignment(width),
            "C_ALIGNMENT": alignment(channels),
            "ACCUMULATOR": accumulator_of(problem.dtype),
            "WIDE": wide,
            "BLOCK_C": config.block_c,
            "BLOCK_PIXELS": config.block_pixels,
        }
        programs = parts * batch * channel_tiles
        return [
            Launch(max_pool_global_kernel, programs, scalars, constants, config.num_warps),
            winners.combine(problem.dtype, parts, batch * channels, wide, "offsets"),
        ]


def _dense(operand) -> bool:
    """True for [N, C, 1, 1] whose elements lie one after the other."""
    hints = OperandHints.of(operand)
    batch, channels = operand.sizes[:2]
    return hints.strides[:2] == (channels if batch > 1 else 0, 1 if channels > 1 else 0)


FAMILIES = (MaxPoolGlobal(),)
