"""Configurations of the implicit-GEMM kernels and the model that prunes and ranks them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
import triton.language as tl

from fastconv.backends.triton.family import Estimate, ceil_div
from fastconv.backends.triton.hints import one_row, rows_end_to_end
from fastconv.backends.triton.target import (
    L2_BYTES_PER_CLOCK,
    LAUNCH_SECONDS,
    REGISTERS_PER_THREAD,
    architecture,
    flops_per_clock,
)
from fastconv.problem import ConvProblem


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


def precision_of(problem: ConvProblem) -> str:
    """How products are formed: "fma" for float64, TF32 only where PyTorch's switch allows it, exact operands otherwise."""
    if problem.dtype == torch.float64:
        return "fma"
    return "tf32" if problem.dtype == torch.float32 and problem.allow_tf32 else "ieee"


def accumulator_of(dtype: torch.dtype) -> Any:
    return tl.float64 if dtype == torch.float64 else tl.float32


def useful_share(shape: GemmShape, config: TileConfig) -> float:
    share = 1.0
    for size, block in ((shape.m, config.block_m), (shape.n, config.block_n), (shape.k, config.block_k)):
        share *= size / (ceil_div(size, block) * block) if size else 1.0
    return share


def estimate(problem: ConvProblem, shape: GemmShape, config: TileConfig) -> Estimate:
    """A roofline over whole waves of programs: products, operand traffic from cache, and compulsory memory traffic."""
    itemsize = problem.dtype.itemsize
    tiles = ceil_div(shape.m, config.block_m) * ceil_div(shape.n, config.block_n)
    programs = tiles * shape.batches * shape.splits
    steps = ceil_div(shape.taps * ceil_div(shape.k, config.block_k), shape.splits)
    operand_elements = (config.block_m + config.block_n) * config.block_k
    outputs = config.block_m * config.block_n
    threads = 32 * config.num_warps
    precision = precision_of(problem)
    accumulators = outputs // threads * (2 if problem.dtype == torch.float64 else 1)
    if problem.target.device_type == "cpu":
        # Interpreted: some fifty array operations a step, and each touches every element of the tile.
        seconds = programs * (2e-3 + steps * (2e-3 + 5e-8 * operand_elements + 1e-9 * outputs * config.block_k))
    else:
        rates = architecture(problem.target)
        flops = 2 * outputs * config.block_k / flops_per_clock(problem.target, problem.dtype, precision)
        clocks = max(flops, operand_elements * itemsize / L2_BYTES_PER_CLOCK)
        waves = max(ceil_div(programs, problem.target.multiprocessors), 1)
        memory = rates.memory_bytes_per_second * problem.target.multiprocessors
        splitting = 2 * shape.splits * shape.m * shape.n * shape.batches * 4 if shape.splits > 1 else 0
        latency = 600 * (steps + 2 * config.num_stages) / config.num_stages  # of loads that the pipeline does not hide
        seconds = max(
            waves * max(clocks * steps, latency) / rates.clock, (problem.compulsory_bytes() + splitting) / memory
        )
        seconds += LAUNCH_SECONDS * (2 if shape.splits > 1 else 1)
    return Estimate(
        seconds=seconds,
        programs=programs,
        steps=steps,
        useful=useful_share(shape, config),
        shared_bytes=shared_bytes(problem, config),
        registers=accumulators + 2 * ceil_div(operand_elements * itemsize, 16 * threads) + 40,
    )


def shared_bytes(problem: ConvProblem, config: TileConfig) -> int:
    """The operands of the stages in flight, or the output tile that passes through shared memory on its way out.

    Before Hopper the tile in use has moved to registers, so one stage fewer is held.
    """
    itemsize = problem.dtype.itemsize
    held = max(config.num_stages - (problem.target.capability < 90), 1)
    stages = (config.block_m + config.block_n) * config.block_k * itemsize * held
    return max(stages, config.block_m * config.block_n * itemsize)


class GemmFamily:
    """What the implicit-GEMM passes share. `tiles` holds a list of configurations for each kind of arithmetic."""

    tiles: Mapping[str, tuple[TileConfig, ...]]

    def shape(self, problem: ConvProblem, config: TileConfig) -> GemmShape:
        raise NotImplementedError

    def configs(self, problem: ConvProblem) -> tuple[TileConfig, ...]:
        if problem.dtype in (torch.float16, torch.bfloat16):
            return self.tiles["half"]
        return self.tiles[{"fma": "double", "tf32": "tf32", "ieee": "float"}[precision_of(problem)]]

    def estimate(self, problem: ConvProblem, config: TileConfig) -> Estimate:
        return estimate(problem, self.shape(problem, config), config)

    def workspaces(self, problem: ConvProblem, config: TileConfig) -> dict[str, int]:
        return {}

    def rejection(self, problem: ConvProblem, config: TileConfig) -> str:
        """Why this tile cannot run, or why no tuner should try it. The tile that wastes least is never rejected for waste."""
        costs = self.estimate(problem, config)
        limit = architecture(problem.target).shared_bytes
        if costs.shared_bytes > limit:
            return f"needs {costs.shared_bytes} bytes of shared memory, of {limit}"
        if costs.registers > REGISTERS_PER_THREAD:
            return f"needs about {costs.registers} registers a thread, of {REGISTERS_PER_THREAD}"
        shares = {other: useful_share(self.shape(problem, other), other) for other in self.configs(problem)}
        best = max(shares, key=shares.__getitem__)
        if costs.useful < shares[best] / 2:
            return f"{costs.useful:.1%} of its tiles would be useful, of {best} {shares[best]:.1%}"
        return ""


def collapsed(problem: ConvProblem) -> ConvProblem:
    """A 1x1 filter with stride one sees rows of pixels only: where they lie end to end, an image is one long row.

    Then neighbouring pixels are provably contiguous, also across rows, and planes are read in whole vectors.
    """
    if problem.w.sizes[2:] != (1, 1) or problem.stride != (1, 1) or any(problem.padding):
        return problem
    operands = {"x": problem.x, "y": problem.y, "residual": problem.residual}
    images = {name: operand for name, operand in operands.items() if operand is not None}
    if not all(rows_end_to_end(image) for image in images.values()):
        return problem
    return dataclasses.replace(problem, **{name: one_row(image) for name, image in images.items()})
