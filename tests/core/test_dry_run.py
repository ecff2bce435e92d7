"""A plan's dry run in the emulator: which kernels it would launch, by the names that nvcc gives them too. None runs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

import fastconv
from fastconv import analysis, emulator
from fastconv.backends import cuda, unfused
from fastconv.bench.hardware import gpu_named
from fastconv.plan import Candidate
from fastconv.problem import Problem
from tests.core import raw

#: The __global__ function by the launch's short name.
FUNCTIONS = {
    r"mma_(fprop|dgrad)": "gather_gemm",
    r"mma_wgrad": "wgrad_gemm",
    r"mma_conv_max_pool": "pool_gemm",
    r"mma_conv_global_max": "best_gemm",
    r"direct_(fprop|dgrad)": "direct_conv_kernel",
    r"direct_wgrad": "direct_wgrad_kernel",
    r"(stem|grouped)_(fprop|dgrad)": "staged_conv",
    r"(stem|grouped)_wgrad": "staged_wgrad",
    r"pointwise_\w+": "pointwise_gemm",
}


def convolution(dtype: torch.dtype, last: bool, filters: tuple[int, int, int], **geometry: Any) -> Callable[[], Any]:
    """Forward and backward."""

    def run() -> None:
        k, c, r = filters
        x = torch.ones(1, c * geometry.get("groups", 1), 10, 10, dtype=dtype)
        x = x.contiguous(memory_format=torch.channels_last) if last else x
        w = torch.ones(k, c, r, r, dtype=dtype, requires_grad=True)
        bias = torch.ones(k, dtype=dtype, requires_grad=True)
        fastconv.conv2d(x.requires_grad_(), w, bias, **geometry).sum().backward()

    return run


def pools() -> None:
    x = torch.ones(1, 8, 8, 8)
    for one in (x, x.contiguous(memory_format=torch.channels_last).half()):
        y, indices = fastconv.max_pool2d(one.requires_grad_(), 2, return_indices=True)
        fastconv.max_unpool2d(y, indices, 2).sum().backward()
        fastconv.max_pool2d(one, 5).sum().backward()


def fused() -> None:
    for channels in (8, 3):
        x = torch.ones(1, channels, 8, 8).half().contiguous(memory_format=torch.channels_last)
        w = torch.ones(8, channels, 3, 3).half()
        fastconv.conv2d_max_pool2d(x, w, pool_kernel_size=2)
        fastconv.conv2d_global_max(x, w)


CASES = {
    "half, channels last": convolution(torch.float16, True, (16, 16, 3), padding=1),
    "bfloat16": convolution(torch.bfloat16, False, (8, 5, 3), padding=1),
    "1x1": convolution(torch.float16, True, (32, 32, 1)),
    "stem": convolution(torch.float16, True, (16, 3, 7), padding=3, stride=2),
    "depthwise": convolution(torch.float32, True, (8, 1, 3), padding=1, groups=8),
    "float64": convolution(torch.float64, False, (2, 3, 3), padding=1),
    "pools": pools,
    "fused": fused,
}


def problems(run: Callable[[], Any]) -> list[Problem]:
    """As they would be on an H100."""
    return [
        analysis.on_gpu(problem, gpu_named("H100")) for problem in {call.problem: 0 for call in fastconv.explain(run)}
    ]


def _tuple(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


def candidates(problem: Problem) -> list[Candidate]:
    """That the core can run by itself."""
    return [
        one
        for one in analysis.candidates_on(problem)
        if one.backend == "cuda" and one.legal and one.kernel != unfused.KERNEL
    ]


@pytest.mark.parametrize("name", CASES)
def test_a_launch_names_its_function_and_one_is_what_the_details_describe(name: str) -> None:
    seen = 0
    for problem in problems(CASES[name]):
        for candidate in candidates(problem):
            seen += 1
            launches = cuda.dry_run(problem, candidate)
            assert launches, candidate
            for launch in launches:
                assert launch["symbol"].startswith("_ZN8fastconv"), launch
                for kernel, function in FUNCTIONS.items():
                    assert not re.fullmatch(kernel, launch["kernel"]) or function in launch["symbol"], launch
            described = {name: candidate.details[name] for name in ("grid", "block", "shared_bytes")}
            own = [launch for launch in launches if launch["kernel"] == candidate.kernel]
            assert [{name: math.prod(_tuple(launch[name])) for name in described} for launch in own] == [described]
    assert seen


def test_nothing_runs_and_the_next_launch_does() -> None:
    x, y = torch.ones(1, 2, 4, 4), raw.unwritten((1, 2, 4, 4), torch.float32)
    w = torch.ones(2, 2, 1, 1)
    compiled = emulator.module()
    problem = compiled.ConvProblem(
        conv_pass="fprop", dtype="float32", x=raw.operand(x), w=raw.operand(w), y=raw.operand(y)
    )
    config = next(one.config for one in compiled.candidates(problem) if one.kernel == "direct_fprop")
    plan = compiled.Plan(problem, "direct_fprop", config)
    with emulator.count() as counters:
        checked = emulator.module().ConvProblem(
            conv_pass="fprop", dtype="float32", x=raw.operand(x), w=raw.operand(w), y=raw.operand(y)
        )
        assert emulator.module().Plan(checked, "direct_fprop", config).dry_run()
    assert not counters.launches
    launches = plan.dry_run()  # its pointers are to nowhere: a kernel that ran would fault
    assert [launch["kernel"] for launch in launches][:1] == ["direct_fprop"]
    assert y.isnan().all()
    plan.launch([x.data_ptr(), w.data_ptr(), y.data_ptr(), 0, 0])
    assert (y == 2).all()


def test_of_no_output_nothing_is_launched() -> None:
    compiled = emulator.module()
    empty, w = torch.ones(0, 2, 4, 4), torch.ones(2, 2, 1, 1)
    problem = compiled.ConvProblem(
        conv_pass="fprop", dtype="float32", x=raw.operand(empty), w=raw.operand(w), y=raw.operand(empty)
    )
    config = next(one.config for one in compiled.candidates(problem) if one.kernel == "direct_fprop")
    assert compiled.Plan(problem, "direct_fprop", config).dry_run() == []
