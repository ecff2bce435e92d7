"""One call, checked and timed: cold cache, warm, and replayed from a graph.

*Cold* is device time between two events with the cache flushed before and fresh inputs in every iteration. The host runs ahead
of the device, so launch costs are not in it. *Warm* is many calls in a row on the same inputs: what a loop in Python sees, host
costs included where the host is the slower side. *Graph* is the same work replayed from a CUDA graph, warm.

The call is checked before it is timed, and once more while it is timed: in one cold iteration, chosen at random, its inputs are
those of a third check, never seen before, whose answer is known. What a row of calls or a graph computes is checked too, and
that it costs the same when its inputs change between the calls.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import Any

import torch

from fastconv.bench import genuine, guards
from fastconv.bench.checking import (
    Accept,
    Call,
    Check,
    Inputs,
    Tensors,
    Twist,
    bind,
    check_attention,
    check_late,
    check_twice,
    judge,
    results_at,
)
from fastconv.bench.device import Device
from fastconv.bench.errors import Accuracy
from fastconv.bench.guards import MeasurementError
from fastconv.bench.precision import Precision, switch_state
from fastconv.bench.statistics import Sample

__all__ = ["Call", "Check", "Effort", "Measurement", "measure", "time_cold"]


@dataclasses.dataclass(frozen=True)
class Effort:
    """How long to measure, in seconds of the device's time for each of the three ways."""

    seconds: float = 0.15
    least: int = 10
    most: int = 100
    batch_seconds: float = 4e-3  # of back-to-back calls between two events


@dataclasses.dataclass
class Measurement:
    cold: Sample
    warm: Sample
    graph: Sample | None
    accuracy: Accuracy
    peak_bytes: int | None
    output_bytes: int
    notes: list[str]


def measure(
    device: Device,
    call: Call,
    checks: Sequence[Check],
    precision: Precision,
    accept: Accept,
    effort: Effort = Effort(),
    seed: int = 0,
) -> Measurement:
    """Raises MeasurementError where the call is wrong or the timing would be a lie. `accept` returns a complaint or "".

    `checks` are four, see `Check`.
    """
    require_genuine, watched = genuine.require_genuine, genuine.watched()
    require_genuine(watched)
    switches = switch_state()
    generator = random.Random(seed)
    inputs = checks[0].copied()  # one set of tensors, whose contents change under the call
    for check in checks:
        guards.require_random(check.inputs)
    with guards.no_modes():
        first = guards.require_precision(lambda: call.run(*call.prepare(inputs)), precision, call.arithmetic_visible)
    if len(first) != len(checks[0].expected):
        raise MeasurementError("wrong", f"{len(first)} outputs, not {len(checks[0].expected)}")
    dtypes = [tensor.dtype for tensor in first]
    output_bytes = sum(tensor.numel() * tensor.element_size() for tensor in first)
    del first
    accuracy = check_twice(device, call, inputs, checks, dtypes, accept)
    check_late(device, call, inputs, checks, accept)
    check_attention(device, call, inputs, checks, generator)
    inputs.load(checks[0].inputs)
    with guards.no_writes(inputs):
        peak = device.peak_bytes(bind(call, inputs))
    cold = _time_cold(device, call, inputs, checks, accept, effort, generator)
    _require_no_head_start(device, bind(call, inputs), cold)
    inputs.load(checks[3].inputs)
    with guards.no_modes(), guards.no_writes(inputs):
        warm, size, outputs = _time_warm(device, bind(call, inputs), effort)
    guards.require_plain(outputs, device.torch_device)
    judge(outputs, outputs, checks[3].expected, checks[0].expected, accept)
    del outputs
    _require_same_time_on_new_contents(device, call, inputs, size, generator)
    notes: list[str] = []
    graph = _time_graph(device, call, inputs, checks, accept, effort, notes)
    require_genuine(watched)
    guards.require_same_switches(switches, switch_state())
    return Measurement(cold, warm, graph, accuracy, peak, output_bytes, notes)


def _spread(content: torch.Tensor) -> float:
    # The first elements tell the spread as well as all do, and reading them is cheap.
    return float(content.flatten()[:4096].float().std()) if content.numel() > 1 else 1.0


def _time_cold(
    device: Device,
    call: Call,
    inputs: Inputs,
    checks: Sequence[Check],
    accept: Accept,
    effort: Effort,
    generator: random.Random,
) -> Sample:
    pause = _pause_for(device, bind(call, inputs))
    once = _one_cold(device, bind(call, inputs), pause)[0]
    count = min(max(effort.least, int(effort.seconds / max(once, 1e-6))), effort.most)
    checked = generator.randrange(count)
    spreads = [_spread(content) for content in checks[0].inputs]
    seconds = []
    for iteration in range(count):
        if iteration == checked:
            inputs.load(checks[2].inputs)
        else:
            for position, (content, spread) in enumerate(zip(checks[0].inputs, spreads, strict=True)):
                if content.dtype.is_floating_point:
                    inputs.writable(position).normal_(0, spread)
                else:
                    inputs.writable(position).copy_(content)
        with guards.no_modes(), guards.no_writes(inputs):
            elapsed, outputs = _one_cold(device, bind(call, inputs), pause)
        if iteration == checked:
            guards.require_plain(outputs, device.torch_device)
            results = [tensor.detach().clone() for tensor in outputs]
            device.synchronize()
            guards.require_unchanged(checks[2].inputs, inputs)
            judge(results, outputs, checks[2].expected, checks[1].expected, accept)
        seconds.append(elapsed)
    return Sample.of(seconds)


