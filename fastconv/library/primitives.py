"""The primitives: torch.library ops in the namespace `fastconv`. Schema, kernel and fake implementation of each.

The kernel of an op is the function of the same name in fastconv.calls. Derivatives are added by fastconv.autograd, batching
rules by fastconv.library.batching. The words are those of fastconv.problem; docs/architecture.md lists what each op means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastconv import calls
from fastconv.shapes import (
    conv_output_sizes,
    dense_strides,
    offsets_dtype,
    pool_output_sizes,
    suggests_channels_last,
)

_CONVOLUTION = (
    "SymInt[] stride, SymInt[] padding, SymInt[] dilation, SymInt groups, str padding_mode, float padding_value"
)
_WINDOW = "SymInt[] kernel, SymInt[] stride, SymInt[] padding, SymInt[] dilation, bool ceil_mode, str backend"

SCHEMAS = {
    "conv2d_fprop": f"(Tensor x, Tensor w, Tensor? bias, Tensor? residual, {_CONVOLUTION}, str activation, str backend)"
    " -> Tensor",
    "conv2d_dgrad": f"(Tensor dy, Tensor w, Tensor? bias, SymInt[] input_size, {_CONVOLUTION}, str activation,"
    " str backend) -> Tensor",
    "conv2d_wgrad": f"(Tensor dy, Tensor x, SymInt[] weight_size, {_CONVOLUTION}, bool bias_gradient, str backend)"
    " -> (Tensor, Tensor)",
    "conv2d_max_pool2d": f"(Tensor x, Tensor w, Tensor? bias, {_CONVOLUTION}, str activation, SymInt[] pool_kernel,"
    " SymInt[] pool_stride, SymInt[] pool_padding, str backend) -> (Tensor, Tensor)",
    "conv2d_global_max": f"(Tensor x, Tensor w, Tensor? bias, {_CONVOLUTION}, str activation, str backend)"
    " -> (Tensor, Tensor)",
    "channel_sum": "(Tensor x, str backend) -> Tensor",
    "activation_backward": "(Tensor dy, Tensor saved, str activation, str backend) -> Tensor",
    "max_pool2d_forward": f"(Tensor x, {_WINDOW}) -> (Tensor, Tensor)",
    "max_pool2d_backward": f"(Tensor dy, Tensor offsets, SymInt[] input_size, {_WINDOW}) -> Tensor",
    "max_pool2d_gather": f"(Tensor x, Tensor offsets, {_WINDOW}) -> Tensor",
    "max_pool2d_indices": f"(Tensor offsets, SymInt[] input_size, {_WINDOW}) -> Tensor",
    "max_unpool2d_forward": "(Tensor x, Tensor indices, SymInt[] output_size, str backend) -> Tensor",
    "max_unpool2d_add": "(Tensor x, Tensor indices, SymInt[] output_size, str backend) -> Tensor",
    "max_unpool2d_gather": "(Tensor y, Tensor indices, str backend) -> Tensor",
}

#: Holds the registrations for as long as the process lives.
LIBRARY = torch.library.Library("fastconv", "DEF")

for _name, _schema in SCHEMAS.items():
    # Results depend on the strides of the arguments, so a compiler must not hand over others than it traced with.
    LIBRARY.define(_name + _schema, tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides))
    LIBRARY.impl(_name, getattr(calls, _name), "CompositeExplicitAutograd")

conv2d_fprop = torch.ops.fastconv.conv2d_fprop.default
conv2d_dgrad = torch.ops.fastconv.conv2d_dgrad.default
conv2d_wgrad = torch.ops.fastconv.conv2d_wgrad.default
conv2d_max_pool2d = torch.ops.fastconv.conv2d_max_pool2d.default
conv2d_global_max = torch.ops.fastconv.conv2d_global_max.default
channel_sum = torch.ops.fastconv.channel_sum.default
activation_backward = torch.ops.fastconv.activation_backward.default
max_pool2d_forward = torch.ops.fastconv.max_pool2d_forward.default
max_pool2d_backward = torch.ops.fastconv.max_pool2d_backward.default
max_pool2d_gather = torch.ops.fastconv.max_pool2d_gather.default
max_pool2d_indices = torch.ops.fastconv.max_pool2d_indices.default
max_unpool2d_forward = torch.ops.fastconv.max_unpool2d_forward.default
max_unpool2d_add = torch.ops.fastconv.max_unpool2d_add.default
max_unpool2d_gather = torch.ops.fastconv.max_unpool2d_gather.default

# --- fake implementations: what comes out, without computing it --------------------------------------------------------


def _fake(function: Callable) -> Callable:
    torch.library.register_fake(f"fastconv::{function.__name__.lstrip('_')}", function, lib=LIBRARY)
    return function


def _empty_like(sizes: Sequence[int], *inputs: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A fresh tensor of these sizes in the memory format that dispatch would give it."""
    channels_last = any(suggests_channels_last(tensor.shape, tensor.stride()) for tensor in inputs)
    channels_last = channels_last and not any(size == 0 for size in sizes)
    return inputs[0].new_empty_strided(sizes, dense_strides(sizes, channels_last), dtype=dtype)


