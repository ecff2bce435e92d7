"""What a machine without a GPU can say: is it right, what does it move, and how fast could a named GPU do it at best.

Correctness and counts come from scaled-down layers, run in the host emulator (CUDA C++) and in Triton's interpreter. Times are
predictions for the layer itself: the roofline of the GPU's datasheet, and the cost model's figure for the best candidate.
Every row made here is of the kind "predicted" and holds no measured time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch

from fastconv import emulator
from fastconv.analysis import candidates_on
from fastconv.bench import contestants
from fastconv.bench.cases import Case, problems
from fastconv.bench.checking import check_twice
from fastconv.bench.device import CpuDevice
from fastconv.bench.errors import Accuracy, complaint_about
from fastconv.bench.hardware import Gpu
from fastconv.bench.precision import PRECISIONS, switches
from fastconv.bench.results import Row
from fastconv.bench.rows import make_row
from fastconv.bench.runner import fail, make_checks, pytorch_accuracy, watched_kernels
from fastconv.bench.suite import scaled_down
from fastconv.problem import Target

#: What can run CPU tensors through hand-written kernels.
BACKENDS = ("cuda", "triton")


def predict_case(
    case: Case,
    names: Sequence[str],
    kernels: Sequence[str],
    gpu: Gpu,
    emit: Callable[[Row], None],
    begin: Callable[[str], None],
    skip: set[str],
) -> None:
    """A row for each backend and kernel that is not in `skip` (row ids)."""
    waiting = [name for name in (*names, *kernels) if f"{case.key} fastconv-{name}" not in skip]
    if not waiting:
        return
    begin(case.key)
    small = dataclasses.replace(case, layer=scaled_down(case.layer), batch=2)
    with switches(PRECISIONS[case.precision]):
        checks = make_checks(small, torch.device("cpu"), count=2)
        own = pytorch_accuracy(small, checks)
        for name in waiting:
            row = make_row(case, f"fastconv-{name}", "ours", "predicted")
            begin(row.id)
            row.pytorch_error, row.pytorch_largest_error = own.relative, own.largest
            row.notes.append(f"checked on a scaled-down layer: {small.layer.describe()}, batch {small.batch}")
            try:
                predict(row, case, name, gpu)
                run_small(row, small, name, checks, own)
            except Exception as error:
                fail(row, error)
            emit(row)


def predict(row: Row, case: Case, name: str, gpu: Gpu) -> None:
    """The roofline of the whole case, and the cost model's sum over its primitives where it has a figure for each."""
    roof = case.roof(gpu.ceilings())
    row.predicted_gpu, row.predicted_roof_seconds, row.bound = gpu.name, roof.seconds, roof.bound
    target = Target("cuda", gpu.capability, gpu.multiprocessors, gpu.name, gpu.l2_megabytes << 20)
    total = 0.0
    chosen = []
    for problem in problems(case, target):
        found = [
            one for one in candidates_on(problem) if name in (one.backend, one.kernel, f"{one.backend}:{one.kernel}")
        ]
        best = min(
            (one for one in found if one.legal and one.predicted_seconds is not None),
            key=lambda one: one.predicted_seconds,
            default=None,
        )
        if best is None:
            reasons = sorted({one.reason for one in found if one.reason})
            row.notes.append(f"no prediction: {problem.op} has no candidate with a cost ({'; '.join(reasons[:2])})")
            total = float("nan")
            continue
        chosen.append(best)
        total += best.predicted_seconds
    row.kernel = " + ".join(dict.fromkeys(f"{one.backend}:{one.kernel}" for one in chosen))
    row.config = " + ".join(dict.fromkeys(one.config for one in chosen if one.config))
    row.predicted_seconds = total if total == total else None


def run_small(row: Row, small: Case, name: str, checks: Sequence[Any], own: Accuracy) -> None:
    """Checks the scaled-down layer as a measured row is checked, then counts what its kernels touch."""
    precision = PRECISIONS[small.precision]
    # The kernel that the row names, where it can run the scaled-down layer, for which another may be predicted to be faster.
    candidate = None
    if found := contestants.one_candidate(small, row.kernel or name, row.config):
        candidate, call = found
    elif name in BACKENDS:
        call = contestants.ours(small, name)
    else:
        row.status, row.reason = "skipped", f"{name} does not compute {small.layer.describe()}, the scaled-down layer"
        return
    device = CpuDevice()
    inputs = checks[0].copied()
    ran = Row("predicted", "", "", "ours", "ok")
    with watched_kernels(ran):
        dtypes = [tensor.dtype for tensor in call.run(*call.prepare(inputs))]
    if candidate is not None:
        ran.kernel, ran.config = f"{candidate.backend}:{candidate.kernel}", candidate.config
    row.notes.append(f"the check ran {' '.join(filter(None, (ran.kernel or name, ran.config)))}")
    accuracy = check_twice(device, call, inputs, checks, dtypes, lambda one: complaint_about(one, own, precision))
    row.error, row.largest_error = accuracy.relative, accuracy.largest
    if "cuda:" in (ran.kernel or row.kernel):  # the emulator counts what it runs
        arguments = call.prepare(inputs)
        with emulator.count() as counts:
            call.run(*arguments)
        row.counted = summary_of(counts, small)


def summary_of(counts: emulator.Counters, small: Case) -> dict[str, float]:
    """The figures that stand in for time: traffic over what must move, and bank conflicts."""
    totals = counts.totals()
    compulsory = small.bytes_moved()
    return {
        **totals,
        "compulsory_bytes": compulsory,
        "distinct_ratio": totals["distinct_bytes"] / compulsory,
        "sector_ratio": totals["sector_bytes"] / compulsory,
    }
