"""What the hand-written kernels of every backend can hold."""

from __future__ import annotations

import dataclasses

from fastconv.problem import AdaptivePoolProblem, FusedProblem, Operand, Problem

_LARGEST_INT32, _LARGEST_INT64 = 2**31 - 1, 2**63 - 1
#: Fields of problems that are an int in kernels; sizes and strides have 64 bits.
_NUMBERS = ("kernel", "stride", "padding", "dilation", "groups")


def beyond_the_kernels(problem: Problem) -> str:
    """Why the problem, or a number in it, does not fit into the kernels; empty where it does."""
    if isinstance(problem, AdaptivePoolProblem):
        (height, width), (rows, columns) = problem.x.sizes[2:], problem.y.sizes[2:]
        return f"the kernels pool windows that are alike, and those of {height}x{width} to {rows}x{columns} differ"
    if isinstance(problem, FusedProblem):
        return beyond_the_kernels(problem.conv) or beyond_the_kernels(problem.pool)
    for field in dataclasses.fields(problem):
        value = getattr(problem, field.name)
        if isinstance(value, Operand):
            if max(*value.sizes, *value.strides) > _LARGEST_INT64:
                return f"{field.name} of sizes {list(value.sizes)} has strides of more than 2**63 - 1"
        elif field.name in _NUMBERS and max(value if isinstance(value, tuple) else (value,)) > _LARGEST_INT32:
            return f"{field.name} is {value}; the kernels take up to 2**31 - 1"
    return ""
