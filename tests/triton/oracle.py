"""Runs one configuration of one kernel family on a problem, and the same problem in float64 by PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from fastconv.backends.triton.backend import families
from fastconv.backends.triton.plan import TritonPlan, operands_of
from fastconv.plan import Candidate
from fastconv.problem import ChannelSumProblem, ConvProblem, Operand, PoolProblem, Problem, Target, UnpoolProblem
from fastconv.shapes import conv_output_sizes, dense_strides, pool_output_sizes
from tests.support.references import ACTIVATIONS

CPU = Target("cpu", 80, 108, "test")


def plan_of(problem: Problem, family: Any, config: Any) -> TritonPlan:
    """A plan for a configuration that need not be worth choosing."""
    return TritonPlan(problem, Candidate("triton", family.name, str(config)), family, config)


def dense(sizes: tuple[int, ...], channels_last: bool) -> Operand:
    return Operand(tuple(sizes), dense_strides(tuple(sizes), channels_last))


def conv_problem(
    conv_pass: str,
    x: tuple[int, ...],
    w: tuple[int, ...],
    dtype: torch.dtype,
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    channels_last: bool = False,
    residual: bool = False,
    target: Target = CPU,
    **options: Any,
) -> ConvProblem:
    y = conv_output_sizes(x, w, stride, padding, dilation)
    operands = [dense(sizes, channels_last) for sizes in (x, w, y)]
    extra = dense(y, not channels_last) if residual else None
    return ConvProblem(
        conv_pass, dtype, *operands, stride, padding, dilation, groups, target, residual=extra, **options
    )


def pool_problem(
    pool_pass: str,
    x: tuple[int, ...],
    dtype: torch.dtype,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    *,
    ceil_mode: bool = False,
    channels_last: bool = False,
    target: Target = CPU,
    **options: Any,
) -> PoolProblem:
    sizes = pool_output_sizes(x, kernel, stride, padding, dilation, ceil_mode)
    x_operand, y = dense(x, channels_last), dense(sizes, channels_last)
    offsets_dtype = torch.uint8 if kernel[0] * kernel[1] <= 256 else torch.int32
    return PoolProblem(
        pool_pass, dtype, x_operand, y, y, offsets_dtype, kernel, stride, padding, dilation, target, **options
    )


def unpool_problem(
    unpool_pass: str,
    x: tuple[int, ...],
    size: tuple[int, int],
    dtype: torch.dtype,
    *,
    channels_last: bool = False,
    **options: Any,
) -> UnpoolProblem:
    x_operand, y = dense(x, channels_last), dense((*x[:2], *size), channels_last)
    return UnpoolProblem(unpool_pass, dtype, x_operand, x_operand, y, CPU, **options)


def filled(operand: Operand, values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A tensor with the operand's sizes and strides."""
    return torch.empty_strided(operand.sizes, operand.strides, dtype=dtype).copy_(values.reshape(operand.sizes))


def integers(sizes: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Small integers, half of them zero: sums of their products are exact in every dtype."""
    values = torch.randint(-2, 3, sizes, generator=generator)
    return values * torch.randint(0, 2, sizes, generator=generator)


def inputs_of(problem: Problem, seed: int, draw: Any = integers) -> dict[str, torch.Tensor]:
    """Every operand of the problem with random contents; what the pass writes is drawn too, and not used."""
    generator = torch.Generator().manual_seed(seed)
    return {
        role: filled(entry[0], draw(entry[0].sizes, generator), entry[1])
        for role, entry in operands_of(problem).items()
        if entry is not None
    }


#: Our word -> F.pad's.
_PADDING = {"zeros": "constant"}


def expected_conv(problem: ConvProblem, tensors: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """What the pass returns, in float64."""
    x, w, y = (tensors[role].double() for role in ("x", "w", "y"))
    top, bottom, left, right = problem.padding

    def forward(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        mode, value = _PADDING.get(problem.padding_mode, problem.padding_mode), None
        if mode == "constant":
            value = problem.padding_value
        padded = F.pad(x, (left, right, top, bottom), mode, value)
        return F.conv2d(padded, w, None, problem.stride, 0, problem.dilation, problem.groups)

    bias = tensors["bias"].double()[None, :, None, None] if problem.has_bias else 0.0
    activate = ACTIVATIONS[problem.activation]
    if problem.conv_pass == "fprop":
        residual = tensors["residual"].double() if problem.residual else 0.0
        return (activate(forward(x, w) + bias + residual),)
    if problem.conv_pass == "dgrad":
        _, pull = torch.func.vjp(lambda x: forward(x, w), torch.zeros_like(x))
        return (activate(pull(y)[0] + bias),)
    _, pull = torch.func.vjp(lambda w: forward(x, w), torch.zeros_like(w))
    return pull(y)[0], y.sum((0, 2, 3)) if problem.has_bias else torch.empty(0, dtype=torch.float64)


def run(plan: TritonPlan, tensors: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    outputs = plan(*(tensors.get(role) for role in plan.inputs))
    return outputs if isinstance(outputs, tuple) else (outputs,)


def sum_problem(x: tuple[int, ...], dtype: torch.dtype, channels_last: bool) -> ChannelSumProblem:
    return ChannelSumProblem(dtype, dense(x, channels_last), CPU)


def pool_plan(problem: PoolProblem) -> TritonPlan:
    """Of a pass that a test needs besides the one that it is about."""
    family = families()["max_pool_forward" if problem.pool_pass == "forward" else "max_pool_lookup"]
    return plan_of(problem, family, family.configs(problem)[-1])


def every_config(kernel: str, problems: dict[str, Problem]) -> list[Any]:
    """(id of the problem, problem, configuration) of a family."""
    family = families()[kernel]
    return [
        pytest.param(problem, config, id=f"{kernel}-{name}-{config}")
        for name, problem in problems.items()
        for config in family.configs(problem)
    ]


def layouts(make: Callable[[bool], Problem]) -> dict[str, Problem]:
    """Of a maker that takes whether tensors are channels-last."""
    return {name: make(channels_last) for name, channels_last in (("nchw", False), ("nhwc", True))}
