"""Max unpooling: values put at flat positions h * W + w of their plane, among zeros; and gather, which picks them again.

Positions may repeat. The last value in the order of the pooled plane stands, as in PyTorch on a CPU, or (add) all of them are
summed. So positions are shared out, not values: a program has a share of the positions of some channels, fills it with zeros,
and walks through all indices of these planes in order, a few at a time. Of those that want the same position in one step, the
last one writes; a barrier stands between one step and the next. More shares make more programs, each of which reads all
indices of its planes.
"""

from __future__ import annotations

import dataclasses

import torch
import triton.language as tl

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
from fastconv.backends.triton.implicit_gemm import load_tile, store_tile
from fastconv.backends.triton.numerics import aligned, max_over, narrow, offsets_at, raised, stride_of, sum_over, widen
from fastconv.backends.triton.runtime import Launch, device_function, kernel
from fastconv.backends.triton.spatial import (
    SpatialConfig,
    spatial_configs,
    spatial_estimate,
    spatial_rejection,
    spatial_tile,
)
from fastconv.backends.triton.target import LAUNCH_SECONDS, architecture, memory_seconds
from fastconv.problem import Operand, UnpoolProblem


@device_function
def flat_offsets(flat, width, stride_h, stride_w, ONE_ROW: tl.constexpr, WIDE: tl.constexpr):
    """Offsets of flat positions h * width + w of a plane."""
    if ONE_ROW:
        offsets = widen(flat, WIDE) * stride_w
    else:
        h = flat // width
        offsets = widen(h, WIDE) * stride_h + widen(flat - h * width, WIDE) * stride_w
    return offsets


@device_function
def require_position(index, positions, valid):
    """Ends the kernel as an assertion does where an index lies outside of its plane. It is never written or read there."""
    inside = (index >= 0) & (index < positions)
    tl.device_assert(inside, "an index of max_unpool2d lies outside the output; accepted are 0 to H * W - 1", valid)


