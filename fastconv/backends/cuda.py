"""The CUDA C++ kernels: on CUDA tensors by fastconv._cuda, on CPU tensors by the same kernels compiled into the emulator.

The compiled core knows nothing of torch. Here problems become its problems, tensors become pointers, and memory comes from
torch's allocator. Nothing here falls back to ATen.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from fastconv import emulator
from fastconv.backends import packed_weights, unfused
from fastconv.backends.compiled_problem import compiled_problem
from fastconv.backends.limits import beyond_the_kernels
from fastconv.plan import Candidate, Plan
from fastconv.problem import (
    FusedProblem,
    Operand,
    Problem,
)

OLDEST_CAPABILITY = 80


class CudaBackend:
    name = "cuda"

    def unavailable(self, device_type: str) -> str:
        try:
            _module(device_type)
        except (ImportError, ValueError) as error:  # not built; a wrong word in the emulator's environment
            return str(error)
        if device_type == "cuda" and not torch.cuda.is_available():
            return "torch finds no CUDA device"
        return ""

    def candidates(self, problem: Problem, most_workspace_bytes: int | None = None) -> list[Candidate]:
        """`most_workspace_bytes` of a convolution: None for the core's own limit, 256 MiB."""
        target = problem.target
        if target.capability < OLDEST_CAPABILITY:
            reason = f"the kernels need compute capability 8.0 or later, {target.name} has {target.capability / 10}"
            return [Candidate(self.name, problem.op, "", reason)]
        reason = beyond_the_kernels(problem)
        if reason:
            return [Candidate(self.name, problem.op, "", reason)]
        found = []
        if isinstance(problem, FusedProblem):
            found.append(unfused.candidate(self, problem))
        module = _module(target.device_type)
        try:
            compiled = module.candidates(compiled_problem(module, problem, most_workspace_bytes))
        except ValueError as error:
            return [*found, Candidate(self.name, problem.op, "", str(error))]
        for candidate in compiled:
            details = dict(candidate.details)
            seconds = details.pop("predicted_seconds", None)
            found.append(Candidate(self.name, candidate.kernel, candidate.config, candidate.reason, seconds, details))
        # The kernel that always works comes last among the legal where the cost model finds a better one.
        return sorted(found, key=lambda c: (not c.legal, c.predicted_seconds if c.predicted_seconds else 0.0))

    def plan(self, problem: Problem, candidate: Candidate) -> Plan:
        if candidate.kernel == unfused.KERNEL:
            return unfused.UnfusedPlan(self, problem, candidate)
        return CudaPlan(problem, candidate)


def _module(device_type: str) -> ModuleType:
    """The compiled module for tensors of that device type. ImportError where it was not built."""
    if device_type != "cuda":
        return emulator.module()
    return _cuda_module()


@functools.cache
def _cuda_module() -> ModuleType:
    try:
        return importlib.import_module("fastconv._cuda")
    except ImportError as error:
        raise ImportError(
            f"fastconv._cuda, the compiled CUDA kernels, cannot be imported ({error}). It is built when fastconv is installed "
            "on a machine with nvcc: run `pip install .` in the source tree with CUDA_HOME set, or with FASTCONV_NVCC=pip; "
            "`fastconv info` tells what was built"
        ) from error


def dry_run(problem: Problem, candidate: Candidate) -> list[dict[str, Any]]:
    """The launches that the candidate would make for the problem, in order, without making them: of each the `kernel` in short,
    its mangled name `symbol`, `grid`, `block` and `shared_bytes`. The emulator is asked, whatever the problem's device.

    ImportError where it was not built, ValueError where the core has no such candidate for the problem.
    """
    module = emulator.module()
    return module.Plan(compiled_problem(module, problem), candidate.kernel, candidate.config).dry_run()


# --- plans ------------------------------------------------------------------------------------------------------------


def _allocate(size: int, device: torch.device) -> Tensor:
    """Bytes from PyTorch's allocator."""
    return torch.empty(size, dtype=torch.uint8, device=device)


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


