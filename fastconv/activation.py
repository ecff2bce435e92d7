"""The activations a kernel can apply to its output: their names, ATen's versions of them, and their derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

aten = torch.ops.aten

#: name -> y of z, with the definitions that fastconv.problem.ACTIVATIONS promises
APPLY: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda z: z,
    "relu": torch.relu,
    "leaky_relu": F.leaky_relu,
    "silu": F.silu,
    "gelu": F.gelu,
    "sigmoid": torch.sigmoid,
    "hardswish": F.hardswish,
    "tanh": torch.tanh,
}

#: (g, y) -> dz for the activations whose derivative can be told from their output y alone.
FROM_OUTPUT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "relu": lambda g, y: aten.threshold_backward(g, y, 0),
    "leaky_relu": lambda g, y: aten.leaky_relu_backward(g, y, 0.01, True),
    "sigmoid": aten.sigmoid_backward,
    "tanh": aten.tanh_backward,
}

#: (g, z) -> dz for those that are not monotone, so that the input z of the activation is needed.
FROM_INPUT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "silu": aten.silu_backward,
    "gelu": aten.gelu_backward,
    "hardswish": aten.hardswish_backward,
}


def _silu_bend(z: Tensor) -> Tensor:
    s = torch.sigmoid(z)
    return s * (1 - s) * (2 + z * (1 - 2 * s))


def _gelu_bend(z: Tensor) -> Tensor:
    return (2 - z * z) * torch.exp(-0.5 * z * z) * (2 * math.pi) ** -0.5


#: What the derivative changes by with the tensor that it is told from: y or z. All are differentiable again; relu and
#: leaky_relu, whose derivative is one number on either side of a corner, are not here.
BEND: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": lambda y: 1 - 2 * y,
    "tanh": lambda y: -2 * y,
    "silu": _silu_bend,
    "gelu": _gelu_bend,
    "hardswish": lambda z: ((z > -3) & (z < 3)).to(z.dtype) / 3,
}
