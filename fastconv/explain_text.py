"""An explanation for people: a card for each of a few calls, or one line for each of many. Predictions are marked "~"."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from fastconv import analysis
from fastconv.analysis import Analysis
from fastconv.explain_summary import count_of
from fastconv.plan import Candidate
from fastconv.tuning.keys import candidate_key

if TYPE_CHECKING:
    from fastconv.explain import ExplainedCall

#: Up to so many calls each get a card; more get a line each.
MOST_CARDS = 3

#: Candidates that a card lists; JSON has all.
MOST_CANDIDATES = 8

Cell = Callable[["ExplainedCall", Analysis | None, str], str]


def render(
    calls: Sequence[ExplainedCall], found: Sequence[Analysis | None], summary: Sequence[str], width: int
) -> Group:
    few = len(calls) <= MOST_CARDS
    parts: list[Any] = []
    if few:
        for call, one in zip(calls, found, strict=True):
            parts += [*card(call, one, width), Text("")]
    else:
        parts += lines(calls, found, width)
    unknown = dict.fromkeys(one.registers_unknown for one in found if one is not None and one.registers_unknown)
    if unknown:
        parts.append(Text(f"registers not known: {'; '.join(unknown)}", style="dim"))
    if reasons := rejections(calls, brief=not few):
        parts.append(reasons)
    if len(calls) != 1:
        parts += [Text(line) for line in summary]
    return Group(*parts)


# --- one line a call


def _known(value: Callable[[Analysis], str | None]) -> Cell:
    return lambda call, one, problem: "-" if one is None else value(one) or "-"


def _or_none(form: str, factor: float = 1.0) -> Callable[[float | None], str | None]:
    return lambda value: None if value is None else format(value * factor, form)


_micro, _share, _kilo, _plain = _or_none(".1f", 1e6), _or_none(".0%"), _or_none(".0f", 1 / 1024), _or_none("g")

#: Heading, cell, and whether it is set to the right; the most telling first, because a narrow terminal shows only those.
_COLUMNS: tuple[tuple[str, Cell, bool], ...] = (
    ("layer", lambda call, one, problem: call.where, False),
    ("op", lambda call, one, problem: call.problem.op, False),
    ("kernel", lambda call, one, problem: _name(call.chosen), False),
    ("us", _known(lambda one: _time(one)), True),
    ("roof us", _known(lambda one: f"~{one.roof_seconds * 1e6:.1f}"), True),
    ("bound", _known(lambda one: one.bound), False),
    ("problem", lambda call, one, problem: problem, False),
    ("fusion saves us", _known(lambda one: f"~{one.fusion_saves * 1e6:.1f}" if one.fusion_of else None), True),
    ("nhwc saves us", _known(lambda one: _predicted(one.channels_last_saves)), True),
    ("tile", _known(lambda one: one.tile), False),
    ("grid", _known(lambda one: _plain(one.grid)), True),
    ("shared KB", _known(lambda one: _kilo(one.shared_bytes)), True),
    ("registers", _known(lambda one: _plain(one.registers)), True),
    ("occupancy", _known(lambda one: _share(one.occupancy)), True),
    ("limited by", _known(lambda one: one.occupancy_limit), False),
    ("waves", _known(lambda one: _or_none(".2f")(one.waves)), True),
    ("last wave", _known(lambda one: _share(one.last_wave)), True),
    ("op/byte", _known(lambda one: f"{one.intensity:.1f}"), True),
    ("why", lambda call, one, problem: call.why, False),
)


def lines(calls: Sequence[ExplainedCall], found: Sequence[Analysis | None], width: int) -> list[Any]:
    """A table with exactly one line for each call, of as many columns as fit into the width."""
    from fastconv.explain import describe

    rows = [(call, one, describe(call.problem)) for call, one in zip(calls, found, strict=True)]
    columns = [(heading, [cell(*row) for row in rows], numeric) for heading, cell, numeric in _COLUMNS]
    table, left_out = _of_columns(columns, width, _title(calls, found))
    if not left_out:
        return [table]
    return [table, Text(f"no room for: {', '.join(left_out)} (a wider terminal, COLUMNS=300 or --json)", style="dim")]


def _of_columns(
    columns: Sequence[tuple[str, list[str], bool]], width: int, title: str, marked: Sequence[bool] = ()
) -> tuple[Table, list[str]]:
    """Of the columns (heading, cells, to the right?) those that say something and fit; and the headings that do not fit."""
    shown, left_out, used = [], [], 2
    for heading, cells, numeric in columns:
        if all(text in ("", "-") for text in cells):
            continue
        needed = max(len(heading), *map(len, cells)) + 3
        if used + needed > width and shown:
            left_out.append(heading)
            continue
        shown.append((heading, cells, numeric))
        used += needed
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for heading, _, numeric in shown:
        table.add_column(heading, justify="right" if numeric else "left", no_wrap=True, overflow="ellipsis")
    for number, row in enumerate(zip(*(cells for _, cells, _ in shown), strict=True)):
        table.add_row(*map(Text, row), style="bold" if marked and marked[number] else "")
    return table, left_out


def _title(calls: Sequence[ExplainedCall], found: Sequence[Analysis | None]) -> str:
    gpus = ", ".join(dict.fromkeys(one.gpu for one in found if one))
    predictions = f"; ~ is predicted for {gpus} by cost model or datasheet, not measured" if gpus else ""
    return f"fastconv: {count_of(calls)}{predictions}"


def _name(candidate: Candidate) -> str:
    kernel = "" if candidate.backend == "aten" else candidate.kernel
    return " ".join(filter(None, (candidate.backend, kernel, candidate.config)))


def _time(one: Analysis) -> str | None:
    return _predicted(one.predicted_seconds) if one.measured_seconds is None else _micro(one.measured_seconds)


def _predicted(seconds: float | None) -> str | None:
    return None if seconds is None else f"~{seconds * 1e6:.1f}"


# --- a card


def card(call: ExplainedCall, one: Analysis | None, width: int) -> list[Any]:
    from fastconv.explain import describe

    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 1))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, text in _facts(call, one):
        if text:
            facts.add_row(name, Text(text))
    title = " ".join(filter(None, (call.where, call.problem.op)))
    parts: list[Any] = [Text(f"{title}: {describe(call.problem)}", style="bold"), facts]
    if one is not None:
        parts.append(_candidates(call, width))
    return parts


def _facts(call: ExplainedCall, one: Analysis | None) -> list[tuple[str, str]]:
    facts = [("kernel", _name(call.chosen)), ("why", call.why)]
    if call.workspace_bytes:
        facts.append(("workspace", f"{call.workspace_bytes / 1e6:.1f} MB"))
    if one is None:
        return facts
    time = "not known" if (shown := _time(one)) is None else f"{shown} us on {one.gpu}"
    if one.measured_seconds is None and one.predicted_seconds is not None:
        time += ", predicted by the cost model, not measured"
    roof = f"~{one.roof_seconds * 1e6:.1f} us: {one.bound}-bound, {one.intensity:.1f} operations a compulsory byte"
    launch = [
        f"tile {one.tile}" if one.tile else "",
        "" if one.grid is None else f"grid {one.grid} blocks of {one.threads or '?'} threads",
        "" if one.shared_bytes is None else f"{one.shared_bytes / 1024:.1f} KB shared memory",
        "" if one.registers is None else f"{one.registers} registers a thread",
    ]
    filling = []
    if one.occupancy is not None:
        filling = [
            f"occupancy {one.occupancy:.0%}, limited by {one.occupancy_limit}",
            f"{one.waves:.2f} waves, the last {one.last_wave:.0%} full",
        ]
    saves = []
    if one.channels_last_saves is not None:
        verb = "save" if one.channels_last_saves >= 0 else "cost"
        saves.append(f"channels_last would {verb} ~{abs(one.channels_last_saves) * 1e6:.1f} us (predicted)")
    if one.fusion_of:
        saves.append(f"one kernel with {one.fusion_of} would save ~{one.fusion_saves * 1e6:.1f} us (predicted)")
    return [
        *facts,
        ("time", time),
        ("roofline", roof),
        ("launch", ", ".join(filter(None, launch))),
        ("fills", "; ".join(filling)),
        ("variants", "; ".join(saves)),
    ]


def _candidates(call: ExplainedCall, width: int) -> Any:
    """Those that can run, the fastest first, with what is known of their times."""
    legal = [one for one in analysis.candidates_on(call.problem) if one.legal]
    times = analysis.measured(call.problem)
    known = [(times.get(candidate_key(one)), analysis.predicted(call.problem, one), one) for one in legal]
    known.sort(key=lambda entry: entry[0] or entry[1] or math.inf)
    rows = []
    for measured, predicted, one in known[:MOST_CANDIDATES]:
        kernel = " ".join(filter(None, (one.backend, "" if one.backend == "aten" else one.kernel)))
        costs = analysis.analyse(call.problem, one)
        cells = [
            kernel,
            one.config,
            _predicted(predicted),
            _micro(measured),
            _plain(costs.grid),
            _plain(costs.registers),
        ]
        rows.append([cell or "-" for cell in (*cells, _share(costs.occupancy), _or_none(".2f")(costs.waves))])
    headings = ("kernel", "config", "predicted us", "measured us", "grid", "registers", "occupancy", "waves")
    columns = [
        (heading, [row[number] for row in rows], heading not in ("kernel", "config"))
        for number, heading in enumerate(headings)
    ]
    chosen = [candidate_key(one) == candidate_key(call.chosen) for _, _, one in known[:MOST_CANDIDATES]]
    table, _ = _of_columns(columns, width, f"candidates that can run it: {len(legal)}", chosen)
    if len(known) > MOST_CANDIDATES:
        table.caption, table.caption_justify = (
            f"and {len(known) - MOST_CANDIDATES} slower ones (--json has all)",
            "left",
        )
    return table


def rejections(calls: Sequence[ExplainedCall], brief: bool) -> Any:
    """What cannot run and why; briefly, a line for each kernel with the commonest of its reasons."""
    reasons = Counter((one.backend, one.kernel, one.reason) for call in calls for one in call.rejected)
    if not reasons:
        return None
    table = Table(title="not possible", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("backend", "kernel", "reason", "times"):
        table.add_column(heading, overflow="fold", justify="right" if heading == "times" else "left")
    if not brief:
        for (backend, kernel, reason), times in reasons.items():
            table.add_row(backend, kernel, Text(reason), str(times))
        return table
    by_kernel: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for (backend, kernel, reason), times in reasons.most_common():
        by_kernel.setdefault((backend, kernel), []).append((reason, times))
    for (backend, kernel), found in sorted(by_kernel.items()):
        others = f"; and {len(found) - 1} more" if len(found) > 1 else ""
        table.add_row(backend, kernel, Text(found[0][0] + others), str(sum(times for _, times in found)))
    return table
