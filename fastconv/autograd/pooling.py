"""Derivatives of max pooling. Once the winners are known it is linear: gather picks them, backward puts gradients back."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fastconv import library
from fastconv.autograd.primitive import PrimitiveFunction, derivative_of, save


@derivative_of(library.max_pool2d_forward)
class MaxPool2dFunction(PrimitiveFunction):
    """The largest of each window, and its place inside the window. The fastconv::max_pool2d_forward op.

    ``MaxPool2dFunction.apply(x, kernel, stride, padding, dilation, ceil_mode, backend)`` with x [N, C, H, W] returns
    y [N, C, P, Q] and offsets [N, C, P, Q], r * S + s of the winner: uint8 where R * S <= 256, else int32. Only y has a
    gradient, and backward needs only the offsets.

    >>> import torch
    >>> x = torch.tensor([[[[1., 2.], [4., 3.]]]], requires_grad=True)
    >>> y, offsets = MaxPool2dFunction.apply(x, [2, 2], [2, 2], [0, 0], [1, 1], False, "auto")
    >>> y.sum().backward()
    >>> y.item(), offsets.item(), x.grad[0, 0].tolist()
    (4.0, 2, [[0.0, 0.0], [1.0, 0.0]])
    """

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
        x, *ctx.window = inputs
        _, offsets = output
        ctx.x_size = x.shape
        ctx.mark_non_differentiable(offsets)
        save(ctx, offsets)

    @staticmethod
    def backward(ctx: Any, dy: Tensor, _: Tensor) -> tuple:
        (offsets,) = ctx.saved_tensors
        return library.max_pool2d_backward(dy, offsets, ctx.x_size, *ctx.window), *[None] * 6

    @staticmethod
    def tangent(ctx: Any, saved: tuple, t_x: Tensor, *_: None) -> tuple[Tensor, None]:
        return library.max_pool2d_gather(t_x, saved[0], *ctx.window), None


@derivative_of(library.max_pool2d_backward)
class MaxPool2dBackwardFunction(PrimitiveFunction):
    """Gradients of the outputs put back where the winners were. The fastconv::max_pool2d_backward op."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        _, offsets, ctx.x_size, *ctx.window = inputs
        save(ctx, offsets)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple:
        (offsets,) = ctx.saved_tensors
        return library.max_pool2d_gather(g, offsets, *ctx.window), *[None] * 8

    @staticmethod
    def tangent(ctx: Any, saved: tuple, t_dy: Tensor, *_: None) -> Tensor:
        return library.max_pool2d_backward(t_dy, saved[0], ctx.x_size, *ctx.window)


@derivative_of(library.max_pool2d_gather)
class MaxPool2dGatherFunction(PrimitiveFunction):
    """What x holds at the winners' places. The fastconv::max_pool2d_gather op."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, offsets, *ctx.window = inputs
        ctx.x_size = x.shape
        save(ctx, offsets)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple:
        (offsets,) = ctx.saved_tensors
        return library.max_pool2d_backward(g, offsets, ctx.x_size, *ctx.window), *[None] * 7

    @staticmethod
    def tangent(ctx: Any, saved: tuple, t_x: Tensor, *_: None) -> Tensor:
        return library.max_pool2d_gather(t_x, saved[0], *ctx.window)
