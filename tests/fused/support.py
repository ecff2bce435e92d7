"""A convolution with a pool over it, by PyTorch's own functions."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F

import fastconv
from tests.support.data import drawer, seeded
from tests.support.layouts import build
from tests.support.references import ACTIVATIONS

Pair = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Case:
    """One call of a fused op. Prints the line that repeats it."""

    x: tuple[int, ...] = (2, 8, 11, 9)
    w: tuple[int, int, int, int] = (16, 8, 3, 3)
    dtype: torch.dtype = torch.float32
    stride: Pair = (1, 1)
    padding: Pair = (1, 1)
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = True
    activation: str | None = "relu"
    pool: tuple[Pair, Pair, Pair] | None = ((2, 2), (2, 2), (0, 0))  # None: the global maximum
    data: str = "integers"
    x_layout: str = "contiguous"
    w_layout: str = "contiguous"
    seed: int = 0

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        draw = drawer(self.data, seeded(self.seed), self.dtype)
        plain = drawer("integers" if self.data in ("ties", "special") else self.data, seeded(self.seed + 1), self.dtype)
        bias = build((self.w[0],), "contiguous", plain) if self.bias else None
        return build(self.x, self.x_layout, draw), build(self.w, self.w_layout, plain), bias

    @property
    def geometry(self) -> tuple:
        return self.stride, self.padding, self.dilation, self.groups

    def call(self, x, w, bias, backend: str | None = None) -> tuple[torch.Tensor, ...]:
        """y and the winners' indices p * Q + q in the map, by fastconv."""
        if self.pool is None:
            return fastconv.conv2d_global_max(
                x, w, bias, *self.geometry, activation=self.activation, return_indices=True, backend=backend
            )
        kernel, stride, padding = self.pool
        (u, v), (vertical, horizontal) = self.stride, self.padding
        convolution = (
            [u, v],
            [vertical, vertical, horizontal, horizontal],
            list(self.dilation),
            self.groups,
            "zeros",
            0.0,
        )
        y, offsets = torch.ops.fastconv.conv2d_max_pool2d(
            x, w, bias, *convolution, self.activation or "identity", *self.pool, backend or "auto"
        )
        size = [x.shape[0], w.shape[0], *self.map_size]
        window = (kernel, stride, padding, (1, 1), False, "aten")
        return y, torch.ops.fastconv.max_pool2d_indices(offsets, size, *window)

    @property
    def map_size(self) -> Pair:
        return tuple(
            (self.x[-2 + i] + 2 * self.padding[i] - self.dilation[i] * (self.w[2 + i] - 1) - 1) // self.stride[i] + 1
            for i in (0, 1)
        )

    def reference(self, x, w, bias) -> tuple[torch.Tensor, torch.Tensor]:
        """The same by torch.nn.functional, in the precision of the tensors."""
        z = ACTIVATIONS[self.activation or "identity"](F.conv2d(x, w, bias, *self.geometry))
        if self.pool is None:
            y, indices = F.adaptive_max_pool2d(z, 1, return_indices=True)
            return y.flatten(-3), indices.flatten(-3)
        return F.max_pool2d(z, *self.pool, return_indices=True)

    def assert_exact(self, backend: str | None) -> None:
        """On data whose sums every type holds exactly: equal values, equal winners."""
        tensors = self.tensors()
        expected = self.reference(*(None if t is None else t.double() for t in tensors))
        y, indices = self.call(*tensors, backend=backend)
        assert (y.dtype, y.shape) == (self.dtype, expected[0].shape), repr(self)
        same = (y.double() == expected[0]) | (y.isnan() & expected[0].isnan())
        assert same.all(), f"y: {int((~same).sum())} of {same.numel()} are wrong: {self!r} backend={backend!r}"
        wrong = indices != expected[1]
        assert not wrong.any(), f"{int(wrong.sum())} of {wrong.numel()} winners are wrong: {self!r} backend={backend!r}"
