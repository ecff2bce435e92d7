"""Measures cases on a device: inputs and references once a case, then every contestant; an error is never more than its row."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from fastconv import dispatch
from fastconv.bench import contestants, genuine, guards, surroundings
from fastconv.bench.cases import Case
from fastconv.bench.checking import Check
from fastconv.bench.contestants import Contestant
from fastconv.bench.device import Device
from fastconv.bench.errors import Accuracy, compare, complaint_about
from fastconv.bench.guards import MeasurementError
from fastconv.bench.hardware import Ceilings
from fastconv.bench.measurement import Effort, Measurement, measure
from fastconv.bench.precision import PRECISIONS, switches
from fastconv.bench.results import Row
from fastconv.bench.rows import make_row

#: How many times PyTorch's error in the case's layout a contestant may have. In another layout PyTorch itself may round worse,
#: and a rival that is thrown out for that would flatter us.
TIMES_PYTORCHS_ERROR = {"ours": 2, "baseline": 8}
#: Kinds of MeasurementError that mean a wrong result; the others mean a figure that must not be believed.
WRONG = ("wrong", "unwritten", "unfinished", "cached", "mutated", "left over")


class DeviceLostError(RuntimeError):
    """The device answers no more in this process; a new one may find it well."""


@dataclasses.dataclass(frozen=True)
class Field:
    """Who takes part."""

    backends: Sequence[str] = ("auto", "cuda", "triton")
    kernels: Sequence[str] = ()
    baselines: Sequence[str] = contestants.BASELINES
    peers: Sequence[str] = ()

    def of(self, case: Case) -> list[Contestant]:
        return contestants.contestants_for(case, self.backends, self.kernels, self.baselines, self.peers)


def make_inputs(case: Case, device: torch.device, layout: str, seed: int) -> list[torch.Tensor]:
    """Normal random numbers, weights and gradients of a spread that keeps outputs near one."""
    generator = torch.Generator(device=device).manual_seed(seed)
    tensors = []
    for role in case.roles():
        sizes = case.sizes(role)
        tensor = torch.randn(sizes, generator=generator, device=device, dtype=torch.float32)
        if role == "w":
            tensor *= (sizes[1] * sizes[2] * sizes[3]) ** -0.5
        tensor = tensor.to(case.dtype)
        if len(sizes) == 4 and layout == "channels_last":
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        tensors.append(tensor)
    return tensors


def make_checks(case: Case, device: torch.device, count: int = 4, seed: int = 0) -> list[Check]:
    """Inputs in the case's layout, and their outputs computed in float64 by PyTorch. The fourth is the late one."""
    reference = contestants.pytorch(case)
    checks: list[Check] = []
    for number in range(count):
        inputs = make_inputs(case, device, case.layout, 1000 * seed + number)
        if number == 3 and case.layer.op == "max_pool2d" and case.direction == "dgrad":
            # Which elements won is known from the forward pass: x stays what `prepare` saw.
            inputs[0] = checks[0].inputs[0]
        doubles = reference.prepare([tensor.double().contiguous() for tensor in inputs])
        parameters = frozenset(at for at, role in enumerate(case.roles()) if role in ("w", "bias"))
        checks.append(Check(inputs, [tensor.detach() for tensor in reference.run(*doubles)], parameters))
    return checks


def in_layout(checks: Sequence[Check], layout: str) -> list[Check]:
    memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    return [
        dataclasses.replace(
            check, inputs=[t.contiguous(memory_format=memory_format) if t.dim() == 4 else t for t in check.inputs]
        )
        for check in checks
    ]


def pytorch_accuracy(case: Case, checks: Sequence[Check]) -> Accuracy:
    """PyTorch's own error in the case's precision: what ours may be twice of."""
    call = contestants.pytorch(case)
    found = [compare(call.run(*call.prepare(check.inputs)), check.expected) for check in checks[:2]]
    return Accuracy(max(one.relative for one in found), max(one.largest for one in found))


@contextlib.contextmanager
def watched_kernels(row: Row) -> Iterator[None]:
    """Writes the kernels that dispatch runs inside into the row, each once."""
    chosen: dict[str, str] = {}
    fallbacks: dict[str, None] = {}

    def note(choice: dispatch.Choice, plan: Any) -> None:
        candidate = choice.chosen
        chosen.setdefault(f"{candidate.backend}:{candidate.kernel}", candidate.config)
        if choice.asked == "auto":
            fallbacks.setdefault(f"auto: {choice.why}")

    with dispatch.listening(note):
        yield
    row.kernel, row.config = " + ".join(chosen), " + ".join(config for config in chosen.values() if config)
    row.notes += list(fallbacks)


