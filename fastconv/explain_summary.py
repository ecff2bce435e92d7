"""An explanation in a few lines: who serves how many calls, what they come to, where the time is, what could be saved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastconv.analysis import Analysis, analyse

if TYPE_CHECKING:
    from fastconv.explain import ExplainedCall


def analyses(calls: Sequence[ExplainedCall]) -> list[Analysis | None]:
    """One for each call; None for ATen on CPU tensors, about which nothing is predicted."""
    return [
        analyse(call.problem, call.chosen, call.followed_by)
        if call.problem.target.device_type == "cuda" or call.chosen.backend != "aten"
        else None
        for call in calls
    ]


def count_of(calls: Sequence[ExplainedCall]) -> str:
    return f"{len(calls)} call{'' if len(calls) == 1 else 's'}"


def summary(calls: Sequence[ExplainedCall], found: Sequence[Analysis | None]) -> list[str]:
    """A few lines: who serves how many calls, what they come to, where the time is."""
    served = Counter(f"{call.chosen.backend} {call.chosen.kernel}" for call in calls)
    flops = sum(call.problem.flops() for call in calls)
    moved = sum(call.problem.compulsory_bytes() for call in calls)
    lines = [
        f"{count_of(calls)}, {flops / 1e9:.2f} GFLOP, {moved / 1e6:.1f} MB compulsory: "
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
    fused = [one for _, one in known if one.fusion_of]
    if fused:
        words = Counter(word for one in fused for word in one.fusion_of.split(" + "))
        what = ", ".join(f"{count} {word}" for word, count in words.most_common())
        lines.append(
            f"one kernel for {len(fused)} convolutions and what follows them ({what}) would save "
            f"~{sum(one.fusion_saves for one in fused) * 1e6:.0f} us of memory traffic (predicted)"
        )
    return lines
