"""What the tests of the guards share: a job, an honest kernel for it, and how a cheat is shown to be caught."""

from __future__ import annotations

import contextlib

import pytest
import torch

from fastconv.bench import genuine, guards
from fastconv.bench.checking import Call, Check
from fastconv.bench.errors import compare, complaint_about
from fastconv.bench.guards import MeasurementError
from fastconv.bench.measurement import Effort, measure
from fastconv.bench.precision import precision_named

FLOAT32 = precision_named("float32")
EFFORT = Effort(seconds=2e-3, least=4, most=8, batch_seconds=2e-3)
KERNEL = 1e-4  # seconds the honest kernel takes


def work(x, w):
    return x @ w


def checks(factor=1.0):
    generator = torch.Generator().manual_seed(7)
    pairs = []
    for _ in range(4):
        inputs = [torch.randn(24, 16, generator=generator) * factor, torch.randn(16, 20, generator=generator)]
        pairs.append(Check(inputs, [work(*(tensor.double() for tensor in inputs))]))
    return tuple(pairs)


CHECKS = checks()


def accept(accuracy):
    own = compare([work(*check.inputs) for check in CHECKS], [check.expected[0] for check in CHECKS])
    return complaint_about(accuracy, own, FLOAT32)


def timed(device, run, given=CHECKS, precision=FLOAT32, prepare=lambda inputs: inputs):
    return measure(device, Call(run, prepare), given, precision, accept, EFFORT)


def honest(device):
    """A kernel that takes its time, and writes its output when it ends."""

    def run(x, w):
        out = torch.empty(x.shape[0], w.shape[1])
        device.launch(KERNEL, out, lambda: work(x, w))
        return [out]

    return run


def expect_caught(kind, device, run, **options):
    with pytest.raises(MeasurementError) as caught:
        timed(device, run, **options)
    assert caught.value.kind == kind


def replace(monkeypatch, owner, name, value):
    """A test's own replacement of a function that a measurement stands on: not taken for a contestant's."""
    monkeypatch.setattr(owner, name, value)
    others = [one for one in genuine.watched() if one[1:3] != (owner, name)]
    monkeypatch.setattr(genuine, "_watched", others)


def without(monkeypatch, *names):
    """Takes guards away, to show that it is they who catch a cheat."""
    for name in names:
        replace(monkeypatch, guards, name, lambda *arguments: contextlib.nullcontext())
