"""The figures: roofline, ratios by layer, means by suite. A figure of predictions says so in its title and on its axes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fastconv.bench.hardware import GPUS, Ceilings
from fastconv.bench.report.tables import group_means, headline_contestant, is_predicted, ours, predicted_share
from fastconv.bench.results import Results, Row
from fastconv.bench.suite import FAMILIES, load_suite, suite_names

# Okabe and Ito's palette, which people with the usual colour blindnesses tell apart; each family has a marker too.
COLOURS = dict(
    zip(FAMILIES, ("#0072B2", "#D55E00", "#CC79A7", "#009E73", "#E69F00", "#56B4E9", "#7A5195"), strict=True)
)
MARKERS = dict(zip(FAMILIES, ("o", "s", "D", "^", "v", "P", "X"), strict=True))
PASS_COLOURS = {"fwd": "#0072B2", "dgrad": "#E69F00", "wgrad": "#009E73", "fwd+bwd": "#7A5195"}
GREY, LOSS = "#8C8C8C", "#C62828"

#: Bars in one figure; a suite with more layers and passes gets several.
MOST_BARS = 48


@dataclasses.dataclass
class Drawing:
    figure: Figure
    caption: str


def draw_all(results: Results) -> dict[str, Drawing]:
    """Name -> drawing, in the order of the report."""
    drawings: dict[str, Drawing] = {}
    who = headline_contestant(results)
    rows = [row for row in ours(results.rows) if row.contestant == who and row.status == "ok"]
    if not rows:
        return drawings
    predicted = is_predicted(results)
    for precision in dict.fromkeys(row.precision for row in rows):
        chosen = [row for row in rows if row.precision == precision]
        if (ceilings := ceilings_of(results)) is not None:
            drawings[f"roofline-{precision}"] = roofline(results, chosen, precision, who, ceilings)
    if predicted:
        drawings.update(_bars_by_suite(rows, who, predicted=True, gpu=rows[0].predicted_gpu))
        return drawings
    if means := suite_means(results, who):
        drawings["suites"] = means
    drawings.update(
        _bars_by_suite([row for row in rows if row.ratio is not None], who, predicted=False, gpu=results.title)
    )
    return drawings


def ceilings_of(results: Results) -> Ceilings | None:
    """Those measured in the run, or the datasheet's of the GPU that was predicted for; None where neither is known."""
    if found := results.environment.get("ceilings"):
        return Ceilings(**found)
    name = results.environment.get("predicted_gpu")
    return GPUS[name].ceilings() if name in GPUS else None


def _style(axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, which="major", color="#E4E4E4", linewidth=0.7)
    axes.set_axisbelow(True)


def roofline(results: Results, rows: Sequence[Row], precision: str, who: str, ceilings: Ceilings) -> Drawing:
    predicted = is_predicted(results)
    figure = Figure(figsize=(10, 6.2), layout="constrained")
    axes = figure.add_subplot()
    peak, bandwidth = ceilings.flops_for(precision) / 1e12, ceilings.bytes_per_second
    points = [(row, seconds) for row in rows if (seconds := _seconds(row)) and row.flops and row.bytes]
    intensities = [row.flops / row.bytes for row, _ in points] or [1.0]
    low, high = min(intensities) / 2, max(*intensities, peak * 1e12 / bandwidth) * 3
    x = numpy.geomspace(low, high, 200)
    axes.plot(x, numpy.minimum(peak, x * bandwidth / 1e12), color="#222222", linewidth=1.8, zorder=3)
    axes.annotate(
        f"{bandwidth / 1e12:.2f} TB/s   ·   {peak:.0f} TFLOP/s {precision}", (high, peak), xytext=(-4, 6),
        textcoords="offset points", ha="right", fontsize=9,
    )  # fmt: skip
    if not predicted:
        rivals = _best_baselines(results, rows)
        for row, seconds in rivals:
            axes.plot(row.flops / row.bytes, row.flops / seconds / 1e12, ".", color=GREY, markersize=5, zorder=2)
    for row, seconds in points:
        axes.plot(
            row.flops / row.bytes, row.flops / seconds / 1e12, MARKERS[row.family], color=COLOURS[row.family], markersize=6.5,
            markerfacecolor="none" if predicted else COLOURS[row.family], markeredgewidth=1.3, alpha=0.9, zorder=4,
        )  # fmt: skip
    present = [family for family in FAMILIES if any(row.family == family for row, _ in points)]
    handles = [
        Line2D([], [], linestyle="", marker=MARKERS[f], color=COLOURS[f], label=f,
               markerfacecolor="none" if predicted else COLOURS[f]) for f in present
    ]  # fmt: skip
    if not predicted:
        handles.append(Line2D([], [], linestyle="", marker=".", color=GREY, label="best PyTorch"))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.set_xlabel("arithmetic intensity: operations per compulsory byte")
    gpu = results.environment.get("predicted_gpu", "")
    if predicted:
        _style(axes, f"Roofline, PREDICTED for {gpu} by the cost model ({who}, {precision})")
        axes.set_ylabel("predicted TFLOP/s (not measured)")
        caption = (
            f"Predicted, not measured: datasheet ceilings of {gpu} and the cost model's time for each layer and pass."
        )
    else:
        _style(axes, f"Roofline on {results.title} ({who}, {precision})")
        axes.set_ylabel("TFLOP/s, cold cache")
        caption = "Ceilings measured in the same run; each point a layer and pass, the best PyTorch baseline in grey."
    figure.legend(handles=handles, loc="outside lower center", frameon=False, fontsize=9, ncols=len(handles))
    return Drawing(figure, caption)