@kernel
def max_unpool_kernel(
    x_pointer,  # [N, C, P, Q]
    indices_pointer,  # [N, C, P, Q]
    y_pointer,  # [N, C, H, W]
    channels, channel_tiles, sources, source_width, positions, width, shares, positions_per_share,
    x_stride_n, x_stride_c, x_stride_h, x_stride_w,
    indices_stride_n, indices_stride_k, indices_stride_p, indices_stride_q,
    y_stride_n, y_stride_k, y_stride_p, y_stride_q,
    X_UNIT: tl.constexpr, X_ALIGNMENT: tl.constexpr, INDICES_UNIT: tl.constexpr, INDICES_ALIGNMENT: tl.constexpr,
    Y_UNIT: tl.constexpr, Y_ALIGNMENT: tl.constexpr,
    C_ALIGNMENT: tl.constexpr, SOURCE_ALIGNMENT: tl.constexpr, POSITION_ALIGNMENT: tl.constexpr,
    SHARE_ALIGNMENT: tl.constexpr,
    X_PIXELS_MINOR: tl.constexpr, INDICES_PIXELS_MINOR: tl.constexpr, Y_PIXELS_MINOR: tl.constexpr,
    SOURCES_ONE_ROW: tl.constexpr, POSITIONS_ONE_ROW: tl.constexpr, ADDS: tl.constexpr,
    ACCUMULATOR: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_S: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_FILL: tl.constexpr,
):  # fmt: skip
    # Images x channel tiles x shares, shares fastest: they read the same indices.
    program = tl.program_id(0)
    share = program % shares
    program = program // shares
    channel = (program % channel_tiles) * BLOCK_C + tl.arange(0, BLOCK_C)
    n = widen(program // channel_tiles, WIDE)
    channel_valid = channel < aligned(channels, C_ALIGNMENT)
    c = widen(channel, WIDE)
    sources = aligned(sources, SOURCE_ALIGNMENT)
    source_width = aligned(source_width, SOURCE_ALIGNMENT)
    positions = aligned(positions, POSITION_ALIGNMENT)
    width = aligned(width, POSITION_ALIGNMENT)
    positions_per_share = aligned(positions_per_share, SHARE_ALIGNMENT)
    begin = widen(share, WIDE) * positions_per_share
    end = tl.minimum(begin + positions_per_share, positions)
    y_image = y_pointer + n * stride_of(y_stride_n, 0, Y_UNIT, Y_ALIGNMENT)
    y_channels = c * stride_of(y_stride_k, 1, Y_UNIT, Y_ALIGNMENT)
    y_stride_h = stride_of(y_stride_p, 2, Y_UNIT, Y_ALIGNMENT)
    y_stride_w = stride_of(y_stride_q, 3, Y_UNIT, Y_ALIGNMENT)

    zeros = narrow(tl.full([BLOCK_FILL, BLOCK_C], 0.0, tl.float32), y_pointer.dtype.element_ty)
    for start in range(begin, end, BLOCK_FILL):
        position = start + tl.arange(0, BLOCK_FILL)
        store_tile(
            y_image, zeros, flat_offsets(position, width, y_stride_h, y_stride_w, POSITIONS_ONE_ROW, WIDE), y_channels,
            position < end, channel_valid, Y_PIXELS_MINOR,
        )  # fmt: skip

    order = tl.arange(0, BLOCK_S)
    is_later = order[None, :] > order[:, None]
    for start in range(0, sources, BLOCK_S):
        source = start + order
        source_valid = source < sources
        index = load_tile(
            indices_pointer + n * stride_of(indices_stride_n, 0, INDICES_UNIT, INDICES_ALIGNMENT),
            flat_offsets(
                source, source_width, stride_of(indices_stride_p, 2, INDICES_UNIT, INDICES_ALIGNMENT),
                stride_of(indices_stride_q, 3, INDICES_UNIT, INDICES_ALIGNMENT), SOURCES_ONE_ROW, WIDE,
            ),
            c * stride_of(indices_stride_k, 1, INDICES_UNIT, INDICES_ALIGNMENT), source_valid, channel_valid,
            True, True, INDICES_PIXELS_MINOR,
        )  # fmt: skip
        value = load_tile(
            x_pointer + n * stride_of(x_stride_n, 0, X_UNIT, X_ALIGNMENT),
            flat_offsets(
                source, source_width, stride_of(x_stride_h, 2, X_UNIT, X_ALIGNMENT),
                stride_of(x_stride_w, 3, X_UNIT, X_ALIGNMENT), SOURCES_ONE_ROW, WIDE,
            ),
            c * stride_of(x_stride_c, 1, X_UNIT, X_ALIGNMENT), source_valid, channel_valid, True, True, X_PIXELS_MINOR,
        )  # fmt: skip
        valid = source_valid[:, None] & channel_valid[None, :]
        require_position(index, positions, valid)
        mine = valid & (index >= begin) & (index < end)
        place = tl.where(mine, index, -1)
        if not WIDE:
            place = place.to(tl.int32)
        same = place[:, None, :] == place[None, :, :]
        superseded = max_over((same & is_later[:, :, None]).to(tl.int32), 1)
        stands = mine & (superseded == 0)
        place = tl.maximum(place, 0)
        targets = y_image + (
            y_channels[None, :] + flat_offsets(place, width, y_stride_h, y_stride_w, POSITIONS_ONE_ROW, WIDE)
        )
        tl.debug_barrier()  # what the last step wrote, other threads wrote
        if ADDS:
            total = sum_over(tl.where(same, raised(value, ACCUMULATOR)[None, :, :], 0.0), 1)
            total += raised(tl.load(targets, mask=stands, other=0.0), ACCUMULATOR)
            tl.store(targets, narrow(total, y_pointer.dtype.element_ty), mask=stands)
        else:
            tl.store(targets, value, mask=stands)


@kernel
def max_unpool_gather_kernel(
    y_pointer,  # [N, C, H, W]
    indices_pointer,  # [N, C, P, Q]
    x_pointer,  # [N, C, P, Q]
    channels, out_height, out_width, positions, width,
    x_stride_n, x_stride_c, x_stride_h, x_stride_w,
    indices_stride_n, indices_stride_k, indices_stride_p, indices_stride_q,
    y_stride_n, y_stride_k, y_stride_p, y_stride_q,
    X_UNIT: tl.constexpr, X_ALIGNMENT: tl.constexpr, INDICES_UNIT: tl.constexpr, INDICES_ALIGNMENT: tl.constexpr,
    Y_UNIT: tl.constexpr, Y_ALIGNMENT: tl.constexpr, C_ALIGNMENT: tl.constexpr, Q_ALIGNMENT: tl.constexpr,
    CHANNELS_MINOR: tl.constexpr, POSITIONS_ONE_ROW: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    channels = aligned(channels, C_ALIGNMENT)
    out_width = aligned(out_width, Q_ALIGNMENT)
    n, c, p, q = spatial_tile(
        tl.program_id(0), channels, out_height, out_width, CHANNELS_MINOR, BLOCK_C, BLOCK_H, BLOCK_W
    )
    valid = (c < channels) & (p < out_height) & (q < out_width)
    n = widen(n, WIDE)
    c = widen(c, WIDE)
    p = widen(p, WIDE)
    q = widen(q, WIDE)
    index_offsets = offsets_at(
        n, c, p, q,
        indices_stride_n, indices_stride_k, indices_stride_p, indices_stride_q, INDICES_UNIT, INDICES_ALIGNMENT,
    )  # fmt: skip
    x_offsets = offsets_at(n, c, p, q, x_stride_n, x_stride_c, x_stride_h, x_stride_w, X_UNIT, X_ALIGNMENT)
    index = tl.load(indices_pointer + index_offsets, mask=valid, other=0)
    require_position(index, positions, valid)
    inside = valid & (index >= 0) & (index < positions)
    place = tl.where(inside, index, 0)
    if not WIDE:
        place = place.to(tl.int32)
    y_offsets = (
        n * stride_of(y_stride_n, 0, Y_UNIT, Y_ALIGNMENT)
        + c * stride_of(y_stride_k, 1, Y_UNIT, Y_ALIGNMENT)
        + flat_offsets(
            place, width, stride_of(y_stride_p, 2, Y_UNIT, Y_ALIGNMENT), stride_of(y_stride_q, 3, Y_UNIT, Y_ALIGNMENT),
            POSITIONS_ONE_ROW, WIDE,
        )
    )  # fmt: skip
    value = tl.load(y_pointer + y_offsets, mask=inside, other=0.0)
    tl.store(x_pointer + x_offsets, value, mask=valid)


@dataclasses.dataclass(frozen=True)
class UnpoolConfig:
    """Indices x channels of one step, and the shares that a plane's positions are divided into."""

    block_s: int
    block_c: int
    shares: int
    num_warps: int

    def __str__(self) -> str:
        return f"i{self.block_s}_c{self.block_c}_s{self.shares}_w{self.num_warps}"

    def block_fill(self) -> int:
        """Positions x channels of zeros: 32 elements a thread."""
        return 1024 * self.num_warps // self.block_c

    def pairs(self) -> int:
        """Of indices of a channel, which a step compares."""
        return self.block_s * self.block_s * self.block_c


_PIXELS_MINOR = tuple(
    UnpoolConfig(indices, 1, shares, warps) for indices, warps in ((64, 1), (128, 4)) for shares in (1, 4, 16, 64)
)
_CHANNELS_MINOR = tuple(
    UnpoolConfig(indices, channels, shares, warps)
    for indices, channels, warps in ((8, 32, 1), (8, 64, 2), (16, 32, 4))
    for shares in (1, 4, 16, 64)
)
#: Shares begin at multiples of it, where 16-byte stores of zeros may begin.
_SHARE_ALIGNMENT = 16


class MaxUnpool:
    name = "max_unpool"
    ops = ("max_unpool2d_forward", "max_unpool2d_add")

    def configs(self, problem: UnpoolProblem) -> tuple[UnpoolConfig, ...]:
        return _CHANNELS_MINOR if _channels_minor(problem.y) else _PIXELS_MINOR

    def rejection(self, problem: UnpoolProblem, config: UnpoolConfig) -> str:
        if config.shares > 1 and _pixels(problem.y) < config.shares * _SHARE_ALIGNMENT:
            return f"{_pixels(problem.y)} positions are too few for {config.shares} shares"
        useful = {other: self.estimate(problem, other).useful for other in self.configs(problem)}
        best = max(useful.values())
        return f"{useful[config]:.1%} of its tiles would be useful, of {best:.1%}" if useful[config] < best / 2 else ""

    def _programs(self, problem: UnpoolProblem, config: UnpoolConfig) -> int:
        batch, channels = problem.y.sizes[:2]
        return batch * ceil_div(channels, config.block_c) * config.shares

    def estimate(self, problem: UnpoolProblem, config: UnpoolConfig) -> Estimate:
        batch, channels = problem.y.sizes[:2]
        programs = self._programs(problem, config)
        steps = ceil_div(_pixels(problem.x), config.block_s)
        padded = programs * steps * config.block_s * config.block_c
        # Every share reads the indices and values again.
        moved = problem.compulsory_bytes() + (config.shares - 1) * _pixels(problem.x) * batch * channels * (
            8 + problem.dtype.itemsize
        )
        seconds = memory_seconds(problem, padded, programs * (1 + steps), moved, max(config.block_s // 4, 1))
        if problem.target.device_type == "cuda":
            waves = ceil_div(programs * config.num_warps, 32 * problem.target.multiprocessors)
            latency = 1200 * steps * waves / architecture(problem.target).clock  # of an index, then of the barrier
            seconds = max(seconds, latency + LAUNCH_SECONDS)
        return Estimate(
            seconds=seconds,
            programs=programs,
            steps=steps,
            useful=_pixels(problem.x) * batch * channels * config.shares / max(padded, 1),
            registers=40 + config.pairs() // (32 * config.num_warps) // 2,
        )

    def workspaces(self, problem: UnpoolProblem, config: UnpoolConfig) -> Workspaces:
        return {}

    def launches(self, problem: UnpoolProblem, config: UnpoolConfig) -> list[Launch]:
        x, indices, sources_one_row = problem.x, problem.indices, False
        if rows_end_to_end(x) and rows_end_to_end(indices):
            x, indices, sources_one_row = one_row(x), one_row(indices), True
        positions_one_row = rows_end_to_end(problem.y)
        y = one_row(problem.y) if positions_one_row else problem.y
        channels = y.sizes[1]
        sources, positions = _pixels(x), _pixels(y)
        strides, constants = operand_arguments(x=x, indices=indices, y=y)
        scalars = {
            "channels": channels,
            "channel_tiles": ceil_div(channels, config.block_c),
            "sources": sources,
            "source_width": max(x.sizes[3], 1),
            "positions": positions,
            "width": max(y.sizes[3], 1),
            "shares": config.shares,
            "positions_per_share": ceil_div(positions, config.shares * _SHARE_ALIGNMENT) * _SHARE_ALIGNMENT,
            **strides,
        }
        constants |= {
            "C_ALIGNMENT": alignment(channels),
            "SOURCE_ALIGNMENT": alignment(x.sizes[3]),
            "POSITION_ALIGNMENT": alignment(y.sizes[3]),
            "SHARE_ALIGNMENT": _SHARE_ALIGNMENT,
            "X_PIXELS_MINOR": not _channels_minor(x),
            "INDICES_PIXELS_MINOR": not _channels_minor(indices),
            "Y_PIXELS_MINOR": not _channels_minor(y),
            "SOURCES_ONE_ROW": sources_one_row,
            "POSITIONS_ONE_ROW": positions_one_row,
            "ADDS": problem.unpool_pass == "add",
            "ACCUMULATOR": accumulator_of(problem.dtype),
            "WIDE": is_wide(problem, positions, sources),
            "BLOCK_S": config.block_s,
            "BLOCK_C": config.block_c,
            "BLOCK_FILL": config.block_fill(),
        }
        programs = self._programs(problem, config)
        return [Launch(max_unpool_kernel, programs, scalars, constants, config.num_warps, asserts=True)]


class MaxUnpoolGather:
    name = "max_unpool_gather"
    ops = ("max_unpool2d_gather",)

    def configs(self, problem: UnpoolProblem) -> tuple[SpatialConfig, ...]:
        return spatial_configs(problem.x)

    def rejection(self, problem: UnpoolProblem, config: SpatialConfig) -> str:
        return spatial_rejection(problem.x, config)

    def estimate(self, problem: UnpoolProblem, config: SpatialConfig) -> Estimate:
        return spatial_estimate(problem, problem.x, config, 1)

    def workspaces(self, problem: UnpoolProblem, config: SpatialConfig) -> Workspaces:
        return {}

    def launches(self, problem: UnpoolProblem, config: SpatialConfig) -> list[Launch]:
        positions_one_row = rows_end_to_end(problem.y)
        y = one_row(problem.y) if positions_one_row else problem.y
        strides, constants = operand_arguments(x=problem.x, indices=problem.indices, y=y)
        channels, out_height, out_width = problem.x.sizes[1:]
        scalars = {
            "channels": channels,
            "out_height": out_height,
            "out_width": out_width,
            "positions": _pixels(y),
            "width": max(y.sizes[3], 1),
            **strides,
        }
        constants |= {
            "C_ALIGNMENT": alignment(channels),
            "Q_ALIGNMENT": alignment(out_width),
            "CHANNELS_MINOR": _channels_minor(problem.x),
            "POSITIONS_ONE_ROW": positions_one_row,
            "WIDE": is_wide(problem, _pixels(y)),
            **config.blocks(),
        }
        programs = config.programs(problem.x)
        options = config.launch_options(torch.int64.itemsize)
        return [Launch(max_unpool_gather_kernel, programs, scalars, constants, **options, asserts=True)]


def _channels_minor(image: Operand) -> bool:
    return OperandHints.of(image).channels_minor_to(2, 3)


def _pixels(image: Operand) -> int:
    return image.sizes[2] * image.sizes[3]


FAMILIES = (MaxUnpool(), MaxUnpoolGather())
