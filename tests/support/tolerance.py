"""When a result is right. One rule for every op, pass and dtype, and a report that says where it is wrong.

Integers that the dtype holds exactly are compared exactly. Otherwise the error against float64 may be at most twice
PyTorch's own error in the same precision, plus one rounding of the output and one rounding of the accumulator; and that
holds

- element-wise, against the largest error PyTorch makes anywhere in the tensor,
- in the relative norm, so that no small error may be everywhere at once,
- for the bias towards or away from zero, which catches truncation where rounding was meant, where the elements have
  rounding errors of their own.

PyTorch's own error is the worst over a few orders of summation (`references.py`), because one order can be lucky. In
float64 the reference has that error itself, so some roundings of the accumulator are allowed there. The gradients of a
16-bit activation sum terms that were rounded before, by PyTorch in every order alike, so those roundings are allowed too.
"""

from __future__ import annotations

import dataclasses
import math

import torch

#: Elements below which a mean says nothing about a bias.
_FEWEST_FOR_BIAS = 256

#: Rounded terms have two roundings in this: of the activation's output, and of the slope times dy.
_ROUNDINGS_OF_TERMS = 2

#: PyTorch's result is taken for wrong, not inexact, where it is this many roundings of the sum of absolute terms away.
_WRONG_ROUNDINGS = 16

#: Roundings of the accumulator allowed beyond PyTorch's own error.
_ACCUMULATOR_ROUNDINGS = 1
_ACCUMULATOR_ROUNDINGS_FLOAT64 = 64


def unit_roundoff(dtype: torch.dtype) -> float:
    """The largest relative error of one rounding."""
    return torch.finfo(dtype).eps / 2


def accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


@dataclasses.dataclass
class Expected:
    """What a result should be, and how far from it PyTorch itself lands."""

    values: torch.Tensor  # float64, or the exact values of any dtype
    dtype: torch.dtype
    exact: bool = False
    #: PyTorch's own results in `dtype`, one per order of summation.
    torch_results: list[torch.Tensor] = dataclasses.field(default_factory=list)
    #: The sums of the absolute terms, in float64: an accumulator's roundings are relative to them.
    magnitude: torch.Tensor | None = None
    #: Where the terms themselves were rounded to `dtype` before, the root of the sum of their squares, in float64.
    spread: torch.Tensor | None = None
    #: Whether the rounding errors of two elements are independent.
    independent: bool = True


