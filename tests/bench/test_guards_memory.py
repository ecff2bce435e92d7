"""A result that was remembered, or made where the clock does not run, is caught; without its guard it goes unnoticed."""

import dataclasses
import time

import pytest
import torch

from fastconv.bench import measurement
from fastconv.bench.device import CpuDevice
from tests.bench.cheats import CHECKS, KERNEL, expect_caught, replace, timed, without, work
from tests.bench.simulated import LAUNCH, SimulatedDevice

# --- a cached result


def cached_by(key):
    store = {}

    def run(x, w):
        if key(x) not in store:
            store[key(x)] = work(x, w)
        return [store[key(x)].clone()]

    return run


@pytest.mark.parametrize(
    "key",
    [lambda x: x.data_ptr(), lambda x: (x.data_ptr(), x._version), lambda x: tuple(x.shape)],
    ids=["pointer", "pointer-and-version", "shape"],
)
def test_a_cached_result_is_caught(key):
    expect_caught("cached", CpuDevice(), cached_by(key))


def test_a_result_cached_only_after_the_checks_is_caught_while_timing(monkeypatch):
    """Right in the first calls, cached from then on: the check hidden among the timed iterations finds it."""

    def cheat():
        calls, last = [], []

        def run(x, w):
            calls.append(1)
            if len(calls) <= 10:  # what comes before the timing
                last[:] = [work(x, w)]
            return [last[0].clone()]

        return run

    expect_caught("wrong", CpuDevice(), cheat())
    replace(monkeypatch, measurement, "judge", lambda *arguments: None)
    timed(CpuDevice(), cheat())


def kept_while_the_version_stays(make, use):
    """What is made of the weights is kept by their version counter, as PyTorch's own caches of weights are."""
    kept = {}

    def run(x, w):
        if kept.get("version") != w._version:
            kept.update(version=w._version, made=make(x, w))
        return [use(x, kept["made"]).clone()]

    return run


def with_parameters(*positions):
    return tuple(dataclasses.replace(check, parameters=frozenset(positions)) for check in CHECKS)


def test_weights_rearranged_once_while_they_stay_are_honest():
    def rearranging():
        return kept_while_the_version_stays(lambda x, w: w.t().contiguous(), lambda x, made: x @ made.t())

    timed(CpuDevice(), rearranging(), given=with_parameters(1))
    expect_caught("wrong", CpuDevice(), rearranging())  # of what is no weight nothing tells that it changed


def test_a_result_kept_while_the_weights_stay_is_caught():
    run = kept_while_the_version_stays(work, lambda x, made: made)
    expect_caught("cached", CpuDevice(), run, given=with_parameters(1))


@pytest.mark.parametrize(
    "key", [lambda x, w: x[0, 0], lambda x, w: x.sum(), lambda x, w: w[0, 0]], ids=["x", "sum", "w"]
)
def test_a_result_remembered_by_a_sample_of_its_inputs_is_caught(monkeypatch, key):
    """Fresh contents are always new to it, so every check of a result passes; a change of a few elements is not noticed."""

    def cheat():
        store = {}

        def run(x, w):
            return [store.setdefault(float(key(x, w)), work(x, w)).clone()]

        return run

    expect_caught("cached", CpuDevice(), cheat())
    without(monkeypatch, "require_different", "require_same_time_on_new_contents")
    timed(CpuDevice(), cheat())


def test_a_result_remembered_by_all_of_its_inputs_is_caught_by_its_time(monkeypatch):
    """It is right, always. But a loop over the same inputs would be said to take what a look-up takes."""

    def cheat(device):
        store = {}

        def run(x, w):
            out, key = torch.empty(x.shape[0], w.shape[1]), (x.numpy().tobytes(), w.numpy().tobytes())
            seconds = KERNEL / 50 if key in store and device.recording is None else KERNEL
            device.launch(
                seconds, out, lambda: store.setdefault((x.numpy().tobytes(), w.numpy().tobytes()), work(x, w))
            )
            return [out]

        return run

    device = SimulatedDevice()
    expect_caught("cached", device, cheat(device))
    without(monkeypatch, "require_same_time_on_new_contents")
    device = SimulatedDevice()
    result = timed(device, cheat(device))
    assert result.warm.median < KERNEL / 5 < result.cold.median


