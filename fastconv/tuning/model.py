"""What ATen is expected to take on a GPU, so that it can stand among the candidates before anything was measured.

A roofline with an efficiency by the kind of problem. The efficiencies are what is known of cuDNN and ATen on Hopper in round
numbers: leads for ordering candidates, never figures to show as measured.
"""

from __future__ import annotations

from fastconv.problem import ConvProblem, FusedProblem, PoolProblem, Problem

#: By capability: bytes per second, and operations per second of tensor cores (16 bit, TF32) and outside (float32, float64).
_DEVICES = {
    80: (1.6e12, 250e12, 125e12, 17e12, 9e12),
    90: (3.0e12, 750e12, 375e12, 55e12, 30e12),
}
_LAUNCH_SECONDS = 4e-6


def aten_seconds(problem: Problem) -> float:
    if isinstance(problem, FusedProblem):  # for ATen two problems
        return aten_seconds(problem.conv) + aten_seconds(problem.pool)
    bandwidth, sixteen_bit, tf32, float32, float64 = _DEVICES[90 if problem.target.capability >= 90 else 80]
    share_of_memory, share_of_peak = _efficiencies(problem)
    size = problem.dtype.itemsize
    peak = (
        sixteen_bit
        if size == 2
        else float64
        if size == 8
        else tf32
        if getattr(problem, "allow_tf32", False)
        else float32
    )
    memory = problem.compulsory_bytes() / (bandwidth * share_of_memory)
    return _LAUNCH_SECONDS + max(memory, problem.flops() / (peak * share_of_peak))


def _efficiencies(problem: Problem) -> tuple[float, float]:
    """Shares of the bandwidth and of the arithmetic peak that ATen is expected to reach."""
    if isinstance(problem, PoolProblem):
        return 0.14, 1.0
    if not isinstance(problem, ConvProblem):
        return 0.6, 1.0
    channels, filters = problem.x.sizes[1], problem.w.sizes[0]
    backward = problem.conv_pass != "fprop"
    if problem.groups > 1:
        depthwise = problem.groups == channels
        return (0.2, 0.02) if depthwise and not backward else (0.1, 0.01) if depthwise else (0.3, 0.1)
    if channels <= 4:
        return 0.2, 0.1
    # NCHW tensors are transposed before and after a tensor-core kernel: each byte moves three times.
    share_of_memory = 0.7 if problem.x.is_channels_last() or problem.dtype.itemsize == 8 else 0.25
    share_of_peak = 0.3 if min(channels, filters) <= 64 else 0.55
    return share_of_memory, share_of_peak * (0.8 if backward else 1.0)