def error_of(actual: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Absolute error; 0 where both are the same NaN or infinity, infinite where only one is."""
    error = (actual - expected).abs()
    same = (actual == expected) | (actual.isnan() & expected.isnan())
    return error.masked_fill(same, 0.0).nan_to_num(nan=math.inf)


def assert_accurate(actual: torch.Tensor, expected: Expected, name: str, context: str = "") -> None:
    """AssertionError with a report unless `actual` obeys the rule above."""
    __tracebackhide__ = True
    message = find_inaccuracy(actual, expected, name)
    if message:
        raise AssertionError(f"{message}\n{context}" if context else message)


def find_inaccuracy(actual: torch.Tensor, expected: Expected, name: str) -> str:
    """Empty where `actual` is right, else a report."""
    if actual.shape != expected.values.shape:
        return f"{name}: shape {tuple(actual.shape)}, expected {tuple(expected.values.shape)}"
    if actual.dtype != expected.dtype:
        return f"{name}: dtype {actual.dtype}, expected {expected.dtype}"
    if actual.numel() == 0:
        return ""
    if not actual.dtype.is_floating_point:
        wrong = actual.cpu() != expected.values
        return _report(name, actual.cpu(), expected.values, wrong, wrong.double(), 0.0) if wrong.any() else ""
    result = actual.detach().double().cpu()
    values = expected.values.double()
    error = error_of(result, values)
    if expected.exact:
        wrong = error > 0
        return _report(name, result, values, wrong, error, 0.0) if wrong.any() else ""
    return _compare_by_rule(name, result, values, error, expected)


def _compare_by_rule(
    name: str, result: torch.Tensor, values: torch.Tensor, error: torch.Tensor, expected: Expected
) -> str:
    finite = values.isfinite()
    rounding = unit_roundoff(expected.dtype)
    roundings = _ACCUMULATOR_ROUNDINGS_FLOAT64 if expected.dtype == torch.float64 else _ACCUMULATOR_ROUNDINGS
    accumulator_rounding = roundings * unit_roundoff(accumulator(expected.dtype))
    spread = torch.zeros_like(values) if expected.spread is None else expected.spread
    magnitude = values.abs() if expected.magnitude is None else expected.magnitude.abs()
    torch_results = _credible(
        expected.torch_results,
        values,
        finite,
        _WRONG_ROUNDINGS * roundings * rounding * float(magnitude.where(finite, 0.0).max()),
    )
    torch_errors = [error_of(other, values).where(finite, 0.0) for other in torch_results]
    largest = max((float(other.max()) for other in torch_errors), default=0.0)
    smallest_step = torch.finfo(expected.dtype).smallest_normal * torch.finfo(expected.dtype).eps
    allowed = 2 * largest + rounding * values.abs() + accumulator_rounding * magnitude + smallest_step / 2
    allowed = allowed + _ROUNDINGS_OF_TERMS * rounding * spread
    wrong = error > allowed.where(finite, 0.0)
    if wrong.any():
        return _report(name, result, values, wrong, error, largest)
    norm = float(values.where(finite, 0.0).norm())
    if norm == 0:
        return ""
    torch_norm = max((float(other.norm()) / norm for other in torch_errors), default=0.0)
    own_norm = float(error.where(finite, 0.0).norm()) / norm
    count = values.numel()
    floor = (
        rounding
        + (
            accumulator_rounding * float(magnitude.where(finite, 0.0).norm())
            + _ROUNDINGS_OF_TERMS * rounding * float(spread.norm())
            + smallest_step * count**0.5
        )
        / norm
    )
    if own_norm > 2 * torch_norm + floor:
        return f"{name}: relative norm of the error {own_norm:.3g}, PyTorch's own {torch_norm:.3g}"
    return _find_bias(name, result, values, finite, floor, torch_results) if expected.independent else ""


def _credible(
    results: list[torch.Tensor], values: torch.Tensor, finite: torch.Tensor, limit: float
) -> list[torch.Tensor]:
    """PyTorch's results without those whose error is no rounding: a bug of a CPU kernel must not widen this."""
    doubles = [result.double().cpu() for result in results]
    return [result for result in doubles if float(error_of(result, values).where(finite, 0.0).max()) <= limit]


def _find_bias(
    name: str,
    result: torch.Tensor,
    values: torch.Tensor,
    finite: torch.Tensor,
    floor: float,
    torch_results: list[torch.Tensor],
) -> str:
    count = int(finite.sum())
    if count < _FEWEST_FOR_BIAS:
        return ""

    def bias(other: torch.Tensor) -> float:
        towards = ((other - values) * values.sign()).where(finite, 0.0)
        return float(towards.sum() / values.abs().where(finite, 0.0).sum())

    torch_bias = max((abs(bias(other)) for other in torch_results), default=0.0)
    own_bias = bias(result)
    if abs(own_bias) > 2 * torch_bias + floor * (0.25 + 4 / math.sqrt(count)):
        return f"{name}: biased by {own_bias:.3g} of the mean absolute value, PyTorch's own bias is {torch_bias:.3g}"
    return ""


def _report(
    name: str, result: torch.Tensor, values: torch.Tensor, wrong: torch.Tensor, error: torch.Tensor, torch_error: float
) -> str:
    """Where the errors are: the worst element, whether they sit on the border, and in which channels."""
    worst = _index_of(int(error.where(wrong, -1.0).argmax()), wrong.shape)
    lines = [
        f"{name}: {int(wrong.sum())} of {wrong.numel()} elements are wrong; shape {list(wrong.shape)}",
        f"  worst at {list(worst)}: {result[worst].item():.9g}, expected {values[worst].item():.9g}, "
        f"error {error[worst].item():.3g}; PyTorch's own largest error is {torch_error:.3g}",
    ]
    if result.is_floating_point() and not values.isnan().any() and result.isnan().any():
        lines.append(
            f"  {int(result.isnan().sum())} elements are NaN: never written, or made from what was never written"
        )
    if wrong.dim() >= 2:
        border = torch.ones(wrong.shape[-2:], dtype=torch.bool)
        border[1:-1, 1:-1] = False
        inside = int((wrong & ~border).sum())
        lines.append(f"  {int(wrong.sum()) - inside} of them on the border of the last two dimensions, {inside} inside")
    for dimension, title in zip(range(wrong.dim()), ("first", "second", "third", "fourth"), strict=False):
        others = [other for other in range(wrong.dim()) if other != dimension]
        counts = wrong.sum(others) if others else wrong
        where = counts.nonzero().flatten().tolist()
        shown = ", ".join(map(str, where[:12])) + (", ..." if len(where) > 12 else "")
        lines.append(f"  along the {title} dimension: at {shown} of {wrong.shape[dimension]}")
    return "\n".join(lines)


def _index_of(flat: int, shape: torch.Size) -> tuple[int, ...]:
    index = []
    for size in reversed(shape):
        index.append(flat % size)
        flat //= size
    return tuple(reversed(index))
