"""The figures of a report, as plain tables: what Markdown and HTML both show."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fastconv.bench.results import Results, Row
from fastconv.bench.statistics import GeometricMean, geometric_mean

#: A loss within this much of the baseline is within the noise that p10 and p90 usually show.
NOISE = 0.03


@dataclasses.dataclass
class Table:
    columns: list[str]
    rows: list[list[str]]
    numeric: frozenset[int] = frozenset()  # columns that are set to the right


@dataclasses.dataclass(frozen=True)
class Column:
    name: str
    cell: Callable[[Row], str | None]
    numeric: bool = False


def table_of(columns: Sequence[Column], rows: Iterable[Row]) -> Table:
    cells = [[column.cell(row) or "" for column in columns] for row in rows]
    numeric = frozenset(index for index, column in enumerate(columns) if column.numeric)
    return Table([column.name for column in columns], cells, numeric)


def microseconds(seconds: float | None) -> str:
    if seconds is None:
        return ""
    value = seconds * 1e6
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def is_predicted(results: Results) -> bool:
    """Also of a run that had no time for a row: nothing was measured in it, so nothing of it is called a loss or none."""
    if not results.rows:
        return "predicted_gpu" in results.environment
    return any(row.kind == "predicted" for row in results.rows)


def ours(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row.role == "ours"]


def headline_contestant(results: Results) -> str:
    """Whose rows the figures show: `auto`, which is what a user gets; else whoever has the most rows that are right."""
    counts: dict[str, int] = {}
    for row in ours(results.rows):
        if row.status == "ok":
            counts[row.contestant] = counts.get(row.contestant, 0) + 1
    if "fastconv-auto" in counts:
        return "fastconv-auto"
    return max(counts, key=lambda name: counts[name], default="")


def verdict_counts(results: Results) -> Table:
    """How many rows each contestant has, by status."""
    statuses = ("ok", "wrong", "rejected", "failed", "skipped")
    names = list(dict.fromkeys(row.contestant for row in results.rows))
    rows = []
    for name in names:
        mine = [row for row in results.rows if row.contestant == name]
        rows.append([name, str(len(mine)), *(str(sum(row.status == one for row in mine)) for one in statuses)])
    return Table(["contestant", "rows", *statuses], rows, frozenset(range(1, 7)))


def group_means(rows: Iterable[Row]) -> dict[tuple[str, str, str, str, str], tuple[GeometricMean, Row]]:
    """(contestant, suite, pass, precision, layout) -> mean of the ratios to the best baseline, and the worst row."""
    groups: dict[tuple[str, str, str, str, str], list[Row]] = {}
    for row in ours(rows):
        if row.ratio is not None:
            key = (row.contestant, row.suite, row.direction, row.precision, row.layout)
            groups.setdefault(key, []).append(row)
    return {
        key: (geometric_mean([row.ratio for row in group]), min(group, key=lambda row: row.ratio))
        for key, group in groups.items()
    }


def summary(results: Results) -> Table:
    columns = [
        "contestant",
        "suite",
        "pass",
        "precision",
        "layout",
        "layers",
        "ratio (geometric mean)",
        "95 % interval",
    ]
    table = Table([*columns, "worst layer"], [], frozenset((5, 6)))
    for group, (mean, worst) in sorted(group_means(results.rows).items()):
        interval = f"{mean.low:.2f} to {mean.high:.2f}"
        cells = [str(mean.count), f"{mean.value:.2f}x", interval, f"{worst.layer} {worst.ratio:.2f}x"]
        table.rows.append([*group, *cells])
    return table


def predicted_summary(results: Results) -> Table:
    """By suite and contestant: how many layers are right, and the predicted share of the roofline."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in results.rows:
        groups.setdefault((row.suite, row.contestant.removeprefix("fastconv-")), []).append(row)
    columns = ["suite", "ours", "right", "of roofline (predicted)", "distinct / compulsory bytes"]
    table = Table(columns, [], frozenset((2, 3, 4)))
    for (suite, contestant), rows in sorted(groups.items()):
        right = [row for row in rows if row.status == "ok"]
        shares = [share for row in right if (share := predicted_share(row)) is not None]
        traffic = [row.counted["distinct_ratio"] for row in right if "distinct_ratio" in row.counted]
        cells = [f"{len(right)} of {len(rows)}", _range(shares, ".0%"), _range(traffic, ".2f")]
        table.rows.append([suite, contestant, *cells])
    return table


def _range(values: Sequence[float], form: str) -> str:
    return f"{format(min(values), form)} to {format(max(values), form)}" if values else ""


_CASE = (
    Column("suite", lambda row: row.suite),
    Column("layer", lambda row: row.layer),
    Column("shape", lambda row: row.description),
    Column("pass", lambda row: row.direction),
    Column("precision", lambda row: row.precision),
    Column("layout", lambda row: row.layout),
    Column("batch", lambda row: str(row.batch), numeric=True),
    Column("contestant", lambda row: row.contestant),
)
_KERNEL = Column("kernel", lambda row: " ".join(filter(None, (row.kernel, row.config))))
_ERROR = Column(
    "error / PyTorch's",
    lambda row: None if row.error is None else f"{row.error:.1e} / {_number(row.pytorch_error, '.1e') or '?'}",
)

