"""Peers for the harness' own tests: one that is right, and several that are not."""

import torch

from fastconv.bench import measurement
from fastconv.bench.checking import Call
from fastconv.bench.contestants import pytorch
from fastconv.bench.surroundings import settable_cudnn


def right(case):
    return pytorch(case)


def wrong(case):
    inner = pytorch(case)
    return Call(lambda *arguments: [1.01 * output for output in inner.run(*arguments)], inner.prepare)


def rounded_worse(case):
    """An error of 9.5e-7 beside the usual one, in float32."""
    inner = pytorch(case)
    return Call(lambda *arguments: [(1 + 2**-20) * output for output in inner.run(*arguments)], inner.prepare)


def failing(case):
    raise RuntimeError("no engine for this problem\nwith a second line")


def out_of_memory(case):
    def run(*arguments):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 TiB")

    return Call(run)


def elsewhere(case):
    return None


def leaves_deterministic(case):
    """Right, but from now on cuDNN may not choose its fastest kernels."""
    _set("deterministic", True)
    return pytorch(case)


def leaves_benchmark_limit(case):
    inner = pytorch(case)

    def run(*arguments):
        _set("benchmark_limit", 1)
        return inner.run(*arguments)

    return Call(run, inner.prepare)


def replaces_the_judge(case):
    """Right in the calls that are judged before the timing. Then it finds itself right."""
    inner, judge, calls = pytorch(case), measurement.judge, []

    def run(*arguments):
        calls.append(1)
        if len(calls) > 12:
            measurement.judge = lambda *given: judge(given[2], given[2], *given[2:])
        return inner.run(*arguments)

    return Call(run, inner.prepare)


def _set(name, value):
    with settable_cudnn():
        setattr(torch.backends.cudnn, name, value)
