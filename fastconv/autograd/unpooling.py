"""Derivatives of max unpooling, which is linear in the values. Gather, its backward, picks what unpooling puts back."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fastconv import library
from fastconv.autograd.primitive import PrimitiveFunction, derivative_of, save


@derivative_of(library.max_unpool2d_forward)
class MaxUnpool2dFunction(PrimitiveFunction):
    """Values at flat positions among zeros. The fastconv::max_unpool2d_forward op.

    ``MaxUnpool2dFunction.apply(x, indices, output_size, backend)`` with x and int64 indices [N, C, P, Q] returns [N, C, H, W].
    Where positions repeat, the last value stands, and as in PyTorch all of them get the gradient of the position.

    >>> import torch
    >>> x = torch.tensor([[[[5.0]]]], requires_grad=True)
    >>> y = MaxUnpool2dFunction.apply(x, torch.tensor([[[[3]]]]), [2, 2], "auto")
    >>> y[0, 0].tolist()
    [[0.0, 0.0], [0.0, 5.0]]
    """

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        _, indices, ctx.output_size, ctx.backend = inputs
        save(ctx, indices)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple:
        return library.max_unpool2d_gather(dy, ctx.saved_tensors[0], ctx.backend), None, None, None

    @staticmethod
    def tangent(ctx: Any, saved: tuple, t_x: Tensor, *_: None) -> Tensor:
        return library.max_unpool2d_forward(t_x, saved[0], ctx.output_size, ctx.backend)


@derivative_of(library.max_unpool2d_add)
class MaxUnpool2dAddFunction(PrimitiveFunction):
    """The sum of the values at each flat position. The fastconv::max_unpool2d_add op."""

    setup_context = MaxUnpool2dFunction.setup_context
    backward = MaxUnpool2dFunction.backward

    @staticmethod
    def tangent(ctx: Any, saved: tuple, t_x: Tensor, *_: None) -> Tensor:
        return library.max_unpool2d_add(t_x, saved[0], ctx.output_size, ctx.backend)


@derivative_of(library.max_unpool2d_gather)
class MaxUnpool2dGatherFunction(PrimitiveFunction):
    """What is at each flat position. The fastconv::max_unpool2d_gather op."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        y, indices, ctx.backend = inputs
        ctx.size = y.shape[2:]
        save(ctx, indices)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple:
        return library.max_unpool2d_add(g, ctx.saved_tensors[0], ctx.size, ctx.backend), None, None

    @staticmethod
    def tangent(ctx: Any, saved: tuple, t_y: Tensor, *_: None) -> Tensor:
        return library.max_unpool2d_gather(t_y, saved[0], ctx.backend)
