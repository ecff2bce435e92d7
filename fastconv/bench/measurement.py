"""One call, checked and timed: cold cache, warm, and replayed from a graph.

*Cold* is device time between two events with the cache flushed before and fresh inputs in every iteration. The host runs ahead
of the device, so launch costs are not in it. *Warm* is many calls in a row on the same inputs: what a loop in Python sees, host
costs included where the host is the slower side. *Graph* is the same work replayed from a CUDA graph, warm.

The call is checked before it is timed, and once more while it is timed: in one cold iteration, chosen at random, its inputs are
those of a third check, never seen before, whose answer is known.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence

import torch

from fastconv.bench import guards
from fastconv.bench.device import Device
from fastconv.bench.errors import Accuracy, compare
from fastconv.bench.guards import MeasurementError
from fastconv.bench.precision import Precision, switch_state
from fastconv.bench.statistics import Sample

Tensors = Sequence[torch.Tensor]


@dataclasses.dataclass
class Call:
    """Something that can be timed. `prepare` makes a call's arguments from the raw inputs and is not timed."""

    run: Callable[..., Tensors]
    prepare: Callable[[Tensors], Tensors] = lambda inputs: inputs
    arithmetic_visible: bool = True  # False where a dispatch mode cannot look inside (compiled code)


@dataclasses.dataclass
class Check:
    """Raw inputs and the float64 outputs they must give."""

    inputs: Tensors
    expected: Tensors


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
    accept: Callable[[Accuracy], str],
    effort: Effort = Effort(),
    seed: int = 0,
) -> Measurement:
    """Raises MeasurementError where the call is wrong or the timing would be a lie. `accept` returns a complaint or "".

    `checks` are three: two before the timing, one hidden in it.
    """
    switches = switch_state()
    guards.require_genuine_timers()
    # The call sees one set of tensors whose contents change under it, without torch's version counter noticing.
    inputs = [tensor.clone(memory_format=torch.preserve_format) for tensor in checks[0].inputs]
    for check in checks:
        guards.require_random(check.inputs)
    first = guards.require_precision(lambda: call.run(*call.prepare(inputs)), precision, call.arithmetic_visible)
    dtypes = [tensor.dtype for tensor in first]
    output_bytes = sum(tensor.numel() * tensor.element_size() for tensor in first)
    del first
    accuracy = check_twice(device, call, inputs, checks, dtypes, accept)
    peak = device.peak_bytes(_bound(call, inputs))
    cold = _time_cold(device, call, inputs, checks, accept, effort, random.Random(seed))
    warm = _time_warm(device, _bound(call, inputs), effort)
    notes: list[str] = []
    graph = _time_graph(device, call, inputs, checks, accept, effort, notes)
    guards.require_genuine_timers()
    guards.require_same_switches(switches, switch_state())
    return Measurement(cold, warm, graph, accuracy, peak, output_bytes, notes)


def check_twice(
    device: Device,
    call: Call,
    inputs: Tensors,
    checks: Sequence[Check],
    dtypes: Sequence[torch.dtype],
    accept: Callable[[Accuracy], str],
) -> Accuracy:
    """Two calls with different contents in the same input memory; returns the worse accuracy."""
    held: Tensors = ()
    accuracies = []
    for number, check in enumerate(checks[:2]):
        _load(inputs, check.inputs)
        arguments = call.prepare(inputs)
        device.synchronize()
        guards.poison_allocator(check.expected, dtypes)
        with guards.poisoned_allocations():
            outputs = call.run(*arguments)
            mark = device.record()
        device.wait(mark)
        # What is there when the call's own stream has come to its end, and no later.
        results = [tensor.detach().clone() for tensor in outputs]
        device.synchronize()
        guards.require_own_memory(held, outputs)
        guards.require_unchanged(check.inputs, inputs)
        other = checks[1 - number].expected
        accuracies.append(_judge(results, outputs, check.expected, other, accept))
        held = outputs
    return max(accuracies, key=lambda accuracy: accuracy.relative)


def _judge(
    results: Tensors, outputs: Tensors, expected: Tensors, other: Tensors, accept: Callable[[Accuracy], str]
) -> Accuracy:
    if len(results) != len(expected):
        raise MeasurementError("wrong", f"{len(results)} outputs, not {len(expected)}")
    for position, (result, output, right) in enumerate(zip(results, outputs, expected, strict=True)):
        if result.shape != right.shape:
            raise MeasurementError("wrong", f"output {position} is {tuple(result.shape)}, not {tuple(right.shape)}")
        if guards.holds_poison(result) and not guards.holds_poison(right):
            if guards.holds_poison(output):
                raise MeasurementError("unwritten", f"output {position} was not written everywhere")
            raise MeasurementError("unfinished", f"output {position} was still being written when its stream was done")
    accuracy = compare(results, expected)
    if complaint := accept(accuracy):
        if accept(compare(results, other)) == "":
            raise MeasurementError("cached", "the outputs are those of other inputs")
        raise MeasurementError("wrong", complaint)
    return accuracy


