"""The pooling functions of fastconv.functional: max_pool2d, adaptive_max_pool2d and max_unpool2d."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from fastconv import arguments, dispatch, library
from fastconv.arguments import IntOrPair, Pair
from fastconv.problem import Operand


def max_pool2d(
    input: Tensor,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """The largest element of each window, as :func:`torch.nn.functional.max_pool2d`; backend as for :func:`conv2d`.

    The first of equal maxima wins, NaN wins over all. For backward only the winner's place inside its window is kept, one byte
    where the window has at most 256 elements.

    Args:
        input: [N, C, H, W] or [C, H, W]; float32, bfloat16, float16 or float64.
        stride: None means kernel_size.
        padding: at most half of kernel_size; what is added never wins.
        ceil_mode: whether a last window may hang over the end.
        return_indices: whether to return the winners' flat positions in H * W too, int64 and without a gradient.

    Returns:
        [N, C, P, Q] or [C, P, Q], channels_last where the input is; with return_indices a pair of such.

    Raises:
        RuntimeError: padding over half of the kernel; kernel_size, stride or dilation below 1; an output without elements; a
            window without elements, whose taps are in the padding alone.

    >>> import torch, fastconv
    >>> x = torch.arange(16.0).reshape(1, 1, 4, 4)
    >>> y, indices = fastconv.max_pool2d(x, 2, return_indices=True)
    >>> y[0, 0].tolist(), indices[0, 0].tolist()
    ([[5.0, 7.0], [13.0, 15.0]], [[5, 7], [13, 15]])
    """
    name = "max_pool2d"
    arguments.tensors(name, input=input)
    chosen_backend = arguments.backend(name, backend)
    kernel = arguments.positive_pair(name, "kernel_size", kernel_size, "kernel size should be greater than zero")
    if stride is None or (isinstance(stride, (tuple, list)) and not stride):
        stride = kernel
    stride = arguments.positive_pair(name, "stride", stride, "stride should be greater than zero")
    dilation = arguments.positive_pair(name, "dilation", dilation, "dilation should be greater than zero")
    padding = arguments.pair(name, "padding", padding)
    x = arguments.with_batch(name, "input", input)
    ceil_mode = arguments.flag(name, "ceil_mode", ceil_mode)
    arguments.check_pool(name, x.shape, kernel, stride, padding, dilation, ceil_mode)
    window = (kernel, stride, padding, dilation, ceil_mode, chosen_backend)
    y, offsets = library.max_pool2d_forward(x, *window)
    if not return_indices:
        return y if input.dim() == 4 else y.squeeze(0)
    indices = library.max_pool2d_indices(offsets, x.shape, *window)
    return (y, indices) if input.dim() == 4 else (y.squeeze(0), indices.squeeze(0))


def adaptive_max_pool2d(
    input: Tensor,
    output_size: int | Sequence[int | None] | None,
    return_indices: bool = False,
    *,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Max pooling to a given size, as :func:`torch.nn.functional.adaptive_max_pool2d`; backend as for :func:`conv2d`.

    Where the output's sizes divide the input's, all windows are alike and it is :func:`max_pool2d`; of size 1 it is a global
    pool. Other windows differ in size, overlap, and are ATen's.

    Args:
        input: [N, C, H, W] or [C, H, W]; float32, bfloat16, float16 or float64.
        output_size: (P, Q), or one number for both; None keeps the input's size.
        return_indices: whether to return the winners' flat positions in H * W too, int64 and without a gradient.

    Returns:
        [N, C, P, Q] or [C, P, Q], channels_last where the input is; with return_indices a pair of such.

    Raises:
        RuntimeError: an input without elements, a negative size, or backend "cuda" or "triton" where windows are not alike.

    >>> import torch, fastconv
    >>> x = torch.arange(16.0).reshape(1, 1, 4, 4)
    >>> fastconv.adaptive_max_pool2d(x, (2, 1))[0, 0].tolist()
    [[7.0], [15.0]]
    """
    name = "adaptive_max_pool2d"
    arguments.tensors(name, input=input)
    chosen_backend = arguments.backend(name, backend)
    x = arguments.with_batch(name, "input", input)
    arguments.check_not_empty(name, x)
    sizes = arguments.adaptive_sizes(name, output_size, x)
    if all(size > 0 and x.shape[2 + axis] % size == 0 for axis, size in enumerate(sizes)):
        kernel = (x.shape[2] // sizes[0], x.shape[3] // sizes[1])
        return max_pool2d(input, kernel, return_indices=return_indices, backend=backend)
    if chosen_backend not in ("auto", "aten"):
        raise RuntimeError(
            f"{name}(): output_size is {output_size} and backend is {backend!r}, but its kernels pool windows that are alike: "
            f"accepted are divisors of the input's size {tuple(x.shape[2:])}, and backend 'aten' or 'auto' for others"
        )
    y, indices = torch._C._nn.adaptive_max_pool2d(input, sizes)
    if not torch.compiler.is_compiling() and dispatch.is_heard():
        _tell_of_windows_that_differ(input, y, chosen_backend)
    return (y, indices) if return_indices else y


def _tell_of_windows_that_differ(input: Tensor, y: Tensor, backend: str) -> None:
    """Both passes, of which dispatch runs neither, to whoever listens to it."""

    def tell(pool_pass: Literal["forward", "backward"], pooled: Tensor) -> None:
        x, pooled = (one if one.dim() == 4 else one.unsqueeze(0) for one in (input, pooled))
        operands = {"x": Operand.of(x), "y": Operand.of(pooled)}
        target = dispatch.target_of(input.device, backend)
        dispatch.left_to_aten(dispatch.make_adaptive_pool_problem(pool_pass, input.dtype, target, **operands), backend)

    tell("forward", y)
    if y.requires_grad:
        y.register_hook(lambda dy: tell("backward", dy))


def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    output_size: Sequence[int] | None = None,
    *,
    backend: str | None = None,
) -> Tensor:
    """Puts values back where max pooling found them, among zeros, as :func:`torch.nn.functional.max_unpool2d`.

    Where an index occurs more than once in a plane, the last value stands, as in PyTorch on a CPU, on every device.

    Args:
        input: [N, C, P, Q] or [C, P, Q]; float32, bfloat16, float16 or float64.
        indices: int64, of the input's sizes: flat positions in H * W, as :func:`max_pool2d` returns them.
        kernel_size, stride, padding: the pool's; the output's size follows from them.
        output_size: (H, W), or the whole shape, where several sizes were pooled to the input's.

    Returns:
        [N, C, H, W] or [C, H, W], channels_last where the input is.

    Raises:
        RuntimeError: sizes that do not fit together; indices of another type, or outside the output (on a GPU that shows at a
            later call, as a device-side assertion).
        ValueError: an output_size that the pool could not have had; padding that leaves less than nothing of the output.

    >>> import torch, fastconv
    >>> x = torch.tensor([[[[1.0, 2.0], [4.0, 3.0]]]])
    >>> y, indices = fastconv.max_pool2d(x, 2, return_indices=True)
    >>> fastconv.max_unpool2d(y, indices, 2)[0, 0].tolist()
    [[0.0, 0.0], [4.0, 0.0]]
    """
    name = "max_unpool2d"
    kernel = arguments.pair(name, "kernel_size", kernel_size)
    stride = kernel if stride is None else arguments.pair(name, "stride", stride)
    padding = arguments.pair(name, "padding", padding)
    arguments.tensors(name, input=input)
    x = arguments.with_batch(name, "input", input)
    return _unpooled(input, indices, arguments.unpooled_size(name, x, kernel, stride, padding, output_size), backend)


def _unpooled(input: Tensor, indices: Tensor, size: Pair, backend: str | None) -> Tensor:
    name = "max_unpool2d"
    arguments.tensors(name, input=input)
    chosen_backend = arguments.backend(name, backend)
    arguments.check_pool_indices(name, indices, input)
    x = arguments.with_batch(name, "input", input)
    arguments.check_not_empty(name, x)
    y = library.max_unpool2d_forward(x, indices if input.dim() == 4 else indices.unsqueeze(0), size, chosen_backend)
    return y if input.dim() == 4 else y.squeeze(0)


def max_unpool2d_to(
    input: Tensor, indices: Tensor, output_size: Sequence[int], *, backend: str | None = None
) -> Tensor:
    """:func:`max_unpool2d` to a size (H, W) that is known: torch's own function below torch.nn.functional's."""
    return _unpooled(input, indices, arguments.pair("max_unpool2d", "output_size", output_size), backend)
