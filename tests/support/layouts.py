"""Tensors in every memory layout that a caller may pass in: the values are drawn, the strides are the point."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

Draw = Callable[[tuple[int, ...]], torch.Tensor]


def _channels_last(shape: tuple[int, ...], draw: Draw) -> torch.Tensor:
    *batch, channels, height, width = shape
    return draw((*batch, height, width, channels)).movedim(-1, -3)


def _batch_inner(shape: tuple[int, ...], draw: Draw) -> torch.Tensor:
    return draw((*shape[1:], shape[0])).movedim(-1, 0)


def _sliced(shape: tuple[int, ...], draw: Draw) -> torch.Tensor:
    *batch, channels, height, width = shape
    return draw((*batch, channels + 2, height, 2 * width + 1))[..., 1 : channels + 1, :, 1::2]


def _expanded(shape: tuple[int, ...], draw: Draw) -> torch.Tensor:
    return draw((1, *shape[1:])).expand(shape)


def _broadcast(shape: tuple[int, ...], draw: Draw) -> torch.Tensor:
    return draw((1,) * len(shape)).expand(shape)


def _transposed(shape: tuple[int, ...], draw: Draw) -> torch.Tensor:
    return draw((*shape[:-2], shape[-1], shape[-2])).mT


def _offset(shape: tuple[int, ...], draw: Draw) -> torch.Tensor:
    return draw((math.prod(shape) + 1,))[1:].view(shape)


def _overlapping(shape: tuple[int, ...], draw: Draw) -> torch.Tensor:
    *planes, height, width = shape
    if 0 in shape:
        return draw(shape)
    base = draw((*planes, height + width - 1))
    return base.as_strided(shape, (*base.stride()[:-1], 1, 1))


#: name -> builder. What each would catch: a kernel that assumes ...
LAYOUTS: dict[str, Callable[[tuple[int, ...], Draw], torch.Tensor]] = {
    "contiguous": lambda shape, draw: draw(shape),
    "channels_last": _channels_last,  # ... that channels are outermost
    "batch_inner": _batch_inner,  # ... one of the two formats with a name
    "sliced": _sliced,  # ... an innermost stride of 1, or dense rows
    "expanded": _expanded,  # ... that the batch stride is not 0
    "broadcast": _broadcast,  # ... any stride but 0: the gradient that .sum().backward() sends
    "transposed": _transposed,  # ... that width is inside height
    "offset": _offset,  # ... 16-byte alignment
    "overlapping": _overlapping,  # ... that two indices are two addresses
}


#: The same for vectors, such as a bias.
VECTOR_LAYOUTS: dict[str, Callable[[tuple[int, ...], Draw], torch.Tensor]] = {
    "contiguous": lambda shape, draw: draw(shape),
    "sliced": lambda shape, draw: draw((2 * shape[0] + 1,))[1::2],
    "expanded": lambda shape, draw: draw((1,)).expand(shape),
}


def build(shape: tuple[int, ...], layout: str, draw: Draw) -> torch.Tensor:
    """A tensor of that shape in that layout, its elements drawn by `draw(shape of the storage)`."""
    builders = VECTOR_LAYOUTS if len(shape) == 1 else LAYOUTS
    tensor = builders[layout](tuple(shape), draw)
    assert tuple(tensor.shape) == tuple(shape)
    return tensor
