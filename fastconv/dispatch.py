"""From a call to a launch: the problem, the candidates of the backends, the chosen plan.

Everything up to the plan is a function of the problem alone. Plans are kept, so a call that has run once with the same sizes,
strides, types and flags costs a dictionary look-up and a launch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from fastconv import backends
from fastconv.plan import Candidate, Plan
from fastconv.problem import ChannelSumProblem, ConvPass, ConvProblem, Operand, PoolPass, PoolProblem, Problem, Target
from fastconv.shapes import (
    conv_output_sizes,
    dense_strides,
    offsets_dtype,
    pool_output_sizes,
    suggests_channels_last,
)

#: What `backend=` accepts.
BACKENDS = ("auto", *backends.NAMES)

#: The order in which "auto" asks the backends, by device type and op; "*" is every op that is not named. Until choices are
#: measured, a convolution on a GPU goes to cuDNN first, because our kernels that always work are not tuned; a pool does
#: not, because ATen would have to turn int64 indices into offsets and back.
AUTO_ORDER: dict[str, dict[str, tuple[str, ...]]] = {
    "cpu": {"*": ("aten",)},
    "cuda": {
        "*": ("aten", "cuda", "triton"),
        "max_pool2d_forward": ("cuda", "triton", "aten"),
        "max_pool2d_backward": ("cuda", "triton", "aten"),
        "max_pool2d_gather": ("cuda", "triton", "aten"),
        "max_pool2d_indices": ("cuda", "triton", "aten"),
    },
}

#: Plans kept. A program that goes through more problems than this (ever new sizes) starts over, rather than grow.
CACHE_LIMIT = 16384

IndexBits = Literal[32, 64]

_LARGEST_INT32 = 2**31 - 1
# Kernels count positions in the padded input and a block past its end, so leave them room below 2**31.
_INDEX_MARGIN = 65536

# --- what surrounds a call --------------------------------------------------------------------------------------------

_forced_index_bits: IndexBits | None = None


@contextlib.contextmanager
def force_index_bits(bits: IndexBits) -> Iterator[None]:
    """Makes every problem planned inside use this index width, in all threads: for tests of the 64-bit kernels."""
    global _forced_index_bits
    if bits not in (32, 64):
        raise ValueError(f"bits is {bits}, but must be 32 or 64")
    before, _forced_index_bits = _forced_index_bits, bits
    try:
        yield
    finally:
        _forced_index_bits = before


def allow_tf32() -> bool:
    """What torch's conv precision flag says (torch.backends.cudnn.allow_tf32, or .conv.fp32_precision where that is set)."""
    return torch.backends.cudnn.conv.fp32_precision == "tf32"


_CPU = Target("cpu", 0, 0, "cpu")


@functools.cache
def _cuda_target(index: int) -> Target:
    properties = torch.cuda.get_device_properties(index)
    return Target("cuda", properties.major * 10 + properties.minor, properties.multi_processor_count, properties.name)


def target_of(device: torch.device, backend: str) -> Target:
    """The device to plan for: the GPU that holds the tensors; for CPU tensors the one that the emulator plays, if it is
    wanted.
    """
    if device.type == "cuda":
        return _cuda_target(torch.cuda.current_device() if device.index is None else device.index)
    if backend in ("aten", "auto"):
        return _CPU
    played = _emulator().current_device()
    return Target("cpu", played.capability, played.multiprocessors, played.name)


@functools.cache
def _emulator() -> Any:
    from fastconv import emulator  # not needed by those who only ever touch a GPU

    return emulator


def _surroundings(device: torch.device, backend: str) -> Hashable:
    """All that a plan depends on besides the arguments of the call."""
    return (
        _forced_index_bits,
        torch.backends.cudnn.conv.fp32_precision,
        torch.are_deterministic_algorithms_enabled(),
        target_of(device, backend) if device.type == "cpu" else device,
    )


# --- problems ---------------------------------------------------------------------------------------------------------


def index_bits(*operands: Operand) -> IndexBits:
    """The narrowest index type that reaches every element of every operand and counts them all."""
    if _forced_index_bits is not None:
        return _forced_index_bits
    for operand in operands:
        count = functools.reduce(lambda product, size: product * size, operand.sizes, 1)
        if max(operand.last_offset(), count, *operand.sizes) > _LARGEST_INT32 - _INDEX_MARGIN:
            return 64
    return 32


def _output_like(sizes: Sequence[int], *inputs: Operand) -> Operand:
    """A fresh tensor of these sizes: channels_last if PyTorch would say so of one of the inputs."""
    channels_last = any(suggests_channels_last(operand.sizes, operand.strides) for operand in inputs)
    sizes = tuple(sizes)
    return Operand(sizes, dense_strides(sizes, channels_last and 0 not in sizes))


