"""Every pass through ATen: cuDNN on a GPU, oneDNN on a CPU. The baseline, and what a CPU user wants.

ATen knows only symmetric padding of zeros, int64 pool indices and its own choice of memory format, so a plan here fits the
problem to ATen and ATen's result to the strides that the problem promises.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastconv import activation
from fastconv.backends.aten_padding import Padding
from fastconv.plan import Candidate
from fastconv.problem import (
    ActivationBackwardProblem,
    AdaptivePoolProblem,
    ChannelSumProblem,
    ConvProblem,
    FusedProblem,
    Operand,
    PoolProblem,
    Problem,
    UnpoolProblem,
)
from fastconv.shapes import pool_output_sizes

aten = torch.ops.aten


class AtenBackend:
    name = "aten"

    def unavailable(self, device_type: str) -> str:
        return ""

    def candidates(self, problem: Problem) -> list[Candidate]:
        return [Candidate("aten", problem.op, "")]

    def plan(self, problem: Problem, candidate: Candidate) -> AtenPlan:
        return AtenPlan(candidate, (_PASSES | _PASSES_OF_ATEN_ALONE)[problem.op](problem))


@dataclasses.dataclass(frozen=True)
class AtenPlan:
    candidate: Candidate
    run: Callable[..., Any]
    workspace_bytes: int = 0  # ATen allocates what it needs by itself

    def __call__(self, *tensors: Tensor | None) -> Any:
        # Operands already have the types they are to be computed in, and the kernel of an op is not autocast's business.
        device_type = next(tensor.device.type for tensor in tensors if tensor is not None)
        if torch.is_autocast_enabled(device_type):
            with torch.autocast(device_type, enabled=False):
                return self.run(*tensors)
        return self.run(*tensors)


def _with_strides(result: Tensor, operand: Operand) -> Tensor:
    """The result itself where its strides are the promised ones, a copy that has them otherwise."""
    if result.stride() == operand.strides:
        return result
    return result.new_empty_strided(operand.sizes, operand.strides).copy_(result)


def _empty(operand: Operand, like: Tensor) -> Tensor:
    return like.new_empty_strided(operand.sizes, operand.strides)


# --- convolution ------------------------------------------------------------------------------------------------------


def _is_empty(problem: ConvProblem) -> bool:
    return any(0 in operand.sizes for operand in (problem.x, problem.w, problem.y))


def _fprop(problem: ConvProblem) -> Callable[..., Tensor]:
    padding = Padding.of(problem)
    stride, dilation = list(problem.stride), list(problem.dilation)
    activate = activation.APPLY[problem.activation]
    empty = _is_empty(problem)

    def run(x: Tensor, w: Tensor, bias: Tensor | None, residual: Tensor | None) -> Tensor:
        if empty:
            y = _empty(problem.y, x).zero_()
            if bias is not None:
                y += bias.view(1, -1, 1, 1)
        else:
            x = padding.apply(x)
            y = torch.convolution(x, w, bias, stride, padding.symmetric, dilation, False, [0, 0], problem.groups)
        if residual is not None:
            y = y + residual
        return _with_strides(activate(y), problem.y)

    return run


def _dgrad(problem: ConvProblem) -> Callable[..., Tensor]:
    """As a transposed convolution: of the padded x where padding is explicit, the frame cut off, or folded back, again."""
    padding = Padding.of(problem)
    stride, dilation = list(problem.stride), list(problem.dilation)
    activate = activation.APPLY[problem.activation]
    empty = _is_empty(problem)
    outputs, taps, inputs = problem.y.sizes[2:], problem.w.sizes[2:], problem.x.sizes[2:]
    frame = padding.explicit or [0, 0, 0, 0]
    framed = inputs[0] + frame[2] + frame[3], inputs[1] + frame[0] + frame[1]
    # What the strided windows leave over at the end; PyTorch calls it output_padding.
    left_over = [
        framed[axis]
        + 2 * padding.symmetric[axis]
        - ((outputs[axis] - 1) * stride[axis] + dilation[axis] * (taps[axis] - 1) + 1)
        for axis in (0, 1)
    ]

    def run(dy: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        if empty:
            x = _empty(problem.x, dy).zero_()
        else:
            x = torch.convolution(dy, w, None, stride, padding.symmetric, dilation, True, left_over, problem.groups)
            x = padding.transposed(x)
        if bias is not None:
            x = x + bias.view(1, -1, 1, 1)
        return _with_strides(activate(x), problem.x)

    return run


def _wgrad(problem: ConvProblem) -> Callable[..., tuple[Tensor, Tensor]]:
    padding = Padding.of(problem)
    stride, dilation = list(problem.stride), list(problem.dilation)
    filters = problem.w.sizes[0]
    empty = _is_empty(problem)

    def run(dy: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        weight = _empty(problem.w, x)
        if empty:
            db = _channel_sum_of(dy) if problem.has_bias else dy.new_empty(0)
            return weight.zero_(), db
        x = padding.apply(x)
        _, dw, db = aten.convolution_backward.default(
            dy,
            x,
            weight,  # its sizes are read, its values are not
            [filters],
            stride,
            padding.symmetric,
            dilation,
            False,
            [0, 0],
            problem.groups,
            [False, True, problem.has_bias],
        )
        return _with_strides(dw, problem.w), db if problem.has_bias else dy.new_empty(0)

    return run


def _channel_sum_of(x: Tensor) -> Tensor:
    return x.sum((0, 2, 3))


def _activation_backward(problem: ActivationBackwardProblem) -> Callable[..., Tensor]:
    function = (activation.FROM_OUTPUT | activation.FROM_INPUT)[problem.activation]

    def run(dy: Tensor, saved: Tensor) -> Tensor:
        return _with_strides(function(dy, saved), problem.dz)

    return run


def _channel_sum(problem: ChannelSumProblem) -> Callable[..., Tensor]:
    return _channel_sum_of


# --- pooling ----------------------------------------------------------------------------------------------------------


def _window_arguments(problem: PoolProblem) -> tuple[list[int], list[int], list[int], list[int], bool]:
    kernel, stride = list(problem.kernel), list(problem.stride)
    padding, dilation = list(problem.padding), list(problem.dilation)
    floor_sizes = pool_output_sizes(problem.x.sizes, kernel, stride, padding, dilation, ceil_mode=False)
    return kernel, stride, padding, dilation, floor_sizes != problem.y.sizes


def _window_origins(problem: PoolProblem, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row [P, 1] and column [Q] where each window starts, padding included (so below zero at the border)."""
    height, width = problem.y.sizes[2:]
    rows = torch.arange(height, device=device) * problem.stride[0] - problem.padding[0]
    columns = torch.arange(width, device=device) * problem.stride[1] - problem.padding[1]
    return rows.view(-1, 1), columns


