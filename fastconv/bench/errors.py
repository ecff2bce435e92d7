"""How far a result is from its float64 reference, and how far it may be."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from fastconv.bench.precision import Precision


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Errors against float64, the worst over the outputs."""

    relative: float  # |result - expected| / |expected|, Frobenius norms
    largest: float  # of any element, over the root mean square of the expected ones


def compare(results: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> Accuracy:
    relative = largest = 0.0
    for result, right in zip(results, expected, strict=True):
        if right.numel() == 0:
            continue
        if not right.dtype.is_floating_point:
            # Indices and offsets are right or wrong.
            if not torch.equal(result.to(right.dtype), right):
                relative = largest = float("inf")
            continue
        # On the reference's device and in its type; a NaN anywhere makes both figures infinite, never a pass.
        difference = (result.detach().to(right.dtype) - right).abs()
        norm = float(right.norm()) or 1.0
        root_mean_square = norm / right.numel() ** 0.5
        one = float(difference.norm()) / norm
        most = float(difference.max()) / root_mean_square
        relative = max(relative, one if one == one else float("inf"))
        largest = max(largest, most if most == most else float("inf"))
    return Accuracy(relative, largest)


def complaint_about(accuracy: Accuracy, pytorch: Accuracy, precision: Precision, times: int = 2) -> str:
    """ "" where the error is at most `times` PyTorch's own in that precision plus one rounding, in both measures."""
    limit = times * pytorch.relative + precision.epsilon
    if not accuracy.relative <= limit:
        return f"relative error {accuracy.relative:.2e}, at most {limit:.2e} (PyTorch's is {pytorch.relative:.2e})"
    # The largest element's rounding: an element may be several times the root mean square.
    limit = times * pytorch.largest + 4 * precision.epsilon
    if not accuracy.largest <= limit:
        return f"largest error {accuracy.largest:.2e}, at most {limit:.2e} (PyTorch's is {pytorch.largest:.2e})"
    return ""
