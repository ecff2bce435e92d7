"""What a call of a primitive is: checks that depend on the tensors themselves, the key of its plan, its problem.

These functions are the kernels of the torch.library ops of the same names. They run on every call, so they do little: the
problem is made, and its sizes are checked, only where no plan is kept under the key.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fastconv.dispatch import (
    allow_tf32,
    make_activation_backward_problem,
    make_channel_sum_problem,
    make_conv_global_max_problem,
    make_conv_max_pool_problem,
    make_conv_problem,
    make_pool_problem,
    make_unpool_problem,
    run,
    surroundings,
    target_of,
)
from fastconv.problem import Operand, Problem
from fastconv.shapes import offsets_dtype


def _check_alike(op: str, first: Tensor, *others: Tensor | None) -> None:
    for tensor in others:
        if tensor is not None and (tensor.dtype != first.dtype or tensor.device != first.device):
            raise RuntimeError(
                f"fastconv::{op}: tensors of {first.dtype} on {first.device} and of {tensor.dtype} on {tensor.device}, but all "
                "must be of one type and on one device"
            )


def _check_bias(op: str, bias: Tensor | None, channels: int) -> None:
    if bias is not None and bias.shape != (channels,):
        raise RuntimeError(f"fastconv::{op}: bias has the sizes {list(bias.shape)}, but must have [{channels}]")


def _check_offsets(op: str, offsets: Tensor, kernel, like: Tensor | None = None) -> None:
    if offsets.dtype != offsets_dtype(kernel):
        raise RuntimeError(
            f"fastconv::{op}: offsets are {offsets.dtype}, but must be {offsets_dtype(kernel)} for kernel {tuple(kernel)}"
        )
    if like is not None and offsets.device != like.device:
        raise RuntimeError(f"fastconv::{op}: offsets are on {offsets.device}, but must be on {like.device}")


def _check_indices(op: str, indices: Tensor, like: Tensor, height: int, width: int) -> None:
    """Their type and place, and on a CPU their values. On a GPU a kernel that meets a wrong value ends as an assertion does."""
    if indices.dtype != torch.int64:
        raise RuntimeError(f"fastconv::{op}: indices are {indices.dtype}, but must be torch.int64")
    if indices.device != like.device:
        raise RuntimeError(f"fastconv::{op}: indices are on {indices.device}, but must be on {like.device}")
    if indices.device.type == "cpu" and indices.numel():
        low, high = (int(bound) for bound in torch.aminmax(indices))
        if low < 0 or high >= height * width:
            raise RuntimeError(
                f"fastconv::{op}: Found an invalid max index: {low if low < 0 else high} (output volumes are of size "
                f"{height}x{width}); indices must be between 0 and {height * width - 1}"
            )


def _convolution(stride, padding, dilation, groups, padding_mode, padding_value) -> dict[str, Any]:
    """The geometry of a convolution by name, of values that a key can hold."""
    return {
        "stride": tuple(stride),
        "padding": tuple(padding),
        "dilation": tuple(dilation),
        "groups": groups,
        "padding_mode": padding_mode,
        "padding_value": math.nan if padding_value != padding_value else padding_value,  # one object, found again
    }


def _window(kernel, stride, padding, dilation, ceil_mode) -> dict[str, Any]:
    """The geometry of a pool by name, of values that a key can hold."""
    return {
        "kernel": tuple(kernel),
        "stride": tuple(stride),
        "padding": tuple(padding),
        "dilation": tuple(dilation),
        "ceil_mode": ceil_mode,
    }


def conv2d_fprop(
    x, w, bias, residual, stride, padding, dilation, groups, padding_mode, padding_value, activation, backend
) -> Tensor:
    _check_alike("conv2d_fprop", x, w, bias, residual)
    _check_bias("conv2d_fprop", bias, w.shape[0])
    geometry = _convolution(stride, padding, dilation, groups, padding_mode, padding_value)
    tf32 = allow_tf32(x.device.type, x.dtype)
    key = (
        "fprop", x.shape, x.stride(), w.shape, w.stride(), x.dtype, bias is None,
        None if residual is None else (residual.shape, residual.stride()), *geometry.values(),
        activation, backend, tf32, surroundings(x.device, backend),
    )  # fmt: skip

    def make() -> Problem:
        return make_conv_problem(
            "fprop",
            x.dtype,
            target_of(x.device, backend),
            x=Operand.of(x),
            w=Operand.of(w),
            has_bias=bias is not None,
            residual=None if residual is None else Operand.of(residual),
            activation=activation,
            allow_tf32=tf32,
            deterministic=torch.are_deterministic_algorithms_enabled(),
            **geometry,
        )

    return run(key, make, backend, (x, w, bias, residual))


def conv2d_dgrad(
    dy, w, bias, input_size, stride, padding, dilation, groups, padding_mode, padding_value, activation, backend
) -> Tensor:
    _check_alike("conv2d_dgrad", dy, w, bias)
    _check_bias("conv2d_dgrad", bias, input_size[1])
    geometry = _convolution(stride, padding, dilation, groups, padding_mode, padding_value)
    tf32 = allow_tf32(dy.device.type, dy.dtype)
    key = (
        "dgrad", dy.shape, dy.stride(), w.shape, w.stride(), dy.dtype, bias is None, tuple(input_size),
        *geometry.values(),
        activation, backend, tf32, surroundings(dy.device, backend),
    )  # fmt: skip

    def make() -> Problem:
        return make_conv_problem(
            "dgrad",
            dy.dtype,
            target_of(dy.device, backend),
            x=input_size,
            w=Operand.of(w),
            y=Operand.of(dy),
            has_bias=bias is not None,
            activation=activation,
            allow_tf32=tf32,
            deterministic=torch.are_deterministic_algorithms_enabled(),
            **geometry,
        )

    return run(key, make, backend, (dy, w, bias))


def conv2d_wgrad(
    dy, x, weight_size, stride, padding, dilation, groups, padding_mode, padding_value, bias_gradient, backend
) -> tuple[Tensor, Tensor]:
    _check_alike("conv2d_wgrad", dy, x)
    geometry = _convolution(stride, padding, dilation, groups, padding_mode, padding_value)
    tf32 = allow_tf32(dy.device.type, dy.dtype)
    key = (
        "wgrad", dy.shape, dy.stride(), x.shape, x.stride(), dy.dtype, bias_gradient, tuple(weight_size),
        *geometry.values(),
        backend, tf32, surroundings(dy.device, backend),
    )  # fmt: skip

    def make() -> Problem:
        return make_conv_problem(
            "wgrad",
            dy.dtype,
            target_of(dy.device, backend),
            x=Operand.of(x),
            w=weight_size,
            y=Operand.of(dy),
            has_bias=bias_gradient,
            allow_tf32=tf32,
            deterministic=torch.are_deterministic_algorithms_enabled(),
            **geometry,
        )

    return run(key, make, backend, (dy, x))


def _fused(op: str, make, x, w, bias, convolution, window, activation, backend) -> tuple[Tensor, Tensor]:
    """A convolution and the pool over its output; `convolution` and `window` are numbers by name."""
    _check_alike(op, x, w, bias)
    _check_bias(op, bias, w.shape[0])
    tf32 = allow_tf32(x.device.type, x.dtype)
    geometry = convolution | window
    key = (
        op, x.shape, x.stride(), w.shape, w.stride(), x.dtype, bias is None,
        *geometry.values(),
        activation, backend, tf32, surroundings(x.device, backend),
    )  # fmt: skip

    def make_this() -> Problem:
        return make(
            x.dtype,
            target_of(x.device, backend),
            x=Operand.of(x),
            w=Operand.of(w),
            has_bias=bias is not None,
            activation=activation,
            allow_tf32=tf32,
            deterministic=torch.are_deterministic_algorithms_enabled(),
            **geometry,
        )

    return run(key, make_this, backend, (x, w, bias))


def conv2d_max_pool2d(
    x, w, bias, stride, padding, dilation, groups, padding_mode, padding_value, activation,
    pool_kernel, pool_stride, pool_padding, backend,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    convolution = _convolution(stride, padding, dilation, groups, padding_mode, padding_value)
    window = {"pool_kernel": tuple(pool_kernel), "pool_stride": tuple(pool_stride), "pool_padding": tuple(pool_padding)}
    return _fused("conv2d_max_pool2d", make_conv_max_pool_problem, x, w, bias, convolution, window, activation, backend)


def conv2d_global_max(
    x, w, bias, stride, padding, dilation, groups, padding_mode, padding_value, activation, backend
) -> tuple[Tensor, Tensor]:
    convolution = _convolution(stride, padding, dilation, groups, padding_mode, padding_value)
    return _fused("conv2d_global_max", make_conv_global_max_problem, x, w, bias, convolution, {}, activation, backend)


def channel_sum(x, backend) -> Tensor:
    key = ("channel_sum", x.shape, x.stride(), x.dtype, backend, surroundings(x.device, backend))
    return run(
        key, lambda: make_channel_sum_problem(x.dtype, target_of(x.device, backend), Operand.of(x)), backend, (x,)
    )


def activation_backward(dy, saved, activation, backend) -> Tensor:
    _check_alike("activation_backward", dy, saved)
    key = (
        "activation_backward", dy.shape, dy.stride(), saved.shape, saved.stride(), dy.dtype, activation, backend,
        surroundings(dy.device, backend),
    )  # fmt: skip

    def make() -> Problem:
        return make_activation_backward_problem(
            dy.dtype, target_of(dy.device, backend), Operand.of(dy), Operand.of(saved), activation
        )

    return run(key, make, backend, (dy, saved))


def max_pool2d_forward(x, kernel, stride, padding, dilation, ceil_mode, backend) -> tuple[Tensor, Tensor]:
    window = _window(kernel, stride, padding, dilation, ceil_mode)
    key = (
        "pool_forward", x.shape, x.stride(), x.dtype,
        *window.values(), backend, surroundings(x.device, backend),
    )  # fmt: skip

    def make() -> Problem:
        return make_pool_problem(
            "forward",
            x.dtype,
            target_of(x.device, backend),
            x=Operand.of(x),
            **window,
        )

    return run(key, make, backend, (x,))


def max_pool2d_backward(dy, offsets, input_size, kernel, stride, padding, dilation, ceil_mode, backend) -> Tensor:
    _check_offsets("max_pool2d_backward", offsets, kernel, dy)
    window = _window(kernel, stride, padding, dilation, ceil_mode)
    key = (
        "pool_backward", dy.shape, dy.stride(), dy.dtype, offsets.shape, offsets.stride(), tuple(input_size),
        *window.values(), backend, surroundings(dy.device, backend),
    )  # fmt: skip

    def make() -> Problem:
        return make_pool_problem(
            "backward",
            dy.dtype,
            target_of(dy.device, backend),
            x=input_size,
            y=Operand.of(dy),
            offsets=Operand.of(offsets),
            **window,
        )

    return run(key, make, backend, (dy, offsets))


def max_pool2d_gather(x, offsets, kernel, stride, padding, dilation, ceil_mode, backend) -> Tensor:
    _check_offsets("max_pool2d_gather", offsets, kernel, x)
    window = _window(kernel, stride, padding, dilation, ceil_mode)
    key = (
        "pool_gather", x.shape, x.stride(), x.dtype, offsets.shape, offsets.stride(),
        *window.values(), backend, surroundings(x.device, backend),
    )  # fmt: skip

    def make() -> Problem:
        return make_pool_problem(
            "gather",
            x.dtype,
            target_of(x.device, backend),
            x=Operand.of(x),
            offsets=Operand.of(offsets),
            **window,
        )

    return run(key, make, backend, (x, offsets))


def max_pool2d_indices(offsets, input_size, kernel, stride, padding, dilation, ceil_mode, backend) -> Tensor:
    _check_offsets("max_pool2d_indices", offsets, kernel)
    window = _window(kernel, stride, padding, dilation, ceil_mode)
    key = (
        "pool_indices", offsets.shape, offsets.stride(), tuple(input_size),
        *window.values(), backend,
        surroundings(offsets.device, backend),
    )  # fmt: skip

    def make() -> Problem:
        return make_pool_problem(
            "indices",
            torch.float32,  # x itself is not touched
            target_of(offsets.device, backend),
            x=input_size,
            offsets=Operand.of(offsets),
            **window,
        )

    return run(key, make, backend, (offsets,))


def _unpool(unpool_pass, x, indices, output_size, backend) -> Tensor:
    op = f"max_unpool2d_{unpool_pass}"
    if len(output_size) != 2 or x.dim() != 4:
        raise RuntimeError(
            f"fastconv::{op}: x has {x.dim()} dimensions and output_size is {tuple(output_size)}, but there must be 4 and "
            "(H, W)"
        )
    _check_indices(op, indices, x, *output_size)
    key = (
        unpool_pass, x.shape, x.stride(), x.dtype, indices.shape, indices.stride(), tuple(output_size), backend,
        surroundings(x.device, backend),
    )  # fmt: skip

    def make() -> Problem:
        return make_unpool_problem(
            unpool_pass,
            x.dtype,
            target_of(x.device, backend),
            x=Operand.of(x),
            indices=Operand.of(indices),
            y=(*x.shape[:2], *output_size),
        )

    return run(("unpool", *key), make, backend, (x, indices))


def max_unpool2d_forward(x, indices, output_size, backend) -> Tensor:
    return _unpool("forward", x, indices, output_size, backend)


def max_unpool2d_add(x, indices, output_size, backend) -> Tensor:
    return _unpool("add", x, indices, output_size, backend)


def max_unpool2d_gather(y, indices, backend) -> Tensor:
    if y.dim() != 4:
        raise RuntimeError(f"fastconv::max_unpool2d_gather: y has {y.dim()} dimensions, but must have 4")
    _check_indices("max_unpool2d_gather", indices, y, *y.shape[2:])
    key = (
        "unpool_gather", y.shape, y.stride(), y.dtype, indices.shape, indices.stride(), backend,
        surroundings(y.device, backend),
    )  # fmt: skip

    def make() -> Problem:
        target = target_of(y.device, backend)
        return make_unpool_problem("gather", y.dtype, target, indices=Operand.of(indices), y=Operand.of(y))

    return run(key, make, backend, (y, indices))
