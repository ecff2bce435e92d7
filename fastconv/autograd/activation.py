"""The derivative of an activation, and of that derivative."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastconv import library
from fastconv.activation import BEND
from fastconv.autograd.primitive import PrimitiveFunction, derivative_of, forward_mode, save


@derivative_of(library.activation_backward)
class ActivationBackwardFunction(PrimitiveFunction):
    """dz = activation'(saved) * dy in one pass. The fastconv::activation_backward op.

    ``ActivationBackwardFunction.apply(dy, saved, activation, backend)`` with dy and saved [N, C, H, W]. `saved` is the
    activation's output for relu, leaky_relu, sigmoid and tanh, and its input for silu, gelu and hardswish; dz lies in memory
    as `saved` does.

    >>> import torch
    >>> y = torch.tensor([[[[0.0, 2.0]]]])
    >>> ActivationBackwardFunction.apply(torch.full_like(y, 5.0), y, "relu", "auto")[0, 0].tolist()
    [[0.0, 5.0]]
    """

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        dy, saved, ctx.activation, ctx.backend = inputs
        keeps_dy = ctx.activation in BEND and (ctx.needs_input_grad[1] or forward_mode())
        save(ctx, dy if keeps_dy else None, saved)

    @staticmethod
    def _through_saved(ctx: Any, dy: Tensor, saved: Tensor, factor: Tensor) -> Tensor:
        if ctx.activation not in BEND:
            return torch.zeros_like(saved)
        return factor * dy * BEND[ctx.activation](saved)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple:
        dy, saved = ctx.saved_tensors
        g_dy = g_saved = None
        if ctx.needs_input_grad[0]:
            g_dy = library.activation_backward(g, saved, ctx.activation, ctx.backend)
        if ctx.needs_input_grad[1]:
            g_saved = ActivationBackwardFunction._through_saved(ctx, dy, saved, g)
        return g_dy, g_saved, None, None

    @staticmethod
    def tangent(ctx: Any, tensors: tuple, t_dy: Tensor | None, t_saved: Tensor | None, *_: None) -> Tensor:
        dy, saved = tensors
        t = None
        if t_dy is not None:
            t = library.activation_backward(t_dy, saved, ctx.activation, ctx.backend)
        if t_saved is not None:
            through_saved = ActivationBackwardFunction._through_saved(ctx, dy, saved, t_saved)
            t = through_saved if t is None else t + through_saved
        return t
