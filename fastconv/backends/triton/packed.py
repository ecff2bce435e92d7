"""Convolution of NCHW tensors by way of channels-last copies.

A tile of an NCHW image cannot be read in whole vectors along the channels that a product runs over, and two-byte elements
cannot be copied to shared memory asynchronously at all. Where the product is large it pays to turn the operands it reads into
channels-last copies first: one pass over memory, after which the implicit-GEMM kernels run at their best. Outputs are written
in their own layout. Filters are turned too, also where the images need no turning.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import triton
import triton.language as tl

from fastconv.backends.triton import conv_dgrad, conv_fprop, conv_wgrad
from fastconv.backends.triton.family import Estimate, Workspaces, ceil_div
from fastconv.backends.triton.gemm import GemmFamily, TileConfig
from fastconv.backends.triton.hints import (
    OperandHints,
    alignment,
    is_wide,
    one_row,
    operand_arguments,
    rows_end_to_end,
)
from fastconv.backends.triton.numerics import aligned, offsets_at, widen
from fastconv.backends.triton.runtime import Launch, kernel
from fastconv.backends.triton.spatial import spatial_tile
from fastconv.backends.triton.target import LAUNCH_SECONDS, architecture
from fastconv.problem import ConvProblem, Operand

#: Operands that a pass reads and that may be packed.
_READ = {"fprop": ("x", "w"), "dgrad": ("y", "w"), "wgrad": ("y", "x")}
#: Elements of the tile that one program turns.
_TILE = 4096


@kernel
def pack_kernel(
    x_pointer,  # [N, C, H, W], any strides
    packed_pointer,  # [N, H, W, C], dense
    channels, height, width, x_stride_n, x_stride_c, x_stride_h, x_stride_w,
    X_UNIT: tl.constexpr, X_ALIGNMENT: tl.constexpr, C_ALIGNMENT: tl.constexpr, W_ALIGNMENT: tl.constexpr,
    WIDE: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    channels = aligned(channels, C_ALIGNMENT)
    width = aligned(width, W_ALIGNMENT)
    n, c, h, w = spatial_tile(tl.program_id(0), channels, height, width, True, BLOCK_C, BLOCK_H, BLOCK_W)
    valid = (c < channels) & (h < height) & (w < width)
    n = widen(n, WIDE)
    c = widen(c, WIDE)
    h = widen(h, WIDE)
    w = widen(w, WIDE)
    offsets = offsets_at(n, c, h, w, x_stride_n, x_stride_c, x_stride_h, x_stride_w, X_UNIT, X_ALIGNMENT)
    values = tl.load(x_pointer + offsets, mask=valid, other=0.0)
    tl.store(packed_pointer + (((n * height + h) * width + w) * channels + c), values, mask=valid)


def _pack(role: str, operand: Operand, wide: bool) -> Launch:
    if rows_end_to_end(operand):
        operand = one_row(operand)
    batch, channels, height, width = operand.sizes
    block_w = min(triton.next_power_of_2(max(width, 1)), 64)  # an empty batch may have images without pixels
    block_h = min(triton.next_power_of_2(max(height, 1)), 64 // block_w)
    block_c = min(triton.next_power_of_2(channels), _TILE // (block_h * block_w), 64)
    tiles = ceil_div(channels, block_c) * ceil_div(height, block_h) * ceil_div(width, block_w)
    strides, constants = operand_arguments(x=operand)
    scalars = {"channels": channels, "height": height, "width": width, **strides}
    constants |= {
        "C_ALIGNMENT": alignment(channels),
        "W_ALIGNMENT": alignment(width),
        "WIDE": wide,
        "BLOCK_C": block_c,
        "BLOCK_H": block_h,
        "BLOCK_W": block_w,
    }
    return Launch(pack_kernel, batch * tiles, scalars, constants, aliases={"x": role, "packed": _packed(role)})


def _packed(role: str) -> str:
    return f"packed_{role}"


def _channels_last(operand: Operand) -> Operand:
    _, channels, height, width = operand.sizes
    return Operand(operand.sizes, (channels * height * width, 1, width * channels, channels))


class Packed:
    """A family that packs what is not channels-last and leaves the rest to another one."""

    def __init__(self, base: GemmFamily) -> None:
        self.base = base
        self.name = f"packed_{base.name}"
        self.ops = base.ops

    def configs(self, problem: ConvProblem) -> tuple[TileConfig, ...]:
        """None where all operands are channels-last already, and none for float64, whose kernels read single elements."""
        if problem.dtype == torch.float64 or not self._turned(problem):
            return ()
        return self.base.configs(problem)

    def _turned(self, problem: ConvProblem) -> dict[str, Operand]:
        """Role -> operand, for those that the pass reads and whose channels are not innermost."""
        read = {role: getattr(problem, role) for role in _READ[problem.conv_pass]}
        return {
            role: operand
            for role, operand in read.items()
            if operand.sizes[1] > 1 and OperandHints.of(operand).unit != 1
        }

    def _packed_problem(self, problem: ConvProblem) -> ConvProblem:
        turned = {role: _channels_last(operand) for role, operand in self._turned(problem).items()}
        return dataclasses.replace(problem, **turned)

    def rejection(self, problem: ConvProblem, config: TileConfig) -> str:
        return self.base.rejection(self._packed_problem(problem), config)

    def estimate(self, problem: ConvProblem, config: TileConfig) -> Estimate:
        costs = self.base.estimate(self._packed_problem(problem), config)
        packs = self.launches(problem, config)[: len(self._turned(problem))]
        elements = sum(_elements(operand) for operand in self._turned(problem).values())
        if problem.target.device_type == "cpu":
            packing = sum(launch.programs for launch in packs) * 2e-3
        else:
            rates = architecture(problem.target)
            bandwidth = rates.memory_bytes_per_second * problem.target.multiprocessors
            packing = len(packs) * LAUNCH_SECONDS + 2 * elements * problem.dtype.itemsize / bandwidth
        return dataclasses.replace(costs, seconds=costs.seconds + packing)

    def workspaces(self, problem: ConvProblem, config: TileConfig) -> Workspaces:
        packed = {_packed(role): (_elements(operand), problem.dtype) for role, operand in self._turned(problem).items()}
        return packed | self.base.workspaces(self._packed_problem(problem), config)

    def launches(self, problem: ConvProblem, config: TileConfig) -> list[Launch]:
        turned = self._turned(problem)
        wide = is_wide(problem)
        launches = [_pack(role, operand, wide) for role, operand in turned.items()]
        for launch in self.base.launches(self._packed_problem(problem), config):
            aliases: dict[str, Any] = dict(launch.aliases)
            for argument, role in launch.roles.items():
                if role in turned:
                    aliases[argument.removesuffix("_pointer")] = _packed(role)
            launches.append(dataclasses.replace(launch, aliases=aliases))
        return launches


def _elements(operand: Operand) -> int:
    count = 1
    for size in operand.sizes:
        count *= size
    return count


FAMILIES = tuple(Packed(module.FAMILIES[0]) for module in (conv_fprop, conv_dgrad, conv_wgrad))
