"""What the host can tell the compiler about operands and sizes: unit strides, divisibility, and cheap division."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from fastconv.problem import ConvProblem, Operand, PoolProblem, Problem

#: Elements beyond which more divisibility buys nothing: sixteen one-byte elements are one vector.
_MOST = 16

_SUFFIXES = {
    "x": "nchw",
    "padded": "nchw",
    "w": "kcrs",
    "y": "nkpq",
    "residual": "nkpq",
    "offsets": "nkpq",
    "indices": "nkpq",
}


def alignment(*values: int) -> int:
    """The largest power of two, up to sixteen, that divides every value."""
    divisor = math.gcd(*values, _MOST)
    return divisor & -divisor


@dataclasses.dataclass(frozen=True)
class OperandHints:
    """Strides as a kernel takes them, and constants about them.

    A dimension of one element is never stepped along, so its stride is passed as zero, which divides by everything.
    """

    strides: tuple[int, ...]
    unit: int  # the dimension whose stride is one, or -1
    alignment: int  # divides the other strides

    @classmethod
    def of(cls, operand: Operand) -> OperandHints:
        strides = tuple(0 if size <= 1 else stride for size, stride in zip(operand.sizes, operand.strides, strict=True))
        unit = next((dimension for dimension in (1, 3, 2, 0) if strides[dimension] == 1), -1)
        others = [stride for dimension, stride in enumerate(strides) if dimension != unit]
        return cls(strides, unit, alignment(*others))

    def channels_minor_to(self, *dimensions: int) -> bool:
        """True where elements of dimension 1 lie closer together than those of all the given dimensions."""
        distance = [stride or math.inf for stride in self.strides]
        return distance[1] < min(distance[dimension] for dimension in dimensions)


def operand_arguments(**operands: Operand | None) -> tuple[dict[str, int], dict[str, Any]]:
    """Scalars `x_stride_n` … and constants `X_UNIT`, `X_ALIGNMENT` of each operand, as kernels name them."""
    scalars: dict[str, int] = {}
    constants: dict[str, Any] = {}
    for name, operand in operands.items():
        hints = OperandHints.of(operand) if operand is not None else OperandHints((0, 0, 0, 0), -1, 1)
        for suffix, stride in zip(_SUFFIXES[name], hints.strides, strict=True):
            scalars[f"{name}_stride_{suffix}"] = stride
        constants[f"{name.upper()}_UNIT"] = hints.unit
        constants[f"{name.upper()}_ALIGNMENT"] = hints.alignment
    return scalars, constants


def step_constants(problem: ConvProblem | PoolProblem) -> dict[str, int]:
    """Stride and dilation as kernels name them."""
    (stride_h, stride_w), (dilation_h, dilation_w) = problem.stride, problem.dilation
    return {"STRIDE_H": stride_h, "STRIDE_W": stride_w, "DILATION_H": dilation_h, "DILATION_W": dilation_w}


def magic_division(name: str, divisor: int) -> dict[str, int]:
    """Arguments with which `numerics.divide` divides by the divisor without dividing, for numerators below 2**31.

    With l = ceil(log2(divisor)), the quotient is (high half of value * magic + value) >> l. The magic number is an unsigned
    32-bit integer, passed as the signed one with the same bits so that the argument's type does not depend on its value.
    """
    shift = (divisor - 1).bit_length()
    magic = ((1 << 32) * ((1 << shift) - divisor)) // divisor + 1
    if magic >= 1 << 31:
        magic -= 1 << 32
    return {name: divisor, f"{name}_magic": magic, f"{name}_shift": shift}


def is_wide(problem: Problem, *counts: int) -> bool:
    """True where indices need 64 bits: the problem says so, or a count that programs are numbered by does."""
    return problem.index_bits == 64 or any(count > (1 << 31) - (1 << 12) for count in counts)


def one_row(image: Operand) -> Operand:
    """The same images, as one long row each: only for those whose rows lie end to end."""
    batch, channels, height, width = image.sizes
    return Operand((batch, channels, 1, height * width), (*image.strides[:2], 0, image.strides[3]))


def rows_end_to_end(image: Operand) -> bool:
    return image.sizes[2] <= 1 or image.strides[2] == image.sizes[3] * image.strides[3]


def tap_step(problem: ConvProblem, axis: int) -> int:
    """How far apart the taps are that bring one input row to whole output rows; kernels are unrolled so many times.

    At most the taps there are: a stride beyond them leaves one tap of each row and would be unrolled for nothing.
    """
    stride = problem.stride[axis]
    return min(stride // math.gcd(stride, problem.dilation[axis]), problem.w.sizes[2 + axis])
