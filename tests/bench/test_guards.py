"""Every known cheat is caught, and goes unnoticed when its guard is taken away: so it is that guard which catches it.

Here: outputs, inputs and precision. Remembered results are in test_guards_memory, clocks and functions in test_guards_clocks.
"""

import threading
import time

import pytest
import torch

from fastconv.bench import checking, guards, measurement
from fastconv.bench.checking import Call
from fastconv.bench.device import CpuDevice
from fastconv.bench.guards import MeasurementError
from tests.bench.cheats import (
    CHECKS,
    FLOAT32,
    KERNEL,
    accept,
    checks,
    expect_caught,
    honest,
    replace,
    timed,
    without,
    work,
)
from tests.bench.simulated import SimulatedDevice


def test_an_honest_kernel_gets_its_own_time():
    device = SimulatedDevice()
    result = timed(device, honest(device))
    for sample in (result.cold, result.warm, result.graph):
        assert sample.median == pytest.approx(KERNEL, rel=0.1)
    assert result.accuracy.relative < 1e-6


# --- a kernel that is not finished when the call's stream is done


def late_on_another_stream(device):
    def run(x, w):
        out = torch.empty(x.shape[0], w.shape[1])
        x, w = x.clone(), w.clone()
        device.launch(2 * KERNEL, out, lambda: work(x, w), stream="other")
        return [out]

    return run


def test_an_output_still_being_written_when_its_stream_is_done_is_caught():
    device = SimulatedDevice()
    expect_caught("unfinished", device, late_on_another_stream(device))


def test_a_thread_that_writes_after_the_call_returned_is_caught():
    threads = []

    def run(x, w):
        out = torch.empty(x.shape[0], w.shape[1])

        def later():
            time.sleep(0.02)
            out.copy_(work(x, w))

        threads.append(threading.Thread(target=later))
        threads[-1].start()
        return [out]

    class Host(CpuDevice):
        def synchronize(self):
            for thread in threads:
                thread.join()

    expect_caught("unfinished", Host(), run)


def test_without_poison_an_unfinished_output_can_look_right(monkeypatch):
    """The memory may hold the right answer from before: only the poison shows that nothing was written yet."""
    device = SimulatedDevice()
    right = {}

    def run(x, w):
        out = torch.empty(x.shape[0], w.shape[1])
        if bool(torch.isnan(out).all()):
            device.launch(2 * KERNEL, out, lambda: work(x, w), stream="other")
        else:  # what a reused block of the allocator would hold
            out.copy_(right.setdefault(float(x[0, 0]), work(x, w)))
        return [out]

    expect_caught("unfinished", device, run)
    replace(monkeypatch, guards, "poison", lambda tensor: tensor.zero_())
    checking.check_twice(device, Call(run), CHECKS[0].copied(), CHECKS, [torch.float32], accept)


# --- an output never written, or left over


def test_an_output_never_written_is_caught():
    device = SimulatedDevice()

    def run(x, w):
        device.launch(KERNEL)
        return [torch.empty(x.shape[0], w.shape[1])]

    expect_caught("unwritten", device, run)


def test_an_output_with_one_column_never_written_is_caught():
    device = SimulatedDevice()

    def run(x, w):
        out = torch.empty(x.shape[0], w.shape[1])
        device.launch(KERNEL, out[:, :-1], lambda: work(x, w)[:, :-1])
        return [out]

    expect_caught("unwritten", device, run)


def test_an_output_left_over_in_the_last_calls_memory_is_caught(monkeypatch):
    device = SimulatedDevice()
    out = torch.empty(24, 20)

    def run(x, w):
        device.launch(KERNEL, out, lambda: work(x, w))
        return [out]

    expect_caught("left over", device, run)
    without(monkeypatch, "require_own_memory", "require_let_go", "require_different")
    timed(device, run)


def test_every_allocation_function_of_torch_is_poisoned_and_restored():
    with guards.poisoned_allocations():
        base = torch.empty(2, 2)
        for tensor in (
            base,
            torch.empty_like(base),
            torch.empty_strided((2,), (1,)),
            base.new_empty(3),
            base.new_empty_strided((2,), (1,)),
        ):
            assert bool(torch.isnan(tensor).all())
        assert torch.empty(2, dtype=torch.uint8).tolist() == [255, 255]
    assert not torch.empty.__module__.startswith("fastconv")


