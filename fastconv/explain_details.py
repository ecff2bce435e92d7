"""The second half of an explanation: what each call costs on a GPU, and a summary. Predictions are marked "~"."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastconv.analysis import Analysis, analyse
from fastconv.problem import FusedProblem

if TYPE_CHECKING:
    from rich.table import Table

    from fastconv.explain import ExplainedCall

_HEADINGS = (
    "layer", "kernel", "time us", "roofline us", "bound", "op/byte", "tile", "grid", "shared KB", "registers", "occupancy",
    "waves", "last wave", "channels_last saves us",
)  # fmt: skip


def analyses(calls: Sequence[ExplainedCall]) -> list[Analysis | None]:
    """One for each call; None for ATen on CPU tensors, about which nothing is predicted."""
    return [
        analyse(call.problem, call.chosen)
        if call.problem.target.device_type == "cuda" or call.chosen.backend != "aten"
        else None
        for call in calls
    ]


def details_table(calls: Sequence[ExplainedCall], found: Sequence[Analysis | None]) -> Table:
    from rich.table import Table

    gpus = ", ".join(dict.fromkeys(one.gpu for one in found if one))
    table = Table(title=f"what it costs on {gpus} (~ predicted by cost model or datasheet, not measured)")
    for heading in _HEADINGS:
        table.add_column(heading, justify="left" if heading in ("layer", "kernel", "bound", "tile") else "right")
    for call, one in zip(calls, found, strict=True):
        if one is not None:
            table.add_row(call.where, call.chosen.kernel, *_cells(one))
    return table


def _cells(one: Analysis) -> list[str]:
    return [
        _time(one),
        f"~{one.roof_seconds * 1e6:.1f}",
        one.bound,
        f"{one.intensity:.1f}",
        one.tile or "-",
        _count(one.grid),
        "-" if one.shared_bytes is None else f"{one.shared_bytes / 1024:.0f}",
        _count(one.registers),
        "-" if one.occupancy is None else f"{one.occupancy:.0%} by {one.occupancy_limit}",
        "-" if one.waves is None else f"{one.waves:.2f}",
        "-" if one.last_wave is None else f"{one.last_wave:.0%}",
        "-" if one.channels_last_saves is None else f"~{one.channels_last_saves * 1e6:.1f}",
    ]


def _time(one: Analysis) -> str:
    if one.measured_seconds is not None:
        return f"{one.measured_seconds * 1e6:.1f}"
    return "-" if one.predicted_seconds is None else f"~{one.predicted_seconds * 1e6:.1f}"


def _count(number: int | None) -> str:
    return "-" if number is None else str(number)


def summary(calls: Sequence[ExplainedCall], found: Sequence[Analysis | None]) -> list[str]:
    """A few lines: who serves how many calls, what they come to, where the time is."""
    served = Counter(f"{call.chosen.backend} {call.chosen.kernel}" for call in calls)
    flops = sum(call.problem.flops() for call in calls)
    moved = sum(call.problem.compulsory_bytes() for call in calls)
    lines = [
        f"{len(calls)} calls, {flops / 1e9:.2f} GFLOP, {moved / 1e6:.1f} MB compulsory: "
        + ", ".join(f"{name} {times}" for name, times in served.most_common())
    ]
    known = [(call, one) for call, one in zip(calls, found, strict=True) if one is not None and one.seconds is not None]
    if not known:
        return lines
    total = sum(one.seconds for _, one in known)
    measured = sum(one.measured_seconds is not None for _, one in known)
    roof = sum(one.roof_seconds for _, one in known)
    bounds = Counter(one.bound for _, one in known)
    lines.append(
        f"{total * 1e6:.0f} us on {known[0][1].gpu} ({measured} calls measured, {len(known) - measured} predicted), "
        f"the roofline ~{roof * 1e6:.0f} us; "
        + ", ".join(f"{times} {name}-bound" for name, times in bounds.most_common())
    )
    slowest = sorted(known, key=lambda pair: pair[1].seconds, reverse=True)[:3]
    lines.append(
        "most time: " + ", ".join(f"{call.where or call.problem.op} {one.seconds / total:.0%}" for call, one in slowest)
    )
    saved = sum(one.channels_last_saves for _, one in known if (one.channels_last_saves or 0) > 0)
    if saved > 0:
        lines.append(f"channels_last tensors would save ~{saved * 1e6:.0f} us (predicted)")
    fused = sum(_epilogue_savings(call, one) for call, one in known)
    if fused > 0:
        lines.append(
            f"activations fused into their convolutions would save ~{fused * 1e6:.0f} us of memory traffic (predicted)"
        )
    return lines


def _epilogue_savings(call: ExplainedCall, one: Analysis) -> float:
    """What a separate pass over the output costs: reading and writing it once, at the datasheet's bandwidth.

    Counted for ATen's convolutions with an activation, which it applies in a pass of its own.
    """
    from fastconv.bench.hardware import gpu_named

    problem = call.problem
    if call.chosen.backend != "aten" or getattr(problem, "activation", "identity") == "identity":
        return 0.0
    if isinstance(problem, FusedProblem):
        problem = problem.conv
    written = problem.y if problem.conv_pass == "fprop" else problem.x
    elements = 1
    for size in written.sizes:
        elements *= size
    return 2 * elements * problem.dtype.itemsize / gpu_named(one.gpu).ceilings().bytes_per_second
