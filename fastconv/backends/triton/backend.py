"""What dispatch sees: candidates of every family for a problem, and the plan that a chosen one becomes."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from typing import Any

import torch

from fastconv.backends import unfused
from fastconv.backends.limits import beyond_the_kernels
from fastconv.plan import Candidate
from fastconv.problem import FusedProblem, Problem

#: Modules that hold kernel families, as `FAMILIES`.
_MODULES = (
    "conv_fprop",
    "conv_fprop_rows",
    "conv_pointwise",
    "conv_dgrad",
    "conv_wgrad",
    "packed",
    "grouped",
    "grouped_wgrad",
    "folded",
    "channel_sum",
    "activation_backward",
    "max_pool",
    "max_pool_global",
    "max_unpool",
    "conv_max_pool",
    "conv_global_max",
)
#: Compute capability, times ten, of the first GPUs with bfloat16 and asynchronous copies.
_OLDEST = 80
#: How many times the best predicted time a candidate may have and still be tried.
_HOPELESS = 3.0
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
        reason = beyond_the_kernels(problem)
        if reason:
            return [Candidate(self.name, problem.op, "", reason)]
        found = [
            self._candidate(problem, family, config)
            for family in families().values()
            if problem.op in family.ops
            for config in family.configs(problem)
        ]
        if problem.target.device_type == "cuda":
            found = _without_hopeless(found)
        if isinstance(problem, FusedProblem):
            found.append(unfused.candidate(self, problem))
        # CPU tensors are there to test the kernels, so a fused one is run even where the interpreter is quicker without it.
        last = unfused.KERNEL if problem.target.device_type == "cpu" else None
        return sorted(found, key=lambda one: (not one.legal, one.kernel == last, one.predicted_seconds or 0.0))

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


def _without_hopeless(candidates: list[Candidate]) -> list[Candidate]:
    """Rejects what the model predicts to be far from the best, so that no tuner tries it; each family keeps its best."""
    legal = sorted((one for one in candidates if one.legal), key=lambda one: one.predicted_seconds or 0.0)
    kept = {one.kernel: one for one in reversed(legal)}
    judged = []
    for one in candidates:
        seconds = one.predicted_seconds or 0.0
        if one.legal and seconds > _HOPELESS * (legal[0].predicted_seconds or 0.0) and kept[one.kernel] is not one:
            best = f"{legal[0].kernel} {legal[0].config} {(legal[0].predicted_seconds or 0.0) * 1e6:.1f} us"
            one = dataclasses.replace(one, reason=f"predicted {seconds * 1e6:.1f} us, of {best}")
        judged.append(one)
    return judged


def _unsupported(problem: Problem) -> str:
    """Why no kernel can run the problem; empty where some can."""
    if problem.dtype not in _TYPES:
        return f"no kernels for {problem.dtype}"
    if problem.target.device_type == "cuda" and problem.target.capability < _OLDEST:
        return f"needs compute capability {_OLDEST / 10}, this GPU has {problem.target.capability / 10}"
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
