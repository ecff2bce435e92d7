"""What the host-side model knows of GPUs: limits that make a configuration illegal, and rates that rank the legal ones.

The rates are rounded vendor peaks per multiprocessor. They rank configurations; they are never reported as a speed.
"""

from __future__ import annotations

import dataclasses

import torch

from fastconv.problem import Problem, Target


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One compute capability. Rates are per multiprocessor and clock."""

    shared_bytes: int  # of one block
    tensor_flops: int  # float16 and bfloat16 with float32 sums; TF32 has half of it
    vector_flops: int  # float32
    double_flops: int
    memory_bytes_per_second: float  # of the whole device, divided by its multiprocessors
    clock: float


_KIB = 1024
_ARCHITECTURES = {
    80: Architecture(163 * _KIB, 2048, 128, 64, 14e9, 1.4e9),
    86: Architecture(99 * _KIB, 512, 256, 4, 9e9, 1.7e9),
    87: Architecture(163 * _KIB, 1024, 256, 4, 9e9, 1.3e9),
    89: Architecture(99 * _KIB, 1024, 256, 4, 8e9, 2.2e9),
    90: Architecture(227 * _KIB, 4096, 256, 128, 25e9, 1.7e9),
    100: Architecture(227 * _KIB, 8192, 256, 128, 50e9, 1.8e9),
    120: Architecture(99 * _KIB, 1024, 256, 4, 10e9, 2.2e9),
}

REGISTERS_PER_THREAD = 255
LAUNCH_SECONDS = 3e-6
#: Bytes per clock that a multiprocessor can take from the level-two cache.
L2_BYTES_PER_CLOCK = 64


def architecture(target: Target) -> Architecture:
    """The nearest known one at or below the target's capability."""
    known = [capability for capability in _ARCHITECTURES if capability <= target.capability]
    return _ARCHITECTURES[max(known, default=80)]


def flops_per_clock(target: Target, dtype: torch.dtype, precision: str) -> int:
    """Of one multiprocessor, for products of this type computed as "dot" precision says ("ieee", "tf32" or "fma")."""
    rates = architecture(target)
    if dtype == torch.float64:
        return rates.double_flops
    if dtype == torch.float32 or precision == "fma":
        return rates.tensor_flops // 2 if precision == "tf32" else rates.vector_flops
    return rates.tensor_flops


def memory_seconds(
    problem: Problem, elements: int, programs: int, bytes_moved: int, operations: int, launches: int = 1
) -> float:
    """A kernel that reads and writes more than it computes; `elements` is the size of all its tiles together.

    `operations` is the number of steps that every element takes. Programs that do not fill the multiprocessors share less of
    the bandwidth: one in flight covers about a quarter of its multiprocessor's.
    """
    target = problem.target
    if target.device_type == "cpu":
        return programs * 2e-3 * (1 + operations) + elements * operations * 5e-8
    rates = architecture(target)
    busy = min(1.0, max(programs, 1) / (4 * target.multiprocessors))  # nothing to do still is a launch
    rate = rates.double_flops if problem.dtype == torch.float64 else rates.vector_flops
    # Address arithmetic and conversion cost about as much again as the products.
    compute = 4 * elements * operations / (rate * rates.clock * target.multiprocessors)
    memory = bytes_moved / (rates.memory_bytes_per_second * target.multiprocessors)
    return max(compute, memory) / busy + launches * LAUNCH_SECONDS
