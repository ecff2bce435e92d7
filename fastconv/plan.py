"""The contract between dispatch and the backends: candidates to choose from, and the plan that a chosen one becomes."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import torch

from fastconv.problem import Problem


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One kernel and configuration of a backend, legal for a problem or rejected with a one-line reason."""

    backend: str  # "cuda", "triton", "aten", "registered"
    kernel: str  # the kernel family: "direct_fprop", ...
    config: str  # prints itself: "128x128x32_s4_w4"; "" where a family has only one
    reason: str = ""  # why it cannot run; empty where it can
    predicted_seconds: float | None = None  # by the cost model, never a measurement
    details: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False)  # tile, grid, shared memory, ...

    @property
    def legal(self) -> bool:
        return not self.reason


class Plan(Protocol):
    """A chosen candidate, ready to run any number of times on tensors that fit its problem.

    It is called with the pass's input tensors in this order and returns new output tensors that have exactly the strides the
    problem gives them:

    ================== ================================= =====================================================
    op                 called with                       returns
    ================== ================================= =====================================================
    conv2d_fprop       x, w, bias | None, residual|None  y
    conv2d_dgrad       dy, w, bias | None                dx
    conv2d_wgrad       dy, x                             (dw, db), db with no elements where it is not wanted
    conv2d_max_pool2d  x, w, bias | None                 (y, offsets)
    conv2d_global_max  x, w, bias | None                 (y [N, K], indices [N, K], int64)
    channel_sum        x                                 sums [C]
    activation_backward dy, saved                        dz
    max_pool2d_forward x                                 (y, offsets)
    max_pool2d_backward dy, offsets                      dx
    max_pool2d_gather  x, offsets                        y
    max_pool2d_indices offsets                           indices (int64)
    max_unpool2d_forward x, indices                      y
    max_unpool2d_add   x, indices                        y
    max_unpool2d_gather y, indices                       x
    ================== ================================= =====================================================
    """

    candidate: Candidate
    workspace_bytes: int

    def __call__(self, *tensors: torch.Tensor | None) -> Any: ...


class Backend(Protocol):
    """A way to run problems. Pure but for `plan`, which may compile or load code."""

    name: str

    def unavailable(self, device_type: str) -> str:
        """Why this backend cannot run on tensors of that device type here; empty where it can."""

    def candidates(self, problem: Problem) -> list[Candidate]:
        """Every kernel and configuration of the problem's op, best first, the rejected ones with their reason."""

    def plan(self, problem: Problem, candidate: Candidate) -> Plan:
        """The candidate, ready to run. ValueError where it is not legal for the problem."""
