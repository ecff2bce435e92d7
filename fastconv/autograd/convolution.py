"""Derivatives of the convolution passes. Each pass is linear in both operands, so they are each other's derivatives:

====== ============================= ======================== ========================
pass   computes                      gradient by the first    gradient by the second
====== ============================= ======================== ========================
fprop  y = x * w                     dgrad(g, w)              wgrad(g, x)
dgrad  dx = dy *ᵀ w                  fprop(g, w)              wgrad(dy, g)
wgrad  dw = dy ⋆ x                   fprop(x, g)              dgrad(dy, g)
====== ============================= ======================== ========================

fprop pads x as its padding mode says, dgrad is the transpose of that, and wgrad pads x likewise. Padding by a constant makes
fprop and wgrad affine in x: their derivatives by x are those of padding by zeros.

A fused activation is undone first, in one pass (fastconv::activation_backward). relu, leaky_relu, sigmoid and tanh save the
output for that, which the next layer keeps anyway. silu, gelu and hardswish need what went into them: backward computes it
once more from the saved inputs, which costs a convolution and no memory. (fastconv.functional does not fuse those three where
a gradient will be wanted.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastconv import library
from fastconv.activation import FROM_INPUT, FROM_OUTPUT
from fastconv.autograd.primitive import PrimitiveFunction, derivative_of, forward_mode, save
from fastconv.shapes import suggests_channels_last


def _suggests_channels_last(tensor: Tensor) -> bool:
    return suggests_channels_last(tensor.shape, tensor.stride())


def in_format(gradient: Tensor, channels_last: bool) -> Tensor:
    """The gradient in the format of the output it belongs to, as PyTorch passes it on; other strides are kept."""
    if _suggests_channels_last(gradient) == channels_last:
        return gradient
    return gradient.clone(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def _first_outputs(y: Tensor, size: Sequence[int]) -> Tensor:
    """The part of a forward pass's output that a transposed convolution read: less where output_padding passes a stride."""
    return y if y.shape[2:] == size[2:] else y[:, :, : size[2], : size[3]]


def linear_part(geometry: Sequence[Any]) -> list[Any]:
    """The geometry of the pass's linear part, which is what acts on changes of x: a constant around it does not change."""
    *rest, mode, value = geometry
    return [*rest, *(("zeros", 0.0) if mode == "constant" else (mode, value))]


def _add(left: Tensor | None, right: Tensor) -> Tensor:
    return right if left is None else left + right


def _per_channel(bias: Tensor) -> Tensor:
    return bias.view(1, -1, 1, 1)