# --- a mutated input


def test_a_mutated_input_is_caught(monkeypatch):
    def run(x, w):
        out = work(x, w)
        x[0].mul_(0.5)
        return [out]

    expect_caught("mutated", CpuDevice(), run)
    without(monkeypatch, "require_unchanged", "no_writes")
    replace(monkeypatch, measurement, "judge", lambda *arguments: None)  # a row of such calls comes to another result
    timed(CpuDevice(), run)


@pytest.mark.parametrize("position", [0, 1], ids=["x", "w"])
def test_an_input_that_was_changed_and_put_back_is_caught(monkeypatch, position):
    def run(*inputs):
        inputs[position].neg_()
        out = -work(*inputs)
        inputs[position].neg_()
        return [out]

    expect_caught("mutated", CpuDevice(), run)
    without(monkeypatch, "no_writes")
    timed(CpuDevice(), run)


def test_an_input_that_is_changed_and_put_back_only_while_it_is_timed_is_caught(monkeypatch):
    def cheat():
        calls = []

        def run(x, w):
            calls.append(1)
            if len(calls) > 10:  # what comes before the timing
                w.neg_()
                w.neg_()
            return [work(x, w)]

        return run

    expect_caught("mutated", CpuDevice(), cheat())
    without(monkeypatch, "no_writes")
    timed(CpuDevice(), cheat())


# --- zeros as input


@pytest.mark.parametrize("fill", [0.0, 3.0])
def test_zeros_and_constants_as_input_are_caught(monkeypatch, fill):
    given = checks()
    for check in given:
        check.inputs[0].fill_(fill)
        check.expected[0].copy_(work(*(tensor.double() for tensor in check.inputs)))
    expect_caught("zeros", CpuDevice(), lambda x, w: [work(x, w)], given=given)
    without(monkeypatch, "require_random", "require_different")
    timed(CpuDevice(), lambda x, w: [work(x, w)], given=given)


# --- another precision


def test_a_baseline_that_upcasts_is_caught():
    def run(x, w):
        return [(x.double() @ w.double()).float()]

    expect_caught("precision", CpuDevice(), run)


def test_an_output_in_another_dtype_is_caught():
    expect_caught("precision", CpuDevice(), lambda x, w: [(x * 1 @ w).double()])


def test_a_call_that_leaves_a_precision_switch_changed_is_caught(monkeypatch):
    before = torch.get_float32_matmul_precision()

    def run(x, w):
        torch.set_float32_matmul_precision("medium")
        return [work(x, w)]

    try:
        expect_caught("precision", CpuDevice(), run)
        without(monkeypatch, "require_same_switches")
        timed(CpuDevice(), run)
    finally:
        torch.set_float32_matmul_precision(before)


def test_an_error_of_tensorfloat_size_in_a_float32_row_is_caught():
    guards.require_error_of_precision(1e-6, FLOAT32)
    with pytest.raises(MeasurementError, match="precision"):
        guards.require_error_of_precision(3e-4, FLOAT32)


# --- too good to be true


def test_a_figure_above_the_roofline_is_an_error():
    guards.require_below_roof(1.0e-5, 1.0e-5)
    with pytest.raises(MeasurementError, match="above the roofline"):
        guards.require_below_roof(0.9e-5, 1.0e-5)


def test_a_wrong_result_is_not_timed():
    expect_caught("wrong", CpuDevice(), lambda x, w: [work(x, w) * (1 + 1e-3)])


@pytest.mark.parametrize("outputs", [0, 2])
def test_too_few_and_too_many_outputs_are_wrong(outputs):
    expect_caught("wrong", CpuDevice(), lambda x, w: [work(x, w)] * outputs)


def test_an_empty_graph_is_caught():
    """Work that a graph did not capture leaves the poison in its outputs."""
    device = SimulatedDevice()
    inner = honest(device)

    def run(x, w):
        if device.recording is not None:
            return [torch.empty(x.shape[0], w.shape[1])]
        return inner(x, w)

    expect_caught("unwritten", device, run)
