"""Configurations of the implicit-GEMM kernels and the model that prunes and ranks them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
import triton.language as tl

from fastconv.backends.triton.family import Estimate, Workspaces, ceil_div
from fastconv.backends.triton.hints import OperandHints, alignment, one_row, rows_end_to_end
from fastconv.backends.triton.target import (
    L2_BYTES_PER_CLOCK,
    LAUNCH_SECONDS,
    REGISTERS_PER_THREAD,
    architecture,
    flops_per_clock,
)
from fastconv.problem import ConvProblem, Operand


@dataclasses.dataclass(frozen=True)
class TileConfig:
    """A tile of BLOCK_M x BLOCK_N outputs that advances by BLOCK_K, and how many warps and pipeline stages work on it."""

    block_m: int
    block_n: int
    block_k: int
    num_stages: int
    num_warps: int

    def __str__(self) -> str:
        return f"{self.block_m}x{self.block_n}x{self.block_k}_s{self.num_stages}_w{self.num_warps}"

    def accumulators(self) -> int:
        """Elements of the output tile that one thread holds."""
        return self.block_m * self.block_n // (32 * self.num_warps)

    def launch_options(self, problem: ConvProblem) -> dict[str, int]:
        """Registers enough for the accumulators and the loads in flight, few enough for two to four blocks of four warps."""
        wide = problem.index_bits == 64
        registers = 168 if wide else 128
        if self.accumulators() > 16:
            shallow = self.block_k * problem.dtype.itemsize <= 64
            registers = 168 if self.accumulators() <= 32 and shallow and self.num_warps <= 4 and not wide else 255
        if precision_of(problem) == "ieee" and problem.dtype == torch.float32 and problem.w.sizes[1] % self.block_k:
            registers = 255  # single elements with masks of their own, and products without tensor cores
        if problem.padding_mode == "constant":
            registers = 255  # every element is chosen by a second mask
        return {"num_warps": self.num_warps, "num_stages": self.num_stages, "max_registers": registers}

    def finishes_by_halves(self) -> bool:
        return self.accumulators() >= 128

    def blocks(self) -> dict[str, int]:
        return {"BLOCK_M": self.block_m, "BLOCK_N": self.block_n, "BLOCK_K": self.block_k}


@dataclasses.dataclass(frozen=True)
class GemmShape:
    """How a pass looks to the tile loop. One program walks taps * ceil(k / BLOCK_K) / splits steps."""

    m: int
    n: int
    k: int
    taps: int
    batches: int = 1  # groups, or groups and stride phases: problems of this shape side by side
    splits: int = 1
    left_vector: int = 1  # elements that one load brings of the left operand, and of the right one
    right_vector: int = 1


def precision_of(problem: ConvProblem) -> str:
    """How products are formed: "fma" for float64, TF32 only where PyTorch's switch allows it, exact operands otherwise."""
    if problem.dtype == torch.float64:
        return "fma"
    return "tf32" if problem.dtype == torch.float32 and problem.allow_tf32 else "ieee"


