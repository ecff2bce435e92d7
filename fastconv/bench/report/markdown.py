"""The report as Markdown."""

from __future__ import annotations

from fastconv.bench.report import tables
from fastconv.bench.report.tables import Table
from fastconv.bench.results import Results

PREDICTED = "**Predicted, not measured.** This machine has no GPU: times are those of a roofline and a cost model."


def render(results: Results) -> str:
    predicted = tables.is_predicted(results)
    parts = [f"# Benchmark: {results.title}", ""]
    if predicted:
        parts += [PREDICTED, ""]
    if note := results.environment.get("incomplete"):
        parts += [f"**Not complete:** {note}", ""]
    parts += _section("Rows", tables.verdict_counts(results))
    if predicted:
        parts += _section("By suite (predicted)", tables.predicted_summary(results))
    else:
        parts += _section("Against the best baseline, by suite", tables.summary(results), LEGEND)
        parts += _section("Losses", tables.losses(results), empty="None.")
    parts += _section("Rows without a figure", tables.troubles(results), empty="None.")
    if predicted:
        parts += _section("Layers (predicted)", tables.predicted_rows(results))
    else:
        parts += _section("Layers", tables.measured_rows(results))
    parts += _section("Where", tables.environment(results))
    return "\n".join(parts) + "\n"


LEGEND = (
    "Ratio: time of the fastest baseline on the same tensors over ours, medians with a cold cache; above 1 is faster. "
    "The interval is a bootstrap over the layers."
)


def _section(title: str, table: Table, legend: str = "", empty: str = "") -> list[str]:
    parts = [f"## {title}", ""]
    if not table.rows:
        return [*parts, empty or "Nothing.", ""]
    if legend:
        parts += [legend, ""]
    parts.append("| " + " | ".join(table.columns) + " |")
    parts.append("|" + "|".join("---:" if i in table.numeric else "---" for i in range(len(table.columns))) + "|")
    parts += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table.rows]
    return [*parts, ""]
