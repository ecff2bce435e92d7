"""Precision: named in every row, and set alike on both sides of a comparison."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fastconv.bench.names import known


@dataclasses.dataclass(frozen=True)
class Precision:
    name: str
    dtype: torch.dtype
    epsilon: float  # spacing of the format that products are made in
    #: A result with a larger relative error (Frobenius) was computed in another precision than the row says.
    error_limit: float


PRECISIONS = {
    precision.name: precision
    for precision in (
        Precision("float64", torch.float64, 2.0**-52, 1e-12),
        Precision("float32", torch.float32, 2.0**-23, 3e-5),
        Precision("tf32", torch.float32, 2.0**-10, 3e-3),
        Precision("float16", torch.float16, 2.0**-10, 3e-3),
        Precision("bfloat16", torch.bfloat16, 2.0**-7, 2e-2),
    )
}


def precision_named(name: str) -> Precision:
    return PRECISIONS[known("dtype", name, PRECISIONS)]


@contextlib.contextmanager
def switches(precision: Precision) -> Iterator[None]:
    """PyTorch's own switches set for this precision: TF32 for "tf32", off for everything else.

    That of oneDNN is the one that kernels on CPU tensors go by, so in the emulator and in Triton's interpreter.
    """
    owners = (torch.backends.cudnn.conv, torch.backends.cuda.matmul, torch.backends.mkldnn.conv)
    before = [owner.fp32_precision for owner in owners]
    for owner in owners:
        owner.fp32_precision = "tf32" if precision.name == "tf32" else "ieee"
    try:
        yield
    finally:
        for owner, value in zip(owners, before, strict=True):
            owner.fp32_precision = value


def switch_state() -> dict[str, Any]:
    """Everything in PyTorch that changes the precision of a convolution behind its arguments."""
    return {
        "cudnn.conv.fp32_precision": torch.backends.cudnn.conv.fp32_precision,
        "mkldnn.conv.fp32_precision": torch.backends.mkldnn.conv.fp32_precision,
        "cuda.matmul.fp32_precision": torch.backends.cuda.matmul.fp32_precision,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "autocast cuda": torch.is_autocast_enabled("cuda"),
        "autocast cpu": torch.is_autocast_enabled("cpu"),
        "cudnn.enabled": torch.backends.cudnn.enabled,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


_ARITHMETIC = ("conv", "max_pool", "mm", "addmm", "bmm", "linear", "matmul", "einsum")


class ObservedDtypes(TorchDispatchMode):
    """The floating dtypes of the tensors that reach arithmetic operators while it is on, by operator."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, set[torch.dtype]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if any(word in name for word in _ARITHMETIC):
            dtypes = {arg.dtype for arg in args if isinstance(arg, torch.Tensor) and arg.dtype.is_floating_point}
            self.seen.setdefault(name, set()).update(dtypes)
        return func(*args, **(kwargs or {}))
