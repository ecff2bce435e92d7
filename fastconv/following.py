"""What follows a convolution in a model and could be part of its kernel: normalization, activation, pool. For `explain`."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from fastconv.problem import ConvProblem, Problem

#: Modules that a convolution's kernel can take in, by the name under which `explain` shows them.
_ACTIVATIONS = {
    nn.ReLU: "relu",
    nn.LeakyReLU: "leaky_relu",
    nn.SiLU: "silu",
    nn.GELU: "gelu",
    nn.Sigmoid: "sigmoid",
    nn.Hardswish: "hardswish",
    nn.Tanh: "tanh",
}
NORMALIZATION = "batch norm"
POOL = "max pool"


class Following:
    """Fed with the modules of a model as they return; knows which of them worked on what a convolution had just written."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[weakref.ref, int]] = {}  # id of a tensor -> itself, and the convolution's call
        self._words: dict[int, list[str]] = {}

    def after(self, call: int) -> tuple[str, ...]:
        """Names of what follows the call of that number."""
        return tuple(self._words.get(call, ()))

    def returned(
        self, module: nn.Module, arguments: Sequence[Any], output: Any, problems: Sequence[Problem], first: int
    ) -> None:
        """`problems` are those of all calls so far, the module's own from the number `first` on."""
        if not isinstance(output, torch.Tensor):
            return
        word = _word(module)
        if word and arguments and (call := self._call_behind(arguments[0])) is not None:
            words = self._words.setdefault(call, [])
            if POOL not in words:
                words.append(word)
                self._remember(output, call)
            return
        for number in range(first, len(problems)):
            problem = problems[number]
            if isinstance(problem, ConvProblem) and problem.conv_pass != "wgrad":
                written = problem.y if problem.conv_pass == "fprop" else problem.x
                if tuple(output.shape[-3:]) == written.sizes[1:]:
                    self._remember(output, number)

    def _remember(self, tensor: torch.Tensor, call: int) -> None:
        self._made[id(tensor)] = weakref.ref(tensor), call

    def _call_behind(self, tensor: Any) -> int | None:
        reference, call = self._made.get(id(tensor), (lambda: None, None))
        return call if reference() is tensor else None


def _word(module: nn.Module) -> str:
    if isinstance(module, nn.BatchNorm2d) and not module.training:
        return NORMALIZATION  # it can be folded into the weights; in training it needs the whole output first
    if isinstance(module, nn.MaxPool2d) and module.dilation in (1, (1, 1)) and not module.ceil_mode:
        return POOL
    if type(module) is nn.GELU and module.approximate != "none":
        return ""
    if type(module) is nn.LeakyReLU and module.negative_slope != 0.01:
        return ""
    return _ACTIVATIONS.get(type(module), "")