def _seconds(row: Row) -> float | None:
    return row.predicted_seconds if row.kind == "predicted" else row.cold.median if row.cold else None


def _best_baselines(results: Results, rows: Sequence[Row]) -> list[tuple[Row, float]]:
    wanted = {row.key for row in rows}
    best: dict[str, Row] = {}
    for row in results.rows:
        if row.role == "baseline" and row.status == "ok" and row.cold and row.flops and row.bytes and row.key in wanted:
            held = best.get(row.key)
            if held is None or row.cold.median < held.cold.median:
                best[row.key] = row
    return [(row, row.cold.median) for row in best.values()]


def suite_means(results: Results, who: str) -> Drawing | None:
    """Geometric mean of the ratios with its bootstrap interval, by suite and pass."""
    groups = {key: mean for key, (mean, _) in group_means(results.rows).items() if key[0] == who}
    if not groups:
        return None
    labels = sorted({(suite, precision, layout) for _, suite, _, precision, layout in groups}, reverse=True)
    directions = [name for name in PASS_COLOURS if any(key[2] == name for key in groups)]
    figure = Figure(figsize=(10, 1.6 + 0.17 * len(labels) * (len(directions) + 1)), layout="constrained")
    axes = figure.add_subplot()
    for position, (suite, precision, layout) in enumerate(labels):
        for number, direction in enumerate(directions):
            mean = groups.get((who, suite, direction, precision, layout))
            if mean is None:
                continue
            y = position + 0.36 - 0.72 * (number + 0.5) / len(directions)
            colour = PASS_COLOURS[direction]
            axes.plot([mean.low, mean.high], [y, y], color=colour, linewidth=2.2, alpha=0.55, solid_capstyle="butt")
            axes.plot(mean.value, y, "o", color=colour, markersize=5.5)
    _ratio_axis(axes, [value for mean in groups.values() for value in (mean.low, mean.high)])
    axes.set_yticks(range(len(labels)), [" · ".join(label) for label in labels], fontsize=8.5)
    axes.set_ylim(-0.6, len(labels) - 0.4)
    axes.set_xlabel("best PyTorch time / ours (log scale), geometric mean and 95 % bootstrap interval")
    _style(axes, f"By suite, {who} on {results.title}")
    handles = [Line2D([], [], marker="o", color=PASS_COLOURS[name], label=name) for name in directions]
    figure.legend(handles=handles, loc="outside lower center", frameon=False, fontsize=9, ncols=len(handles))
    return Drawing(figure, "Right of the line is faster than the best of PyTorch's baselines.")


