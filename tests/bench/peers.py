"""Peers for the harness' own tests: one that is right, and several that are not."""

import torch

from fastconv.bench.contestants import pytorch
from fastconv.bench.measurement import Call


def right(case):
    return pytorch(case)


def wrong(case):
    inner = pytorch(case)
    return Call(lambda *arguments: [1.01 * output for output in inner.run(*arguments)], inner.prepare)


def failing(case):
    raise RuntimeError("no engine for this problem\nwith a second line")


def out_of_memory(case):
    def run(*arguments):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 TiB")

    return Call(run)


def elsewhere(case):
    return None