def make_conv_problem(
    conv_pass: ConvPass,
    dtype: torch.dtype,
    target: Target,
    *,
    x: Operand | Sequence[int],
    w: Operand | Sequence[int],
    y: Operand | None = None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    has_bias: bool = False,
    residual: Operand | None = None,
    activation: str = "identity",
    allow_tf32: bool = False,
    deterministic: bool = True,
) -> ConvProblem:
    """The problem of a pass. What the pass writes is left out (fprop's y) or given by its sizes (dgrad's x, wgrad's w)."""
    if conv_pass == "fprop":
        y = _output_like(conv_output_sizes(x.sizes, w.sizes, stride, padding, dilation), x, w)
    elif conv_pass == "dgrad":
        x = _output_like(x, y, w)
    else:
        w = _output_like(w, y, x)
    return ConvProblem(
        conv_pass=conv_pass,
        dtype=dtype,
        x=x,
        w=w,
        y=y,
        stride=tuple(stride),
        padding=tuple(padding),
        dilation=tuple(dilation),
        groups=groups,
        target=target,
        has_bias=has_bias,
        residual=residual,
        activation=activation,
        index_bits=index_bits(x, w, y, *([residual] if residual is not None else [])),
        allow_tf32=allow_tf32,
        deterministic=deterministic,
    )


