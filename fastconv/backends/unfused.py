"""A fused problem as its parts, one kernel after the other: what every backend falls back to.

The convolution's output is written to memory and read again. Each part runs on the backend's own best kernel for it, so
backend="cuda" stays on the CUDA kernels, and on any problem at all.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor

from fastconv.plan import Backend, Candidate, Plan
from fastconv.problem import ConvGlobalMaxProblem, FusedProblem, Problem

KERNEL = "unfused"


def parts(problem: FusedProblem) -> list[Problem]:
    """The convolution, the pool, and for a global maximum what turns the pool's offsets into indices."""
    found: list[Problem] = [problem.conv, problem.pool]
    if isinstance(problem, ConvGlobalMaxProblem):
        found.append(dataclasses.replace(problem.pool, pool_pass="indices"))
    return found


def candidate(backend: Backend, problem: FusedProblem) -> Candidate:
    """The parts' best kernels, one after the other; rejected where a part has none."""
    chosen = []
    for part in parts(problem):
        found = backend.candidates(part)
        best = next((one for one in found if one.legal), None)
        if best is None:
            reasons = "; ".join(dict.fromkeys(one.reason for one in found)) or "no kernel"
            return Candidate(backend.name, KERNEL, "", f"{part.op}: {reasons}")
        chosen.append(best)
    config = " + ".join(" ".join(filter(None, (one.kernel, one.config))) for one in chosen)
    times = [one.predicted_seconds for one in chosen]
    seconds = None if None in times else sum(times)
    return Candidate(backend.name, KERNEL, config, "", seconds, {"parts": [one.kernel for one in chosen]})


class UnfusedPlan:
    """The plans of the parts, and the convolution's output between them."""

    def __init__(self, backend: Backend, problem: FusedProblem, chosen: Candidate):
        if chosen.config != candidate(backend, problem).config:
            raise ValueError(f"config {chosen.config!r} of {KERNEL} is not what {backend.name} has for {problem}")
        self.candidate = chosen
        self._plans: list[Plan] = []
        for part in parts(problem):
            best = next(one for one in backend.candidates(part) if one.legal)
            self._plans.append(backend.plan(part, best))
        self._is_global = isinstance(problem, ConvGlobalMaxProblem)
        between = problem.conv.y.last_offset() + 1
        self.workspace_bytes = between * problem.dtype.itemsize + max(plan.workspace_bytes for plan in self._plans)

    def __call__(self, x: Tensor, w: Tensor, bias: Tensor | None) -> Any:
        convolution, pool, *indices = self._plans
        y, offsets = pool(convolution(x, w, bias, None))
        if not self._is_global:
            return y, offsets
        return y[:, :, 0, 0], indices[0](offsets)[:, :, 0, 0]