_MEASURED = (
    *_CASE,
    _KERNEL,
    Column("cold us", lambda row: microseconds(row.cold.median), numeric=True),
    Column("p10 to p90", lambda row: f"{microseconds(row.cold.p10)} to {microseconds(row.cold.p90)}"),
    Column("warm us", lambda row: microseconds(row.warm.median if row.warm else None), numeric=True),
    Column("graph us", lambda row: microseconds(row.graph.median if row.graph else None), numeric=True),
    Column("TFLOP/s", lambda row: _number(row.tflops, ".1f"), numeric=True),
    Column("GB/s", lambda row: _number(row.gbytes_per_second, ".0f"), numeric=True),
    Column("of roofline", lambda row: _percent(row.roofline_share), numeric=True),
    Column("bound", lambda row: row.bound),
    _ERROR,
    Column("ratio", lambda row: _number(row.ratio, ".2f"), numeric=True),
    Column("ratio, any layout", lambda row: _number(row.ratio_any_layout, ".2f"), numeric=True),
    Column("best baseline", lambda row: row.best_baseline),
    Column("workspace MB", lambda row: _megabytes(row.workspace_bytes), numeric=True),
    Column("peak MB", lambda row: _megabytes(row.peak_bytes), numeric=True),
)

_PREDICTED = (
    *_CASE,
    _KERNEL,
    _ERROR,
    Column("roofline us (predicted)", lambda row: microseconds(row.predicted_roof_seconds), numeric=True),
    Column("bound (predicted)", lambda row: row.bound),
    Column("cost model us (predicted)", lambda row: microseconds(row.predicted_seconds), numeric=True),
    Column("of roofline (predicted)", lambda row: _percent(predicted_share(row)), numeric=True),
    Column("distinct / compulsory bytes", lambda row: _number(row.counted.get("distinct_ratio"), ".2f"), numeric=True),
    Column("sectors / compulsory bytes", lambda row: _number(row.counted.get("sector_ratio"), ".2f"), numeric=True),
    Column("bank conflicts", lambda row: _number(row.counted.get("bank_conflicts"), ".0f"), numeric=True),
)

_LOSSES = (
    Column("ratio", lambda row: f"{row.ratio:.2f}x", numeric=True),
    *_CASE,
    Column("kernel", lambda row: row.kernel),
    Column("cold us", lambda row: microseconds(row.cold.median), numeric=True),
    Column("lost to", lambda row: row.best_baseline),
    Column("", lambda row: "within noise" if row.ratio > 1 - NOISE else ""),
)

_TROUBLES = (Column("status", lambda row: row.status), *_CASE, Column("reason", lambda row: row.reason))


def losses(results: Results) -> Table:
    """Every row of ours that is slower than the best baseline on the same tensors, the worst first."""
    lost = [row for row in ours(results.rows) if row.ratio is not None and row.ratio < 1]
    return table_of(_LOSSES, sorted(lost, key=lambda row: row.ratio))


def troubles(results: Results) -> Table:
    """Rows without a figure, and why."""
    return table_of(_TROUBLES, (row for row in results.rows if row.status != "ok"))


def measured_rows(results: Results) -> Table:
    return table_of(_MEASURED, (row for row in results.rows if row.kind == "measured" and row.cold is not None))


def predicted_rows(results: Results) -> Table:
    return table_of(_PREDICTED, (row for row in results.rows if row.kind == "predicted" and row.status == "ok"))


def _megabytes(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:.1f}"


def predicted_share(row: Row) -> float | None:
    if not row.predicted_seconds or row.predicted_roof_seconds is None:
        return None
    return row.predicted_roof_seconds / row.predicted_seconds


def environment(results: Results) -> Table:
    """What ran where, one fact a line."""
    facts = results.environment
    rows = [["device", results.title]]
    for name in ("driver", "cuda", "cudnn", "commit", "started", "system", "cpu"):
        if facts.get(name):
            rows.append([name, str(facts[name])])
    rows += [[f"version of {name}", value] for name, value in facts.get("versions", {}).items()]
    rows += [[f"GPU at the start: {name}", value] for name, value in facts.get("gpu_state", {}).items()]
    rows += [[f"ceiling: {name}", value] for name, value in ceiling_lines(facts).items()]
    rows += [[f"environment: {name}", value] for name, value in facts.get("environment", {}).items()]
    return Table(["what", "is"], rows)


def ceiling_lines(facts: dict[str, Any]) -> dict[str, str]:
    ceilings = facts.get("ceilings")
    if not ceilings:
        return {}
    word = "measured" if ceilings["measured"] else "datasheet"
    lines = {"memory": f"{ceilings['bytes_per_second'] / 1e12:.2f} TB/s ({word})"}
    for name, value in ceilings["flops_per_second"].items():
        lines[name] = f"{value / 1e12:.1f} TFLOP/s ({word})"
    return lines