def time_cold(
    device: Device,
    bound: Callable[[], object],
    before: Callable[[], object] = lambda: None,
    least: int = 9,
    most: int = 31,
    seconds: float = 0.03,
) -> Sample:
    """Device time with the cache flushed before every call, inputs as they are: for tuning, which checks by itself.

    `before` runs on the host before each call.
    """

    def one() -> float:
        before()
        return _one_cold(device, bound, pause)[0]

    pause = _pause_for(device, bound)
    once = min(one() for _ in range(2))
    count = min(max(least, int(seconds / max(once, 1e-6))), most)
    return Sample.of([one() for _ in range(count)])


def _pause_for(device: Device, bound: Callable[[], object]) -> float:
    """Seconds the host takes to queue a call, with a margin: so long the device must be kept busy before it."""
    device.synchronize()
    begun = device.host_seconds()
    bound()
    queued = device.host_seconds() - begun
    device.synchronize()
    return min(2 * queued + 5e-5, 5e-3)


def _one_cold(device: Device, bound: Callable[[], Tensors], pause: float) -> tuple[float, Tensors]:
    device.run_ahead(pause)
    device.flush_cache()
    start = device.record()
    outputs = bound()
    end = device.record()
    device.wait(end)
    return device.seconds_between(start, end), outputs


def _require_no_head_start(device: Device, bound: Callable[[], Tensors], cold: Sample) -> None:
    """A few cold calls without the pause before them, in which a call's work on another stream could run unseen.

    The device then waits for the host, so what the host needs to queue the call is taken off.
    """
    seconds = []
    for _ in range(3):
        device.flush_cache()
        device.synchronize()
        begun = device.host_seconds()
        start = device.record()
        bound()
        queued = device.host_seconds() - begun
        end = device.record()
        device.synchronize()
        seconds.append(device.seconds_between(start, end) - queued)
    guards.require_no_head_start(cold.median, min(seconds))


def _time_warm(device: Device, bound: Callable[[], Any], effort: Effort) -> tuple[Sample, int, Any]:
    """Batches of calls in a row, each batch's events set against the host's clock; how many calls a batch has; and what the
    last call of the last batch returned, for a result that was timed to be judged."""
    size = 4
    while True:
        device_seconds = _one_batch(device, bound, size)[0]
        if device_seconds >= effort.batch_seconds / 2 or size >= 4096:
            break
        size = min(4096, max(2 * size, int(size * effort.batch_seconds / max(device_seconds, 1e-6))))
    batches = min(max(5, int(effort.seconds / max(device_seconds, 1e-6))), 20)
    seconds = []
    disagreements = []
    outputs = None
    for _ in range(batches):
        del outputs  # its memory is free for the next batch, as it is between the calls of one
        device_seconds, wall_seconds, outputs = _one_batch(device, bound, size)
        seconds.append(device_seconds / size)
        try:
            guards.require_clocks_agree(device_seconds, wall_seconds)
        except MeasurementError as error:
            disagreements.append(error)
    # A busy host delays some batches; work hidden from the events delays nearly all of them.
    if len(disagreements) > batches // 2:
        raise disagreements[-1]
    return Sample.of(seconds), size, outputs


def _require_same_time_on_new_contents(
    device: Device, call: Call, inputs: Inputs, size: int, generator: random.Random
) -> None:
    """Batches on inputs that stay beside batches on inputs that change before every call, the changes' own time taken off.

    A result that is remembered by the contents of its inputs is right, and gives itself away here.
    """
    arguments = call.prepare(inputs)
    twists = [Twist(inputs, at, generator) for at, tensor in enumerate(inputs) if tensor.dtype.is_floating_point]

    def twist() -> None:
        for one in twists:
            one()

    def twist_and_run() -> None:
        twist()
        call.run(*arguments)

    pairs = []
    while len(pairs) < 12 and not guards.same_time(
        pairs
    ):  # a busy host delays some batches, what is remembered never all
        staying = _one_batch(device, lambda: call.run(*arguments), size)[0]
        twists_alone = _one_batch(device, twist, size)[0]
        changing = _one_batch(device, twist_and_run, size)[0]
        pairs.append((staying / size, (changing - twists_alone) / size))
    guards.require_same_time_on_new_contents(pairs)


def _one_batch(device: Device, bound: Callable[[], Any], size: int) -> tuple[float, float, Any]:
    device.synchronize()
    begun = device.host_seconds()
    start = device.record()
    for _ in range(size - 1):
        bound()
    outputs = bound()
    end = device.record()
    device.synchronize()
    wall = device.host_seconds() - begun
    return device.seconds_between(start, end), wall, outputs


def _time_graph(
    device: Device,
    call: Call,
    inputs: Inputs,
    checks: Sequence[Check],
    accept: Accept,
    effort: Effort,
    notes: list[str],
) -> Sample | None:
    inputs.load(checks[0].inputs)
    try:
        graph = device.capture(bind(call, inputs))
    except NotImplementedError:
        return None
    except RuntimeError as error:
        device.synchronize()
        notes.append(f"no graph: {str(error).splitlines()[0]}")
        return None
    for output in graph.outputs:
        guards.poison(output.detach())
    # Contents that the call had not seen when it was captured: a graph that only copies a result is found out.
    inputs.load(checks[3].inputs)
    graph.replay()
    results = results_at(device, device.record(), graph.outputs)
    judge(results, graph.outputs, checks[3].expected, checks[0].expected, accept)
    return _time_warm(device, graph.replay, effort)[0]


genuine.watch_harness("errors", "precision", "statistics", "guards", "checking", "measurement")