def instruction_precision(problem: ConvProblem) -> str:
    """The same as kernels take it: TF32 by the GPU's generation, because operands reach its products in different ways."""
    precision = precision_of(problem)
    generations = {9: "tf32_hopper", 10: "tf32_blackwell", 11: "tf32_blackwell"}
    return generations.get(problem.target.capability // 10, precision) if precision == "tf32" else precision


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """What sums of products are kept in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def accumulator_of(dtype: torch.dtype) -> Any:
    return tl.float64 if sum_dtype(dtype) == torch.float64 else tl.float32


def useful_share(shape: GemmShape, config: TileConfig) -> float:
    share = 1.0
    for size, block in ((shape.m, config.block_m), (shape.n, config.block_n), (shape.k, config.block_k)):
        share *= size / (ceil_div(size, block) * block) if size else 1.0
    return share


def estimate(
    problem: ConvProblem, shape: GemmShape, config: TileConfig, bytes_moved: int | None = None, held: int = 0
) -> Estimate:
    """A roofline over whole waves of programs: products, operand traffic from cache, load instructions, and memory.

    A kernel that fuses more to the convolution moves other bytes than its operands, and holds more registers.
    """
    bytes_moved = problem.compulsory_bytes() if bytes_moved is None else bytes_moved
    tiles = ceil_div(shape.m, config.block_m) * ceil_div(shape.n, config.block_n)
    programs = tiles * shape.batches * shape.splits
    steps = ceil_div(shape.taps * ceil_div(shape.k, config.block_k), shape.splits)
    operand_elements = (config.block_m + config.block_n) * config.block_k
    outputs = config.block_m * config.block_n
    if problem.target.device_type == "cpu":
        # Interpreted: some fifty array operations a step, and each touches every element of the tile.
        seconds = programs * (2e-3 + steps * (2e-3 + 5e-8 * operand_elements + 1e-9 * outputs * config.block_k))
    else:
        rates = architecture(problem.target)
        peak = flops_per_clock(problem.target, problem.dtype, precision_of(problem))
        # A load of a warp takes some ten instructions with its addresses and masks, of which four issue in a clock.
        loads = (config.block_m / shape.left_vector + config.block_n / shape.right_vector) * config.block_k / 32
        parts = (
            2 * outputs * config.block_k / peak,
            operand_elements * problem.dtype.itemsize / L2_BYTES_PER_CLOCK,
            2.5 * loads,
        )
        clocks = 0.7 * max(parts) + 0.3 * sum(parts)  # they overlap, but never wholly
        waves = max(ceil_div(programs, problem.target.multiprocessors), 1)
        memory = rates.memory_bytes_per_second * problem.target.multiprocessors
        splitting = 2 * shape.splits * shape.m * shape.n * shape.batches * 4 if shape.splits > 1 else 0
        latency = 600 * (steps + 2 * config.num_stages) / config.num_stages  # of loads that the pipeline does not hide
        seconds = max(waves * max(clocks * steps, latency) / rates.clock, (bytes_moved + splitting) / memory)
        seconds += LAUNCH_SECONDS * (2 if shape.splits > 1 else 1)
    return Estimate(
        seconds=seconds,
        programs=programs,
        steps=steps,
        useful=useful_share(shape, config),
        shared_bytes=shared_bytes(problem, config),
        registers=_registers(problem, shape, config) + held,
    )


#: Fitted to what the assembler reports (tests/triton/compilation_table.json): registers that a load in flight takes with its
#: address and mask, for vectors of the left and right operand before Hopper and since, and for single elements.
_BASE_REGISTERS = 40
_VECTOR_REGISTERS = {False: (15, 6), True: (8, 4)}
_LONGER_ELEMENTS = {False: (15, 8), True: (8, 4)}  # than two bytes
_ELEMENT_REGISTERS = {2: 2.9, 4: 3.6, 8: 4.0}
_COSTLY_ACTIVATIONS = ("silu", "gelu", "sigmoid", "tanh")


def _registers(problem: ConvProblem, shape: GemmShape, config: TileConfig) -> int:
    """Of one thread: accumulators, the loads of one step, and what an epilogue takes while the accumulators are alive."""
    itemsize = problem.dtype.itemsize
    total = config.accumulators() * (2 if itemsize == 8 else 1) + _BASE_REGISTERS
    vector_costs = (_VECTOR_REGISTERS if itemsize == 2 else _LONGER_ELEMENTS)[problem.target.capability >= 90]
    operands = ((config.block_m, shape.left_vector), (config.block_n, shape.right_vector))
    for (block, vector), vector_cost in zip(operands, vector_costs, strict=True):
        loads = block * config.block_k / (32 * config.num_warps * vector)
        cost = vector_cost if vector > 1 else _ELEMENT_REGISTERS[itemsize]
        total += loads * cost * (1.5 if problem.index_bits == 64 else 1)
    if itemsize == 2 and _is_turned_in_registers(problem):
        total += 2 * config.block_m * config.block_k // (32 * config.num_warps * shape.left_vector)
    if problem.activation in _COSTLY_ACTIVATIONS:
        total += 24 if problem.target.capability >= 100 else 8  # there the accumulators come back from tensor memory
    if problem.conv_pass == "dgrad" and problem.stride != (1, 1):
        total += 16  # the bounds and first taps of the phase
    return int(total)


def _is_turned_in_registers(problem: ConvProblem) -> bool:
    """Before Hopper, pixels of two bytes that are innermost pass through registers on their way to a product."""
    images = {"fprop": problem.x, "dgrad": problem.y}
    image = images.get(problem.conv_pass)
    return problem.target.capability < 90 and image is not None and OperandHints.of(image).unit == 3


def vector_along(operand: Operand, dimension: int, dtype: torch.dtype, *extents: int) -> int:
    """Elements that one load brings along a dimension, where its extents and the other strides divide by them."""
    hints = OperandHints.of(operand)
    if hints.unit != dimension:
        return 1
    return min(16 // dtype.itemsize, hints.alignment, alignment(*extents))


def shared_bytes(problem: ConvProblem, config: TileConfig) -> int:
    """The operands of the stages in flight, or the output tile that passes through shared memory on its way out.

    Before Hopper the tile in use has moved to registers, so one stage fewer is held.
    """
    itemsize = problem.dtype.itemsize
    held = max(config.num_stages - (problem.target.capability < 90), 1)
    stages = (config.block_m + config.block_n) * config.block_k * itemsize * held
    return max(stages, config.block_m * config.block_n * itemsize)


def tiles_for(problem: ConvProblem, tiles: Mapping[str, tuple[TileConfig, ...]]) -> tuple[TileConfig, ...]:
    """The list for the problem's kind of arithmetic."""
    if problem.dtype in (torch.float16, torch.bfloat16):
        return tiles["half"]
    return tiles[{"fma": "double", "tf32": "tf32", "ieee": "float"}[precision_of(problem)]]


def tile_rejection(
    problem: ConvProblem, config: TileConfig, costs: Estimate, shares: Mapping[TileConfig, float]
) -> str:
    """Why a tile cannot run or is not worth trying; `shares` are the useful shares of all tiles of its list."""
    limit = architecture(problem.target).shared_bytes
    if costs.shared_bytes > limit:
        return f"needs {costs.shared_bytes} bytes of shared memory, of {limit}"
    if costs.registers > REGISTERS_PER_THREAD:
        return f"needs about {costs.registers} registers a thread, of {REGISTERS_PER_THREAD}"
    best = max(shares, key=shares.__getitem__)
    if costs.useful < shares[best] / 2:
        return f"{costs.useful:.1%} of its tiles would be useful, of {best} {shares[best]:.1%}"
    return ""


class GemmFamily:
    """What the implicit-GEMM passes share. `tiles` holds a list of configurations for each kind of arithmetic."""

    tiles: Mapping[str, tuple[TileConfig, ...]]

    def shape(self, problem: ConvProblem, config: TileConfig) -> GemmShape:
        raise NotImplementedError

    def configs(self, problem: ConvProblem) -> tuple[TileConfig, ...]:
        return tiles_for(problem, self.tiles)

    def estimate(self, problem: ConvProblem, config: TileConfig) -> Estimate:
        return estimate(problem, self.shape(collapsed(problem), config), config)

    def workspaces(self, problem: ConvProblem, config: TileConfig) -> Workspaces:
        return {}

    def rejection(self, problem: ConvProblem, config: TileConfig) -> str:
        """Why this tile cannot run, or why no tuner should try it. The tile that wastes least is never rejected for waste."""
        if problem.groups == problem.w.sizes[0] == problem.x.sizes[1] > 1:
            return "one channel and one filter a group: there is no matrix product in it"
        shares = {other: useful_share(self.shape(problem, other), other) for other in self.configs(problem)}
        return tile_rejection(problem, config, self.estimate(problem, config), shares)


def is_pointwise(problem: ConvProblem) -> bool:
    """True where every output pixel reads one input pixel, the one at its place.

    With output_padding, which a dilation allows without a stride, a transposed convolution has more rows than it reads.
    """
    one_tap = problem.w.sizes[2:] == (1, 1) and problem.stride == (1, 1) and not any(problem.padding)
    return one_tap and problem.x.sizes[2:] == problem.y.sizes[2:]


def collapsed(problem: ConvProblem) -> ConvProblem:
    """A 1x1 filter with stride one sees rows of pixels only: where they lie end to end, an image is one long row.

    Then neighbouring pixels are provably contiguous, also across rows, and planes are read in whole vectors.
    """
    if not is_pointwise(problem):
        return problem
    operands = {"x": problem.x, "y": problem.y, "residual": problem.residual}
    images = {name: operand for name, operand in operands.items() if operand is not None}
    if not all(rows_end_to_end(image) for image in images.values()):
        return problem
    return dataclasses.replace(problem, **{name: one_row(image) for name, image in images.items()})
