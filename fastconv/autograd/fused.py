"""Derivatives of a convolution with a pool over it. The convolution's output is neither kept nor written forward.

A pool passes the gradient of each of its outputs to the one winner of its window, and an activation whose derivative can be
told from its output is undone at the winners alone, on the pooled tensor. So

    dz_pooled = activation'(y) * dy          [N, K, P', Q']
    dz        = max_pool2d_backward(dz_pooled, offsets)
    dx, dw    = dgrad(dz, w), wgrad(dz, x)

and what is kept is x, w, the pooled y where the activation needs it, and the offsets. silu, gelu and hardswish need what went
into them: backward computes the convolution once more and picks the winners, which costs time and no memory that is kept.

A global maximum has one winner in each map, and what that saw of x is a patch as large as a filter. Where x is data that no
gradient is asked for, and patches are smaller than maps, all of it is done on the patches: [N, K * C/G, R, S] with a group for
each filter, so that the convolution's own passes serve, and there is no map in backward either. Patches of neighbouring winners
overlap, so a gradient by x would add them up where they meet; that one is left to the dense passes, which have a fixed order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastconv import library
from fastconv.activation import FROM_INPUT, FROM_OUTPUT
from fastconv.autograd.convolution import in_format, linear_part
from fastconv.autograd.primitive import PrimitiveFunction, derivative_of, forward_mode, save
from fastconv.shapes import conv_output_sizes, offsets_dtype, suggests_channels_last


def _as_map(tensor: Tensor) -> Tensor:
    """[N, K, P', Q'], of a global maximum [N, K, 1, 1]."""
    return tensor if tensor.dim() == 4 else tensor[:, :, None, None]


def _seen_by_winners(
    x: Tensor, places: Tensor, w_size: Sequence[int], map_width: int, geometry: Sequence[Any]
) -> Tensor:
    """[N, K * C/G, R, S]: of each filter the part of x [N, C, H, W] under it at the place [N, K], padding included."""
    stride, padding, dilation, groups, mode, value = geometry
    filters, channels, *taps = w_size
    indices, outside = [], torch.zeros((), dtype=torch.bool, device=x.device)
    for axis, place in enumerate((torch.div(places, map_width, rounding_mode="floor"), places % map_width)):
        steps = torch.arange(taps[axis], device=x.device) * dilation[axis]
        position = place[:, :, None] * stride[axis] - padding[2 * axis] + steps
        position = position[:, :, None, :, None] if axis == 0 else position[:, :, None, None, :]
        size = x.shape[2 + axis]
        if mode == "reflect":
            position = (size - 1) - ((size - 1) - position.abs()).abs()
        elif mode == "circular":
            position = position % size
        elif mode != "replicate":
            outside = outside | (position < 0) | (position >= size)
        indices.append(position.clamp(0, size - 1))
    images = torch.arange(x.shape[0], device=x.device).view(-1, 1, 1, 1, 1)
    first_channels = torch.arange(filters, device=x.device) // (filters // groups) * channels
    all_channels = first_channels[:, None] + torch.arange(channels, device=x.device)
    patches = x[(images, all_channels[None, :, :, None, None], *indices)]
    return torch.where(outside, value, patches).flatten(1, 2)


class _PooledConvolutionFunction(PrimitiveFunction):
    """What both have in common. `places` are offsets [N, K, P', Q'] or indices [N, K]."""

    @staticmethod
    def keep(ctx: Any, x, w, bias, geometry, activation, window, backend, y: Tensor, places: Tensor) -> None:
        needs_x, needs_w = ctx.needs_input_grad[:2]
        everything = forward_mode() or activation in FROM_INPUT
        ctx.mark_non_differentiable(places)
        ctx.set_materialize_grads(False)
        save(
            ctx,
            x if needs_w or everything else None,
            w if needs_x or everything else None,
            bias if activation in FROM_INPUT else None,
            y if activation in FROM_OUTPUT else None,
            places,
        )
        ctx.geometry, ctx.activation, ctx.backend = geometry, activation, backend
        ctx.window = (*window, [1, 1], False, backend)
        ctx.x_size, ctx.w_size = x.shape, w.shape
        ctx.map_size = conv_output_sizes(x.shape, w.shape, *geometry[:3])
        ctx.channels_last = any(suggests_channels_last(t.shape, t.stride()) for t in (x, w))
        patch, map_pixels = w.shape[1] * w.shape[2] * w.shape[3], ctx.map_size[2] * ctx.map_size[3]
        ctx.on_patches = places.dim() == 2 and not needs_x and patch < map_pixels

    @staticmethod
    def patches(ctx: Any, x: Tensor, places: Tensor, geometry: Sequence[Any]) -> Tensor:
        return _seen_by_winners(x, places, ctx.w_size, ctx.map_size[3], geometry)

    @staticmethod
    def of_patches(ctx: Any) -> tuple:
        """The geometry of the convolution of patches, each with the one filter that it belongs to."""
        return [1, 1], [0, 0, 0, 0], [1, 1], ctx.w_size[0], "zeros", 0.0

    @staticmethod
    def at_winners(
        ctx: Any, x: Tensor, w: Tensor, bias: Tensor | None, places: Tensor, geometry: Sequence[Any]
    ) -> Tensor:
        """The convolution at the winners' places, in the shape of the output."""
        rest = ("identity", ctx.backend)
        if ctx.on_patches:
            patches = _PooledConvolutionFunction.patches(ctx, x, places, geometry)
            return library.conv2d_fprop(patches, w, bias, None, *_PooledConvolutionFunction.of_patches(ctx), *rest)[
                :, :, 0, 0
            ]
        z = library.conv2d_fprop(x, w, bias, None, *geometry, *rest)
        return _PooledConvolutionFunction.pick(ctx, z, places)

    @staticmethod
    def pick(ctx: Any, z: Tensor, places: Tensor) -> Tensor:
        """The winners of z [N, K, P, Q], in the shape of the output."""
        picked = library.max_pool2d_gather(z, _PooledConvolutionFunction.offsets(ctx, places), *ctx.window)
        return picked if places.dim() == 4 else picked[:, :, 0, 0]

    @staticmethod
    def offsets(ctx: Any, places: Tensor) -> Tensor:
        """[N, K, P', Q'] in the type that pooling takes. Their strides choose those of the gradient of the map."""
        offsets = places.to(offsets_dtype(ctx.window[0]))
        if places.dim() == 4 or not ctx.channels_last:
            return _as_map(offsets)
        return offsets[:, None, None, :].permute(0, 3, 1, 2)

    @staticmethod
    def before_activation(ctx: Any, saved: tuple, gradient: Tensor) -> Tensor:
        """Along the winners, in the shape of the output."""
        x, w, bias, y, places = saved
        if ctx.activation in FROM_INPUT:
            y = _PooledConvolutionFunction.at_winners(ctx, x, w, bias, places, ctx.geometry)
        elif ctx.activation not in FROM_OUTPUT:
            return gradient
        maps = _as_map(gradient), _as_map(y)
        return library.activation_backward(*maps, ctx.activation, ctx.backend).reshape(places.shape)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, _: None) -> tuple:
        nothing = [None] * (len(ctx.needs_input_grad) - 3)
        if dy is None:
            return None, None, None, *nothing
        saved = ctx.saved_tensors
        x, w, *_, places = saved
        needs_x, needs_w, needs_bias = ctx.needs_input_grad[:3]
        pooled = _as_map(_PooledConvolutionFunction.before_activation(ctx, saved, dy))
        dx = dw = db = None
        if needs_w and ctx.on_patches:
            patches = _PooledConvolutionFunction.patches(ctx, x, places, ctx.geometry)
            geometry = _PooledConvolutionFunction.of_patches(ctx)
            dw, _ = library.conv2d_wgrad(pooled, patches, ctx.w_size, *geometry, False, ctx.backend)
        elif needs_x or needs_w:
            offsets = _PooledConvolutionFunction.offsets(ctx, places)
            dz = library.max_pool2d_backward(pooled, offsets, ctx.map_size, *ctx.window)
            dz = in_format(dz, ctx.channels_last)
            if needs_x:
                dx = library.conv2d_dgrad(dz, w, None, ctx.x_size, *ctx.geometry, "identity", ctx.backend)
            if needs_w:
                dw, _ = library.conv2d_wgrad(dz, x, ctx.w_size, *ctx.geometry, False, ctx.backend)
        if needs_bias:
            db = library.channel_sum(pooled, ctx.backend)  # each winner counts once for every window that it has won
        return dx, dw, db, *nothing

    @staticmethod
    def tangent(ctx: Any, saved: tuple, dx, dw, db, *_: None) -> tuple[Tensor, None]:
        x, w, *_, places = saved
        t = None
        if dx is not None:
            t = _PooledConvolutionFunction.at_winners(ctx, dx, w, None, places, linear_part(ctx.geometry))
        if dw is not None:
            along_w = _PooledConvolutionFunction.at_winners(ctx, x, dw, None, places, ctx.geometry)
            t = along_w if t is None else t + along_w
        if db is not None:
            bias = db if places.dim() == 2 else db.view(1, -1, 1, 1)
            t = bias.expand(places.shape) if t is None else t + bias
        return _PooledConvolutionFunction.before_activation(ctx, saved, t), None