@derivative_of(library.conv2d_fprop)
class Conv2dFunction(PrimitiveFunction):
    """y = activation(conv2d(x, w) + bias + residual), any of the three optional. The fastconv::conv2d_fprop op.

    ``Conv2dFunction.apply(x, w, bias, residual, stride, padding, dilation, groups, padding_mode, padding_value, activation,
    backend)`` with x [N, C, H, W], w [K, C/G, R, S], bias [K] or None, residual [N, K, P, Q] or None, padding (top, bottom,
    left, right), padding_mode one of fastconv.problem.PADDING_MODES, padding_value 0.0 except for "constant", activation one
    of fastconv.problem.ACTIVATIONS, backend one of fastconv.dispatch.BACKENDS.

    >>> import torch
    >>> x, w = torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3, requires_grad=True)
    >>> y = Conv2dFunction.apply(x, w, None, None, [1, 1], [1, 1, 1, 1], [1, 1], 1, "zeros", 0.0, "relu", "auto")
    >>> y.sum().backward()
    >>> w.grad[0, 0].tolist()
    [[4.0, 6.0, 4.0], [6.0, 9.0, 6.0], [4.0, 6.0, 4.0]]
    """

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, w, bias, residual, *geometry, activation, backend = inputs
        needs_x, needs_w = ctx.needs_input_grad[:2]
        everything = forward_mode() or activation in FROM_INPUT
        save(
            ctx,
            x if needs_w or everything else None,
            w if needs_x or everything else None,
            bias if activation in FROM_INPUT else None,
            residual if activation in FROM_INPUT else None,
            output if activation in FROM_OUTPUT else None,
        )
        ctx.geometry, ctx.activation, ctx.backend = geometry, activation, backend
        ctx.x_size, ctx.w_size = x.shape, w.shape
        ctx.channels_last = _suggests_channels_last(x) or _suggests_channels_last(w)

    @staticmethod
    def _before_activation(ctx: Any, saved: tuple, gradient: Tensor) -> Tensor:
        x, w, bias, residual, y = saved
        if ctx.activation in FROM_OUTPUT:
            return library.activation_backward(gradient, y, ctx.activation, ctx.backend)
        if ctx.activation in FROM_INPUT:
            z = library.conv2d_fprop(x, w, bias, residual, *ctx.geometry, "identity", ctx.backend)
            return library.activation_backward(gradient, z, ctx.activation, ctx.backend)
        return gradient

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple:
        saved = ctx.saved_tensors
        x, w = saved[:2]
        needs_x, needs_w, needs_bias, needs_residual = ctx.needs_input_grad[:4]
        dz = in_format(Conv2dFunction._before_activation(ctx, saved, dy), ctx.channels_last)
        dx = dw = db = None
        if needs_x:
            dx = library.conv2d_dgrad(dz, w, None, ctx.x_size, *ctx.geometry, "identity", ctx.backend)
        if needs_w:
            dw, db = library.conv2d_wgrad(dz, x, ctx.w_size, *ctx.geometry, needs_bias, ctx.backend)
        elif needs_bias:
            db = library.channel_sum(dz, ctx.backend)
        return dx, dw, db if needs_bias else None, dz if needs_residual else None, *[None] * 8

    @staticmethod
    def tangent(ctx: Any, saved: tuple, dx, dw, db, dresidual, *_: None) -> Tensor:
        x, w = saved[:2]
        dz = None
        if dx is not None:
            dz = library.conv2d_fprop(dx, w, None, None, *linear_part(ctx.geometry), "identity", ctx.backend)
        if dw is not None:
            dz = _add(dz, library.conv2d_fprop(x, dw, None, None, *ctx.geometry, "identity", ctx.backend))
        if dresidual is not None:
            dz = _add(dz, dresidual)
        if db is not None:
            if dz is None:
                dz = torch.zeros_like(library.conv2d_fprop(x, w, None, None, *ctx.geometry, "identity", ctx.backend))
            dz = dz + _per_channel(db)
        return Conv2dFunction._before_activation(ctx, saved, dz)


@derivative_of(library.conv2d_dgrad)
class ConvTranspose2dFunction(PrimitiveFunction):
    """activation(conv_transpose2d(x, w) + bias), bias optional. The fastconv::conv2d_dgrad op.

    ``ConvTranspose2dFunction.apply(x, w, bias, output_size, stride, padding, dilation, groups, padding_mode, padding_value,
    activation, backend)`` with x [N, K, P, Q], w [K, C/G, R, S], bias [C] or None, output_size (N, C, H, W), the rest as for
    Conv2dFunction. The letters are those of the convolution whose gradient by its input this is.

    >>> import torch
    >>> x, w = torch.ones(1, 1, 2, 2, requires_grad=True), torch.ones(1, 1, 2, 2)
    >>> geometry = [2, 2], [0] * 4, [1, 1], 1, "zeros", 0.0
    >>> y = ConvTranspose2dFunction.apply(x, w, None, [1, 1, 4, 4], *geometry, "identity", "auto")
    >>> y.sum().backward()
    >>> x.grad[0, 0].tolist()
    [[4.0, 4.0], [4.0, 4.0]]
    """

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        dy, w, bias, input_size, *geometry, activation, backend = inputs
        needs_dy, needs_w = ctx.needs_input_grad[:2]
        everything = forward_mode() or activation in FROM_INPUT
        save(
            ctx,
            dy if needs_w or everything else None,
            w if needs_dy or everything else None,
            bias if activation in FROM_INPUT else None,
            output if activation in FROM_OUTPUT else None,
        )
        ctx.geometry, ctx.activation, ctx.backend = geometry, activation, backend
        ctx.dy_size, ctx.w_size, ctx.x_size = dy.shape, w.shape, input_size
        ctx.channels_last = _suggests_channels_last(dy) or _suggests_channels_last(w)

    @staticmethod
    def _before_activation(ctx: Any, saved: tuple, gradient: Tensor) -> Tensor:
        dy, w, bias, output = saved
        if ctx.activation in FROM_OUTPUT:
            return library.activation_backward(gradient, output, ctx.activation, ctx.backend)
        if ctx.activation in FROM_INPUT:
            z = library.conv2d_dgrad(dy, w, bias, ctx.x_size, *ctx.geometry, "identity", ctx.backend)
            return library.activation_backward(gradient, z, ctx.activation, ctx.backend)
        return gradient

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        saved = ctx.saved_tensors
        dy, w = saved[:2]
        needs_dy, needs_w, needs_bias = ctx.needs_input_grad[:3]
        g = in_format(ConvTranspose2dFunction._before_activation(ctx, saved, gradient), ctx.channels_last)
        g_dy = g_w = g_bias = None
        if needs_dy:
            g_dy = library.conv2d_fprop(g, w, None, None, *linear_part(ctx.geometry), "identity", ctx.backend)
            g_dy = _first_outputs(g_dy, ctx.dy_size)
        if needs_w:
            g_w, _ = library.conv2d_wgrad(dy, g, ctx.w_size, *linear_part(ctx.geometry), False, ctx.backend)
        if needs_bias:
            g_bias = library.channel_sum(g, ctx.backend)
        return g_dy, g_w, g_bias, *[None] * 9

    @staticmethod
    def tangent(ctx: Any, saved: tuple, t_dy, t_w, t_bias, *_: None) -> Tensor:
        dy, w = saved[:2]
        rest = (ctx.x_size, *ctx.geometry, "identity", ctx.backend)
        t = None
        if t_dy is not None:
            t = library.conv2d_dgrad(t_dy, w, None, *rest)
        if t_w is not None:
            t = _add(t, library.conv2d_dgrad(dy, t_w, None, *rest))
        if t_bias is not None:
            if t is None:
                t = torch.zeros_like(library.conv2d_dgrad(dy, w, None, *rest))
            t = t + _per_channel(t_bias)
        return ConvTranspose2dFunction._before_activation(ctx, saved, t)


