"""A convolution with a pool over it as one module. The state dict is that of the convolution alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastconv import arguments, functional
from fastconv.arguments import IntOrPair
from fastconv.nn.convolution import _Options


class Conv2dMaxPool2d(_Options, torch.nn.Conv2d):
    """Convolution, activation and max pool in one: :func:`fastconv.conv2d_max_pool2d` with :class:`torch.nn.Conv2d`'s
    arguments, parameters and state dict.

    In place of ``Sequential(Conv2d(...), ReLU(), MaxPool2d(2))`` it loads the parameters of the first of the three.

    Args:
        activation: applied before the pool: None or one that :func:`fastconv.conv2d` knows.
        pool_kernel_size, pool_stride, pool_padding: the window, as :func:`fastconv.max_pool2d` takes it.
        backend: None or "auto" chooses; "cuda", "triton", "aten" and "registered" insist.

    ``forward(input)``: [N, C, H, W] or [C, H, W]. Errors as of :func:`fastconv.conv2d_max_pool2d`.

    >>> import torch, fastconv.nn
    >>> block = fastconv.nn.Conv2dMaxPool2d(3, 8, 3, padding=1)
    >>> block(torch.randn(2, 3, 16, 16)).shape
    torch.Size([2, 8, 8, 8])
    >>> block
    Conv2dMaxPool2d(3, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), activation=relu, pool_kernel_size=2)
    """

    def __init__(
        self,
        *args: Any,
        activation: str | None = "relu",
        pool_kernel_size: IntOrPair = 2,
        pool_stride: IntOrPair | None = None,
        pool_padding: IntOrPair = 0,
        backend: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self._set_options(activation, backend)
        name = type(self).__name__
        arguments.positive_pair(name, "pool_kernel_size", pool_kernel_size, "kernel size should be greater than zero")
        self.pool_kernel_size, self.pool_stride, self.pool_padding = pool_kernel_size, pool_stride, pool_padding

    def extra_repr(self) -> str:
        text = super().extra_repr() + f", pool_kernel_size={self.pool_kernel_size}"
        if self.pool_stride is not None:
            text += f", pool_stride={self.pool_stride}"
        return text + (f", pool_padding={self.pool_padding}" if self.pool_padding != 0 else "")

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return functional.conv2d_max_pool2d(
            input,
            weight,
            bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            padding_mode=self.padding_mode,
            activation=self.activation,
            pool_kernel_size=self.pool_kernel_size,
            pool_stride=self.pool_stride,
            pool_padding=self.pool_padding,
            backend=self.backend,
        )


class Conv2dGlobalMax(_Options, torch.nn.Conv2d):
    """The best score of each filter, anywhere in the input: :func:`fastconv.conv2d_global_max` with
    :class:`torch.nn.Conv2d`'s arguments, parameters and state dict.

    Args:
        activation: None or one that :func:`fastconv.conv2d` knows.
        return_indices: whether to return the places p * Q + q too.
        backend: None or "auto" chooses; "cuda", "triton", "aten" and "registered" insist.

    ``forward(input)``: [N, C, H, W] to [N, K], or [C, H, W] to [K]. Errors as of :func:`fastconv.conv2d_global_max`.

    >>> import torch, fastconv.nn
    >>> detector = fastconv.nn.Conv2dGlobalMax(1, 5, 7, bias=False, return_indices=True)
    >>> scores, places = detector(torch.randn(2, 1, 32, 32))
    >>> scores.shape, places.shape
    (torch.Size([2, 5]), torch.Size([2, 5]))
    """

    def __init__(
        self,
        *args: Any,
        activation: str | None = None,
        return_indices: bool = False,
        backend: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self._set_options(activation, backend)
        self.return_indices = return_indices

    def extra_repr(self) -> str:
        return super().extra_repr() + (", return_indices=True" if self.return_indices else "")

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | tuple[Tensor, Tensor]:
        return functional.conv2d_global_max(
            input,
            weight,
            bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            padding_mode=self.padding_mode,
            activation=self.activation,
            return_indices=self.return_indices,
            backend=self.backend,
        )