def run_case(
    case: Case,
    field: Field,
    device: Device,
    ceilings: Ceilings,
    effort: Effort,
    emit: Callable[[Row], None],
    begin: Callable[[str], None],
    skip: set[str],
) -> None:
    """Every contestant of a case that is not in `skip` (row ids); `begin` is told what comes next.

    Raises DeviceLostError where going on in this process makes no sense.
    """
    precision = PRECISIONS[case.precision]
    waiting = [one for one in field.of(case) if f"{case.key} {one.name}" not in skip]
    if not waiting:
        return
    begin(case.key)
    with switches(precision):
        try:
            checks = make_checks(case, device.torch_device)
            own = pytorch_accuracy(case, checks)
        except Exception as error:
            for contestant in waiting:
                row = make_row(case, contestant.name, contestant.role)
                fail(row, error, "no reference: ")
                emit(row)
            _require_alive(device)
            return
        for contestant in waiting:
            row = make_row(case, contestant.name, contestant.role)
            begin(row.id)
            row.pytorch_error, row.pytorch_largest_error = own.relative, own.largest
            try:
                run_contestant(case, contestant, row, checks, own, device, ceilings, effort)
            except Exception as error:
                fail(row, error)
                _release()
            emit(row)
            _require_alive(device)
    del checks
    _release()


def run_contestant(
    case: Case,
    contestant: Contestant,
    row: Row,
    checks: Sequence[Check],
    own: Accuracy,
    device: Device,
    ceilings: Ceilings,
    effort: Effort,
) -> None:
    """Fills in a row. Raises what the contestant raises, and MeasurementError."""
    precision = PRECISIONS[case.precision]
    if contestant.layout:
        checks = in_layout(checks, contestant.layout)

    def accept(accuracy: Accuracy) -> str:
        return complaint_about(accuracy, own, precision, TIMES_PYTORCHS_ERROR[contestant.role])

    with contestant.settings(), surroundings.kept():
        call = contestant.make(case)
        if call is None:
            row.status, row.reason = "skipped", "it does not compute this case"
            return
        if contestant.role == "ours":
            with watched_kernels(row):
                call.run(*call.prepare(checks[0].inputs))
        result = measure(device, call, checks, precision, accept, effort)
    fill_in(row, case, result, ceilings)
    if case.layer.op != "conv_block":
        # A block's pool may pick another winner after rounding, which no limit of a precision covers.
        guards.require_error_of_precision(result.accuracy.relative, precision)
    roof = case.roof(ceilings)
    guards.require_below_roof(result.cold.median, roof.seconds)
    for figure, sample in (("warm", result.warm), ("graph", result.graph)):
        if sample is not None:  # its bytes may come from the cache, its arithmetic from nowhere
            guards.require_below_roof(sample.median, roof.compute_seconds, figure)


def fill_in(row: Row, case: Case, result: Measurement, ceilings: Ceilings) -> None:
    seconds = result.cold.median
    roof = case.roof(ceilings)
    row.cold, row.warm, row.graph = result.cold, result.warm, result.graph
    row.tflops = case.flops() / seconds / 1e12
    row.gbytes_per_second = case.bytes_moved() / seconds / 1e9
    row.roofline_share, row.bound = roof.seconds / seconds, roof.bound
    row.error, row.largest_error = result.accuracy.relative, result.accuracy.largest
    row.peak_bytes = result.peak_bytes
    if result.peak_bytes is not None:
        row.workspace_bytes = max(0, result.peak_bytes - result.output_bytes)
    row.notes += result.notes


def fail(row: Row, error: Exception, prefix: str = "") -> None:
    """A row that says what went wrong. No time stays in a row that is not ok."""
    message = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if isinstance(error, MeasurementError):
        row.status = "wrong" if error.kind in WRONG else "rejected"
    elif isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) or "out of memory" in message.lower():
        row.status, message = "skipped", f"out of memory: {message}"
    else:
        row.status, message = "failed", f"{type(error).__name__}: {message}"
    row.reason = (prefix + message)[:500]
    row.cold = row.warm = row.graph = None
    row.tflops = row.gbytes_per_second = row.roofline_share = None


def _require_alive(device: Device) -> None:
    """An illegal access or a trap leaves a CUDA context in which everything fails; only a new process has another."""
    try:
        device.synchronize()
        probe = torch.ones(1, device=device.torch_device)
        alive = float(probe + 1) == 2
    except RuntimeError as error:
        raise DeviceLostError(str(error).splitlines()[0]) from None
    if not alive:
        raise DeviceLostError("1 + 1 is not 2 any more")


def _release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


genuine.watch_harness("genuine", "rows", "surroundings", "runner")
