"""Outputs that are computed when the judge looks, and outputs in memory that the call keeps: caught, and by these guards."""

import contextlib

import pytest
import torch
from torch.overrides import TorchFunctionMode

from fastconv.bench import genuine
from fastconv.bench.device import CpuDevice
from tests.bench.cheats import expect_caught, timed, without, work


def looks_computed(x, w):
    """Something finite that is another thing every time, so that only the right numbers are missing."""
    return torch.randn(x.shape[0], w.shape[1])


def with_a_method_of_its_own(x, w):
    out = looks_computed(x, w)

    def detach():
        del out.detach
        return out.copy_(work(x, w))

    out.detach = detach
    return [out]


class ListThatComputes(list):
    def __iter__(self):
        for out, inputs in super().__iter__():
            yield out.copy_(work(*inputs))


def in_a_list_that_computes(x, w):
    return ListThatComputes([(looks_computed(x, w), (x, w))])


def with_a_pending_sign(x, w):
    return [torch._neg_view(work(-x, w))]


@pytest.mark.parametrize("run", [with_a_method_of_its_own, in_a_list_that_computes, with_a_pending_sign])
def test_work_put_off_until_somebody_looks_is_caught(monkeypatch, run):
    expect_caught("lazy", CpuDevice(), run)
    without(monkeypatch, "require_plain", "require_different")
    timed(CpuDevice(), run)


class Watching(TorchFunctionMode):
    """Computes what was asked for last when any function of PyTorch's reads it."""

    def __init__(self):
        super().__init__()
        self.pending = None

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if self.pending and any(one is self.pending[0] for one in args):
            out, inputs = self.pending
            self.pending = None
            out.copy_(work(*inputs))
        return function(*args, **(kwargs or {}))


def test_a_mode_that_computes_what_the_judge_reads_is_caught(monkeypatch):
    @contextlib.contextmanager
    def cheat():
        mode = Watching()
        with contextlib.ExitStack() as stack:

            def run(x, w):
                if not mode.entered:
                    mode.entered = True
                    stack.enter_context(mode)
                out = looks_computed(x, w)
                mode.pending = (out, (x, w))
                return [out]

            mode.entered = False
            yield run

    with cheat() as run:
        expect_caught("judge", CpuDevice(), run)
    without(monkeypatch, "no_modes", "require_different")
    with cheat() as run:
        timed(CpuDevice(), run)


def test_outputs_that_go_round_in_memory_of_the_calls_are_caught(monkeypatch):
    """Right when they are read, and overwritten a few calls later, under whoever still holds them."""

    def cheat():
        ring, calls = [torch.empty(24, 20) for _ in range(8)], []

        def run(x, w):
            calls.append(1)
            return [torch.mm(x, w, out=ring[len(calls) % 8])]

        return run

    expect_caught("left over", CpuDevice(), cheat())
    without(monkeypatch, "require_let_go")
    timed(CpuDevice(), cheat())


def test_a_call_that_keeps_nothing_but_a_cycle_is_let_go():
    def run(x, w):
        outputs = [work(x, w)]
        cycle = {"outputs": outputs}
        cycle["itself"] = cycle
        return outputs

    timed(CpuDevice(), run)


@pytest.mark.parametrize("name", ["detach", "__sub__", "max", "_version"])
def test_what_the_judge_reads_tensors_with_is_watched(monkeypatch, name):
    original = genuine.held(torch.Tensor, name)

    def run(x, w):
        monkeypatch.setattr(torch.Tensor, name, original if name == "_version" else lambda *given: original(*given))
        return [work(x, w)]

    if name == "_version":  # a read-only attribute: another object that reads the same
        replaced = property(lambda tensor: original.__get__(tensor))

        def run(x, w):
            monkeypatch.setattr(torch.Tensor, name, replaced)
            return [work(x, w)]

    try:
        expect_caught("judge", CpuDevice(), run)
    finally:
        monkeypatch.undo()
