"""Sum over N, H and W for each channel: the gradient of a bias. Two launches, so that many programs share a few channels.

First each program adds the elements of some channels over one part of the pixels, in float32 (float64 for float64), and
writes a partial sum; then the partial sums of a channel are added in the order of the parts. Both orders are fixed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
import triton.language as tl

from fastconv.backends.triton.family import Estimate, Workspaces, ceil_div
from fastconv.backends.triton.gemm import accumulator_of, sum_dtype
from fastconv.backends.triton.hints import (
    OperandHints,
    alignment,
    is_wide,
    magic_division,
    one_row,
    operand_arguments,
    rows_end_to_end,
)
from fastconv.backends.triton.numerics import aligned, divide, narrow, raised, stride_of, sum_over, widen
from fastconv.backends.triton.runtime import Launch, kernel
from fastconv.backends.triton.target import memory_seconds
from fastconv.problem import ChannelSumProblem, Operand, Target


@kernel
def channel_sum_kernel(
    x_pointer,  # [N, C, H, W]
    sums_workspace_pointer,  # [parts, C]
    pixels, pixels_per_part, channels, channel_tiles,
    width, width_magic, width_shift, height, height_magic, height_shift,
    x_stride_n, x_stride_c, x_stride_h, x_stride_w,
    X_UNIT: tl.constexpr, X_ALIGNMENT: tl.constexpr, W_ALIGNMENT: tl.constexpr, C_ALIGNMENT: tl.constexpr,
    PIXELS_MINOR: tl.constexpr, ACCUMULATOR: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_PIXELS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    part = program // channel_tiles
    channels = aligned(channels, C_ALIGNMENT)
    width = aligned(width, W_ALIGNMENT)
    pixels = aligned(pixels, W_ALIGNMENT)
    channel = (program % channel_tiles) * BLOCK_C + tl.arange(0, BLOCK_C)
    channel_offsets = widen(channel, WIDE) * stride_of(x_stride_c, 1, X_UNIT, X_ALIGNMENT)
    channel_valid = channel < channels
    total = tl.full([BLOCK_C, BLOCK_PIXELS], 0.0, ACCUMULATOR)
    first = widen(part, WIDE) * aligned(pixels_per_part, BLOCK_PIXELS)  # where loads start decides how wide they are
    for start in range(first, tl.minimum(first + pixels_per_part, pixels), BLOCK_PIXELS):
        pixel = widen(start + tl.arange(0, BLOCK_PIXELS), WIDE)
        row = divide(pixel, width, width_magic, width_shift, WIDE or PIXELS_MINOR)
        n = divide(row, height, height_magic, height_shift, WIDE or PIXELS_MINOR)
        pixel_offsets = (
            widen(n, WIDE) * stride_of(x_stride_n, 0, X_UNIT, X_ALIGNMENT)
            + widen(row - n * height, WIDE) * stride_of(x_stride_h, 2, X_UNIT, X_ALIGNMENT)
            + widen(pixel - row * width, WIDE) * stride_of(x_stride_w, 3, X_UNIT, X_ALIGNMENT)
        )
        valid = channel_valid[:, None] & (pixel < pixels)[None, :]
        values = tl.load(x_pointer + (channel_offsets[:, None] + pixel_offsets[None, :]), mask=valid, other=0.0)
        total += raised(values, ACCUMULATOR)
    sums = sum_over(total, 1)
    tl.store(sums_workspace_pointer + (widen(part, WIDE) * channels + channel), sums, mask=channel_valid)


@kernel
def add_parts_kernel(
    sums_workspace_pointer,  # [parts, C]
    sums_pointer,  # [C]
    parts, channels, ACCUMULATOR: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    channel = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    valid = channel < channels
    total = tl.full([BLOCK_C], 0.0, ACCUMULATOR)
    for part in range(parts):
        total += tl.load(sums_workspace_pointer + part * channels + channel, mask=valid, other=0.0)
    tl.store(sums_pointer + channel, narrow(total, sums_pointer.dtype.element_ty), mask=valid)


@dataclasses.dataclass(frozen=True)
class SumConfig:
    """Channels by pixels that a program adds at a time."""

    block_c: int
    block_pixels: int
    num_warps: int

    def __str__(self) -> str:
        return f"c{self.block_c}_p{self.block_pixels}_w{self.num_warps}"


_CHANNELS_MINOR = (SumConfig(256, 16, 4), SumConfig(64, 64, 4), SumConfig(16, 128, 4))
_PIXELS_MINOR = (SumConfig(1, 4096, 4), SumConfig(4, 1024, 4), SumConfig(16, 256, 4))
_REDUCTION_BLOCK = 128


def sum_configs(x: Operand) -> tuple[SumConfig, ...]:
    return _CHANNELS_MINOR if OperandHints.of(x).channels_minor_to(2, 3) else _PIXELS_MINOR


def _default(x: Operand) -> SumConfig:
    """For the bias gradient, which has no configuration of its own: the widest that C or H*W fills."""
    configs = sum_configs(x)
    extent = x.sizes[1] if configs is _CHANNELS_MINOR else x.sizes[2] * x.sizes[3]
    blocks = {config: config.block_c if configs is _CHANNELS_MINOR else config.block_pixels for config in configs}
    return next((config for config, block in blocks.items() if block <= extent), configs[-1])


def _parts(x: Operand, target: Target, config: SumConfig) -> int:
    """Enough parts for four programs on every multiprocessor, of two steps or more each."""
    batch, channels, height, width = x.sizes
    steps = ceil_div(batch * height * width, config.block_pixels)
    wanted = 4 * target.multiprocessors // max(ceil_div(channels, config.block_c), 1)
    return max(min(wanted, steps // 2), 1)


def workspace(
    x: Operand, dtype: torch.dtype, target: Target, config: SumConfig | None = None
) -> tuple[int, torch.dtype]:
    return _parts(x, target, config or _default(x)) * x.sizes[1], sum_dtype(dtype)


def launches_of(
    x: Operand,
    dtype: torch.dtype,
    target: Target,
    wide: bool,
    aliases: Mapping[str, str] | None = None,
    config: SumConfig | None = None,
) -> list[Launch]:
    """The two launches that add x [N, C, H, W] into the role "sums" [C]."""
    config = config or _default(x)
    parts = _parts(x, target, config)
    pixels_minor = sum_configs(x) is _PIXELS_MINOR
    x = one_row(x) if rows_end_to_end(x) else x
    batch, channels, height, width = x.sizes
    pixels = batch * height * width
    strides, constants = operand_arguments(x=x)
    channel_tiles = ceil_div(channels, config.block_c)
    scalars = {
        "pixels": pixels,
        "pixels_per_part": ceil_div(ceil_div(pixels, config.block_pixels), parts) * config.block_pixels,
        "channels": channels,
        "channel_tiles": channel_tiles,
        **magic_division("width", max(width, 1)),
        **magic_division("height", max(height, 1)),
        **strides,
    }
    constants |= {
        "W_ALIGNMENT": alignment(width),
        "C_ALIGNMENT": alignment(channels),
        "PIXELS_MINOR": pixels_minor,
        "ACCUMULATOR": accumulator_of(dtype),
        "WIDE": wide,
        "BLOCK_C": config.block_c,
        "BLOCK_PIXELS": config.block_pixels,
    }
    second = {"ACCUMULATOR": accumulator_of(dtype), "BLOCK_C": _REDUCTION_BLOCK}
    sizes = {"parts": parts, "channels": channels}
    aliases = aliases or {}
    return [
        Launch(channel_sum_kernel, parts * channel_tiles, scalars, constants, config.num_warps, 2, aliases=aliases),
        Launch(add_parts_kernel, ceil_div(channels, _REDUCTION_BLOCK), sizes, second, aliases=aliases),
    ]


class ChannelSum:
    name = "channel_sum"
    ops = ("channel_sum",)

    def configs(self, problem: ChannelSumProblem) -> tuple[SumConfig, ...]:
        return sum_configs(problem.x)

    def rejection(self, problem: ChannelSumProblem, config: SumConfig) -> str:
        return ""

    def estimate(self, problem: ChannelSumProblem, config: SumConfig) -> Estimate:
        batch, channels, height, width = problem.x.sizes
        pixels = batch * height * width
        channel_tiles, steps = ceil_div(channels, config.block_c), ceil_div(pixels, config.block_pixels)
        parts = _parts(problem.x, problem.target, config)
        elements = channel_tiles * steps * config.block_c * config.block_pixels
        useful = channels * pixels / max(elements, 1)
        bytes_moved = int(problem.compulsory_bytes() / max(useful, 1e-3))
        return Estimate(
            seconds=memory_seconds(problem, elements, channel_tiles * steps, bytes_moved, 1, launches=2),
            programs=parts * channel_tiles,
            steps=ceil_div(steps, parts),
            useful=useful,
            registers=40 + config.block_c * config.block_pixels // (32 * config.num_warps),
        )

    def workspaces(self, problem: ChannelSumProblem, config: SumConfig) -> Workspaces:
        return {"sums_workspace": workspace(problem.x, problem.dtype, problem.target, config)}

    def launches(self, problem: ChannelSumProblem, config: SumConfig) -> list[Launch]:
        pixels = problem.x.sizes[0] * problem.x.sizes[2] * problem.x.sizes[3]
        wide = is_wide(problem, pixels)
        return launches_of(problem.x, problem.dtype, problem.target, wide, config=config)


FAMILIES = (ChannelSum(),)
