"""Problems as the compiled core has them: made of ours, by name, without anything of torch."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch

from fastconv.problem import (
    ActivationBackwardProblem,
    ChannelSumProblem,
    ConvGlobalMaxProblem,
    FusedProblem,
    Operand,
    PoolProblem,
    Problem,
    UnpoolProblem,
)


def _type_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _sizes_and_strides(operand: Operand) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return operand.sizes, operand.strides


def compiled_problem(module: ModuleType, problem: Problem, most_workspace_bytes: int | None = None) -> Any:
    """The core's own problem, which it has checked: ValueError where something does not fit together."""
    if isinstance(problem, FusedProblem):
        conv = compiled_problem(module, problem.conv, most_workspace_bytes)
        if isinstance(problem, ConvGlobalMaxProblem):
            return module.ConvGlobalMaxProblem(conv=conv)
        return module.ConvMaxPoolProblem(conv=conv, pool=compiled_problem(module, problem.pool))
    common = {
        "dtype": _type_name(problem.dtype),
        "index_bits": problem.index_bits,
        "capability": problem.target.capability,
        "multiprocessors": problem.target.multiprocessors,
    }
    if isinstance(problem, ActivationBackwardProblem):
        return module.ActivationBackwardProblem(
            dy=_sizes_and_strides(problem.dy),
            saved=_sizes_and_strides(problem.saved),
            dz=_sizes_and_strides(problem.dz),
            activation=problem.activation,
            **common,
        )
    common["x"] = _sizes_and_strides(problem.x)
    if isinstance(problem, ChannelSumProblem):
        return module.ChannelSumProblem(**common)
    if isinstance(problem, UnpoolProblem):
        return module.UnpoolProblem(
            unpool_pass=problem.unpool_pass,
            indices=_sizes_and_strides(problem.indices),
            y=_sizes_and_strides(problem.y),
            **common,
        )
    if isinstance(problem, PoolProblem):
        return module.PoolProblem(
            pool_pass=problem.pool_pass,
            y=_sizes_and_strides(problem.y),
            offsets=_sizes_and_strides(problem.offsets),
            offsets_dtype=_type_name(problem.offsets_dtype),
            kernel=problem.kernel,
            stride=problem.stride,
            padding=problem.padding,
            dilation=problem.dilation,
            **common,
        )
    return module.ConvProblem(
        conv_pass=problem.conv_pass,
        w=_sizes_and_strides(problem.w),
        y=_sizes_and_strides(problem.y),
        stride=problem.stride,
        padding=problem.padding,
        dilation=problem.dilation,
        groups=problem.groups,
        padding_mode=problem.padding_mode,
        padding_value=problem.padding_value,
        has_bias=problem.has_bias,
        residual=None if problem.residual is None else _sizes_and_strides(problem.residual),
        activation=problem.activation,
        allow_tf32=problem.allow_tf32,
        deterministic=problem.deterministic,
        l2_bytes=problem.target.l2_bytes,
        **({} if most_workspace_bytes is None else {"most_workspace_bytes": most_workspace_bytes}),
        **common,
    )
