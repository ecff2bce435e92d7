"""Tiles of channels x rows x columns, for kernels that look at each output with its neighbourhood and are bound by memory.

Channels-last tensors are read along channels, NCHW tensors along a row: the tile's shape decides, the kernel is the same. The
elements that neighbouring outputs share are read again from the first-level cache, not from memory.
"""

from __future__ import annotations

import dataclasses

import triton.language as tl

from fastconv.backends.triton.family import Estimate, ceil_div
from fastconv.backends.triton.hints import OperandHints
from fastconv.backends.triton.runtime import device_function
from fastconv.backends.triton.target import memory_seconds
from fastconv.problem import Operand, Problem

#: Widths of a filter up to which the loop over its row is unrolled, so that all its loads are in flight together.
MOST_UNROLLED = 7


@device_function
def spatial_tile(
    program, channels, height, width,
    CHANNELS_MINOR: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """Image n and the tile's channels [BLOCK_C, 1, 1], rows [1, BLOCK_H, 1] and columns [1, 1, BLOCK_W].

    Programs are numbered as memory runs, so that neighbours in time share cache lines.
    """
    tiles_c = (channels + BLOCK_C - 1) // BLOCK_C
    tiles_h = (height + BLOCK_H - 1) // BLOCK_H
    tiles_w = (width + BLOCK_W - 1) // BLOCK_W
    if CHANNELS_MINOR:
        tile_c = program % tiles_c
        program = program // tiles_c
    tile_w = program % tiles_w
    program = program // tiles_w
    tile_h = program % tiles_h
    program = program // tiles_h
    if not CHANNELS_MINOR:
        tile_c = program % tiles_c
        program = program // tiles_c
    c = (tile_c * BLOCK_C + tl.arange(0, BLOCK_C))[:, None, None]
    h = (tile_h * BLOCK_H + tl.arange(0, BLOCK_H))[None, :, None]
    w = (tile_w * BLOCK_W + tl.arange(0, BLOCK_W))[None, None, :]
    return program, c, h, w


@dataclasses.dataclass(frozen=True)
class SpatialConfig:
    """Channels x rows x columns of outputs that a program makes."""

    block_c: int
    block_h: int
    block_w: int
    num_warps: int

    def __str__(self) -> str:
        return f"c{self.block_c}_h{self.block_h}_w{self.block_w}_w{self.num_warps}"

    def blocks(self) -> dict[str, int]:
        return {"BLOCK_C": self.block_c, "BLOCK_H": self.block_h, "BLOCK_W": self.block_w}

    def elements(self) -> int:
        return self.block_c * self.block_h * self.block_w

    def held(self, words: int) -> int:
        """Registers of a thread for its outputs."""
        return self.elements() // (32 * self.num_warps) * words

    def launch_options(self, itemsize: int) -> dict[str, int]:
        """Registers by the outputs of a thread and their size: with no limit the assembler spills to fit more blocks."""
        held = self.held(itemsize)
        registers = 255 if held > 16 else 168 if held > 8 else 96
        return {"num_warps": self.num_warps, "max_registers": registers}

    def programs(self, output: Operand) -> int:
        batch, channels, height, width = output.sizes
        tiles = ceil_div(channels, self.block_c) * ceil_div(height, self.block_h) * ceil_div(width, self.block_w)
        return batch * tiles

    def useful(self, output: Operand) -> float:
        batch, channels, height, width = output.sizes
        return batch * channels * height * width / max(self.programs(output) * self.elements(), 1)


_CHANNELS_MINOR = (
    SpatialConfig(128, 4, 8, 4),
    SpatialConfig(64, 8, 8, 4),
    SpatialConfig(64, 4, 8, 4),
    SpatialConfig(64, 4, 4, 4),
    SpatialConfig(32, 8, 8, 4),
    SpatialConfig(32, 4, 4, 4),
    SpatialConfig(16, 8, 8, 4),
    SpatialConfig(8, 8, 16, 4),
)
_PIXELS_MINOR = (
    SpatialConfig(1, 8, 256, 4),
    SpatialConfig(1, 16, 128, 4),
    SpatialConfig(2, 16, 64, 4),
    SpatialConfig(4, 16, 32, 4),
    SpatialConfig(8, 8, 16, 4),
    SpatialConfig(16, 8, 8, 4),
)


def spatial_configs(output: Operand) -> tuple[SpatialConfig, ...]:
    return _CHANNELS_MINOR if OperandHints.of(output).channels_minor_to(2, 3) else _PIXELS_MINOR


def spatial_rejection(output: Operand, config: SpatialConfig) -> str:
    """Tiles that mostly lie outside the image are left out, never the ones that fit best."""
    best = max(spatial_configs(output), key=lambda other: other.useful(output))
    if config.useful(output) < best.useful(output) / 2:
        return f"{config.useful(output):.1%} of its tiles would be useful, of {best} {best.useful(output):.1%}"
    return ""


def spatial_estimate(problem: Problem, output: Operand, config: SpatialConfig, operations: int) -> Estimate:
    """`operations` is the number of neighbours that each output looks at."""
    programs = config.programs(output)
    useful = config.useful(output)
    elements = programs * config.elements()
    return Estimate(
        seconds=memory_seconds(problem, elements, programs, problem.compulsory_bytes(), operations),
        programs=programs,
        steps=operations,
        useful=useful,
        registers=40 + 4 * config.elements() // (32 * config.num_warps),
    )
