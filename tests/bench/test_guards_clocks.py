"""Work that the clock does not see, and clocks and judges that were replaced, are caught; without the guard they are not."""

import re

import pytest
import torch

from fastconv.bench import checking, genuine, guards, measurement, runner, surroundings
from fastconv.bench.device import CpuDevice
from fastconv.bench.guards import MeasurementError
from fastconv.bench.statistics import Sample
from tests.bench.cheats import KERNEL, expect_caught, honest, timed, without, work
from tests.bench.simulated import SimulatedDevice

# --- work on a side stream


def hidden_work(device):
    """The output is right and on time; most of the work (preparing the next call, say) is on a stream that events don't see."""

    def run(x, w):
        out = torch.empty(x.shape[0], w.shape[1])
        device.launch(KERNEL / 10, out, lambda: work(x, w))
        device.launch(KERNEL, stream="other")
        return [out]

    return run


def head_start(device):
    """All work on another stream, which does not wait for what the clock waits for. The output is right and on time."""

    def run(x, w):
        out = torch.empty(x.shape[0], w.shape[1])
        device.launch(KERNEL, out, lambda: work(x, w), stream="other")
        device.join("other")
        return [out]

    return run


@pytest.mark.parametrize(
    ("cheat", "guard", "figure"),
    [(hidden_work, "require_clocks_agree", "warm"), (head_start, "require_no_head_start", "cold")],
)
def test_work_that_the_clock_does_not_see_is_caught(monkeypatch, cheat, guard, figure):
    device = SimulatedDevice()
    expect_caught("side stream", device, cheat(device))
    without(monkeypatch, guard)
    device = SimulatedDevice()
    assert getattr(timed(device, cheat(device)), figure).median < KERNEL / 5


# --- a clock or a judge that was replaced


def flattering(*arguments, **options):
    return 0.0


@pytest.mark.parametrize("watched", genuine.watched(), ids=lambda one: genuine.text(*one[1:3]))
def test_whatever_a_measurement_stands_on_is_missed_when_it_was_replaced_and_put_back(monkeypatch, watched):
    kind, owner, name, original = watched
    with pytest.raises(MeasurementError, match=f"replaced .*{re.escape(name)}") as caught, surroundings.kept():
        monkeypatch.setattr(owner, name, flattering)
    assert caught.value.kind == kind
    assert genuine.held(owner, name) is original


@pytest.mark.parametrize(
    ("owner", "name"),
    [(measurement, "judge"), (measurement, "Sample"), (Sample, "of"), (checking, "compare"),
     (checking, "Inputs"), (checking.Inputs, "load"),
     (guards, "require_unchanged"), (genuine, "require_genuine"), (runner, "fill_in"), (runner, "complaint_about")],
    ids=lambda one: getattr(one, "__name__", one),
)  # fmt: skip
def test_the_measuring_path_is_watched(owner, name):
    assert (owner, name) in [one[1:3] for one in genuine.watched()]


def patched_during_the_call(monkeypatch, inner, owner, name, value):
    def run(x, w):
        monkeypatch.setattr(owner, name, value)
        return inner(x, w)

    return run


def test_a_timer_patched_during_the_call_is_caught(monkeypatch):
    device = SimulatedDevice()
    run = patched_during_the_call(monkeypatch, honest(device), torch.cuda.Event, "elapsed_time", flattering)
    expect_caught("timer", device, run)
    monkeypatch.setattr(genuine, "require_genuine", lambda watched: None)
    timed(device, run)


def test_a_sample_patched_during_the_call_is_caught(monkeypatch):
    """Nothing else would notice: every clock is right, and only what is made of the timings is not."""
    device = SimulatedDevice()
    flattered = Sample(KERNEL / 2, KERNEL / 2, KERNEL / 2, 9)
    run = patched_during_the_call(monkeypatch, honest(device), Sample, "of", lambda seconds: flattered)
    expect_caught("judge", device, run)
    monkeypatch.undo()
    monkeypatch.setattr(genuine, "require_genuine", lambda watched: None)
    without(monkeypatch, "require_no_head_start")
    assert timed(device, run).cold == flattered


def test_a_judge_patched_during_the_call_is_caught(monkeypatch):
    wrong = lambda x, w: [1.01 * work(x, w) if measurement.judge is not judge else work(x, w)]  # noqa: E731
    judge = measurement.judge
    calls = []

    def run(x, w):
        calls.append(1)
        if len(calls) > 10:  # what comes before the timing
            monkeypatch.setattr(measurement, "judge", flattering)
        return wrong(x, w)

    expect_caught("judge", CpuDevice(), run)


def test_events_that_claim_more_than_the_host_saw_are_caught():
    with pytest.raises(MeasurementError, match="timer"):
        guards.require_clocks_agree(device_seconds=1e-2, wall_seconds=5e-3)