def make_pool_problem(
    pool_pass: PoolPass,
    dtype: torch.dtype,
    target: Target,
    *,
    x: Operand | Sequence[int],
    y: Operand | None = None,
    offsets: Operand | None = None,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> PoolProblem:
    """The problem of a pass. x is given by its sizes where the pass does not read it; what it writes is left out."""
    if pool_pass == "forward":
        y = offsets = _output_like(pool_output_sizes(x.sizes, kernel, stride, padding, dilation, ceil_mode), x)
    elif pool_pass == "gather" or pool_pass == "indices":
        y = _output_like(offsets.sizes, offsets)
    if not isinstance(x, Operand):
        x = _output_like(x, offsets)
    return PoolProblem(
        pool_pass=pool_pass,
        dtype=dtype,
        x=x,
        y=y,
        offsets=offsets,
        offsets_dtype=offsets_dtype(kernel),
        kernel=tuple(kernel),
        stride=tuple(stride),
        padding=tuple(padding),
        dilation=tuple(dilation),
        target=target,
        index_bits=index_bits(x, y, offsets),
    )


def make_channel_sum_problem(dtype: torch.dtype, target: Target, x: Operand) -> ChannelSumProblem:
    return ChannelSumProblem(dtype=dtype, x=x, target=target, index_bits=index_bits(x))


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
    return found


def _order(problem: Problem, backend: str) -> tuple[str, ...]:
    if backend != "auto":
        return (backend,)
    order = AUTO_ORDER[problem.target.device_type]
    return order.get(problem.op, order["*"])


def choose(problem: Problem, backend: str = "auto") -> Choice:
    """The first candidate that can run. RuntimeError where there is none, with every reason."""
    found = candidates(problem, backend)
    chosen = next((candidate for candidate in found if candidate.legal), None)
    if chosen is None:
        raise RuntimeError(_no_candidate(problem, backend, found))
    if backend != "auto":
        why = f"backend={backend!r} was asked for"
    else:
        why = f"first that can run of {' → '.join(_order(problem, backend))}, the order for {problem.op} on "
        why += problem.target.device_type
    return Choice(problem, backend, chosen, why, tuple(candidate for candidate in found if not candidate.legal))


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
    """Forgets all plans, so that the next call of each problem decides anew."""
    _plans.clear()


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


def _run(key: Hashable, make_problem: Callable[[], Problem], backend: str, tensors: tuple[Tensor | None, ...]) -> Any:
    entry = _plans.get(key)
    if entry is None:
        choice = choose(make_problem(), backend)
        entry = backends.get(choice.chosen.backend).plan(choice.problem, choice.chosen), choice
        if len(_plans) >= CACHE_LIMIT:
            _plans.clear()
        _plans[key] = entry
    if _listeners:
        for listener in tuple(_listeners):
            listener(entry[1], entry[0])
    return entry[0](*tensors)


def _flags() -> dict[str, bool]:
    return {"allow_tf32": allow_tf32(), "deterministic": torch.are_deterministic_algorithms_enabled()}


def conv2d_fprop(x, w, bias, residual, stride, padding, dilation, groups, activation, backend) -> Tensor:
    key = (
        "fprop", x.shape, x.stride(), w.shape, w.stride(), x.dtype, bias is None,
        None if residual is None else residual.stride(),
        *stride, *padding, *dilation, groups, activation, backend, _surroundings(x.device, backend),
    )  # fmt: skip

    def make() -> Problem:
        return make_conv_problem(
            "fprop",
            x.dtype,
            target_of(x.device, backend),
            x=Operand.of(x),
            w=Operand.of(w),
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            has_bias=bias is not None,
            residual=None if residual is None else Operand.of(residual),
            activation=activation,
            **_flags(),
        )

    return _run(key, make, backend, (x, w, bias, residual))


def conv2d_dgrad(dy, w, bias, input_size, stride, padding, dilation, groups, activation, backend) -> Tensor:
    key = (
        "dgrad", dy.shape, dy.stride(), w.shape, w.stride(), dy.dtype, bias is None, *input_size,
        *stride, *padding, *dilation, groups, activation, backend, _surroundings(dy.device, backend),
    )  # fmt: skip

    def make() -> Problem:
        return make_conv_problem(
            "dgrad",
            dy.dtype,
            target_of(dy.device, backend),
            x=input_size,
            w=Operand.of(w),
            y=Operand.of(dy),
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            has_bias=bias is not None,
            activation=activation,
            **_flags(),
        )

    return _run(key, make, backend, (dy, w, bias))


def conv2d_wgrad(
    dy, x, weight_size, stride, padding, dilation, groups, bias_gradient, backend
) -> tuple[Tensor, Tensor]:
    key = (
        "wgrad", dy.shape, dy.stride(), x.shape, x.stride(), dy.dtype, bias_gradient, *weight_size,
        *stride, *padding, *dilation, groups, backend, _surroundings(dy.device, backend),
    )  # fmt: skip

    def make() -> Problem:
        return make_conv_problem(
            "wgrad",
            dy.dtype,
            target_of(dy.device, backend),
            x=Operand.of(x),
            w=weight_size,
            y=Operand.of(dy),
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            has_bias=bias_gradient,
            **_flags(),
        )

    return _run(key, make, backend, (dy, x))


def channel_sum(x, backend) -> Tensor:
    key = ("channel_sum", x.shape, x.stride(), x.dtype, backend, _surroundings(x.device, backend))
    return _run(
        key, lambda: make_channel_sum_problem(x.dtype, target_of(x.device, backend), Operand.of(x)), backend, (x,)
    )


def max_pool2d_forward(x, kernel, stride, padding, dilation, ceil_mode, backend) -> tuple[Tensor, Tensor]:
    key = (
        "pool_forward", x.shape, x.stride(), x.dtype,
        *kernel, *stride, *padding, *dilation, ceil_mode, backend, _surroundings(x.device, backend),
    )  # fmt: skip

    def make() -> Problem:
        return make_pool_problem(
            "forward",
            x.dtype,
            target_of(x.device, backend),
            x=Operand.of(x),
            kernel=kernel,
            stride=stride,
            padding=padding,
            dilation=dilation,
            ceil_mode=ceil_mode,
        )

    return _run(key, make, backend, (x,))


def max_pool2d_backward(dy, offsets, input_size, kernel, stride, padding, dilation, ceil_mode, backend) -> Tensor:
    key = (
        "pool_backward", dy.shape, dy.stride(), dy.dtype, offsets.stride(), *input_size,
        *kernel, *stride, *padding, *dilation, ceil_mode, backend, _surroundings(dy.device, backend),
    )  # fmt: skip

    def make() -> Problem:
        return make_pool_problem(
            "backward",
            dy.dtype,
            target_of(dy.device, backend),
            x=input_size,
            y=Operand.of(dy),
            offsets=Operand.of(offsets),
            kernel=kernel,
            stride=stride,
            padding=padding,
            dilation=dilation,
            ceil_mode=ceil_mode,
        )

    return _run(key, make, backend, (dy, offsets))


def max_pool2d_gather(x, offsets, kernel, stride, padding, dilation, ceil_mode, backend) -> Tensor:
    key = (
        "pool_gather", x.shape, x.stride(), x.dtype, offsets.shape, offsets.stride(),
        *kernel, *stride, *padding, *dilation, ceil_mode, backend, _surroundings(x.device, backend),
    )  # fmt: skip

    def make() -> Problem:
        return make_pool_problem(
            "gather",
            x.dtype,
            target_of(x.device, backend),
            x=Operand.of(x),
            offsets=Operand.of(offsets),
            kernel=kernel,
            stride=stride,
            padding=padding,
            dilation=dilation,
            ceil_mode=ceil_mode,
        )

    return _run(key, make, backend, (x, offsets))


def max_pool2d_indices(offsets, input_size, kernel, stride, padding, dilation, ceil_mode, backend) -> Tensor:
    key = (
        "pool_indices", offsets.shape, offsets.stride(), *input_size,
        *kernel, *stride, *padding, *dilation, ceil_mode, backend, _surroundings(offsets.device, backend),
    )  # fmt: skip

    def make() -> Problem:
        return make_pool_problem(
            "indices",
            torch.float32,  # x itself is not touched
            target_of(offsets.device, backend),
            x=input_size,
            offsets=Operand.of(offsets),
            kernel=kernel,
            stride=stride,
            padding=padding,
            dilation=dilation,
            ceil_mode=ceil_mode,
        )

    return _run(key, make, backend, (offsets,))