@derivative_of(library.conv2d_max_pool2d)
class Conv2dMaxPool2dFunction(_PooledConvolutionFunction):
    """y = max_pool2d(activation(conv2d(x, w) + bias)) and the winners' offsets. The fastconv::conv2d_max_pool2d op.

    ``Conv2dMaxPool2dFunction.apply(x, w, bias, stride, padding, dilation, groups, padding_mode, padding_value, activation,
    pool_kernel, pool_stride, pool_padding, backend)`` as Conv2dFunction and MaxPool2dFunction take them; returns y and offsets,
    [N, K, P', Q'] both. Only y has a gradient.

    >>> import torch
    >>> x, w = torch.ones(1, 1, 4, 4), torch.ones(1, 1, 3, 3, requires_grad=True)
    >>> convolution = [1, 1], [1, 1, 1, 1], [1, 1], 1, "zeros", 0.0, "relu"
    >>> y, offsets = Conv2dMaxPool2dFunction.apply(x, w, None, *convolution, [2, 2], [2, 2], [0, 0], "auto")
    >>> y.sum().backward()
    >>> y[0, 0].tolist(), offsets[0, 0].tolist(), w.grad.sum().item()
    ([[9.0, 9.0], [9.0, 9.0]], [[3, 2], [1, 0]], 36.0)
    """

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
        x, w, bias, *geometry, activation, kernel, stride, padding, backend = inputs
        window = kernel, stride, padding
        _PooledConvolutionFunction.keep(ctx, x, w, bias, geometry, activation, window, backend, *output)