def _load(inputs: Tensors, contents: Tensors) -> None:
    for tensor, content in zip(inputs, contents, strict=True):
        tensor.data.copy_(content)


def _spread(content: torch.Tensor) -> float:
    # The first elements tell the spread as well as all do, and reading them is cheap.
    return float(content.flatten()[:4096].float().std()) if content.numel() > 1 else 1.0


def _bound(call: Call, inputs: Tensors) -> Callable[[], Tensors]:
    arguments = call.prepare(inputs)
    return lambda: call.run(*arguments)


def _time_cold(
    device: Device,
    call: Call,
    inputs: Tensors,
    checks: Sequence[Check],
    accept: Callable[[Accuracy], str],
    effort: Effort,
    generator: random.Random,
) -> Sample:
    pause = _pause_for(device, _bound(call, inputs))
    once = _one_cold(device, _bound(call, inputs), pause)[0]
    count = min(max(effort.least, int(effort.seconds / max(once, 1e-6))), effort.most)
    checked = generator.randrange(count)
    spreads = [_spread(content) for content in checks[0].inputs]
    seconds = []
    for iteration in range(count):
        if iteration == checked:
            _load(inputs, checks[2].inputs)
        else:
            for tensor, content, spread in zip(inputs, checks[0].inputs, spreads, strict=True):
                if tensor.dtype.is_floating_point:
                    tensor.data.normal_(0, spread)
                else:
                    tensor.data.copy_(content)
        elapsed, outputs = _one_cold(device, _bound(call, inputs), pause)
        if iteration == checked:
            results = [tensor.detach().clone() for tensor in outputs]
            device.synchronize()
            guards.require_unchanged(checks[2].inputs, inputs)
            _judge(results, outputs, checks[2].expected, checks[1].expected, accept)
        seconds.append(elapsed)
    return Sample.of(seconds)


def time_cold(
    device: Device, bound: Callable[[], object], least: int = 9, most: int = 31, seconds: float = 0.03
) -> Sample:
    """Device time with the cache flushed before every call, inputs as they are: for tuning, which checks by itself."""
    pause = _pause_for(device, bound)
    once = min(_one_cold(device, bound, pause)[0] for _ in range(2))
    count = min(max(least, int(seconds / max(once, 1e-6))), most)
    return Sample.of([_one_cold(device, bound, pause)[0] for _ in range(count)])


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


def _time_warm(device: Device, bound: Callable[[], object], effort: Effort) -> Sample:
    """Batches of calls in a row, each batch's events set against the host's clock."""
    size = 4
    while True:
        device_seconds, _ = _one_batch(device, bound, size)
        if device_seconds >= effort.batch_seconds / 2 or size >= 4096:
            break
        size = min(4096, max(2 * size, int(size * effort.batch_seconds / max(device_seconds, 1e-6))))
    batches = min(max(5, int(effort.seconds / max(device_seconds, 1e-6))), 20)
    seconds = []
    disagreements = []
    for _ in range(batches):
        device_seconds, wall_seconds = _one_batch(device, bound, size)
        seconds.append(device_seconds / size)
        try:
            guards.require_clocks_agree(device_seconds, wall_seconds)
        except MeasurementError as error:
            disagreements.append(error)
    # A busy host delays some batches; work hidden from the events delays nearly all of them.
    if len(disagreements) > batches // 2:
        raise disagreements[-1]
    return Sample.of(seconds)


def _one_batch(device: Device, bound: Callable[[], object], size: int) -> tuple[float, float]:
    device.synchronize()
    begun = device.host_seconds()
    start = device.record()
    for _ in range(size):
        bound()
    end = device.record()
    device.synchronize()
    wall = device.host_seconds() - begun
    return device.seconds_between(start, end), wall


def _time_graph(
    device: Device,
    call: Call,
    inputs: Tensors,
    checks: Sequence[Check],
    accept: Callable[[Accuracy], str],
    effort: Effort,
    notes: list[str],
) -> Sample | None:
    _load(inputs, checks[0].inputs)
    try:
        graph = device.capture(_bound(call, inputs))
    except NotImplementedError:
        return None
    except RuntimeError as error:
        device.synchronize()
        notes.append(f"no graph: {str(error).splitlines()[0]}")
        return None
    for output in graph.outputs:
        guards.poison(output.detach())
    graph.replay()
    mark = device.record()
    device.wait(mark)
    results = [tensor.detach().clone() for tensor in graph.outputs]
    device.synchronize()
    _judge(results, graph.outputs, checks[0].expected, checks[2].expected, accept)
    return _time_warm(device, graph.replay, effort)