def _ratio_axis(axes, values: Sequence[float]) -> None:
    low, high = min([*values, 0.8]), max([*values, 1.25])
    axes.set_xscale("log")
    axes.set_xlim(low / 1.35, high * 1.35)
    steps = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 20, 30, 50, 100)
    ticks = [tick for tick in steps if low / 1.35 <= tick <= high * 1.35]
    while len(ticks) > 9:
        ticks = [tick for tick in ticks[::2] if tick != 1] + [1]
    axes.set_xticks(sorted(ticks), [f"{tick:g}x" for tick in sorted(ticks)])
    axes.minorticks_off()
    axes.axvline(1, color="#222222", linewidth=1.2, zorder=3)


def _bars_by_suite(rows: Sequence[Row], who: str, *, predicted: bool, gpu: str) -> dict[str, Drawing]:
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if predicted and predicted_share(row) is None:
            continue
        groups.setdefault((row.suite, row.precision, row.layout), []).append(row)
    drawings = {}
    draw = _share_bars if predicted else _ratio_bars
    for (suite, precision, layout), group in sorted(groups.items()):
        group.sort(key=_place)
        pages = math.ceil(len(group) / MOST_BARS)
        for number in range(pages):
            part = group[number * MOST_BARS : (number + 1) * MOST_BARS]
            name = f"{'predicted' if predicted else 'ratios'}-{suite}-{precision}-{layout}" + (
                f"-{number + 1}" if pages > 1 else ""
            )
            page = f", page {number + 1} of {pages}" if pages > 1 else ""
            drawings[name] = draw(part, f"{suite}, {precision}, {layout}{page}", who, gpu)
    return drawings


def _place(row: Row) -> tuple[int, int]:
    """A row's place in its network, whatever came first in the run."""
    names = [layer.name for layer in load_suite(row.suite).layers] if row.suite in suite_names() else []
    return names.index(row.layer) if row.layer in names else len(names), list(PASS_COLOURS).index(row.direction)


def _bar_axes(rows: Sequence[Row]):
    figure = Figure(figsize=(10, 1.5 + 0.24 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    labels = []
    last = ""
    for row in rows:
        # A layer's name once; its other passes stand below it.
        labels.append(f"{row.layer}  {row.description}   {row.direction}" if row.layer != last else row.direction)
        if row.layer != last and len(labels) > 1:
            axes.axhline(len(labels) - 1.5, color="#D0D0D0", linewidth=0.6, zorder=1)
        last = row.layer
    axes.set_yticks(range(len(rows)), labels, fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    return figure, axes


def _ratio_bars(rows: Sequence[Row], title: str, who: str, gpu: str) -> Drawing:
    figure, axes = _bar_axes(rows)
    for position, row in enumerate(rows):
        colour = PASS_COLOURS[row.direction] if row.ratio >= 1 else LOSS
        axes.barh(position, row.ratio - 1, left=1, height=0.72, color=colour, zorder=2)
        side = 1 if row.ratio >= 1 else -1
        axes.annotate(f"{row.ratio:.2f}x", (row.ratio, position), xytext=(3 * side, 0), textcoords="offset points",
                      ha="left" if side > 0 else "right", va="center", fontsize=7.5)  # fmt: skip
    _ratio_axis(axes, [row.ratio for row in rows])
    axes.set_xlabel(f"best PyTorch time / {who} (log scale), cold cache, {gpu}")
    _style(axes, title)
    axes.grid(False, axis="y")
    return Drawing(figure, f"{who} against the best of PyTorch's baselines on the same tensors. Red bars are losses.")


def _share_bars(rows: Sequence[Row], title: str, who: str, gpu: str) -> Drawing:
    figure, axes = _bar_axes(rows)
    for position, row in enumerate(rows):
        share = predicted_share(row)
        axes.barh(
            position, share, height=0.72, color="white", edgecolor=PASS_COLOURS[row.direction], hatch="////", zorder=2
        )
        axes.annotate(
            f"{share:.0%}", (share, position), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7.5
        )
    axes.set_xlim(0, 1.12)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.axvline(1, color="#222222", linewidth=1.2, zorder=3)
    axes.set_xlabel(f"share of {gpu}'s roofline, PREDICTED by {who}'s cost model (not measured)")
    _style(axes, f"{title} — PREDICTED")
    axes.grid(False, axis="y")
    return Drawing(figure, f"Predicted for {gpu}, not measured.")
