"""Measures candidates of a problem, right results only, and keeps the times."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from fastconv import backends
from fastconv.backends import packed_weights
from fastconv.plan import Candidate, Plan
from fastconv.problem import (
    ActivationBackwardProblem,
    ChannelSumProblem,
    ConvProblem,
    FusedProblem,
    Operand,
    Problem,
    UnpoolProblem,
    changed,
)
from fastconv.tuning.keys import candidate_key, problem_key, slug
from fastconv.tuning.store import Store, measuring_alone

#: Candidates of a backend that are measured unless all are asked for: the cost model's best.
MOST_PER_BACKEND = 12

MakePlan = Callable[[Problem, Candidate], Plan]


@dataclasses.dataclass
class Tuned:
    """What came of one problem."""

    problem: str
    times: dict[str, float]  # of every candidate that has one now; infinite where its result was wrong
    measured: list[str]  # candidates measured by this call
    failures: dict[str, str]  # candidate -> what it raised, or how wrong it was


def tune_problem(
    problem: Problem,
    candidates: Sequence[Candidate],
    store: Store,
    *,
    most: int | None = MOST_PER_BACKEND,
    again: bool = False,
    device: Any = None,
    make_plan: MakePlan | None = None,
) -> Tuned:
    """Measures the legal candidates that have no time yet (all of them with `again`) and adds the times to the store.

    A candidate that fails or computes something else gets an infinite time, so that it is neither chosen nor tried again.
    """
    from fastconv.bench.device import CudaDevice

    key = problem_key(problem)
    known = {} if again else store.times(key)
    waiting = [one for one in shortlist(candidates, most) if candidate_key(one) not in known]
    result = Tuned(key, known, [], {})
    if not waiting:
        return result
    device = device or CudaDevice()
    make_plan = make_plan or (lambda wanted, one: backends.get(one.backend).plan(wanted, one))
    with measuring_alone(store.path.parent, slug(store.environment.gpu)):
        if not again:
            # Another process may have measured the same while this one waited.
            store.reload()
            result.times = store.times(key)
            waiting = [one for one in waiting if candidate_key(one) not in result.times]
            if not waiting:
                return result
        workload = Workload.of(problem, device.torch_device)
        times = {}
        for candidate in waiting:
            name = candidate_key(candidate)
            try:
                times[name] = _seconds(workload, make_plan(problem, candidate), device)
            except WrongResultError as error:
                times[name], result.failures[name] = math.inf, str(error)
            except torch.cuda.OutOfMemoryError as error:
                result.failures[name] = f"out of memory: {str(error).splitlines()[0]}"  # may fit another time: no entry
            except Exception as error:
                times[name] = math.inf
                result.failures[name] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            result.measured.append(name)
        store.add(key, times)  # before the next process may measure, so that it finds them
    result.times = store.times(key)
    return result


def shortlist(candidates: Sequence[Candidate], most: int | None) -> list[Candidate]:
    """The legal ones: of each backend the `most` with the least predicted time, and all of a family's best."""
    legal = [one for one in candidates if one.legal]
    if most is None:
        return legal
    kept = []
    for backend in dict.fromkeys(one.backend for one in legal):
        mine = sorted(
            (one for one in legal if one.backend == backend),
            key=lambda one: math.inf if one.predicted_seconds is None else one.predicted_seconds,
        )
        chosen = mine[:most]
        # The model may be wrong about a whole family, so each has its best one tried.
        best = {one.kernel: one for one in reversed(mine)}
        kept += [*chosen, *(one for one in best.values() if one not in chosen)]
    return kept


class WrongResultError(RuntimeError):
    """A candidate computed something else than PyTorch does."""


@dataclasses.dataclass
class Workload:
    """Random tensors for a problem, what they must give, and how far off PyTorch itself is."""

    problem: Problem
    tensors: list[torch.Tensor | None]
    expected: list[torch.Tensor]
    own: Any  # bench.errors.Accuracy
    precision: Any  # bench.precision.Precision

    @classmethod
    def of(cls, problem: Problem, device: torch.device) -> Workload:
        from fastconv.bench.errors import compare
        from fastconv.bench.precision import PRECISIONS

        name = str(problem.dtype).removeprefix("torch.")
        precision = PRECISIONS["tf32" if getattr(problem, "allow_tf32", False) and name == "float32" else name]
        tensors = make_tensors(problem, device)
        exact = changed(problem, dtype=torch.float64, allow_tf32=False)
        expected = _outputs(problem, _aten(exact)(*(_widened(tensor) for tensor in tensors)))
        own = compare(_outputs(problem, _aten(problem)(*tensors)), expected)
        return cls(problem, tensors, expected, own, precision)


