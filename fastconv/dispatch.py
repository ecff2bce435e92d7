"""From a problem to a launch: the candidates of the backends, the chosen one, its plan.

The choice is a function of the problem and of which backends work here. Plans are kept, so a call that has run once with the
same sizes, strides, types and flags costs a dictionary look-up and a launch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from fastconv import backends
from fastconv.backends import packed_weights
from fastconv.make_problem import (
    force_index_bits,
    forced_index_bits,
    make_activation_backward_problem,
    make_adaptive_pool_problem,
    make_channel_sum_problem,
    make_conv_global_max_problem,
    make_conv_max_pool_problem,
    make_conv_problem,
    make_pool_problem,
    make_unpool_problem,
)
from fastconv.plan import Candidate, Plan
from fastconv.problem import Problem, Target
from fastconv.tuning.mode import mode
from fastconv.validity import validate

__all__ = [
    "AUTO_ORDER",
    "BACKENDS",
    "Choice",
    "allow_tf32",
    "candidates",
    "choose",
    "clear",
    "force_index_bits",
    "is_heard",
    "left_to_aten",
    "listening",
    "make_activation_backward_problem",
    "make_adaptive_pool_problem",
    "make_channel_sum_problem",
    "make_conv_global_max_problem",
    "make_conv_max_pool_problem",
    "make_conv_problem",
    "make_pool_problem",
    "make_unpool_problem",
    "run",
    "surroundings",
    "target_of",
]

#: What `backend=` accepts.
BACKENDS = ("auto", *backends.NAMES)

#: The order in which "auto" asks the built-in backends, by device type and op; "*" is every op that is not named. Until
#: choices are measured, a convolution on a GPU goes to cuDNN first, because our kernels that always work are not tuned; a
#: pool does not, because ATen would have to turn int64 indices into offsets and back.
AUTO_ORDER: dict[str, dict[str, tuple[str, ...]]] = {
    "cpu": {"*": ("aten",)},
    "cuda": {
        "*": ("aten", "cuda", "triton"),
        "max_pool2d_forward": ("cuda", "triton", "aten"),
        "max_pool2d_backward": ("cuda", "triton", "aten"),
        "max_pool2d_gather": ("cuda", "triton", "aten"),
        "max_pool2d_indices": ("cuda", "triton", "aten"),
        "max_unpool2d_forward": ("cuda", "triton", "aten"),
        "max_unpool2d_add": ("cuda", "triton", "aten"),
        "max_unpool2d_gather": ("cuda", "triton", "aten"),
    },
}

#: Plans kept. A program that goes through more problems than this (ever new sizes) starts over, rather than grow.
CACHE_LIMIT = 16384

# --- what surrounds a call --------------------------------------------------------------------------------------------

# PyTorch has one switch for convolutions of CUDA tensors and one for those of CPU tensors.
_PRECISION = {"cuda": torch.backends.cudnn.conv, "cpu": torch.backends.mkldnn.conv}


def allow_tf32(device_type: str, dtype: torch.dtype) -> bool:
    """Whether PyTorch's conv precision flag for that device lets a convolution of this type round its inputs to TF32.

    For CUDA tensors it is torch.backends.cudnn.conv.fp32_precision, which torch.backends.cudnn.allow_tf32 sets too and which
    is on by default; for CPU tensors, and so in the emulator, torch.backends.mkldnn.conv.fp32_precision, off by default.
    """
    return dtype is torch.float32 and _PRECISION[device_type].fp32_precision == "tf32"


_CPU = Target("cpu", 0, 0, "cpu")


@functools.cache
def _cuda_target(index: int) -> Target:
    properties = torch.cuda.get_device_properties(index)
    return Target(
        "cuda",
        properties.major * 10 + properties.minor,
        properties.multi_processor_count,
        properties.name,
        getattr(properties, "L2_cache_size", 0),  # where PyTorch tells
    )


def target_of(device: torch.device, backend: str = "cuda") -> Target:
    """The device that a backend plans for: the GPU with the tensors, or for CPU tensors the one that the emulator plays.

    ATen, which "auto" chooses on a CPU, plans for none.
    """
    if device.type == "cuda":
        return _cuda_target(torch.cuda.current_device() if device.index is None else device.index)
    if backend in ("aten", "auto"):
        return _CPU
    played = _emulator().current_device()
    return Target("cpu", played.capability, played.multiprocessors, played.name, played.l2_bytes)


@functools.cache
def _emulator() -> Any:
    from fastconv import emulator  # not needed by those who only ever touch a GPU

    return emulator


def surroundings(device: torch.device, backend: str) -> Hashable:
    """All that a plan depends on besides the arguments of the call."""
    return (
        forced_index_bits(),
        torch.are_deterministic_algorithms_enabled(),
        target_of(device, backend) if device.type == "cpu" else device,
    )


# --- choice -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Choice:
    """What was chosen for a problem, why, and what was not."""

    problem: Problem
    asked: str  # the backend that the call named
    chosen: Candidate
    why: str
    rejected: tuple[Candidate, ...]  # what was looked at before it and cannot run, with the reasons


def candidates(problem: Problem, backend: str = "auto") -> list[Candidate]:
    """Every kernel and configuration for the problem, in the order of preference; those that cannot run say why."""
    found: list[Candidate] = []
    for name in _order(problem, backend):
        reason = backends.unavailable(name, problem.target.device_type)
        if reason:
            found.append(Candidate(name, problem.op, "", reason))
        else:
            found.extend(backends.get(name).candidates(problem))
    if backend == "auto":
        own = backends.get("registered").candidates(problem)
        preferred = [candidate for candidate in own if _is_preferred(candidate)]
        found = [*preferred, *found, *(candidate for candidate in own if not _is_preferred(candidate))]
    return found


def _is_preferred(candidate: Candidate) -> bool:
    return candidate.details.get("preferred", False)


def _order(problem: Problem, backend: str) -> tuple[str, ...]:
    if backend not in BACKENDS:
        raise RuntimeError(f"backend is {backend!r}, but must be one of {', '.join(map(repr, BACKENDS))}")
    if backend != "auto":
        return (backend,)
    order = AUTO_ORDER[problem.target.device_type]
    return order.get(problem.op, order["*"])


def choose(problem: Problem, backend: str = "auto") -> Choice:
    """On a GPU what fastconv.tuning says; else the first candidate that can run. RuntimeError where none can, with reasons."""
    found = candidates(problem, backend)
    chosen = next((candidate for candidate in found if candidate.legal), None)
    if chosen is None:
        raise RuntimeError(_no_candidate(problem, backend, found))
    order = _order(problem, backend)
    if backend != "auto":
        why = f"backend={backend!r} was asked for"
    elif len(order) == 1:
        why = f"auto on {problem.target.device_type} tensors is {order[0]}"
    else:
        why = f"auto on {problem.target.device_type} tensors: the first that can of {', '.join(order)}"
    if backend == "auto" and _is_preferred(chosen):
        why, tuned = "it was registered as preferred", None
    else:
        tuned = _tuned(problem, found, backend)
    if tuned is not None:
        chosen, reason = tuned
        why = reason if backend == "auto" else f"{why}; {reason}"
    return Choice(problem, backend, chosen, why, tuple(candidate for candidate in found if not candidate.legal))


def _tuned(problem: Problem, found: Sequence[Candidate], backend: str) -> tuple[Candidate, str] | None:
    mode()  # a wrong word in FASTCONV_TUNE is an error on a CPU too, where nothing is tuned
    if problem.target.device_type != "cuda":
        return None
    from fastconv.tuning import choice  # files, locks, platform folders: not needed by those who only ever use a CPU

    return choice.choose(problem, found, backend)


def _no_candidate(problem: Problem, backend: str, found: Sequence[Candidate]) -> str:
    reasons = list(
        dict.fromkeys(f"{c.backend}{f' {c.kernel}' if c.kernel != problem.op else ''}: {c.reason}" for c in found)
    )
    device_type = problem.target.device_type
    others = [
        name
        for name in backends.NAMES
        if name not in _order(problem, backend)
        and not backends.unavailable(name, device_type)
        and any(candidate.legal for candidate in backends.get(name).candidates(problem))
    ]
    accepted = " or ".join(repr(name) for name in ["auto", *others]) if others else "none of the others either"
    return (
        f"backend is {backend!r}, which cannot run this {problem.op} on {device_type} tensors "
        f"({'; '.join(reasons) or 'it has no kernel for this op'}); what can run it: {accepted}. The problem: {problem}"
    )


# --- plans, kept ------------------------------------------------------------------------------------------------------

_plans: dict[Hashable, tuple[Plan, Choice]] = {}
_listeners: list[Callable[[Choice, Plan], None]] = []
_lock = threading.Lock()


def clear() -> None:
    """Forgets all plans, so that the next call of each problem decides anew, and all weights that were kept packed."""
    _plans.clear()
    packed_weights.clear()


@contextlib.contextmanager
def listening(listener: Callable[[Choice, Plan], None]) -> Iterator[None]:
    """Tells `listener` of every primitive that runs inside, in whatever thread (backward has its own on a GPU)."""
    with _lock:
        _listeners.append(listener)
    try:
        yield
    finally:
        with _lock:
            _listeners.remove(listener)


def is_heard() -> bool:
    """Whether anybody listens, so that there is somebody to tell."""
    return bool(_listeners)


def left_to_aten(problem: Problem, asked: str) -> None:
    """Tells the listeners of a pass that PyTorch's own function computes, because no other backend has a kernel for it."""
    found = candidates(problem)
    chosen = next(candidate for candidate in found if candidate.backend == "aten")
    why = "no other backend has a kernel for it" if asked == "auto" else f"backend={asked!r} was asked for"
    choice = Choice(problem, asked, chosen, why, tuple(candidate for candidate in found if not candidate.legal))
    plan = backends.get("aten").plan(problem, chosen)
    for listener in tuple(_listeners):
        listener(choice, plan)


def run(key: Hashable, make_problem: Callable[[], Problem], backend: str, tensors: tuple[Tensor | None, ...]) -> Any:
    """Runs a primitive: the plan kept under the key, or a new one for the problem.

    `tensors` are what a plan takes; the key must tell apart all calls whose problems differ.
    """
    entry = _plans.get(key)
    if entry is None:
        problem = make_problem()
        validate(problem)
        choice = choose(problem, backend)
        entry = backends.get(choice.chosen.backend).plan(choice.problem, choice.chosen), choice
        if len(_plans) >= CACHE_LIMIT:
            _plans.clear()
        _plans[key] = entry
    if _listeners:
        for listener in tuple(_listeners):
            listener(entry[1], entry[0])
    return entry[0](*tensors)
