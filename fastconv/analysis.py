"""What a candidate would do on a named GPU: its roof, its waves and occupancy, what other layouts would cost. Predictions.

Everything here follows from the problem, the candidate's details and the datasheet of the GPU. Only `measured_seconds` was
measured, by `fastconv tune` on that GPU.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fastconv import backends, machine_code
from fastconv.backends import cuda
from fastconv.bench.hardware import Gpu, gpu_like, occupancy
from fastconv.plan import Candidate
from fastconv.problem import ConvProblem, FusedProblem, Operand, PoolProblem, Problem, Target, changed
from fastconv.tuning import choice
from fastconv.tuning.keys import candidate_key, problem_key
from fastconv.tuning.model import aten_seconds


@dataclasses.dataclass(frozen=True)
class Analysis:
    """Of one candidate on one GPU. None is "not known": ATen and cuDNN do not say what they launch."""

    gpu: str
    tile: str
    grid: int | None
    threads: int | None
    shared_bytes: int | None
    registers: int | None  # of a thread; Triton's are an estimate
    registers_unknown: str  # why fastconv._cuda does not tell them; empty where they are known, and for ATen
    blocks_per_multiprocessor: int | None
    occupancy_limit: str
    occupancy: float | None  # resident threads over those that fit
    waves: float | None
    last_wave: float | None  # share of the last wave's places that are filled
    intensity: float  # operations per compulsory byte
    bound: str  # "memory" or "compute": the roof that is reached first
    roof_seconds: float
    predicted_seconds: float | None
    measured_seconds: float | None
    #: Predicted seconds that channels_last operands would save; negative where they cost.
    channels_last_saves: float | None
    #: Predicted seconds of memory traffic that one kernel for the call and what follows it would save; 0 where nothing does.
    fusion_saves: float
    fusion_of: str  # "relu + max pool"; empty where nothing is left to fuse

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @property
    def seconds(self) -> float | None:
        return self.measured_seconds if self.measured_seconds is not None else self.predicted_seconds


def gpu_of(target: Target) -> Gpu:
    """The datasheet for a target: the known GPU of that name, else the nearest by capability."""
    return gpu_like(target.name, target.capability)


def on_gpu(problem: Problem, gpu: Gpu) -> Problem:
    """The same problem on CUDA tensors of a named GPU; where this machine has one, under its own name, as times are kept."""
    here = (torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    name = next((name for name in here if gpu.name in name), gpu.name)
    return changed(problem, target=Target("cuda", gpu.capability, gpu.multiprocessors, name, gpu.l2_megabytes << 20))


def candidates_on(problem: Problem) -> list[Candidate]:
    """Every candidate for a problem on a GPU, whether or not this machine has one.

    The compiled core's candidates are functions of the problem: where only the emulated module is here, it is asked.
    """
    found: list[Candidate] = []
    for name in backends.NAMES:
        asked = problem
        if name == "cuda" and problem.target.device_type == "cuda" and backends.unavailable(name, "cuda"):
            asked = changed(problem, target=dataclasses.replace(problem.target, device_type="cpu"))
        try:
            found += backends.get(name).candidates(asked)
        except (backends.BackendUnavailableError, ImportError) as error:
            found.append(Candidate(name, problem.op, "", str(error)))
    return found


def predicted(problem: Problem, candidate: Candidate) -> float | None:
    """The cost model's time; ATen's by the rough model that stands for it among the candidates."""
    if candidate.backend == "aten":
        return aten_seconds(problem)
    if (
        candidate.backend == "triton" and problem.target.device_type == "cpu"
    ):  # whose candidates have the interpreter's time
        on_the_played_gpu = changed(problem, target=dataclasses.replace(problem.target, device_type="cuda"))
        return _triton_seconds(on_the_played_gpu).get(candidate_key(candidate))
    return candidate.predicted_seconds


@functools.lru_cache(maxsize=256)
def _triton_seconds(problem: Problem) -> dict[str, float | None]:
    return {candidate_key(one): one.predicted_seconds for one in backends.get("triton").candidates(problem)}


def analyse(problem: Problem, candidate: Candidate, followed_by: Sequence[str] = ()) -> Analysis:
    """`problem` has the GPU as its target, or the device that the emulator plays; `followed_by` as `explain` finds it."""
    gpu = gpu_of(problem.target)
    details = candidate.details
    grid, threads = _count(details, "grid", "programs"), _threads(candidate)
    shared = _count(details, "shared_bytes")
    registers, registers_unknown = _registers(problem, candidate)
    resident = None
    if grid and threads:
        resident = occupancy(gpu, grid_blocks=grid, threads=threads, shared_bytes=shared or 0, registers=registers)
    roof = gpu.ceilings().roof(problem.flops(), problem.compulsory_bytes(), precision_of(problem))
    time = predicted(problem, candidate)
    passes = separate_passes(problem, candidate, followed_by)
    return Analysis(
        gpu=gpu.name,
        tile=_tile(details),
        grid=grid,
        threads=threads,
        shared_bytes=shared,
        registers=registers,
        registers_unknown=registers_unknown,
        blocks_per_multiprocessor=resident.blocks_per_multiprocessor if resident else None,
        occupancy_limit=resident.limit if resident else "",
        occupancy=resident.threads_share if resident else None,
        waves=resident.waves if resident else None,
        last_wave=resident.last_wave_share if resident else None,
        intensity=problem.flops() / max(1, problem.compulsory_bytes()),
        bound=roof.bound,
        roof_seconds=roof.seconds,
        predicted_seconds=time,
        measured_seconds=measured(problem).get(candidate_key(candidate)),
        channels_last_saves=_channels_last_saves(problem, time),
        fusion_saves=len(passes) * _pass_seconds(problem, gpu) if passes else 0.0,
        fusion_of=" + ".join(passes),
    )


def separate_passes(problem: Problem, candidate: Candidate, followed_by: Sequence[str]) -> list[str]:
    """What runs over the call's output after it and need not: each reads all of it, or writes what the next one reads."""
    found = list(followed_by)
    if isinstance(problem, FusedProblem):
        if candidate.backend == "aten" and problem.activation != "identity":
            found.insert(0, problem.activation)
        if candidate.backend == "aten" or candidate.kernel == "unfused":
            found.insert(0, "max pool")
    elif isinstance(problem, ConvProblem) and candidate.backend == "aten" and problem.activation != "identity":
        found.insert(0, problem.activation)  # ATen applies it in a pass of its own
    return found


