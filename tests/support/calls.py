"""Counts the primitives that a computation calls."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class PrimitiveCalls(TorchDispatchMode):
    """Inside the context, `names` grows by the name of every `torch.ops.fastconv` op that runs, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.arguments: list[tuple[Any, ...]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        namespace, _, name = func._schema.name.partition("::")
        if namespace == "fastconv":
            self.names.append(name)
            self.arguments.append(args)
        return func(*args, **(kwargs or {}))


def shapes(arguments: tuple[Any, ...]) -> list[tuple[int, ...]]:
    return [tuple(argument.shape) for argument in arguments if isinstance(argument, torch.Tensor)]