def test_calls_left_out_in_a_row_of_them_are_caught(monkeypatch):
    """Every call that is waited for is honest; one that follows another at once returns what that one did."""

    def cheat(device):
        last = {"begun": -1.0}

        def run(x, w):
            out = torch.empty(x.shape[0], w.shape[1])
            if device.host_seconds() - last["begun"] < 2 * LAUNCH and device.recording is None:
                device.launch(0.0, out, lambda old=last["result"]: old)
            else:
                last["result"] = work(x, w)
                device.launch(KERNEL, out, lambda: work(x, w))
            last["begun"] = device.host_seconds()
            return [out]

        return run

    device = SimulatedDevice()
    expect_caught("cached", device, cheat(device))
    without(monkeypatch, "require_different", "require_same_time_on_new_contents")
    device = SimulatedDevice()
    assert timed(device, cheat(device)).warm.median < KERNEL / 5


def garbage_in_a_row(device, calls):
    """Garbage in next to no time, always another; but not while a graph is captured, nor where each call is waited for."""

    def run(x, w):
        out, begun = torch.empty(x.shape[0], w.shape[1]), device.host_seconds()
        quick = begun - calls.get("ended", -1.0) < LAUNCH / 2 and calls["in a row"] >= 3 and device.recording is None
        calls["in a row"] = calls["in a row"] + 1 if begun == calls.get("ended") else 0
        device.launch(KERNEL / 50 if quick else KERNEL, out, lambda: torch.randn(out.shape) if quick else work(x, w))
        calls["ended"] = device.host_seconds()
        return [out]

    return run


def test_garbage_returned_only_in_a_long_row_of_calls_is_caught(monkeypatch):
    """It differs from call to call and is as quick on new contents as on old: only a judged result of a timed row shows it."""
    device = SimulatedDevice()
    expect_caught("wrong", device, garbage_in_a_row(device, {"in a row": 0}))
    replace(monkeypatch, measurement, "judge", lambda *arguments: None)
    device = SimulatedDevice()
    assert timed(device, garbage_in_a_row(device, {"in a row": 0})).warm.median < KERNEL / 5


def test_a_graph_that_only_copies_a_result_is_caught():
    def cheat(device):
        last = []

        def run(x, w):
            out = torch.empty(x.shape[0], w.shape[1])
            if device.recording is None:
                last[:] = [work(x, w)]
                device.launch(KERNEL, out, lambda: work(x, w))
            else:
                device.launch(KERNEL / 50, out, lambda result=last[0]: result)
            return [out]

        return run

    device = SimulatedDevice()
    expect_caught("cached", device, cheat(device))
    device = SimulatedDevice()
    unchanging = (*CHECKS[:3], CHECKS[0])  # a graph is then checked on what it was captured with
    assert timed(device, cheat(device), given=unchanging).graph.median < KERNEL / 5


# --- work where the clock does not run


def test_work_done_while_arguments_are_prepared_is_caught(monkeypatch):
    cheat = {"run": lambda y: [y.clone()], "prepare": lambda inputs: [work(*inputs)]}
    expect_caught("prepared", CpuDevice(), **cheat)
    without(monkeypatch, "require_work_in_the_call", "require_different")
    timed(CpuDevice(), **cheat)


def test_weights_rearranged_while_arguments_are_prepared_are_caught():
    prepare = lambda inputs: [inputs[0], inputs[1].t().contiguous()]  # noqa: E731
    expect_caught("prepared", CpuDevice(), lambda x, rearranged: [x @ rearranged.t()], prepare=prepare)


class Lazy(torch.Tensor):
    """Computes what it holds when somebody first looks at it."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunctionSubclass():
            for one in args:
                if isinstance(one, Lazy) and one.waiting:
                    x, w = one.waiting
                    one.waiting = None
                    time.sleep(2e-3)
                    one.as_subclass(torch.Tensor).copy_(work(x, w))
            result = func(*args, **(kwargs or {}))
            return result.as_subclass(torch.Tensor) if isinstance(result, torch.Tensor) else result


def test_an_output_computed_only_when_it_is_looked_at_is_caught(monkeypatch):
    def run(x, w):
        out = torch.empty(x.shape[0], w.shape[1]).as_subclass(Lazy)
        out.waiting = (x, w)
        return [out]

    expect_caught("lazy", CpuDevice(), run)
    without(monkeypatch, "require_plain", "require_different")
    assert timed(CpuDevice(), run).cold.median < 1e-3


def test_an_output_on_another_device_is_caught():
    expect_caught("lazy", CpuDevice(), lambda x, w: [work(x, w).to("meta")])
