"""Every known cheat is caught, and goes unnoticed when its guard is taken away: so it is that guard which catches it."""

import threading
import time

import pytest
import torch

from fastconv.bench import checking, guards, measurement
from fastconv.bench.checking import Call, Check
from fastconv.bench.device import CpuDevice
from fastconv.bench.errors import compare, complaint_about
from fastconv.bench.guards import MeasurementError
from fastconv.bench.measurement import Effort, measure
from fastconv.bench.precision import precision_named
from tests.bench.simulated import LAUNCH, SimulatedDevice

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


def accept(accuracy):
    own = compare([work(*check.inputs) for check in CHECKS], [check.expected[0] for check in CHECKS])
    return complaint_about(accuracy, own, FLOAT32)


CHECKS = checks()


def timed(device, run, given=CHECKS, precision=FLOAT32, prepare=lambda inputs: inputs):
    return measure(device, Call(run, prepare), given, precision, accept, EFFORT)


def honest(device):
    """A kernel that takes its time, and writes its output when it ends."""

    def run(x, w):
        out = torch.empty(x.shape[0], w.shape[1])
        device.launch(KERNEL, out, lambda: work(x, w))
        return [out]

    return run


def test_an_honest_kernel_gets_its_own_time():
    device = SimulatedDevice()
    result = timed(device, honest(device))
    for sample in (result.cold, result.warm, result.graph):
        assert sample.median == pytest.approx(KERNEL, rel=0.1)
    assert result.accuracy.relative < 1e-6


def expect_caught(kind, device, run, **options):
    with pytest.raises(MeasurementError) as caught:
        timed(device, run, **options)
    assert caught.value.kind == kind


def without(monkeypatch, *names):
    for name in names:
        monkeypatch.setattr(guards, name, lambda *arguments: None)


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
    monkeypatch.setattr(guards, "poison", lambda tensor: tensor.zero_())
    checking.check_twice(device, Call(run), [t.clone() for t in CHECKS[0].inputs], CHECKS, [torch.float32], accept)


# --- work on a side stream


def hidden_work(device):
    """The output is right and on time; most of the work (preparing the next call, say) is on a stream that events don't see."""

    def run(x, w):
        out = torch.empty(x.shape[0], w.shape[1])
        device.launch(KERNEL / 10, out, lambda: work(x, w))
        device.launch(KERNEL, stream="other")
        return [out]

    return run


def test_work_hidden_on_a_side_stream_is_caught_by_the_host_clock(monkeypatch):
    device = SimulatedDevice()
    expect_caught("side stream", device, hidden_work(device))
    without(monkeypatch, "require_clocks_agree")
    device = SimulatedDevice()
    assert timed(device, hidden_work(device)).warm.median < KERNEL / 5


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
    without(monkeypatch, "require_own_memory", "require_different")
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
    monkeypatch.setattr(measurement, "judge", lambda *arguments: None)
    timed(CpuDevice(), cheat())


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
                device.launch(0.0, out, lambda old=last["out"]: old)
            else:
                device.launch(KERNEL, out, lambda: work(x, w))
            last.update(out=out, begun=device.host_seconds())
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
    monkeypatch.setattr(measurement, "judge", lambda *arguments: None)
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


def head_start(device):
    """All work on another stream, which does not wait for what the clock waits for. The output is right and on time."""

    def run(x, w):
        out = torch.empty(x.shape[0], w.shape[1])
        device.launch(KERNEL, out, lambda: work(x, w), stream="other")
        device.join("other")
        return [out]

    return run


def test_work_that_begins_before_the_clock_does_is_caught(monkeypatch):
    device = SimulatedDevice()
    expect_caught("side stream", device, head_start(device))
    without(monkeypatch, "require_no_head_start")
    device = SimulatedDevice()
    assert timed(device, head_start(device)).cold.median < KERNEL / 5


# --- a mutated input


def test_a_mutated_input_is_caught(monkeypatch):
    def run(x, w):
        out = work(x, w)
        x[0].mul_(0.5)
        return [out]

    expect_caught("mutated", CpuDevice(), run)
    without(monkeypatch, "require_unchanged")
    monkeypatch.setattr(measurement, "judge", lambda *arguments: None)  # a row of such calls comes to another result
    timed(CpuDevice(), run)


# --- a patched timer


@pytest.mark.parametrize(
    ("kind", "owner", "name"),
    [one[:3] for one in guards._GENUINE],
    ids=[f"{getattr(owner, '__name__', owner)}.{name}" for _, owner, name, _ in guards._GENUINE],
)
def test_a_patched_timer_or_judge_is_caught(monkeypatch, kind, owner, name):
    device = SimulatedDevice()
    monkeypatch.setattr(owner, name, lambda *arguments, **options: 0.0)
    expect_caught(kind, device, honest(device))


def test_a_timer_patched_during_the_call_is_caught(monkeypatch):
    device = SimulatedDevice()
    inner = honest(device)

    def run(x, w):
        monkeypatch.setattr(torch.cuda.Event, "elapsed_time", lambda self, other: 0.0)
        return inner(x, w)

    expect_caught("timer", device, run)
    without(monkeypatch, "require_genuine_functions")
    timed(device, run)


def test_events_that_claim_more_than_the_host_saw_are_caught():
    with pytest.raises(MeasurementError, match="timer"):
        guards.require_clocks_agree(device_seconds=1e-2, wall_seconds=5e-3)


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
