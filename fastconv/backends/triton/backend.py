"""What dispatch sees: candidates of every family for a problem, and the plan that a chosen one becomes."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import torch

from fastconv.backends import unfused
from fastconv.plan import Candidate
from fastconv.problem import ConvProblem, FusedProblem, Problem

#: Modules that hold kernel families, as `FAMILIES`.
_MODULES = (
    "conv_fprop",
    "conv_fprop_rows",
    "conv_dgrad",
    "conv_wgrad",
    "packed",
    "grouped",
    "grouped_wgrad",
    "channel_sum",
    "max_pool",
)
#: Compute capability, times ten, of the first GPUs with bfloat16 and asynchronous copies.
_OLDEST = 80
_TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


class TritonBackend:
    name = "triton"

    def unavailable(self, device_type: str) -> str:
        """Why Triton cannot run on tensors of that device type here; empty where it can."""
        if device_type not in ("cpu", "cuda"):
            return f"no Triton kernels for device type {device_type!r}, only for 'cuda' and, interpreted, 'cpu'"
        missing = _missing_triton()
        if missing:
            return missing
        if device_type == "cuda" and not torch.cuda.is_available():
            return "torch finds no CUDA device"
        return ""

    def candidates(self, problem: Problem) -> list[Candidate]:
        """Every configuration of every family that computes the problem's op, best first, the rejected ones last."""
        found = [
            self._candidate(problem, family, config)
            for family in families().values()
            if problem.op in family.ops
            for config in family.configs(problem)
        ]
        if isinstance(problem, FusedProblem):
            found.append(unfused.candidate(self, problem))
        return sorted(found, key=lambda candidate: (not candidate.legal, candidate.predicted_seconds or 0.0))

    def plan(self, problem: Problem, candidate: Candidate) -> Any:
        """The candidate, ready to run. ValueError where it is not legal for the problem."""
        from fastconv.backends.triton.plan import TritonPlan

        if candidate.kernel == unfused.KERNEL:
            return unfused.UnfusedPlan(self, problem, candidate)
        family = families().get(candidate.kernel)
        if family is None or problem.op not in family.ops:
            raise ValueError(f"Triton kernel {candidate.kernel!r} does not compute {problem.op}")
        config = next((config for config in family.configs(problem) if str(config) == candidate.config), None)
        if config is None:
            known = ", ".join(str(config) for config in family.configs(problem))
            raise ValueError(f"config {candidate.config!r} of {candidate.kernel} is unknown; known: {known}")
        known = self._candidate(problem, family, config)
        if not known.legal:
            raise ValueError(f"{candidate.kernel} {candidate.config} cannot run this problem: {known.reason}")
        return TritonPlan(problem, known, family, config)

    def _candidate(self, problem: Problem, family: Any, config: Any) -> Candidate:
        reason = _unsupported(problem) or family.rejection(problem, config)
        costs = family.estimate(problem, config)
        return Candidate(self.name, family.name, str(config), reason, costs.seconds, costs.details())


def _unsupported(problem: Problem) -> str:
    """Why no kernel can run the problem; empty where some can."""
    if problem.dtype not in _TYPES:
        return f"no kernels for {problem.dtype}"
    if problem.target.device_type == "cuda" and problem.target.capability < _OLDEST:
        return f"needs compute capability {_OLDEST / 10}, this GPU has {problem.target.capability / 10}"
    if isinstance(problem, ConvProblem) and problem.padding_mode != "zeros":
        return f"padding mode {problem.padding_mode}: these kernels know zeros only"
    return ""


@functools.cache
def _missing_triton() -> str:
    try:
        import triton  # noqa: F401
    except ImportError as error:
        return f"Triton is not installed ({error}); pip install triton"
    return ""


@functools.cache
def families() -> dict[str, Any]:
    """Kernel name -> family. Imports Triton."""
    missing = _missing_triton()
    if missing:
        raise ModuleNotFoundError(missing)
    modules = (importlib.import_module(f"fastconv.backends.triton.{name}") for name in _MODULES)
    return {family.name: family for module in modules for family in module.FAMILIES}


backend = TritonBackend()