def _aten(problem: Problem) -> Plan:
    backend = backends.get("aten")
    return backend.plan(problem, backend.candidates(problem)[0])


def _widened(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return tensor if tensor is None or not tensor.dtype.is_floating_point else tensor.double()


def _outputs(problem: Problem, result: Any) -> list[torch.Tensor]:
    """Those to compare: which of two sums that are all but equal is the larger is a matter of rounding."""
    found = list(result) if isinstance(result, tuple | list) else [result]
    if isinstance(problem, FusedProblem):
        del found[1:]
    return [tensor for tensor in found if tensor.numel()]


def make_tensors(problem: Problem, device: torch.device) -> list[torch.Tensor | None]:
    """The inputs of a problem's plan, in order, with exactly its strides."""
    dtype = problem.dtype
    if isinstance(problem, ActivationBackwardProblem):
        return [_random(problem.dy, dtype, device), _random(problem.saved, dtype, device)]
    if isinstance(problem, ChannelSumProblem):
        return [_random(problem.x, dtype, device)]
    if isinstance(problem, FusedProblem):
        return make_tensors(problem.conv, device)[:3]
    if isinstance(problem, ConvProblem):
        w = _random(problem.w, dtype, device) if problem.conv_pass != "wgrad" else None
        if w is not None:
            w *= (problem.w.sizes[1] * problem.w.sizes[2] * problem.w.sizes[3]) ** -0.5
        channels = problem.w.sizes[0] if problem.conv_pass == "fprop" else problem.x.sizes[1]
        bias = torch.randn(channels, dtype=dtype, device=device) if problem.has_bias else None
        if problem.conv_pass == "fprop":
            residual = None if problem.residual is None else _random(problem.residual, dtype, device)
            return [_random(problem.x, dtype, device), w, bias, residual]
        if problem.conv_pass == "dgrad":
            return [_random(problem.y, dtype, device), w, bias]
        return [_random(problem.y, dtype, device), _random(problem.x, dtype, device)]
    if isinstance(problem, UnpoolProblem):
        return [
            _random(problem.y if problem.unpool_pass == "gather" else problem.x, dtype, device),
            _places(problem, device),
        ]
    x = _random(problem.x, dtype, device)
    if problem.pool_pass == "forward":
        return [x]
    # Offsets that a forward pass could have made: arbitrary ones may point into the padding.
    offsets = _aten(dataclasses.replace(problem, pool_pass="forward"))(x)[1]
    if problem.pool_pass == "indices":
        return [offsets]
    return [_random(problem.y, dtype, device), offsets] if problem.pool_pass == "backward" else [x, offsets]


def _places(problem: UnpoolProblem, device: torch.device) -> torch.Tensor:
    """Indices that a pool could have made: one in each of as many parts of the plane as there are values."""
    batch, channels, rows, columns = problem.x.sizes
    positions = problem.y.sizes[2] * problem.y.sizes[3]
    parts = torch.arange(rows * columns, device=device).mul_(positions).floor_divide_(max(rows * columns, 1))
    places = torch.empty_strided(problem.indices.sizes, problem.indices.strides, dtype=torch.int64, device=device)
    return places.copy_(parts.view(1, 1, rows, columns).expand(batch, channels, rows, columns))


def _random(operand: Operand, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.empty_strided(operand.sizes, operand.strides, dtype=dtype, device=device).normal_()


def _seconds(workload: Workload, plan: Plan, device: Any) -> float:
    """Median with a cold cache, after the result was found right in poisoned memory."""
    from fastconv.bench import guards
    from fastconv.bench.errors import compare, complaint_about
    from fastconv.bench.measurement import time_cold

    with guards.poisoned_allocations():
        results = _outputs(workload.problem, plan(*workload.tensors))
    if complaint := complaint_about(compare(results, workload.expected), workload.own, workload.precision):
        raise WrongResultError(complaint)
    # In training weights change with every step, so what repacks them pays for it: nothing is kept from call to call.
    return time_cold(device, lambda: plan(*workload.tensors), before=packed_weights.clear).median
