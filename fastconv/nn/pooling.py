"""The pooling modules: torch.nn's, with a choice of backend."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastconv import arguments, functional


class _WithBackend:
    """What the modules add to torch.nn's: the keyword `backend`."""

    backend: str | None = None

    def __init__(self, *args: Any, backend: str | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        arguments.backend(type(self).__name__, backend)
        self.backend = backend

    def extra_repr(self) -> str:
        return super().extra_repr() + (f", backend={self.backend}" if self.backend is not None else "")


class MaxPool2d(_WithBackend, torch.nn.MaxPool2d):
    """:class:`torch.nn.MaxPool2d` on fastconv's kernels, with all of its arguments.

    Args:
        backend: None or "auto" chooses; "cuda", "triton", "aten" and "registered" insist.

    ``forward(input)``: [N, C, H, W] or [C, H, W]; with return_indices a pair that :class:`torch.nn.MaxUnpool2d` takes.

    >>> import torch, fastconv.nn
    >>> fastconv.nn.MaxPool2d(3, stride=2, padding=1)(torch.randn(2, 8, 16, 16)).shape
    torch.Size([2, 8, 8, 8])
    """

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return functional.max_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
            self.return_indices,
            backend=self.backend,
        )


class AdaptiveMaxPool2d(_WithBackend, torch.nn.AdaptiveMaxPool2d):
    """:class:`torch.nn.AdaptiveMaxPool2d` on fastconv's kernels, with all of its arguments.

    Args:
        backend: None or "auto" chooses; "cuda", "triton", "aten" and "registered" insist.

    ``forward(input)``: [N, C, H, W] or [C, H, W]; with return_indices a pair.

    >>> import torch, fastconv.nn
    >>> fastconv.nn.AdaptiveMaxPool2d(1)(torch.randn(2, 8, 7, 7)).shape
    torch.Size([2, 8, 1, 1])
    """

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return functional.adaptive_max_pool2d(input, self.output_size, self.return_indices, backend=self.backend)


class MaxUnpool2d(_WithBackend, torch.nn.MaxUnpool2d):
    """:class:`torch.nn.MaxUnpool2d` on fastconv's kernels, with all of its arguments.

    Args:
        backend: None or "auto" chooses; "cuda", "triton", "aten" and "registered" insist.

    ``forward(input, indices, output_size=None)``: what :class:`MaxPool2d` with return_indices returned, put back.

    >>> import torch, fastconv.nn
    >>> x = torch.randn(2, 8, 6, 6)
    >>> y, indices = fastconv.nn.MaxPool2d(2, return_indices=True)(x)
    >>> fastconv.nn.MaxUnpool2d(2)(y, indices).shape
    torch.Size([2, 8, 6, 6])
    """

    def forward(self, input: Tensor, indices: Tensor, output_size: list[int] | None = None) -> Tensor:
        return functional.max_unpool2d(
            input, indices, self.kernel_size, self.stride, self.padding, output_size, backend=self.backend
        )
