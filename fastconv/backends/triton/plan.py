"""A candidate ready to run: its launches, the tensors they take, and the tensors they make."""

from __future__ import annotations

from typing import Any

import torch

from fastconv.backends.triton.family import Family
from fastconv.plan import Candidate
from fastconv.problem import (
    ActivationBackwardProblem,
    ConvGlobalMaxProblem,
    ConvProblem,
    FusedProblem,
    Operand,
    PoolProblem,
    Problem,
    UnpoolProblem,
)

#: Per op: the roles of the tensors it is called with, and of those it returns.
_SIGNATURES = {
    "conv2d_fprop": (("x", "w", "bias", "residual"), ("y",)),
    "conv2d_dgrad": (("y", "w", "bias"), ("x",)),
    "conv2d_wgrad": (("y", "x"), ("w", "bias")),
    "conv2d_max_pool2d": (("x", "w", "bias"), ("y", "offsets")),
    "conv2d_global_max": (("x", "w", "bias"), ("y", "indices")),
    "channel_sum": (("x",), ("sums",)),
    "activation_backward": (("dy", "saved"), ("dz",)),
    "max_pool2d_forward": (("x",), ("y", "offsets")),
    "max_pool2d_backward": (("y", "offsets"), ("x",)),
    "max_pool2d_gather": (("x", "offsets"), ("y",)),
    "max_pool2d_indices": (("offsets",), ("indices",)),
    "max_unpool2d_forward": (("x", "indices"), ("y",)),
    "max_unpool2d_add": (("x", "indices"), ("y",)),
    "max_unpool2d_gather": (("y", "indices"), ("x",)),
}


#: Bytes that divide the addresses of what a family lists as `aligned_inputs`.
_ALIGNMENT = 16


class TritonPlan:
    """Called with the op's input tensors, returns new output tensors with the strides of the problem."""

    def __init__(self, problem: Problem, candidate: Candidate, family: Family, config: Any) -> None:
        self.problem = problem
        self.candidate = candidate
        self.launches = family.launches(problem, config)
        self.workspaces = family.workspaces(problem, config)
        self.workspace_bytes = sum(elements * dtype.itemsize for elements, dtype in self.workspaces.values())
        self.inputs, self.outputs = _SIGNATURES[problem.op]
        self._operands = operands_of(problem)
        self._aligned_inputs = getattr(family, "aligned_inputs", ())

    def __call__(self, *inputs: torch.Tensor | None) -> Any:
        if len(inputs) != len(self.inputs):
            raise TypeError(f"{self.problem.op} takes {len(self.inputs)} tensors {self.inputs}, not {len(inputs)}")
        tensors = dict(zip(self.inputs, inputs, strict=True))
        bias = tensors.get("bias")
        if bias is not None and bias.stride() != (1,):  # a slice, or one number expanded, as .sum().backward() sends it
            tensors["bias"] = bias.clone(memory_format=torch.contiguous_format)
        device = next(tensor.device for tensor in inputs if tensor is not None)
        for role, tensor in tensors.items():
            self._check(role, tensor, device)
        for role in self._aligned_inputs:
            if tensors[role].data_ptr() % _ALIGNMENT:
                operand, dtype = self._operands[role]
                copy = torch.empty_strided(operand.sizes, operand.strides, dtype=dtype, device=device)
                tensors[role] = copy.copy_(tensors[role])
        for role in self.outputs:
            operand, dtype = self._operands[role] or (Operand((0,), (1,)), self.problem.dtype)
            tensors[role] = torch.empty_strided(operand.sizes, operand.strides, dtype=dtype, device=device)
        for role, (elements, dtype) in self.workspaces.items():
            tensors[role] = torch.empty(elements, dtype=dtype, device=device)
        for launch in self.launches:
            launch.run(tensors, device)
        outputs = tuple(tensors[role] for role in self.outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def types(self) -> dict[str, torch.dtype | None]:
        """Role -> type of every tensor that the launches may take; None for what the problem has not."""
        types = {role: operand[1] if operand else None for role, operand in self._operands.items()}
        if self.problem.op == "max_pool2d_indices":
            types["x"] = None
        return types | {role: dtype for role, (_, dtype) in self.workspaces.items()}

    def _check(self, role: str, tensor: torch.Tensor | None, device: torch.device) -> None:
        """Kernels trust sizes and strides, so a tensor that does not fit must not reach them."""
        expected = self._operands[role]
        if expected is None or tensor is None:
            if expected is not None or tensor is not None:
                raise ValueError(f"{role} is {'missing' if tensor is None else 'not part of this problem'}")
            return
        operand, dtype = expected
        if tensor.shape != operand.sizes or tensor.stride() != operand.strides or tensor.dtype != dtype:
            raise ValueError(
                f"{role} has sizes {tuple(tensor.shape)}, strides {tensor.stride()} and type {tensor.dtype}, "
                f"the plan was made for {operand.sizes}, {operand.strides} and {dtype}"
            )
        if tensor.device != device:
            raise ValueError(f"{role} is on {tensor.device}, other tensors are on {device}")


def operands_of(problem: Problem) -> dict[str, tuple[Operand, torch.dtype] | None]:
    """Role -> the operand and its type, None where the problem has none."""
    if isinstance(problem, ConvProblem):
        images = {"x": problem.x, "w": problem.w, "y": problem.y, "residual": problem.residual}
        features = problem.x.sizes[1] if problem.conv_pass == "dgrad" else problem.y.sizes[1]
        images["bias"] = _vector(features) if problem.has_bias else None
        return {role: (operand, problem.dtype) if operand else None for role, operand in images.items()}
    if isinstance(problem, FusedProblem):
        pooled = operands_of(problem.pool)
        if isinstance(problem, ConvGlobalMaxProblem):
            batch, filters = problem.conv.y.sizes[:2]
            scores = Operand((batch, filters), (filters, 1))
            pooled |= {"y": (scores, problem.dtype), "indices": (scores, torch.int64)}
        return operands_of(problem.conv) | {role: pooled[role] for role in ("y", "offsets", "indices")}
    if isinstance(problem, PoolProblem):
        return {
            "x": (problem.x, problem.dtype),
            "y": (problem.y, problem.dtype),
            "offsets": (problem.offsets, problem.offsets_dtype),
            "indices": (problem.y, torch.int64),
        }
    if isinstance(problem, UnpoolProblem):
        values = {role: (getattr(problem, role), problem.dtype) for role in ("x", "y")}
        return values | {"indices": (problem.indices, torch.int64)}
    if isinstance(problem, ActivationBackwardProblem):
        return {role: (getattr(problem, role), problem.dtype) for role in ("dy", "saved", "dz")}
    return {"x": (problem.x, problem.dtype), "sums": (_vector(problem.x.sizes[1]), problem.dtype)}


def _vector(elements: int) -> Operand:
    return Operand((elements,), (1,))
