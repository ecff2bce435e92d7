"""Windows of max pooling, and all passes over one of them, through the raw interface."""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F

from tests.core import raw


@dataclasses.dataclass(frozen=True)
class Window:
    shape: tuple[int, int, int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    ceil_mode: bool = False

    @property
    def keywords(self) -> dict[str, Any]:
        return {"kernel": self.kernel, "stride": self.stride, "padding": self.padding, "dilation": self.dilation}

    def reference(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return F.max_pool2d(
            x, self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode, return_indices=True
        )


def forward(
    core: ModuleType,
    x: torch.Tensor,
    window: Window,
    layout: str = "contiguous",
    *,
    family: str = "max_pool",
    config: str = "",
    offsets_dtype: torch.dtype = torch.uint8,
    **keywords: Any,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(y, indices, offsets)"""
    shape = tuple(window.reference(x.double())[0].shape)
    y, offsets = raw.unwritten(shape, x.dtype, layout), raw.unwritten(shape, offsets_dtype, layout)
    raw.pool(core, "forward", x.dtype, x, y, offsets, family, config, **window.keywords, **keywords)
    indices = raw.unwritten(shape, torch.int64, layout)
    raw.pool(core, "indices", x.dtype, x, indices, offsets, **window.keywords, **keywords)
    return y, indices, offsets


def all_passes(
    core: ModuleType,
    window: Window,
    dtype: torch.dtype,
    layout: str = "contiguous",
    *,
    family: str = "max_pool",
    config: str = "",
    offsets_dtype: torch.dtype = torch.uint8,
    general_backward: bool = False,
    **keywords: Any,
) -> None:
    """Forward and backward by the family, gather and indices by the general kernels: PyTorch's, exactly."""
    x = raw.laid_out(raw.integers(window.shape, 3, dtype), layout)
    expected, expected_indices = window.reference(x)
    chosen = {"family": family, "config": config}
    y, indices, offsets = forward(core, x, window, layout, offsets_dtype=offsets_dtype, **chosen, **keywords)
    assert torch.equal(y, expected)
    assert torch.equal(indices, expected_indices)

    # Windows with nothing in them have a winner outside of x, which nothing flows to.
    columns = window.shape[2] * window.shape[3]
    inside = indices < columns
    places = torch.where(inside, indices, 0).flatten(2)
    dy = raw.laid_out(raw.integers(tuple(y.shape), 4, dtype), layout)
    dx = raw.unwritten(window.shape, dtype, layout)
    chosen = {} if general_backward else chosen
    raw.pool(core, "backward", dtype, dx, dy, offsets, **chosen, **window.keywords, **keywords)
    sums = torch.zeros(*window.shape[:2], columns, dtype=torch.float64)
    sums.scatter_add_(2, places, (dy.double() * inside).flatten(2))
    assert torch.equal(dx, sums.view(window.shape).to(dtype))

    z = raw.laid_out(torch.randn(window.shape).to(dtype), layout)
    picked = raw.unwritten(tuple(y.shape), dtype, layout)
    raw.pool(core, "gather", dtype, z, picked, offsets, **window.keywords, **keywords)
    wanted = z.flatten(2).gather(2, places).view(y.shape)
    assert torch.equal(picked, torch.where(inside, wanted, torch.zeros_like(wanted)))