def _offsets_from_indices(problem: PoolProblem, indices: Tensor) -> Tensor:
    """Places inside the window, from flat positions in H*W."""
    rows, columns = _window_origins(problem, indices.device)
    width = problem.x.sizes[3]
    r = (torch.div(indices, width, rounding_mode="floor") - rows) // problem.dilation[0]
    s = (indices % width - columns) // problem.dilation[1]
    return (r * problem.kernel[1] + s).to(problem.offsets_dtype)


def _indices_from_offsets(problem: PoolProblem, offsets: Tensor) -> Tensor:
    """Flat positions in H*W, from places inside the window."""
    rows, columns = _window_origins(problem, offsets.device)
    places = offsets.to(torch.int64)
    h = rows + (places // problem.kernel[1]) * problem.dilation[0]
    w = columns + (places % problem.kernel[1]) * problem.dilation[1]
    return h * problem.x.sizes[3] + w


def _pool_forward(problem: PoolProblem) -> Callable[..., tuple[Tensor, Tensor]]:
    arguments = _window_arguments(problem)

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        if 0 in problem.y.sizes:
            offsets = x.new_empty_strided(problem.offsets.sizes, problem.offsets.strides, dtype=problem.offsets_dtype)
            return _empty(problem.y, x), offsets
        y, indices = aten.max_pool2d_with_indices.default(x, *arguments)
        offsets = _offsets_from_indices(problem, indices)
        return _with_strides(y, problem.y), _with_strides(offsets, problem.offsets)

    return run


def _pool_backward(problem: PoolProblem) -> Callable[..., Tensor]:
    arguments = _window_arguments(problem)

    def run(dy: Tensor, offsets: Tensor) -> Tensor:
        x = _empty(problem.x, dy)  # its sizes and format are read, its values are not
        if 0 in problem.y.sizes:
            return x.zero_()
        indices = _indices_from_offsets(problem, offsets)
        return _with_strides(aten.max_pool2d_with_indices_backward.default(dy, x, *arguments, indices), problem.x)

    return run


def _pool_gather(problem: PoolProblem) -> Callable[..., Tensor]:
    def run(x: Tensor, offsets: Tensor) -> Tensor:
        if 0 in problem.y.sizes:
            return _empty(problem.y, x)
        indices = _indices_from_offsets(problem, offsets)
        y = x.flatten(2).gather(2, indices.flatten(2)).view(problem.y.sizes)
        return _with_strides(y, problem.y)

    return run


def _pool_indices(problem: PoolProblem) -> Callable[..., Tensor]:
    def run(offsets: Tensor) -> Tensor:
        return _with_strides(_indices_from_offsets(problem, offsets), problem.y)

    return run


def _adaptive_pool_forward(problem: AdaptivePoolProblem) -> Callable[..., tuple[Tensor, Tensor]]:
    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        y, indices = aten.adaptive_max_pool2d.default(x, problem.y.sizes[2:])
        return _with_strides(y, problem.y), _with_strides(indices, problem.y)

    return run


def _adaptive_pool_backward(problem: AdaptivePoolProblem) -> Callable[..., Tensor]:
    def run(dy: Tensor, indices: Tensor) -> Tensor:
        x = _empty(problem.x, dy)  # its sizes and format are read, its values are not
        return _with_strides(aten.adaptive_max_pool2d_backward.default(dy, x, indices), problem.x)

    return run


# --- a convolution and what is pooled of it -----------------------------------------------------------------------------


def _conv_max_pool(problem: FusedProblem) -> Callable[..., tuple[Tensor, Tensor]]:
    convolve, pool = _fprop(problem.conv), _pool_forward(problem.pool)
    return lambda x, w, bias: pool(convolve(x, w, bias, None))


def _conv_global_max(problem: FusedProblem) -> Callable[..., tuple[Tensor, Tensor]]:
    convolve = _fprop(problem.conv)
    sizes = problem.pool.y.sizes[:2]

    def run(x: Tensor, w: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        if 0 in sizes:
            return x.new_empty(sizes), x.new_empty(sizes, dtype=torch.int64)
        y, indices = aten.adaptive_max_pool2d.default(convolve(x, w, bias, None), [1, 1])
        return y.reshape(sizes), indices.reshape(sizes)

    return run


def _unpool_forward(problem: UnpoolProblem) -> Callable[..., Tensor]:
    def run(x: Tensor, indices: Tensor) -> Tensor:
        if 0 in problem.x.sizes or 0 in problem.y.sizes:
            return _empty(problem.y, x).zero_()
        return _with_strides(aten.max_unpool2d.default(x, indices, problem.y.sizes[2:]), problem.y)

    return run


def _unpool_add(problem: UnpoolProblem) -> Callable[..., Tensor]:
    batch, channels, height, width = problem.y.sizes

    def run(x: Tensor, indices: Tensor) -> Tensor:
        sums = x.new_zeros(batch, channels, height * width)
        sums.scatter_add_(2, indices.flatten(2), x.flatten(2))
        return _with_strides(sums.view(problem.y.sizes), problem.y)

    return run


def _unpool_gather(problem: UnpoolProblem) -> Callable[..., Tensor]:
    def run(y: Tensor, indices: Tensor) -> Tensor:
        x = y.flatten(2).gather(2, indices.flatten(2)).view(problem.x.sizes)
        return _with_strides(x, problem.x)

    return run


_PASSES: dict[str, Callable[[Any], Callable[..., Any]]] = {
    "conv2d_fprop": _fprop,
    "conv2d_dgrad": _dgrad,
    "conv2d_wgrad": _wgrad,
    "conv2d_max_pool2d": _conv_max_pool,
    "conv2d_global_max": _conv_global_max,
    "channel_sum": _channel_sum,
    "activation_backward": _activation_backward,
    "max_pool2d_forward": _pool_forward,
    "max_pool2d_backward": _pool_backward,
    "max_pool2d_gather": _pool_gather,
    "max_pool2d_indices": _pool_indices,
    "max_unpool2d_forward": _unpool_forward,
    "max_unpool2d_add": _unpool_add,
    "max_unpool2d_gather": _unpool_gather,
}
#: What PyTorch's own functions run, and no other backend or registered kernel can: plans for `explain` and for tuning.
_PASSES_OF_ATEN_ALONE: dict[str, Callable[[Any], Callable[..., Any]]] = {
    "adaptive_max_pool2d_forward": _adaptive_pool_forward,
    "adaptive_max_pool2d_backward": _adaptive_pool_backward,
}

backend = AtenBackend()
