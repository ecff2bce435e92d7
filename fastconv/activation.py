"""The activations a kernel can apply to its output: their names, ATen's versions of them, and their derivatives."""

from __future__ import annotations

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

#: (g, y) -> dz for the activations whose derivative can be told from their output y alone. All are differentiable again.
FROM_OUTPUT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "relu": lambda g, y: aten.threshold_backward(g, y, 0),
    "leaky_relu": lambda g, y: aten.leaky_relu_backward(g, y, 0.01, True),
    "sigmoid": aten.sigmoid_backward,
    "tanh": aten.tanh_backward,
}


def _silu_backward(g: Tensor, z: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return aten.silu_backward(g, z)
    s = torch.sigmoid(z)  # aten.silu_backward has no derivative of its own
    return g * s * (1 + z * (1 - s))


#: (g, z) -> dz for those that are not monotone, so that the input z of the activation is needed.
FROM_INPUT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "silu": _silu_backward,
    "gelu": aten.gelu_backward,
    "hardswish": aten.hardswish_backward,
}
