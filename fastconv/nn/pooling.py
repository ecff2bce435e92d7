"""The pooling module: torch.nn's, with a choice of backend."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastconv import arguments, functional


class MaxPool2d(torch.nn.MaxPool2d):
    """:class:`torch.nn.MaxPool2d` on fastconv's kernels, with all of its arguments.

    Args:
        backend: None or "auto" chooses; "cuda", "triton" and "aten" insist.

    ``forward(input)``: [N, C, H, W] or [C, H, W]; with return_indices a pair that :class:`torch.nn.MaxUnpool2d` takes.

    >>> import torch, fastconv.nn
    >>> fastconv.nn.MaxPool2d(3, stride=2, padding=1)(torch.randn(2, 8, 16, 16)).shape
    torch.Size([2, 8, 8, 8])
    """

    backend: str | None = None

    def __init__(self, *args: Any, backend: str | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        arguments.backend(type(self).__name__, backend)
        self.backend = backend

    def extra_repr(self) -> str:
        return super().extra_repr() + (f", backend={self.backend}" if self.backend is not None else "")

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
