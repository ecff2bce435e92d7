"""Convolution modules: torch.nn's, with a fused activation, a residual and a choice of backend."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastconv import arguments, functional


class _Options:
    """`activation` and `backend`, which live beside torch.nn's own attributes and not in the state dict.

    They have defaults on the class, so that a module whose class was changed by fastconv.convert has them too.
    """

    activation: str | None = None
    backend: str | None = None

    def _set_options(self, activation: str | None, backend: str | None) -> None:
        name = type(self).__name__
        arguments.activation(name, activation)
        arguments.backend(name, backend)
        self.activation, self.backend = activation, backend

    def extra_repr(self) -> str:
        options = {"activation": self.activation, "backend": self.backend}
        return super().extra_repr() + "".join(
            f", {name}={value}" for name, value in options.items() if value is not None
        )


class Conv2d(_Options, torch.nn.Conv2d):
    """:class:`torch.nn.Conv2d` on fastconv's kernels; its arguments, parameters and state dict.

    Args:
        activation: applied by the same kernel: None or one that :func:`fastconv.conv2d` knows.
        backend: None or "auto" chooses; "cuda", "triton", "aten" and "registered" insist.

    ``forward(input, residual=None)``: input [N, C, H, W] or [C, H, W]; residual of the output's sizes, added before the
    activation, so that the end of a residual block is one kernel. Errors as of :func:`fastconv.conv2d`.

    >>> import torch, fastconv.nn
    >>> layer = fastconv.nn.Conv2d(3, 8, 3, padding=1, activation="relu")
    >>> layer
    Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), activation=relu)
    >>> layer(torch.randn(2, 3, 16, 16), residual=torch.randn(2, 8, 16, 16)).shape
    torch.Size([2, 8, 16, 16])
    """

    def __init__(self, *args: Any, activation: str | None = None, backend: str | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._set_options(activation, backend)

    def _conv_forward(
        self, input: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None = None
    ) -> Tensor:
        return functional.conv2d(
            input,
            weight,
            bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            padding_mode=self.padding_mode,
            activation=self.activation,
            residual=residual,
            backend=self.backend,
        )

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        return self._conv_forward(input, self.weight, self.bias, residual)


class ConvTranspose2d(_Options, torch.nn.ConvTranspose2d):
    """:class:`torch.nn.ConvTranspose2d` on fastconv's kernels; its arguments, parameters and state dict.

    activation and backend as of :class:`Conv2d`. ``forward(input, output_size=None)`` as PyTorch's: output_size (H, W), or
    with N and C before, says which of the possible sizes is meant.

    >>> import torch, fastconv.nn
    >>> up = fastconv.nn.ConvTranspose2d(8, 4, 3, stride=2)
    >>> up(torch.randn(1, 8, 5, 5), output_size=(12, 12)).shape
    torch.Size([1, 4, 12, 12])
    """

    def __init__(self, *args: Any, activation: str | None = None, backend: str | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._set_options(activation, backend)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        output_padding = self.output_padding
        if output_size is not None:
            output_padding = self._output_padding(
                input, output_size, self.stride, self.padding, self.kernel_size, 2, self.dilation
            )
        return functional.conv_transpose2d(
            input,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            output_padding,
            self.groups,
            self.dilation,
            activation=self.activation,
            backend=self.backend,
        )
