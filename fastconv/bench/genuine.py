"""Functions and classes that a measurement stands on, as they were when the harness was imported: before any contestant ran.

A contestant runs in the process that measures it, so it could put another clock, judge or check in the place of ours. Whoever
needs to know takes `watched()` and the function to call before the contestant runs, and holds both.
"""

from __future__ import annotations

import sys
import time
import types
from collections.abc import Sequence
from typing import Any

import numpy
import torch

from fastconv.bench.guards import MeasurementError

Watched = tuple[str, Any, str, Any]  # kind of cheat, owner, name, what stood under it

_watched: list[Watched] = []

_METHODS = (types.FunctionType, classmethod, staticmethod, property)
_SPECIAL_METHODS = ("__call__", "__torch_dispatch__")


def watch(kind: str, owner: Any, *names: str) -> None:
    """From now on a measurement fails with that kind where one of the owner's names is something else than it is now."""
    _watched.extend((kind, owner, name, held(owner, name)) for name in names)


def watch_harness(*names: str) -> None:
    """Watches every function and class of the harness in modules of fastconv.bench, and the methods of classes made there."""
    for module in (sys.modules[f"fastconv.bench.{name}"] for name in names):
        for name, value in list(vars(module).items()):
            if not callable(value) or not str(getattr(value, "__module__", "")).startswith("fastconv.bench"):
                continue
            if isinstance(value, type) and issubclass(value, Exception):
                continue  # what is raised in its place is no pass either
            if isinstance(value, type) and value.__module__ == module.__name__:
                methods = (one for one, method in vars(value).items() if isinstance(method, _METHODS))
                watch("judge", value, *(one for one in methods if one[:2] != "__" or one in _SPECIAL_METHODS))
            watch("judge", module, name)


def held(owner: Any, name: str) -> Any:
    """What stands under the name. Of a class not what a look-up binds, which is another object every time."""
    return vars(owner)[name] if name in vars(owner) else getattr(owner, name)


def text(owner: Any, name: str) -> str:
    return f"{getattr(owner, '__name__', owner)}.{name}"


def watched() -> tuple[Watched, ...]:
    return tuple(_watched)


# What these two call they hold as defaults: a name of this module could be replaced as well.


def require_genuine(genuine: Sequence[Watched], held: Any = held, text: Any = text) -> None:
    for kind, owner, name, original in genuine:
        if held(owner, name) is not original:
            raise MeasurementError(kind, f"{text(owner, name)} was replaced")


def put_back(genuine: Sequence[Watched], held: Any = held, text: Any = text) -> list[tuple[str, str]]:
    """For the next contestant, who has done nothing. Returns (kind, name) of what had been replaced."""
    replaced = [one for one in genuine if held(one[1], one[2]) is not one[3]]
    for _, owner, name, original in replaced:
        setattr(owner, name, original)
    return [(kind, text(owner, name)) for kind, owner, name, _ in replaced]


watch("timer", time, "perf_counter", "perf_counter_ns", "monotonic", "time")
watch("timer", torch.cuda, "Event", "Stream", "CUDAGraph", "graph", "synchronize", "current_stream", "_sleep")
watch("timer", torch.cuda.Event, "record", "elapsed_time", "synchronize", "query", "wait")
watch("timer", torch.cuda.Stream, "synchronize")
watch("timer", torch.cuda.CUDAGraph, "replay")
watch("timer", sys.modules["fastconv.bench.guards"], "host_seconds")
watch(
    "judge", torch.Tensor, "clone", "copy_", "normal_", "fill_", "zero_", "to", "norm", "abs", "max", "__sub__", "any"
)
watch("judge", torch.Tensor, "_version", "data", "detach", "shape", "dtype", "numel", "untyped_storage", "as_strided")
watch("judge", torch, "equal", "isnan", "aminmax", "count_nonzero")
watch("judge", numpy, "percentile")