@derivative_of(library.conv2d_wgrad)
class Conv2dWeightGradientFunction(PrimitiveFunction):
    """The gradients of a convolution by its weight and bias, themselves differentiable. The fastconv::conv2d_wgrad op."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
        dy, x, weight_size, *geometry, bias_gradient, backend = inputs
        needs_dy, needs_x = ctx.needs_input_grad[:2]
        save(ctx, dy if needs_x or forward_mode() else None, x if needs_dy or forward_mode() else None)
        ctx.geometry, ctx.bias_gradient, ctx.backend = geometry, bias_gradient, backend
        ctx.dy_size, ctx.x_size, ctx.w_size = dy.shape, x.shape, weight_size
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, g_w: Tensor | None, g_bias: Tensor | None) -> tuple:
        dy, x = ctx.saved_tensors
        needs_dy, needs_x = ctx.needs_input_grad[:2]
        g_dy = g_x = None
        if not ctx.bias_gradient:
            g_bias = None
        if needs_dy and g_w is not None:
            g_dy = library.conv2d_fprop(x, g_w, g_bias, None, *ctx.geometry, "identity", ctx.backend)
            g_dy = _first_outputs(g_dy, ctx.dy_size)
        elif needs_dy and g_bias is not None:
            g_dy = _per_channel(g_bias).expand(ctx.dy_size)
        if needs_x and g_w is not None:
            g_x = library.conv2d_dgrad(dy, g_w, None, ctx.x_size, *ctx.geometry, "identity", ctx.backend)
        return g_dy, g_x, *[None] * 9

    @staticmethod
    def tangent(ctx: Any, saved: tuple, t_dy, t_x, *_: None) -> tuple[Tensor, Tensor]:
        dy, x = saved
        rest = (ctx.w_size, *ctx.geometry)
        t_w = t_bias = None
        if t_dy is not None:
            t_w, t_bias = library.conv2d_wgrad(t_dy, x, *rest, ctx.bias_gradient, ctx.backend)
        if t_x is not None:
            more, none = library.conv2d_wgrad(dy, t_x, ctx.w_size, *linear_part(ctx.geometry), False, ctx.backend)
            t_w = _add(t_w, more)
            if t_bias is None:
                t_bias = dy.new_zeros(ctx.w_size[0]) if ctx.bias_gradient else none
        return t_w, t_bias


@derivative_of(library.channel_sum)
class ChannelSumFunction(PrimitiveFunction):
    """x [N, C, H, W] summed over N, H and W, in a fixed order. The fastconv::channel_sum op."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, ctx.backend = inputs
        ctx.x_size = x.shape

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple:
        return _per_channel(g).expand(ctx.x_size), None

    @staticmethod
    def tangent(ctx: Any, saved: tuple, t_x: Tensor, *_: None) -> Tensor:
        return library.channel_sum(t_x, ctx.backend)
