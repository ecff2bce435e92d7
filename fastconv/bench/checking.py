"""A call, and whether it computes what it must from the inputs it is given now: before the timing, in it and around it."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence

import torch

from fastconv.bench import guards
from fastconv.bench.device import Device
from fastconv.bench.errors import Accuracy, compare
from fastconv.bench.guards import MeasurementError

Tensors = Sequence[torch.Tensor]
Accept = Callable[[Accuracy], str]  # a complaint, or ""

#: Elements of an input that a twist replaces: enough that some of them matter where a stride skips most of the input.
TWISTED = 64


@dataclasses.dataclass
class Call:
    """Something that can be timed. `prepare` makes a call's arguments from the raw inputs and is not timed.

    What `prepare` returns must be the raw inputs, or views of them: work done there is found out. Only what a gradient takes
    from the forward pass, the offsets of a pool, may be computed there (see `Check`).
    """

    run: Callable[..., Tensors]
    prepare: Callable[[Tensors], Tensors] = lambda inputs: inputs
    arithmetic_visible: bool = True  # False where a dispatch mode cannot look inside (compiled code)


@dataclasses.dataclass
class Check:
    """Raw inputs and the float64 outputs they must give.

    A measurement takes four: two for before it, one that is hidden in it, and a late one, which replaces the first one's inputs
    after `prepare` has seen those. An input that `prepare` may compute from is the same in the first and in the late one.
    """

    inputs: Tensors
    expected: Tensors
    parameters: frozenset[int] = frozenset()  # positions of weights and biases among the inputs, see `Inputs`

    def copied(self) -> Inputs:
        return Inputs([one.clone(memory_format=torch.preserve_format) for one in self.inputs], self.parameters)


class Inputs(list[torch.Tensor]):
    """The tensors that a call is given, and whose contents change under it.

    Nothing tells the call that they changed, but for `parameters`: weights and biases change as an optimizer changes them, and
    PyTorch's version counters move. What a kernel makes of weights it may keep as long as they stay the same.
    """

    def __init__(self, tensors: Tensors, parameters: frozenset[int]) -> None:
        super().__init__(tensors)
        self.parameters = parameters

    def writable(self, position: int) -> torch.Tensor:
        """What is to be written to for the input at that position to change."""
        return self[position] if position in self.parameters else self[position].data

    def load(self, contents: Tensors) -> None:
        """New contents in the same memory."""
        for position, content in enumerate(contents):
            self.writable(position).copy_(content)


def check_twice(
    device: Device,
    call: Call,
    inputs: Inputs,
    checks: Sequence[Check],
    dtypes: Sequence[torch.dtype],
    accept: Accept,
) -> Accuracy:
    """Two calls with different contents in the same input memory; returns the worse accuracy."""
    held: Tensors = ()
    accuracies = []
    for number, check in enumerate(checks[:2]):
        inputs.load(check.inputs)
        with guards.no_modes():
            arguments = call.prepare(inputs)
        device.synchronize()
        guards.poison_allocator(check.expected, dtypes)
        with guards.no_modes(), guards.no_writes(inputs), guards.poisoned_allocations():
            outputs = call.run(*arguments)
            mark = device.record()
        results = results_at(device, mark, outputs)
        guards.require_own_memory(held, outputs)
        guards.require_unchanged(check.inputs, inputs)
        other = checks[1 - number].expected
        accuracies.append(judge(results, outputs, check.expected, other, accept))
        held = outputs
    memory = guards.storages(held)
    del held, outputs
    guards.require_let_go(memory)
    return max(accuracies, key=lambda accuracy: accuracy.relative)


def check_late(device: Device, call: Call, inputs: Inputs, checks: Sequence[Check], accept: Accept) -> None:
    """The inputs change after `prepare` has seen them, and the call must compute from what they are then."""
    first, late = checks[0], checks[3]
    inputs.load(first.inputs)
    arguments = call.prepare(inputs)
    device.synchronize()
    inputs.load(late.inputs)
    outputs = call.run(*arguments)
    results = results_at(device, device.record(), outputs)
    try:
        judge(results, outputs, late.expected, first.expected, accept)
    except MeasurementError as error:
        guards.require_work_in_the_call(str(error))


def check_attention(
    device: Device, call: Call, inputs: Inputs, checks: Sequence[Check], generator: random.Random
) -> None:
    """Calls in a row, with nothing waited for between them: each must follow a change in any of its inputs.

    A change is of a few elements, so that a result remembered by a sample of its inputs is one that does not follow.
    """
    first, late = checks[0], checks[3]
    for position, tensor in enumerate(inputs):
        if not tensor.dtype.is_floating_point or torch.equal(first.inputs[position], late.inputs[position]):
            continue
        inputs.load(first.inputs)
        arguments = call.prepare(inputs)
        call.run(*arguments)
        twist = Twist(inputs, position, generator)
        results = []
        for _ in range(2):
            twist()
            results.append(call.run(*arguments))
        device.synchronize()
        guards.require_different(*results, position)


class Twist:
    """Replaces a few elements of an input by large random numbers, in one small operation."""

    def __init__(self, inputs: Inputs, position: int, generator: random.Random) -> None:
        tensor = inputs.writable(position)
        step = max(1, tensor.numel() // TWISTED)
        start = generator.randrange(step)
        count = -(-(tensor.numel() - start) // step)
        # Inputs are dense, so every stride of memory is an element.
        self._cells = tensor.as_strided((count,), (step,), tensor.storage_offset() + start)

    def __call__(self) -> None:
        self._cells.normal_(0, 16)


def results_at(device: Device, mark: object, outputs: Tensors) -> list[torch.Tensor]:
    """What the outputs hold when the call's own stream has come to the mark, and no later."""
    device.wait(mark)
    guards.require_plain(outputs, device.torch_device)
    results = [tensor.detach().clone() for tensor in outputs]
    device.synchronize()
    return results


def judge(results: Tensors, outputs: Tensors, expected: Tensors, other: Tensors, accept: Accept) -> Accuracy:
    """Raises MeasurementError where results are not the expected ones; `other` are those of other inputs."""
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


def bind(call: Call, inputs: Tensors) -> Callable[[], Tensors]:
    """The call with its arguments made."""
    arguments = call.prepare(inputs)
    return lambda: call.run(*arguments)
