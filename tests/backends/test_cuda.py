"""The backend of the compiled core, with a core that only remembers what it is told: pointers, streams, memory."""

from __future__ import annotations

import types

import pytest
import torch

import fastconv
from fastconv import backends, dispatch, emulator
from fastconv.backends import cuda
from fastconv.problem import Target


class RecordingPlan:
    workspace_bytes = 64
    packed_bytes = 0
    packing_key = b""

    def __init__(self, core, problem, kernel, config):
        self.core, self.problem = core, problem
        core.plans.append((kernel, config))

    def launch(self, pointers, workspace=0, device=0, stream=0, packed=0):
        self.core.launches.append((self.problem, pointers, workspace))


class RecordingCore(types.ModuleType):
    """Has the interface of fastconv._emulator, and computes nothing."""

    def __init__(self):
        super().__init__("recording_core")
        self.plans, self.launches = [], []
        self.reason = ""
        for name in ("ConvProblem", "PoolProblem", "ChannelSumProblem"):
            setattr(self, name, lambda name=name, **arguments: {"name": name} | arguments)

    def candidates(self, problem):
        slow = types.SimpleNamespace(
            kernel="slow", config="a", reason="", details={"predicted_seconds": 2.0, "grid": 1}
        )
        fast = types.SimpleNamespace(kernel="fast", config="b", reason=self.reason, details={"predicted_seconds": 1.0})
        if self.reason:
            fast.details = {}
        return [slow, fast]

    def Plan(self, problem, kernel, config):  # noqa: N802 - the core's name
        return RecordingPlan(self, problem, kernel, config)


@pytest.fixture
def core(monkeypatch):
    core = RecordingCore()
    monkeypatch.setattr(emulator, "module", lambda: core)
    dispatch.clear()
    yield core
    dispatch.clear()


def test_problem_reaches_the_core_whole(core):
    x, w, b = torch.randn(2, 4, 7, 6), torch.randn(6, 2, 3, 2), torch.randn(6)
    residual = torch.randn(2, 6, 7, 6).contiguous(memory_format=torch.channels_last)
    padding = {"padding": "same", "padding_mode": "constant", "padding_value": 0.5}
    fastconv.conv2d(x, w, b, **padding, groups=2, activation="relu", residual=residual, backend="cuda")
    ((problem, pointers, _),) = core.launches
    device = emulator.current_device()
    assert problem == {
        "name": "ConvProblem",
        "conv_pass": "fprop",
        "dtype": "float32",
        "x": ((2, 4, 7, 6), x.stride()),
        "w": ((6, 2, 3, 2), w.stride()),
        "y": ((2, 6, 7, 6), (252, 42, 6, 1)),
        "stride": (1, 1),
        "padding": (1, 1, 0, 1),
        "dilation": (1, 1),
        "groups": 2,
        "padding_mode": "constant",
        "padding_value": 0.5,
        "has_bias": True,
        "residual": ((2, 6, 7, 6), residual.stride()),
        "activation": "relu",
        "index_bits": 32,
        "allow_tf32": False,
        "deterministic": True,
        "capability": device.capability,
        "multiprocessors": device.multiprocessors,
        "l2_bytes": device.l2_bytes,
    }
    assert (pointers[0], pointers[1], pointers[3], pointers[4]) == tuple(t.data_ptr() for t in (x, w, b, residual))


def test_absent_tensors_are_null_and_workspace_is_given(core):
    y = fastconv.conv2d(torch.randn(1, 1, 3, 3), torch.randn(1, 1, 1, 1), backend="cuda")
    ((_, pointers, workspace),) = core.launches
    assert pointers[2] == y.data_ptr()
    assert pointers[3:] == (0, 0)
    assert workspace != 0


def test_bias_with_a_stride_is_made_dense(core):
    """Kernels read a bias element by element."""
    bias = torch.randn(6, 2)[:, 0]
    fastconv.conv2d(torch.randn(1, 1, 3, 3), torch.randn(6, 1, 1, 1), bias, backend="cuda")
    assert core.launches[0][1][3] not in (0, bias.data_ptr())


