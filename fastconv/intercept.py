"""Routes PyTorch's own functions to fastconv, in code that is not to be changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses import FakeTensor
from torch.overrides import TorchFunctionMode

from fastconv import arguments, functional, pooling


def _max_pool2d_with_indices(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = True,
    **options: Any,
) -> Any:
    return functional.max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode, True, **options)


def _adaptive_max_pool2d_with_indices(
    input: Tensor, output_size: Any, return_indices: bool = True, **options: Any
) -> Any:
    return functional.adaptive_max_pool2d(input, output_size, True, **options)


#: PyTorch's function -> ours. torch.nn.functional.conv2d is torch.conv2d itself; its max_pool2d is a function of its own.
ROUTES: dict[Callable, Callable] = {
    torch.conv2d: functional.conv2d,
    F.conv2d: functional.conv2d,
    torch.conv_transpose2d: functional.conv_transpose2d,
    F.conv_transpose2d: functional.conv_transpose2d,
    torch.max_pool2d: functional.max_pool2d,
    F.max_pool2d: functional.max_pool2d,
    F.max_pool2d_with_indices: _max_pool2d_with_indices,
    torch._C._nn.max_pool2d_with_indices: _max_pool2d_with_indices,
    F.adaptive_max_pool2d: functional.adaptive_max_pool2d,
    F.adaptive_max_pool2d_with_indices: _adaptive_max_pool2d_with_indices,
    torch._C._nn.adaptive_max_pool2d: _adaptive_max_pool2d_with_indices,
    F.max_unpool2d: functional.max_unpool2d,
    torch._C._nn.max_unpool2d: pooling.max_unpool2d_to,
}

#: Those with a tensor of int64 that is no operand.
_WITH_INDICES = (functional.max_unpool2d, pooling.max_unpool2d_to)

_PLAIN = (Tensor, torch.nn.Parameter, FakeTensor)


class intercept(TorchFunctionMode):  # noqa: N801 - it is used as a context manager
    """Inside ``with fastconv.intercept():`` PyTorch's conv2d, conv_transpose2d and 2-D max pooling are fastconv's.

    That holds for torch.nn.functional's and torch's functions and so for torch.nn's modules, in this thread. Contexts nest, the
    innermost decides, and everything is as before afterwards, after an exception too.

    Args:
        backend: what to insist on. With None or "auto", a call that fastconv has no kernels for (integer, complex, quantised or
            sparse tensors, other devices, tensor subclasses) stays PyTorch's; with a backend named it raises, but for
            tensor subclasses, which may not be tensors in memory at all.

    Raises:
        ValueError: an unknown backend.

    >>> import torch, fastconv
    >>> with fastconv.intercept():
    ...     y = torch.nn.Conv2d(3, 8, 3)(torch.randn(1, 3, 8, 8, requires_grad=True))
    >>> type(y.grad_fn).__name__
    'Conv2dFunctionBackward'
    """

    def __init__(self, backend: str | None = None):
        super().__init__()
        self.backend = arguments.backend("intercept", backend)

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        route = ROUTES.get(function)
        if route is None or not self._applies(route, args, kwargs):
            return function(*args, **kwargs)
        return route(*args, **kwargs, backend=self.backend)

    def _applies(self, route: Callable, args: tuple, kwargs: dict) -> bool:
        tensors = [value for value in (*args[:3], *kwargs.values()) if isinstance(value, Tensor)]
        if any(type(tensor) not in _PLAIN for tensor in tensors):
            return False
        if route in _WITH_INDICES:
            tensors = [tensor for tensor in tensors if tensor.dtype != torch.int64]
        return self.backend != "auto" or all(
            tensor.dtype in arguments.DTYPES
            and tensor.layout == torch.strided
            and tensor.device.type in arguments.DEVICE_TYPES
            for tensor in tensors
        )
