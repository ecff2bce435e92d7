"""Fused convolutions and pools through the CUDA backend's plans: a case, its problem and the candidates that fuse it."""

from __future__ import annotations

import dataclasses
from typing import Any

from fastconv import backends, dispatch
from fastconv.problem import Operand
from tests.fused.support import Case

POOLS = {
    "2x2s2": ((2, 2), (2, 2), (0, 0)),
    "3x3s2p1": ((3, 3), (2, 2), (1, 1)),
    "3x2s1": ((3, 2), (1, 1), (1, 0)),  # windows that overlap by more than a row
    "2x2s3": ((2, 2), (3, 3), (0, 0)),  # outputs that no window sees
    "global": None,
}
#: Several patches in either direction and two images, none of them whole; two tiles of columns.
WHOLE = Case(x=(2, 16, 19, 23), w=(72, 16, 3, 3), x_layout="channels_last", w_layout="channels_last", activation="relu")


def problem_of(case: Case, allow_tf32: bool = False, capability: int = 80, multiprocessors: int = 108) -> Any:
    x, w, bias = case.tensors()
    convolution = {
        "x": Operand.of(x),
        "w": Operand.of(w),
        "stride": case.stride,
        "padding": [pad for pad in case.padding for _ in (0, 1)],
        "dilation": case.dilation,
        "groups": case.groups,
        "has_bias": bias is not None,
        "activation": case.activation or "identity",
        "allow_tf32": allow_tf32,
    }
    target = dispatch.target_of(x.device, "cuda")
    target = dataclasses.replace(target, capability=capability, multiprocessors=multiprocessors)
    if case.pool is None:
        return dispatch.make_conv_global_max_problem(case.dtype, target, **convolution)
    kernel, stride, padding = case.pool
    window = {"pool_kernel": kernel, "pool_stride": stride, "pool_padding": padding}
    return dispatch.make_conv_max_pool_problem(case.dtype, target, **window, **convolution)


def fused_candidates(problem: Any, most_workspace_bytes: int | None = None) -> list[Any]:
    found = backends.get("cuda").candidates(problem, most_workspace_bytes)
    return [one for one in found if one.kernel.startswith("mma_conv_")]