@derivative_of(library.conv2d_global_max)
class Conv2dGlobalMaxFunction(_PooledConvolutionFunction):
    """The largest of activation(conv2d(x, w) + bias) in each image and filter. The fastconv::conv2d_global_max op.

    ``Conv2dGlobalMaxFunction.apply(x, w, bias, stride, padding, dilation, groups, padding_mode, padding_value, activation,
    backend)`` returns y [N, K] and int64 indices [N, K], p * Q + q. Only y has a gradient.

    >>> import torch
    >>> x = torch.tensor([[[[1., 5., 2.]]]], requires_grad=True)
    >>> convolution = [1, 1], [0, 0, 0, 0], [1, 1], 1, "zeros", 0.0, "identity"
    >>> y, indices = Conv2dGlobalMaxFunction.apply(x, torch.ones(1, 1, 1, 2), None, *convolution, "auto")
    >>> y.sum().backward()
    >>> y.item(), indices.item(), x.grad.flatten().tolist()
    (7.0, 1, [0.0, 1.0, 1.0])
    """

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
        x, w, bias, *geometry, activation, backend = inputs
        map_size = conv_output_sizes(x.shape, w.shape, *geometry[:3])[2:]
        window = map_size, map_size, [0, 0]
        _PooledConvolutionFunction.keep(ctx, x, w, bias, geometry, activation, window, backend, *output)