class _Launcher:
    """A plan of one compiled module, and how it packs weights."""

    def __init__(self, core: Any, dtype: torch.dtype):
        self.core = core
        self._packed_bytes: int = core.packed_bytes
        self._packing = core.packing_key, dtype

    def packed(self, weight: Tensor, device: int, stream: int) -> Tensor | None:
        """The weight packed, where it is kept so."""
        if not self._packed_bytes:
            return None

        def pack(packed: Tensor) -> None:
            self.core.pack(weight.data_ptr(), packed.data_ptr(), device, stream)

        return packed_weights.get(weight, self._packing, self._packed_bytes, pack)


class CudaPlan:
    """A kernel and configuration of the compiled core, with the allocations around it."""

    def __init__(self, problem: Problem, candidate: Candidate, most_workspace_bytes: int | None = None):
        self.candidate = candidate
        self._problem = problem
        self._most_workspace_bytes = most_workspace_bytes
        self._on_gpu = problem.target.device_type == "cuda"
        self._launchers: dict[ModuleType, _Launcher] = {}
        self._smaller: CudaPlan | None = None
        self.workspace_bytes: int = self._launcher().core.workspace_bytes
        self._run = _PASSES[problem.op]

    def __call__(self, *tensors: Tensor | None) -> Any:
        return self._run(self, *tensors)

    def _launcher(self) -> _Launcher:
        """The core's plan. Which module that is may change from call to call: inside emulator.check() it is another."""
        module = _cuda_module() if self._on_gpu else emulator.module()
        launcher = self._launchers.get(module)
        if launcher is None:
            problem = compiled_problem(module, self._problem, self._most_workspace_bytes)
            launcher = _Launcher(
                module.Plan(problem, self.candidate.kernel, self.candidate.config), self._problem.dtype
            )
            self._launchers[module] = launcher
        return launcher

    def launch(self, reference: Tensor, *tensors: Tensor | None, weight: Tensor | None = None) -> None:
        """Launches on the current stream of the device that holds `reference`, and of no other.

        `weight`, one of the tensors, may be kept packed from call to call.
        """
        launcher = self._launcher()
        where: tuple[int, int] = (0, 0)
        if self._on_gpu:
            index = reference.device.index
            where = index, torch.cuda.current_stream(index).cuda_stream
        packed = None if weight is None else launcher.packed(weight, *where)
        needed = self.workspace_bytes if packed is None else launcher.core.packed_workspace_bytes
        try:
            workspace = _allocate(needed, reference.device) if needed else None
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            self._with_less_workspace(needed, error).launch(
                reference, *tensors
            )  # where memory is short, nothing is kept
            return
        pointers = tuple(0 if tensor is None else tensor.data_ptr() for tensor in tensors)
        launcher.core.launch(
            pointers,
            0 if workspace is None else workspace.data_ptr(),
            *where,
            0 if packed is None else packed.data_ptr(),
        )

    def _with_less_workspace(self, bytes_refused: int, error: RuntimeError) -> CudaPlan:
        """What to run where the workspace cannot be had: fewer splits, fewer images at a time, another kernel."""
        if self._smaller is None:
            most = bytes_refused // 2
            found = [
                candidate
                for candidate in CudaBackend().candidates(self._problem, most)
                if candidate.legal and candidate.details.get("workspace_bytes", bytes_refused) <= most
            ]
            if not found:
                raise error
            self._smaller = CudaPlan(self._problem, found[0], most)
            warnings.warn(
                f"{self.candidate.kernel} {self.candidate.config} asked for {bytes_refused} bytes of workspace, which could "
                f"not be had; {found[0].kernel} {found[0].config} with {self._smaller.workspace_bytes} bytes runs in its place",
                RuntimeWarning,
                stacklevel=2,
            )
        return self._smaller

    def empty(self, like: Tensor, operand: Operand, dtype: torch.dtype | None = None) -> Tensor:
        return torch.empty_strided(operand.sizes, operand.strides, dtype=dtype or like.dtype, device=like.device)


