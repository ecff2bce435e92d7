"""Whether the parts of a problem fit together.

The public functions have checked before, with the user's words. This is for those who call the primitives themselves, and the
last check before a backend trusts the sizes; it runs once for each new problem. The compiled core checks again by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from fastconv.problem import (
    ACTIVATIONS,
    PADDING_MODES,
    ActivationBackwardProblem,
    ConvProblem,
    FusedProblem,
    Operand,
    PoolProblem,
    Problem,
    UnpoolProblem,
)
from fastconv.shapes import empty_pool_window, pool_output_size


def validate(problem: Problem) -> None:
    """RuntimeError with the name and value of the part that does not fit. make_problem has checked ranks and ranges."""
    if isinstance(problem, ConvProblem):
        _validate_convolution(problem)
    elif isinstance(problem, PoolProblem):
        _validate_pool(problem)
    elif isinstance(problem, UnpoolProblem):
        _validate_unpool(problem)
    elif isinstance(problem, ActivationBackwardProblem):
        if problem.dy.sizes != problem.saved.sizes:
            _reject(problem, "sizes of saved", list(problem.saved.sizes), f"those of dy, {list(problem.dy.sizes)}")
        if problem.activation not in ACTIVATIONS or problem.activation == "identity":
            accepted = ", ".join(name for name in ACTIVATIONS if name != "identity")
            _reject(problem, "activation", repr(problem.activation), f"one of {accepted}")
    elif isinstance(problem, FusedProblem):
        _validate_convolution(problem.conv)
        _validate_pool(problem.pool)


def check_ranks(op: str, **operands: Operand | Sequence[int] | None) -> None:
    """Four sizes each; before anything is computed from them."""
    for name, operand in operands.items():
        sizes = operand.sizes if isinstance(operand, Operand) else operand
        if sizes is not None and len(sizes) != 4:
            _refuse(op, f"sizes of {name}", list(sizes), "four of them")


def check_numbers(op: str, count: int, least: int, **numbers: Sequence[int]) -> None:
    """So many numbers each, none below the least; before anything is divided by them."""
    for name, values in numbers.items():
        if len(values) != count or min(values) < least:
            _refuse(op, name, list(values), f"{count} numbers of {least} or more")


def check_padding_mode(op: str, mode: str, value: float) -> None:
    """A known mode, and a value only where the mode has one."""
    if mode not in PADDING_MODES:
        _refuse(op, "padding_mode", repr(mode), f"one of {', '.join(PADDING_MODES)}")
    if value != 0 and mode != "constant":
        _refuse(op, "padding_value", value, f"0 where padding_mode is {mode}")


def padding_limit(mode: str, size: int) -> int | None:
    """The most padding that PyTorch allows on one side of so many rows or columns; None where any will do."""
    if mode == "reflect":
        return max(size - 1, 0)
    if mode == "circular":
        return size
    return 0 if mode == "replicate" and size == 0 else None


def _refuse(op: str, name: str, value: object, accepted: str) -> NoReturn:
    raise RuntimeError(f"fastconv::{op}: {name} is {value}, but must be {accepted}")


def _reject(problem: Problem, name: str, value: object, accepted: str) -> NoReturn:
    _refuse(problem.op, name, value, accepted)


def _validate_convolution(problem: ConvProblem) -> None:
    x, w, y, groups = problem.x, problem.w, problem.y, problem.groups
    if groups < 1 or w.sizes[0] % groups != 0:
        _reject(problem, "groups", groups, f"1 or more and a divisor of the {w.sizes[0]} filters of w")
    if x.sizes[1] != w.sizes[1] * groups:
        _reject(problem, "channels of x", x.sizes[1], f"{w.sizes[1] * groups}, those of w {list(w.sizes)} times groups")
    if y.sizes[1] != w.sizes[0]:
        _reject(problem, "channels of y", y.sizes[1], f"{w.sizes[0]}, the filters of w {list(w.sizes)}")
    if y.sizes[0] != x.sizes[0]:
        _reject(problem, "batch of y", y.sizes[0], f"{x.sizes[0]}, that of x")
    if min(w.sizes[2:]) < 1:
        _reject(problem, "sizes of w", list(w.sizes), "1 or more in height and width")
    for axis, name in ((0, "height"), (1, "width")):
        limit = padding_limit(problem.padding_mode, x.sizes[2 + axis])
        if limit is not None and max(problem.padding[2 * axis : 2 * axis + 2]) > limit:
            accepted = (
                f"at most {limit} along the {name} of x {list(x.sizes)} where padding_mode is {problem.padding_mode}"
            )
            _reject(problem, "padding", list(problem.padding), accepted)
        padded = x.sizes[2 + axis] + problem.padding[2 * axis] + problem.padding[2 * axis + 1]
        span = problem.dilation[axis] * (w.sizes[2 + axis] - 1) + 1
        outputs, stride = y.sizes[2 + axis], problem.stride[axis]
        # What the windows leave over is less than a step, or the output_padding that a transposed convolution was given.
        left_over = padded - span - (outputs - 1) * stride
        if outputs < 1 or not 0 <= left_over < max(stride, problem.dilation[axis]):
            accepted = f"{(padded - span) // stride + 1}" if padded >= span else "of a kernel that fits"
            _reject(
                problem,
                f"{name} of y",
                outputs,
                f"{accepted}, for a padded x of {padded} and a kernel that spans {span}",
            )
    if problem.residual is not None and problem.residual.sizes != y.sizes:
        _reject(problem, "sizes of residual", list(problem.residual.sizes), f"those of y, {list(y.sizes)}")
    if problem.activation not in ACTIVATIONS:
        _reject(problem, "activation", repr(problem.activation), f"one of {', '.join(ACTIVATIONS)}")


def _validate_pool(problem: PoolProblem) -> None:
    x, y, offsets = problem.x, problem.y, problem.offsets
    if any(2 * pad > taps for pad, taps in zip(problem.padding, problem.kernel, strict=True)):
        _reject(problem, "padding", problem.padding, f"at most half of kernel {problem.kernel}")
    if offsets.sizes != y.sizes:
        _reject(problem, "sizes of offsets", list(offsets.sizes), f"those of y, {list(y.sizes)}")
    if y.sizes[:2] != x.sizes[:2]:
        _reject(problem, "batch and channels of y", list(y.sizes[:2]), f"those of x, {list(x.sizes[:2])}")
    for axis, name in ((0, "height"), (1, "width")):
        window = problem.padding[axis], problem.kernel[axis], problem.stride[axis], problem.dilation[axis]
        accepted = {pool_output_size(x.sizes[2 + axis], *window, ceil_mode) for ceil_mode in (False, True)}
        if y.sizes[2 + axis] not in accepted or y.sizes[2 + axis] < 1:
            words = " or ".join(str(size) for size in sorted(accepted))
            _reject(problem, f"{name} of y", y.sizes[2 + axis], f"{words} for x of {list(x.sizes)}, and 1 or more")
        empty = empty_pool_window(x.sizes[2 + axis], *window, y.sizes[2 + axis])
        if empty is not None:
            accepted = f"at most the {name} of x {list(x.sizes)}: window {empty} has no element in it"
            _reject(problem, "dilation", problem.dilation, accepted)


def _validate_unpool(problem: UnpoolProblem) -> None:
    x, indices, y = problem.x, problem.indices, problem.y
    if indices.sizes != x.sizes:
        _reject(problem, "sizes of indices", list(indices.sizes), f"those of x, {list(x.sizes)}")
    if y.sizes[:2] != x.sizes[:2]:
        _reject(problem, "batch and channels of y", list(y.sizes[:2]), f"those of x, {list(x.sizes[:2])}")