@_fake
def _conv2d_fprop(
    x, w, bias, residual, stride, padding, dilation, groups, padding_mode, padding_value, activation, backend
):
    return _empty_like(conv_output_sizes(x.shape, w.shape, stride, padding, dilation), x, w)


@_fake
def _conv2d_dgrad(
    dy, w, bias, input_size, stride, padding, dilation, groups, padding_mode, padding_value, activation, backend
):
    return _empty_like(input_size, dy, w)


@_fake
def _conv2d_wgrad(
    dy, x, weight_size, stride, padding, dilation, groups, padding_mode, padding_value, bias_gradient, backend
):
    return _empty_like(weight_size, dy, x), dy.new_empty(weight_size[0] if bias_gradient else 0)


@_fake
def _conv2d_max_pool2d(
    x, w, bias, stride, padding, dilation, groups, padding_mode, padding_value, activation,
    pool_kernel, pool_stride, pool_padding, backend,
):  # fmt: skip
    sizes = conv_output_sizes(x.shape, w.shape, stride, padding, dilation)
    sizes = pool_output_sizes(sizes, pool_kernel, pool_stride, pool_padding, (1, 1), False)
    return _empty_like(sizes, x, w), _empty_like(sizes, x, w, dtype=offsets_dtype(pool_kernel))


@_fake
def _conv2d_global_max(x, w, bias, stride, padding, dilation, groups, padding_mode, padding_value, activation, backend):
    sizes = (x.shape[0], w.shape[0])
    return x.new_empty(sizes), x.new_empty(sizes, dtype=torch.int64)


@_fake
def _channel_sum(x, backend):
    return x.new_empty(x.shape[1])


@_fake
def _activation_backward(dy, saved, activation, backend):
    return _empty_like(saved.shape, saved)


@_fake
def _max_pool2d_forward(x, kernel, stride, padding, dilation, ceil_mode, backend):
    sizes = pool_output_sizes(x.shape, kernel, stride, padding, dilation, ceil_mode)
    return _empty_like(sizes, x), _empty_like(sizes, x, dtype=offsets_dtype(kernel))


@_fake
def _max_pool2d_backward(dy, offsets, input_size, kernel, stride, padding, dilation, ceil_mode, backend):
    return _empty_like(input_size, offsets, dtype=dy.dtype)


@_fake
def _max_pool2d_gather(x, offsets, kernel, stride, padding, dilation, ceil_mode, backend):
    return _empty_like(offsets.shape, offsets, dtype=x.dtype)


@_fake
def _max_pool2d_indices(offsets, input_size, kernel, stride, padding, dilation, ceil_mode, backend):
    return _empty_like(offsets.shape, offsets, dtype=torch.int64)


@_fake
def _max_unpool2d_forward(x, indices, output_size, backend):
    return _empty_like((*x.shape[:2], *output_size), x)


@_fake
def _max_unpool2d_add(x, indices, output_size, backend):
    return _empty_like((*x.shape[:2], *output_size), x)


@_fake
def _max_unpool2d_gather(y, indices, backend):
    return _empty_like(indices.shape, indices, dtype=y.dtype)