def _pass_seconds(problem: Problem, gpu: Gpu) -> float:
    """Reading and writing the convolution's output once, at the datasheet's bandwidth."""
    conv = problem.conv if isinstance(problem, FusedProblem) else problem
    written = conv.x if getattr(conv, "conv_pass", "fprop") == "dgrad" else conv.y
    return 2 * math.prod(written.sizes) * conv.dtype.itemsize / gpu.ceilings().bytes_per_second


def measured(problem: Problem) -> Mapping[str, float]:
    """Times that `fastconv tune` keeps for the problem on its GPU, by candidate; empty for the emulator's device."""
    if problem.target.device_type != "cuda":
        return {}
    times = choice.store_for(problem.target.name).times(problem_key(problem))
    return {name: seconds for name, seconds in times.items() if math.isfinite(seconds)}


def precision_of(problem: Problem) -> str:
    if isinstance(problem, ConvProblem | FusedProblem) and problem.allow_tf32:
        return "tf32"
    return str(problem.dtype).removeprefix("torch.")


def _count(details: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = details.get(name)
        if isinstance(value, Sequence) and not isinstance(value, str):
            return math.prod(int(one) for one in value)
        if value is not None:
            return int(value)
    return None


def _threads(candidate: Candidate) -> int | None:
    if threads := _count(candidate.details, "block"):
        return threads
    # Triton's configurations end in the number of warps: "128x64x32_s3_w4".
    last = candidate.config.rpartition("_w")[2]
    return 32 * int(last) if candidate.backend == "triton" and last.isdigit() else None


def _registers(problem: Problem, candidate: Candidate) -> tuple[int | None, str]:
    """Of a thread, and why they are not known. What a CUDA kernel has is what the compiler gave the built one."""
    told = _count(candidate.details, "registers")
    if told is not None or candidate.backend != "cuda" or not _count(candidate.details, "grid"):
        return told, ""
    try:
        launches = cuda.dry_run(problem, candidate)
        # The one that the details describe has the family's name; others lay out operands or add up parts.
        symbol = next((one["symbol"] for one in launches if one["kernel"] == candidate.kernel), "")
        return machine_code.of_kernel(symbol, problem.target.capability).registers, ""
    except (ImportError, machine_code.UnknownResourcesError) as error:
        return None, str(error)


def _tile(details: Mapping[str, Any]) -> str:
    sides = [details.get(name) for name in ("tile_rows", "tile_columns", "tile_depth")]
    return "x".join(str(side) for side in sides) if all(side is not None for side in sides) else ""


def _channels_last_saves(problem: Problem, time: float | None) -> float | None:
    """Against the best candidate of the channels_last problem, by the cost model; None where it is channels_last already."""
    known = isinstance(problem, ConvProblem | PoolProblem | FusedProblem)
    if time is None or not known or problem.x.is_channels_last():
        return None
    other = in_channels_last(problem)
    times = [predicted(other, one) for one in candidates_on(other) if one.legal]
    best = min((one for one in times if one is not None), default=None)
    return None if best is None else time - best


def in_channels_last(problem: ConvProblem | PoolProblem | FusedProblem) -> ConvProblem | PoolProblem | FusedProblem:
    """The same problem on channels_last operands."""
    if isinstance(problem, FusedProblem):
        conv, pool = in_channels_last(problem.conv), in_channels_last(problem.pool)
        return dataclasses.replace(problem, conv=conv, pool=pool)
    names = ("x", "w", "y", "residual") if isinstance(problem, ConvProblem) else ("x", "y", "offsets")
    changed = {
        name: _channels_last(getattr(problem, name)) for name in names if getattr(problem, name, None) is not None
    }
    return dataclasses.replace(problem, **changed)


def _channels_last(operand: Operand) -> Operand:
    _, channels, height, width = operand.sizes
    return Operand(operand.sizes, (channels * height * width, 1, width * channels, channels))
