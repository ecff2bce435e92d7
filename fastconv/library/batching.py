"""torch.vmap over the primitives: the mapped dimension becomes part of the batch, or, where weights have it, of the groups.

So B small convolutions with weights of their own are one convolution with B times the groups; per-sample weight gradients
come out of one wgrad.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from fastconv.library import primitives


def _rule(function: Callable) -> Callable:
    @functools.wraps(function)
    def rule(info, in_dims, *args):
        return (
            function(info, in_dims, *args) if info.batch_size else _mapped_over_nothing(function, info, in_dims, args)
        )

    torch.library.register_vmap(f"fastconv::{function.__name__}", rule, lib=primitives.LIBRARY)
    return rule


def _mapped_over_nothing(function: Callable, info, in_dims, args):
    """One zero in place of nothing, since nothing of a group is no convolution; and none of what comes out."""
    one = tuple(
        arg.new_zeros([1 if axis == dim else size for axis, size in enumerate(arg.shape)])
        if isinstance(dim, int)
        else arg
        for arg, dim in zip(args, in_dims, strict=True)
    )
    outputs, out_dims = function(info._replace(batch_size=1), in_dims, *one)
    if not isinstance(outputs, tuple):
        return outputs.narrow(out_dims, 0, 0), out_dims
    none = [out if dim is None else out.narrow(dim, 0, 0) for out, dim in zip(outputs, out_dims, strict=True)]
    return tuple(none), out_dims


def _mapped_first(tensor: Tensor, dim: int | None, count: int) -> Tensor:
    """[B, ...], repeated without a copy where the tensor is the same for all B."""
    return tensor.expand(count, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


def _into_batch(tensor: Tensor, dim: int | None, count: int) -> Tensor:
    """[B * N, C, H, W]"""
    return _mapped_first(tensor, dim, count).flatten(0, 1)


def _into_channels(tensor: Tensor, dim: int | None, count: int) -> Tensor:
    """[N, B * C, H, W]"""
    return _mapped_first(tensor, dim, count).movedim(0, 1).flatten(1, 2)


def _from_batch(tensor: Tensor, count: int) -> Tensor:
    """[B, N, C, H, W]"""
    return tensor.unflatten(0, (count, tensor.shape[0] // count))


def _from_channels(tensor: Tensor, count: int) -> Tensor:
    """[N, B, C, H, W]"""
    return tensor.unflatten(1, (count, tensor.shape[1] // count))


@_rule
def conv2d_fprop(info, in_dims, x, w, bias, residual, stride, padding, dilation, groups, *rest):
    count = info.batch_size
    x_dim, w_dim, bias_dim, residual_dim = in_dims[:4]
    if w_dim is None and bias_dim is None:
        x = _into_batch(x, x_dim, count)
        if residual is not None:
            residual = _into_batch(residual, residual_dim, count)
        y = primitives.conv2d_fprop(x, w, bias, residual, stride, padding, dilation, groups, *rest)
        return _from_batch(y, count), 0
    if x_dim is not None or groups != 1:  # otherwise all B filter banks look at the same x: one bank of B * K filters
        x = _into_channels(x, x_dim, count)
        groups = groups * count
    w = _into_batch(w, w_dim, count)
    if bias is not None:
        bias = _into_batch(bias, bias_dim, count)
    if residual is not None:
        residual = _into_channels(residual, residual_dim, count)
    y = primitives.conv2d_fprop(x, w, bias, residual, stride, padding, dilation, groups, *rest)
    return _from_channels(y, count), 1


@_rule
def conv2d_dgrad(info, in_dims, dy, w, bias, input_size, stride, padding, dilation, groups, *rest):
    count = info.batch_size
    dy_dim, w_dim, bias_dim = in_dims[:3]
    batch, channels, height, width = input_size
    if w_dim is None and bias_dim is None:
        dy = _into_batch(dy, dy_dim, count)
        size = [count * batch, channels, height, width]
        dx = primitives.conv2d_dgrad(dy, w, bias, size, stride, padding, dilation, groups, *rest)
        return _from_batch(dx, count), 0
    dy = _into_channels(dy, dy_dim, count)
    w = _into_batch(w, w_dim, count)
    if bias is not None:
        bias = _into_batch(bias, bias_dim, count)
    size = [batch, count * channels, height, width]
    groups = groups * count
    dx = primitives.conv2d_dgrad(dy, w, bias, size, stride, padding, dilation, groups, *rest)
    return _from_channels(dx, count), 1


@_rule
def conv2d_wgrad(info, in_dims, dy, x, weight_size, stride, padding, dilation, groups, *rest):
    bias_gradient = rest[-2]
    count = info.batch_size
    dy_dim, x_dim = in_dims[:2]
    if x_dim is not None or groups != 1:  # otherwise x is the same for all B: one gradient of B * K filters
        x = _into_channels(x, x_dim, count)
        groups = groups * count
    dy = _into_channels(dy, dy_dim, count)
    size = [count * weight_size[0], *weight_size[1:]]
    dw, db = primitives.conv2d_wgrad(dy, x, size, stride, padding, dilation, groups, *rest)
    dw = _from_batch(dw, count)
    return (dw, _from_batch(db, count)) if bias_gradient else (dw, db), (0, 0 if bias_gradient else None)


def _fused(primitive, info, in_dims, x, w, bias, stride, padding, dilation, groups, rest):
    """A convolution with a pool over it: (outputs [N, K, ...], where the mapped dimension is)."""
    count = info.batch_size
    x_dim, w_dim, bias_dim = in_dims[:3]
    if w_dim is None and bias_dim is None:
        outputs = primitive(_into_batch(x, x_dim, count), w, bias, stride, padding, dilation, groups, *rest)
        return tuple(_from_batch(output, count) for output in outputs), (0, 0)
    if x_dim is not None or groups != 1:  # otherwise all B filter banks look at the same x
        x = _into_channels(x, x_dim, count)
        groups = groups * count
    w = _into_batch(w, w_dim, count)
    if bias is not None:
        bias = _into_batch(bias, bias_dim, count)
    outputs = primitive(x, w, bias, stride, padding, dilation, groups, *rest)
    return tuple(_from_channels(output, count) for output in outputs), (1, 1)


@_rule
def conv2d_max_pool2d(info, in_dims, x, w, bias, stride, padding, dilation, groups, *rest):
    return _fused(primitives.conv2d_max_pool2d, info, in_dims, x, w, bias, stride, padding, dilation, groups, rest)


@_rule
def conv2d_global_max(info, in_dims, x, w, bias, stride, padding, dilation, groups, *rest):
    return _fused(primitives.conv2d_global_max, info, in_dims, x, w, bias, stride, padding, dilation, groups, rest)


@_rule
def channel_sum(info, in_dims, x, backend):
    sums = primitives.channel_sum(_into_channels(x, in_dims[0], info.batch_size), backend)
    return _from_batch(sums, info.batch_size), 0


@_rule
def activation_backward(info, in_dims, dy, saved, activation, backend):
    count = info.batch_size
    dy, saved = _into_batch(dy, in_dims[0], count), _into_batch(saved, in_dims[1], count)
    return _from_batch(primitives.activation_backward(dy, saved, activation, backend), count), 0


@_rule
def max_pool2d_forward(info, in_dims, x, *window):
    y, offsets = primitives.max_pool2d_forward(_into_batch(x, in_dims[0], info.batch_size), *window)
    return (_from_batch(y, info.batch_size), _from_batch(offsets, info.batch_size)), (0, 0)


@_rule
def max_pool2d_backward(info, in_dims, dy, offsets, input_size, *window):
    count = info.batch_size
    dy, offsets = _into_batch(dy, in_dims[0], count), _into_batch(offsets, in_dims[1], count)
    size = [count * input_size[0], *input_size[1:]]
    return _from_batch(primitives.max_pool2d_backward(dy, offsets, size, *window), count), 0


@_rule
def max_pool2d_gather(info, in_dims, x, offsets, *window):
    count = info.batch_size
    x, offsets = _into_batch(x, in_dims[0], count), _into_batch(offsets, in_dims[1], count)
    return _from_batch(primitives.max_pool2d_gather(x, offsets, *window), count), 0


@_rule
def max_pool2d_indices(info, in_dims, offsets, input_size, *window):
    count = info.batch_size
    size = [count * input_size[0], *input_size[1:]]
    return _from_batch(primitives.max_pool2d_indices(_into_batch(offsets, in_dims[0], count), size, *window), count), 0


@_rule
def max_unpool2d_forward(info, in_dims, x, indices, output_size, backend):
    count = info.batch_size
    x, indices = _into_batch(x, in_dims[0], count), _into_batch(indices, in_dims[1], count)
    return _from_batch(primitives.max_unpool2d_forward(x, indices, output_size, backend), count), 0


@_rule
def max_unpool2d_add(info, in_dims, x, indices, output_size, backend):
    count = info.batch_size
    x, indices = _into_batch(x, in_dims[0], count), _into_batch(indices, in_dims[1], count)
    return _from_batch(primitives.max_unpool2d_add(x, indices, output_size, backend), count), 0


@_rule
def max_unpool2d_gather(info, in_dims, y, indices, backend):
    count = info.batch_size
    y, indices = _into_batch(y, in_dims[0], count), _into_batch(indices, in_dims[1], count)
    return _from_batch(primitives.max_unpool2d_gather(y, indices, backend), count), 0
