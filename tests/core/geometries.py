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
    padding_mode: str = "zeros"
    padding_value: float = 0.0

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
            "padding_mode": self.padding_mode,
            "padding_value": self.padding_value,
        }

    def fprop(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """The definition, in float64, by PyTorch."""
        top, bottom, left, right = self.padding
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        value = self.padding_value if mode == "constant" else None
        padded = F.pad(x.double(), (left, right, top, bottom), mode, value)
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
    "stride far beyond the image": Geometry(2, 3, 4, (5, 4), (2, 3), stride=(100003, 2**20), padding=(1, 1, 2, 0)),
    "groups": Geometry(2, 12, 18, (5, 5), (3, 3), padding=(1, 1, 1, 1), groups=3),
    "depthwise": Geometry(2, 10, 10, (9, 8), (3, 3), stride=(2, 1), padding=(1, 1, 1, 1), groups=10),
    "filter of several stages": Geometry(1, 2, 33, (13, 9), (12, 8)),
    "row of a filter of several stages": Geometry(1, 1, 33, (4, 72), (2, 70), padding=(0, 0, 1, 1)),
    "many channels, few pixels": Geometry(1, 200, 130, (2, 2), (2, 2)),
    "empty batch": Geometry(0, 3, 4, (5, 5), (3, 3)),
}

MODES = ("reflect", "replicate", "circular", "constant")

#: As much padding as a mode allows, from one side or both, and what a kernel may get wrong about it.
PADDED = {
    "same": Geometry(2, 3, 10, (6, 7), (3, 3), padding=(1, 1, 1, 1)),
    "the largest of reflect": Geometry(1, 3, 5, (4, 3), (3, 2), padding=(3, 3, 2, 2)),
    "only below and to the right": Geometry(1, 2, 3, (3, 4), (2, 3), padding=(0, 2, 0, 3)),
    "only above and to the left": Geometry(1, 2, 3, (3, 4), (2, 3), padding=(2, 0, 3, 0)),
    "strided": Geometry(2, 4, 6, (7, 8), (3, 3), stride=(2, 3), padding=(2, 1, 1, 3)),
    "strided and dilated": Geometry(1, 3, 4, (9, 7), (3, 2), stride=(2, 4), padding=(4, 3, 2, 5), dilation=(2, 3)),
    "depthwise": Geometry(2, 9, 9, (5, 6), (3, 3), stride=(1, 2), padding=(2, 2, 1, 1), groups=9),
    "grouped": Geometry(1, 6, 12, (5, 5), (5, 5), padding=(4, 4, 4, 4), groups=3),
    "more images than pixels": Geometry(1, 2, 3, (2, 2), (2, 2), padding=(1, 1, 1, 1)),
    "filter of several stages": Geometry(1, 2, 33, (9, 8), (12, 8), padding=(7, 6, 5, 4)),
}

#: What only replicate and constant can: padding beyond the input.
BEYOND = {
    "beyond the input": Geometry(2, 3, 4, (2, 3), (3, 3), stride=(1, 2), padding=(5, 3, 4, 6)),
    "of one pixel": Geometry(1, 2, 3, (1, 1), (3, 2), padding=(1, 3, 2, 2)),
}
