"""Kernels that people register: functions of theirs as candidates beside the built-in kernels.

A registered kernel is held to what a plan promises: its results are checked for number, sizes, dtype and device, and are
copied where their strides are not those of the problem. Its values are what tests and the harness are for.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastconv.plan import Candidate
from fastconv.problem import Operand, Problem


@dataclasses.dataclass(frozen=True)
class RegisteredKernel:
    op: str
    name: str
    run: Callable[..., Any]  # (problem, config, *tensors) -> what fastconv.plan.Plan returns for the op
    can_implement: Callable[[Problem], str]  # why not; empty where it can
    configs: Callable[[Problem], Sequence[str]]
    predict: Callable[[Problem, str], float] | None  # seconds
    preferred: bool

    @functools.cached_property
    def digest(self) -> str:
        """Of the source file, so that times measured of one version are not taken for another's."""
        try:
            text = Path(inspect.getsourcefile(inspect.unwrap(self.run))).read_bytes()
        except (TypeError, OSError):  # typed at a prompt, or made by a program
            code = getattr(self.run, "__code__", None)
            text = repr(self.run).encode() if code is None else code.co_code + repr(code.co_consts).encode()
        return hashlib.sha256(text).hexdigest()[:8]


class RegisteredBackend:
    name = "registered"

    def __init__(self) -> None:
        self.kernels: dict[tuple[str, str], RegisteredKernel] = {}

    def modules(self) -> list[str]:
        """What another process has to import to have the same kernels; what was registered by a program itself is not there."""
        return sorted({kernel.run.__module__ for kernel in self.kernels.values()} - {"__main__"})

    def unavailable(self, device_type: str) -> str:
        return "" if self.kernels else "no kernel is registered (fastconv.register_kernel does that)"

    def candidates(self, problem: Problem) -> list[Candidate]:
        """The preferred ones first, then in the order in which they were registered."""
        own = [kernel for kernel in self.kernels.values() if kernel.op == problem.op]
        own.sort(key=lambda kernel: not kernel.preferred)
        return [candidate for kernel in own for candidate in _candidates(kernel, problem)]

    def plan(self, problem: Problem, candidate: Candidate) -> RegisteredPlan:
        kernel = self.kernels.get((problem.op, candidate.kernel))
        if kernel is None:
            raise ValueError(
                f"candidate is {candidate}, but no kernel {candidate.kernel!r} of {problem.op} is registered"
            )
        legal = [one for one in _candidates(kernel, problem) if one.legal]
        if all(one.config != candidate.config for one in legal):
            raise ValueError(
                f"candidate is {candidate}, but {candidate.kernel} takes "
                f"{', '.join(repr(one.config) for one in legal) or 'no config'} for this problem"
            )
        return RegisteredPlan(problem, candidate, kernel)


def _candidates(kernel: RegisteredKernel, problem: Problem) -> list[Candidate]:
    def candidate(config: str, reason: str = "", seconds: float | None = None) -> Candidate:
        details = {"preferred": kernel.preferred, "digest": kernel.digest}
        return Candidate("registered", kernel.name, config, reason, seconds, details)

    reason = kernel.can_implement(problem)
    if not isinstance(reason, str):
        raise TypeError(
            f"can_implement of {kernel.name} returned {reason!r}, but must return why it cannot run the problem, "
            "as a str that is empty where it can"
        )
    if reason:
        return [candidate("", reason)]
    found = [
        candidate(config, seconds=None if kernel.predict is None else kernel.predict(problem, config))
        for config in kernel.configs(problem)
    ]
    return found or [candidate("", "it has no config for this problem")]


class RegisteredPlan:
    workspace_bytes = 0  # it allocates what it needs by itself

    def __init__(self, problem: Problem, candidate: Candidate, kernel: RegisteredKernel):
        self.candidate = candidate
        self._run = functools.partial(kernel.run, problem, candidate.config)
        self._expected = RESULTS[problem.op](problem)

    def __call__(self, *tensors: Tensor | None) -> Any:
        results = self._run(*tensors)
        given = (results,) if isinstance(results, Tensor) else results
        name, expected = self.candidate.kernel, self._expected
        if not isinstance(given, (tuple, list)) or not all(isinstance(result, Tensor) for result in given):
            raise TypeError(f"{name} returned {type(results).__name__}, but must return {_words(expected)}")
        if len(given) != len(expected):
            raise RuntimeError(f"{name} returned {len(given)} tensors, but must return {_words(expected)}")
        device = next(tensor.device for tensor in tensors if tensor is not None)
        finished = []
        for result, (operand, dtype) in zip(given, expected, strict=True):
            if tuple(result.shape) != operand.sizes or result.dtype is not dtype or result.device != device:
                raise RuntimeError(
                    f"{name} returned {result.dtype} {list(result.shape)} on {result.device}, "
                    f"but must return {dtype} {list(operand.sizes)} on {device}"
                )
            if result.stride() != operand.strides:
                result = result.new_empty_strided(operand.sizes, operand.strides).copy_(result)
            # A primitive's result is a new tensor: autograd and torch.compile rely on it.
            if any(tensor is not None and _shares(result, tensor) for tensor in tensors):
                result = result.clone(memory_format=torch.preserve_format)
            finished.append(result)
        return finished[0] if len(finished) == 1 else tuple(finished)


def _shares(result: Tensor, tensor: Tensor) -> bool:
    return result.numel() > 0 and result.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()


def _words(expected: Sequence[tuple[Operand, torch.dtype]]) -> str:
    return " and ".join(f"{dtype} {list(operand.sizes)}" for operand, dtype in expected)


def _dense(*sizes: int) -> Operand:
    strides = [1]
    for size in reversed(sizes[1:]):
        strides.append(strides[-1] * max(size, 1))
    return Operand(sizes, tuple(reversed(strides)))


#: What a plan of each op returns for a problem: sizes, strides and dtype of each tensor. The ops that can be registered.
RESULTS: dict[str, Callable[[Any], Sequence[tuple[Operand, torch.dtype]]]] = {
    "conv2d_fprop": lambda p: [(p.y, p.dtype)],
    "conv2d_dgrad": lambda p: [(p.x, p.dtype)],
    "conv2d_wgrad": lambda p: [(p.w, p.dtype), (_dense(p.w.sizes[0] if p.has_bias else 0), p.dtype)],
    "conv2d_max_pool2d": lambda p: [(p.pool.y, p.dtype), (p.pool.offsets, p.pool.offsets_dtype)],
    "conv2d_global_max": lambda p: [(_dense(*p.pool.y.sizes[:2]), p.dtype), (_dense(*p.pool.y.sizes[:2]), torch.int64)],
    "channel_sum": lambda p: [(_dense(p.x.sizes[1]), p.dtype)],
    "activation_backward": lambda p: [(p.dz, p.dtype)],
    "max_pool2d_forward": lambda p: [(p.y, p.dtype), (p.offsets, p.offsets_dtype)],
    "max_pool2d_backward": lambda p: [(p.x, p.dtype)],
    "max_pool2d_gather": lambda p: [(p.y, p.dtype)],
    "max_pool2d_indices": lambda p: [(p.y, torch.int64)],
    "max_unpool2d_forward": lambda p: [(p.y, p.dtype)],
    "max_unpool2d_add": lambda p: [(p.y, p.dtype)],
    "max_unpool2d_gather": lambda p: [(p.x, p.dtype)],
}


backend = RegisteredBackend()
