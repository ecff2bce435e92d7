"""Convolutions that are odd in one way each, small enough to be emulated with every access checked."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F


@dataclasses.dataclass(frozen=True)
class Geometry:
    batch: int
    channels: int
    filters: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def x_shape(self) -> tuple[int, int, int, int]:
        return (self.batch, self.channels, *self.size)

    @property
    def w_shape(self) -> tuple[int, int, int, int]:
        return (self.filters, self.channels // self.groups, *self.kernel)

    @property
    def keywords(self) -> dict[str, Any]:
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }

    def fprop(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """The definition, in float64, by PyTorch."""
        top, bottom, left, right = self.padding
        padded = F.pad(x.double(), (left, right, top, bottom))
        return F.conv2d(padded, w.double(), None, self.stride, 0, self.dilation, self.groups)

    def y_shape(self) -> tuple[int, ...]:
        return tuple(self.fprop(torch.empty(self.x_shape), torch.empty(self.w_shape)).shape)


GEOMETRIES = {
    "pointwise": Geometry(2, 12, 9, (5, 6), (1, 1)),
    "same": Geometry(2, 3, 16, (7, 9), (3, 3), padding=(1, 1, 1, 1)),
    "uneven padding": Geometry(1, 4, 5, (6, 8), (3, 2), padding=(2, 0, 1, 3)),
    "stride larger than filter": Geometry(2, 4, 3, (7, 11), (2, 1), stride=(3, 4)),
    "stride and dilation share a factor": Geometry(1, 3, 4, (13, 12), (3, 3), stride=(2, 4), dilation=(4, 2)),
    "stride beyond the lanes' turns": Geometry(1, 2, 3, (5, 25), (2, 3), stride=(1, 11), padding=(0, 1, 2, 2)),
    "groups": Geometry(2, 12, 18, (5, 5), (3, 3), padding=(1, 1, 1, 1), groups=3),
    "depthwise": Geometry(2, 10, 10, (9, 8), (3, 3), stride=(2, 1), padding=(1, 1, 1, 1), groups=10),
    "filter of several stages": Geometry(1, 2, 33, (13, 9), (12, 8)),
    "row of a filter of several stages": Geometry(1, 1, 33, (4, 72), (2, 70), padding=(0, 0, 1, 1)),
    "many channels, few pixels": Geometry(1, 200, 130, (2, 2), (2, 2)),
    "empty batch": Geometry(0, 3, 4, (5, 5), (3, 3)),
}