def test_best_prediction_is_taken(core):
    fastconv.max_pool2d(torch.randn(1, 1, 4, 4), 2, backend="cuda")
    assert core.plans == [("fast", "b")]


def test_impossible_candidates_come_last_and_keep_their_reason(core):
    core.reason = "too fast"
    fastconv.max_pool2d(torch.randn(1, 1, 4, 4), 2, backend="cuda")
    assert core.plans == [("slow", "a")]
    (call,) = fastconv.explain(fastconv.max_pool2d, torch.randn(1, 1, 4, 4), 2, backend="cuda")
    assert [candidate.reason for candidate in call.rejected] == ["too fast"]
    assert call.chosen.predicted_seconds == 2.0
    assert call.chosen.details["grid"] == 1


def test_empty_outputs_are_not_launched(core):
    assert fastconv.max_pool2d(torch.randn(0, 1, 4, 4), 2, backend="cuda").shape == (0, 1, 2, 2)
    assert core.launches == []


def test_module_is_the_one_of_the_moment(core, monkeypatch):
    """Inside emulator.check() kept plans must run in the instrumented module."""
    x = torch.randn(1, 1, 4, 4)
    fastconv.max_pool2d(x, 2, backend="cuda")
    other = RecordingCore()
    monkeypatch.setattr(emulator, "module", lambda: other)
    fastconv.max_pool2d(x, 2, backend="cuda")
    assert (len(core.launches), len(other.launches)) == (1, 1)


def test_a_core_that_rejects_the_problem_is_quoted_and_nothing_else_runs(core):
    def reject(**arguments):
        raise ValueError("stride is (1, 1), but must be odd on Sundays")

    core.PoolProblem = reject
    with pytest.raises(RuntimeError, match="odd on Sundays"):
        fastconv.max_pool2d(torch.randn(1, 1, 4, 4), 2, backend="cuda")


def test_missing_core_is_an_error_and_not_aten(monkeypatch):
    def missing():
        raise ImportError("no emulator was built")

    monkeypatch.setattr(emulator, "module", missing)
    dispatch.clear()
    with pytest.raises(RuntimeError, match=r"(?s)backend is 'cuda'.*no emulator was built.*'aten'"):
        fastconv.max_pool2d(torch.randn(1, 1, 4, 4), 2, backend="cuda")


def test_old_devices_are_refused_in_words():
    x = fastconv.problem.Operand((1, 1, 4, 4), (16, 16, 4, 1))
    problem = dispatch.make_channel_sum_problem(torch.float32, Target("cuda", 75, 40, "an old one"), x)
    (candidate,) = cuda.backend.candidates(problem)
    assert "8.0 or later, an old one has 7.5" in candidate.reason


def test_names_of_backends():
    assert set(backends.NAMES) == {"cuda", "triton", "aten", "registered"}
    assert backends.get("cuda").name == "cuda"


@pytest.mark.parametrize("name", ["cuda", "triton"])
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x, w, name: fastconv.conv2d(x, w, stride=2**31, backend=name), r"stride is \(2147483648, 2147483648\)"),
        (lambda x, w, name: fastconv.conv2d(x, w[..., :1, :1], dilation=(1, 2**40), backend=name), "dilation is"),
        (
            lambda x, w, name: fastconv.conv2d(x, w, padding=2**31 - 1, backend=name),
            r"y of sizes \[1, 3, .*2\*\*63 - 1",
        ),
        (lambda x, w, name: fastconv.max_pool2d(x, 2, stride=2**31, backend=name), "stride is"),
    ],
)
def test_numbers_beyond_the_kernels_are_refused_in_words(call, words, name):
    """Not with the text of the binding, which lists its signatures, nor from inside of Triton."""
    x, w = torch.ones(1, 2, 4, 5), torch.ones(3, 2, 3, 3)
    with pytest.raises(RuntimeError, match=words) as error:
        call(x, w, name)
    assert "incompatible constructor arguments" not in str(error.value)