def _dense(vector: Tensor | None) -> Tensor | None:
    """Kernels take biases without a stride."""
    return None if vector is None else vector.contiguous()


def _fprop(plan: CudaPlan, x: Tensor, w: Tensor, bias: Tensor | None, residual: Tensor | None) -> Tensor:
    y = plan.empty(x, plan._problem.y)
    if y.numel():
        plan.launch(x, x, w, y, _dense(bias), residual, weight=w)
    return y


def _dgrad(plan: CudaPlan, dy: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
    x = plan.empty(dy, plan._problem.x)
    if x.numel():
        plan.launch(dy, x, w, dy, _dense(bias), None, weight=w)
    return x


def _wgrad(plan: CudaPlan, dy: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    problem = plan._problem
    w = plan.empty(x, problem.w)
    bias = torch.empty(problem.w.sizes[0] if problem.has_bias else 0, dtype=x.dtype, device=x.device)
    if w.numel():
        plan.launch(x, x, w, dy, bias if problem.has_bias else None, None)
    return w, bias


def _conv_max_pool(plan: CudaPlan, x: Tensor, w: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    pool = plan._problem.pool
    y = plan.empty(x, pool.y)
    offsets = plan.empty(x, pool.offsets, pool.offsets_dtype)
    if y.numel():
        plan.launch(x, x, w, y, _dense(bias), offsets, weight=w)
    return y, offsets


def _conv_global_max(plan: CudaPlan, x: Tensor, w: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    sizes = plan._problem.pool.y.sizes[:2]
    y, indices = x.new_empty(sizes), x.new_empty(sizes, dtype=torch.int64)
    if y.numel():
        plan.launch(x, x, w, y, _dense(bias), indices, weight=w)
    return y, indices


def _channel_sum(plan: CudaPlan, x: Tensor) -> Tensor:
    sums = torch.empty(x.shape[1], dtype=x.dtype, device=x.device)
    if sums.numel():
        plan.launch(x, x, sums)
    return sums


def _activation_backward(plan: CudaPlan, dy: Tensor, saved: Tensor) -> Tensor:
    dz = plan.empty(dy, plan._problem.dz)
    if dz.numel():
        plan.launch(dy, dy, saved, dz)
    return dz


def _pool_forward(plan: CudaPlan, x: Tensor) -> tuple[Tensor, Tensor]:
    problem = plan._problem
    y = plan.empty(x, problem.y)
    offsets = plan.empty(x, problem.offsets, problem.offsets_dtype)
    if y.numel():
        plan.launch(x, x, y, offsets, None)
    return y, offsets


def _pool_backward(plan: CudaPlan, dy: Tensor, offsets: Tensor) -> Tensor:
    x = plan.empty(dy, plan._problem.x)
    if x.numel():
        plan.launch(dy, x, dy, offsets, None)
    return x


def _pool_gather(plan: CudaPlan, x: Tensor, offsets: Tensor) -> Tensor:
    y = plan.empty(x, plan._problem.y)
    if y.numel():
        plan.launch(x, x, y, offsets, None)
    return y


def _pool_indices(plan: CudaPlan, offsets: Tensor) -> Tensor:
    indices = plan.empty(offsets, plan._problem.y, torch.int64)
    if indices.numel():
        plan.launch(offsets, None, None, offsets, indices)
    return indices


def _unpool(plan: CudaPlan, x: Tensor, indices: Tensor) -> Tensor:
    y = plan.empty(x, plan._problem.y)
    if y.numel():
        plan.launch(x, x, indices, y)
    return y


def _unpool_gather(plan: CudaPlan, y: Tensor, indices: Tensor) -> Tensor:
    x = plan.empty(y, plan._problem.x)
    if x.numel():
        plan.launch(y, x, indices, y)
    return x


_PASSES = {
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
    "max_unpool2d_forward": _unpool,
    "max_unpool2d_add": _unpool,
    "max_unpool2d_gather": _unpool_gather,
}

backend = CudaBackend()
