"""conv2d, conv_transpose2d and max_pool2d as torch.nn.functional has them, with fused epilogues and a choice of backend;
and a convolution with a pool over it as one op.

Arguments, shapes, memory formats and errors are PyTorch's. Under autocast the convolutions cast their inputs as PyTorch's do.
Every function is differentiable any number of times, in reverse and forward mode, and works with torch.func and torch.compile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fastconv import arguments, library
from fastconv.activation import APPLY, FROM_INPUT
from fastconv.arguments import IntOrPair
from fastconv.pooling import adaptive_max_pool2d, max_pool2d, max_unpool2d
from fastconv.shapes import conv_output_sizes

__all__ = [
    "adaptive_max_pool2d",
    "conv2d",
    "conv2d_global_max",
    "conv2d_max_pool2d",
    "conv_transpose2d",
    "max_pool2d",
    "max_unpool2d",
]


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: str | IntOrPair = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0.0,
    activation: str | None = None,
    residual: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """``activation(conv2d(input, weight) + bias + residual)`` in one kernel where the backend can.

    Arguments as :func:`torch.nn.functional.conv2d`, and:

    Args:
        input: [N, C, H, W] or [C, H, W]; float32, bfloat16, float16 or float64, NCHW or channels_last or any other strides.
        weight: [K, C / groups, R, S].
        bias: [K] or None.
        padding: rows and columns of padding on both sides, or (top, bottom, left, right), or "valid" (none), or "same" (output
            as large as the input; an even kernel's odd row and column go to the bottom and right).
        padding_mode: "zeros", "reflect" (by less than the input's size), "replicate", "circular" (by at most the input's size)
            or "constant". No padded copy of the input is made by the kernels in "cuda".
        padding_value: what "constant" pads with; 0 in every other mode.
        activation: None, "identity", "relu", "leaky_relu" (slope 0.01), "silu", "gelu" (exact), "sigmoid", "hardswish" or
            "tanh".
        residual: a tensor of the output's sizes, added before the activation.
        backend: None or "auto" chooses; "cuda", "triton", "aten" and "registered" insist.

    Returns:
        [N, K, P, Q], or [K, P, Q] of an unbatched input. It is channels_last where input or weight is.

    Raises:
        RuntimeError: sizes, types or devices that do not fit together; stride, dilation or groups below 1; a kernel larger than
            the padded input; a backend that cannot run the problem.
        TypeError, ValueError: an argument of a wrong kind, an unknown word.
        NotImplementedError: (a RuntimeError) integer or complex tensors.

    >>> import torch, fastconv
    >>> x, w = torch.ones(1, 2, 4, 4), torch.ones(3, 2, 3, 3)
    >>> fastconv.conv2d(x, w, torch.full((3,), -13.0), padding=1, activation="relu")[0, 0].tolist()
    [[0.0, 0.0, 0.0, 0.0], [0.0, 5.0, 5.0, 0.0], [0.0, 5.0, 5.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    """
    name = "conv2d"
    chosen_activation, chosen_backend = arguments.activation(name, activation), arguments.backend(name, backend)
    call = _read(name, input, weight, bias, stride, padding, dilation, groups, padding_mode, padding_value, residual)
    x, weight, bias, residual = call.x, call.weight, call.bias, call.residual
    if residual is not None:
        arguments.check_residual(name, residual, call.output_size if input.dim() == 4 else call.output_size[1:])
    if x.shape[1] == 0:
        # PyTorch's answer to an input without channels is an output without channels.
        y = _of_nothing(call.output_size, x, weight, bias)
        y = y if input.dim() == 4 else y.squeeze(0)
        return y if residual is None else y + residual
    if residual is not None and input.dim() == 3:
        residual = residual.unsqueeze(0)
    fused, after = _split_activation(chosen_activation, x, weight, bias, residual)
    y = library.conv2d_fprop(x, weight, bias, residual, *call.geometry, fused, chosen_backend)
    y = APPLY[after](y)
    return y if input.dim() == 4 else y.squeeze(0)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: IntOrPair = 0,
    output_padding: IntOrPair = 0,
    groups: int = 1,
    dilation: IntOrPair = 1,
    *,
    activation: str | None = None,
    backend: str | None = None,
) -> Tensor:
    """``activation(conv_transpose2d(input, weight) + bias)`` in one kernel where the backend can.

    Arguments as :func:`torch.nn.functional.conv_transpose2d`; activation, backend and errors as for :func:`conv2d`.
    It is the gradient of a convolution by its input, and computed by the same kernels.

    Args:
        input: [N, C, H, W] or [C, H, W].
        weight: [C, K / groups, R, S].
        bias: [K] or None.
        output_padding: rows and columns added at the bottom and right of the output; less than stride or less than dilation.

    Returns:
        [N, K, P, Q] with ``P = (H - 1) * stride - 2 * padding + dilation * (R - 1) + output_padding + 1``, or [K, P, Q].

    Raises:
        RuntimeError: as for conv2d; output_padding too large; an output without elements.

    >>> import torch, fastconv
    >>> x, w = torch.tensor([[[[1., 2.]]]]), torch.ones(1, 1, 2, 2)
    >>> fastconv.conv_transpose2d(x, w, stride=2)[0, 0].tolist()
    [[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]]
    """
    name = "conv_transpose2d"
    input, weight, bias = arguments.autocast(input, weight, bias)
    arguments.tensors(name, input=input, weight=weight, bias=bias)
    chosen_activation = arguments.activation(name, activation)
    chosen_backend = arguments.backend(name, backend)
    groups = arguments.group_count(name, groups)
    stride = arguments.positive_pair(name, "stride", stride)
    dilation = arguments.positive_pair(name, "dilation", dilation, "dilation should be greater than zero")
    if isinstance(padding, str):
        raise TypeError(f"{name}(): padding is {padding!r}, but must be an int or a tuple of two ints, not str")
    padding = arguments.not_negative_pair(name, "padding", padding)
    x = arguments.with_batch(name, "input", input)
    arguments.check_weight(name, x, weight, groups, transposed=True)
    channels = weight.shape[1] * groups
    arguments.check_bias(name, bias, channels, weight)
    height, width = arguments.transposed_output_size(name, x, weight, stride, padding, output_padding, dilation)
    size = (x.shape[0], channels, height, width)
    if x.shape[2] == 0 or x.shape[3] == 0:
        return _of_nothing(size, x, weight, bias)  # an empty batch of images without pixels
    pads = (padding[0], padding[0], padding[1], padding[1])
    fused, after = _split_activation(chosen_activation, x, weight, bias)
    y = library.conv2d_dgrad(x, weight, bias, size, stride, pads, dilation, groups, "zeros", 0.0, fused, chosen_backend)
    y = APPLY[after](y)
    return y if input.dim() == 4 else y.squeeze(0)


def conv2d_max_pool2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: str | IntOrPair = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0.0,
    activation: str | None = "relu",
    pool_kernel_size: IntOrPair = 2,
    pool_stride: IntOrPair | None = None,
    pool_padding: IntOrPair = 0,
    backend: str | None = None,
) -> Tensor:
    """``max_pool2d(activation(conv2d(input, weight) + bias))`` that keeps the convolution's output out of memory.

    Where a fused kernel fits (:func:`fastconv.explain` says which, and why not), the convolution's output is never written.
    For backward only input, weight, the pooled output and the winners' offsets, a byte each, are kept, whatever runs it. With
    "silu", "gelu" and "hardswish" backward computes the convolution once more.

    Args:
        input, weight, bias, stride, padding, dilation, groups, padding_mode, padding_value, backend: as for :func:`conv2d`.
        activation: applied before the pool; None or one that :func:`conv2d` knows.
        pool_kernel_size, pool_stride, pool_padding: the window, as :func:`max_pool2d` takes it.

    Returns:
        [N, K, P', Q'], or [K, P', Q'] of an unbatched input. It is channels_last where input or weight is.

    Raises:
        What :func:`conv2d` and :func:`max_pool2d` raise.

    >>> import torch, fastconv
    >>> x, w = torch.arange(16.0).reshape(1, 1, 4, 4), torch.ones(1, 1, 1, 1)
    >>> fastconv.conv2d_max_pool2d(x, w, torch.tensor([-6.0]))[0, 0].tolist()
    [[0.0, 1.0], [7.0, 9.0]]
    """
    name = "conv2d_max_pool2d"
    kernel = arguments.positive_pair(
        name, "pool_kernel_size", pool_kernel_size, "kernel size should be greater than zero"
    )
    if pool_stride is None or (isinstance(pool_stride, (tuple, list)) and not pool_stride):
        pool_stride = kernel
    pool_stride = arguments.positive_pair(name, "pool_stride", pool_stride, "stride should be greater than zero")
    pool_padding = arguments.pair(name, "pool_padding", pool_padding)
    chosen_activation, chosen_backend = arguments.activation(name, activation), arguments.backend(name, backend)
    call = _read(name, input, weight, bias, stride, padding, dilation, groups, padding_mode, padding_value)
    arguments.check_has_channels(name, call.x)
    arguments.check_pool(name, call.output_size, kernel, pool_stride, pool_padding, (1, 1), False, prefix="pool_")
    window = kernel, pool_stride, pool_padding
    y, _ = library.conv2d_max_pool2d(
        call.x, call.weight, call.bias, *call.geometry, chosen_activation, *window, chosen_backend
    )
    return y if input.dim() == 4 else y.squeeze(0)


def conv2d_global_max(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: str | IntOrPair = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0.0,
    activation: str | None = None,
    return_indices: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """The largest element of each map of ``activation(conv2d(input, weight) + bias)``: the best score of each filter.

    That is a matched filter: scan the input with a bank of filters, keep how well each fits and where it fits best. As in
    :func:`max_pool2d` the first of equal maxima wins and NaN wins over all.

    Args:
        input, weight, bias, stride, padding, dilation, groups, padding_mode, padding_value, activation, backend: as for
            :func:`conv2d`.
        return_indices: whether to return the places too: p * Q + q, int64 and without a gradient.

    Returns:
        [N, K], or [K] of an unbatched input; with return_indices a pair of such.

    Raises:
        What :func:`conv2d` raises; RuntimeError where the input has no channels.

    >>> import torch, fastconv
    >>> x, w = torch.arange(1.0, 17.0).reshape(1, 1, 4, 4), torch.tensor([[[[1.0]]], [[[-1.0]]]])
    >>> scores, places = fastconv.conv2d_global_max(x, w, return_indices=True)
    >>> scores.tolist(), places.tolist()
    ([[16.0, -1.0]], [[15, 0]])
    """
    name = "conv2d_global_max"
    chosen_activation, chosen_backend = arguments.activation(name, activation), arguments.backend(name, backend)
    call = _read(name, input, weight, bias, stride, padding, dilation, groups, padding_mode, padding_value)
    arguments.check_has_channels(name, call.x)
    y, indices = library.conv2d_global_max(
        call.x, call.weight, call.bias, *call.geometry, chosen_activation, chosen_backend
    )
    if input.dim() == 3:
        y, indices = y.squeeze(0), indices.squeeze(0)
    return (y, indices) if return_indices else y


class _Convolution(NamedTuple):
    """What a convolution is called with, read and checked."""

    x: Tensor  # [N, C, H, W]
    weight: Tensor
    bias: Tensor | None
    residual: Tensor | None
    geometry: tuple  # stride, padding, dilation, groups, padding_mode, padding_value, as the primitives take them

    @property
    def output_size(self) -> tuple[int, int, int, int]:
        """[N, K, P, Q]; K is 0 where x has no channels."""
        batch, filters, height, width = conv_output_sizes(self.x.shape, self.weight.shape, *self.geometry[:3])
        return batch, filters if self.x.shape[1] else 0, height, width


def _read(
    name, input, weight, bias, stride, padding, dilation, groups, padding_mode, padding_value, residual=None
) -> _Convolution:
    """The arguments that conv2d shares with the ops that reduce its output, in the order of its signature."""
    input, weight, bias, residual = arguments.autocast(input, weight, bias, residual)
    arguments.tensors(name, input=input, weight=weight, bias=bias, residual=residual)
    arguments.padding_mode(name, padding_mode)
    padding_value = arguments.padding_value(name, padding_mode, padding_value, input.dtype)
    groups = arguments.group_count(name, groups)
    stride = arguments.positive_pair(name, "stride", stride)
    dilation = arguments.positive_pair(name, "dilation", dilation, "dilation should be greater than zero")
    x = arguments.with_batch(name, "input", input)
    if not (x.shape[1] == 0 and weight.dim() == 4 and weight.shape[1] == 0):  # both without channels is none's mistake
        arguments.check_weight(name, x, weight, groups, transposed=False)
    pads = arguments.conv_padding(name, padding, weight, stride, dilation)
    arguments.check_bias(name, bias, weight.shape[0], weight)
    arguments.check_padding_mode(name, x, pads, padding_mode)
    arguments.check_kernel_fits(name, x, weight, pads, dilation)
    geometry = stride, pads, dilation, groups, padding_mode, padding_value
    return _Convolution(x, weight, bias, residual, geometry)


def _split_activation(activation: str, *tensors: Tensor | None) -> tuple[str, str]:
    """(what the kernel applies, what is applied to its output).

    Backward of silu, gelu and hardswish needs what went into them. Where a gradient will be wanted they are not fused, because
    keeping the kernel's output is cheaper than computing it again.
    """
    if (
        activation in FROM_INPUT
        and torch.is_grad_enabled()
        and any(tensor is not None and tensor.requires_grad for tensor in tensors)
    ):
        return "identity", activation
    return activation, "identity"


def _of_nothing(sizes: Sequence[int], x: Tensor, *others: Tensor | None) -> Tensor:
    """An output without elements, of an input without elements, connected to the graph of everything it was called with."""
    return x.new_zeros(sizes) + sum(tensor.sum() for tensor in (x, *others) if tensor is not None)
