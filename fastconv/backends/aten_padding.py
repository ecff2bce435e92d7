"""Padding that ATen's convolutions do not know, laid around x before them and taken off its gradient after."""

from __future__ import annotations

import dataclasses

import torch.nn.functional as F
from torch import Tensor

from fastconv.problem import ConvProblem
from fastconv.shapes import conv_output_size, conv_output_sizes


@dataclasses.dataclass(frozen=True)
class Padding:
    """How ATen is to pad x: `symmetric` by the convolution itself, `explicit` (left, right, top, bottom) by F.pad before.

    Explicit padding crops where it is negative: a transposed convolution whose output_padding reaches past its stride
    leaves rows of x that no window sees.
    """

    symmetric: list[int]
    explicit: list[int] | None
    mode: str = "constant"  # F.pad's word, of what is explicit
    value: float | None = None
    seen: tuple[int, int] | None = None  # rows and columns of the padded x, where the windows leave more than a step

    @classmethod
    def of(cls, problem: ConvProblem) -> Padding:
        top, bottom, left, right = problem.padding
        outputs, taps, inputs = problem.y.sizes[2:], problem.w.sizes[2:], problem.x.sizes[2:]
        stride, dilation = problem.stride, problem.dilation
        if problem.padding_mode != "zeros":
            value = problem.padding_value if problem.padding_mode == "constant" else None
            fits = conv_output_sizes(problem.x.sizes, problem.w.sizes, stride, problem.padding, dilation)[2:]
            rows, columns = (
                (outputs[axis] - 1) * stride[axis] + dilation[axis] * (taps[axis] - 1) + 1 for axis in (0, 1)
            )
            seen = None if fits == outputs else (rows, columns)
            return cls([0, 0], [left, right, top, bottom], problem.padding_mode, value, seen)
        low = (top, left)
        if all(
            conv_output_size(inputs[axis], low[axis], low[axis], taps[axis], stride[axis], dilation[axis])
            == outputs[axis]
            for axis in (0, 1)
        ):
            return cls([top, left], None)
        bottom, right = (
            (outputs[axis] - 1) * stride[axis] + dilation[axis] * (taps[axis] - 1) + 1 - inputs[axis] - low[axis]
            for axis in (0, 1)
        )
        return cls([0, 0], [left, right, top, bottom])

    def apply(self, x: Tensor) -> Tensor:
        if self.explicit is None:
            return x
        padded = F.pad(x, self.explicit, self.mode, self.value)
        return padded if self.seen is None else padded[:, :, : self.seen[0], : self.seen[1]]

    def transposed(self, padded: Tensor) -> Tensor:
        """The gradient by x from that by the padded x."""
        if self.explicit is None:
            return padded
        if self.mode == "constant":
            return F.pad(padded, [-width for width in self.explicit])
        for dim, low, high in ((3, *self.explicit[:2]), (2, *self.explicit[2:])):
            padded = _folded(padded, dim, low, high, self.mode)
        return padded


def _folded(padded: Tensor, dim: int, low: int, high: int, mode: str) -> Tensor:
    """What stands in the padding of one dimension, added to the elements that it was copied from; always in this order.

    ATen has the same as the backward of its padding ops, but adds it with atomics on a GPU.
    """
    size = padded.shape[dim] - low - high
    before, x, after = padded.split((low, size, high), dim)
    if low == high == 0:
        return x
    x = x.clone()
    if mode == "reflect":
        x.narrow(dim, 1, low).add_(before.flip(dim))
        x.narrow(dim, size - 1 - high, high).add_(after.flip(dim))
    elif mode == "circular":
        x.narrow(dim, size - low, low).add_(before)
        x.narrow(dim, 0, high).add_(after)
    else:
        x.narrow(dim, 0, 1).add_(before.sum(dim, keepdim=True))
        x.narrow(dim, size - 1, 1).add_(after.sum(dim, keepdim=True))
    return x
