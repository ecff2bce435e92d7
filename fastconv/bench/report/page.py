"""The report as one HTML page that needs nothing beside it: figures are inline SVG, the script sorts and filters tables."""

from __future__ import annotations

import importlib.resources
import io
import re
from typing import Any

import jinja2

from fastconv.bench.report import markdown, tables
from fastconv.bench.report.figures import Drawing
from fastconv.bench.results import Results


def render(results: Results, drawings: dict[str, Drawing]) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = (importlib.resources.files(__package__) / "report.html.jinja").read_text()
    predicted = tables.is_predicted(results)
    return environment.from_string(template).render(
        title=results.title,
        predicted=predicted,
        incomplete=results.environment.get("incomplete", ""),
        facts=_facts(results),
        summary=tables.predicted_summary(results) if predicted else tables.summary(results),
        losses=tables.losses(results),
        troubles=tables.troubles(results),
        counts=tables.verdict_counts(results),
        layers=tables.predicted_rows(results) if predicted else tables.measured_rows(results),
        environment=tables.environment(results),
        legend=markdown.LEGEND,
        figures=[{"name": name, "caption": one.caption, "svg": _svg(name, one)} for name, one in drawings.items()],
    )


def _facts(results: Results) -> list[tuple[str, str]]:
    facts: dict[str, Any] = results.environment
    found = [
        ("rows", str(len(results.rows))),
        ("commit", facts.get("commit", "")),
        ("started", facts.get("started", "")),
    ]
    found += [("torch", facts.get("versions", {}).get("torch", "")), ("driver", str(facts.get("driver", "")))]
    found += list(tables.ceiling_lines(facts).items())
    return [(name, value) for name, value in found if value]


def _svg(name: str, drawing: Drawing) -> str:
    """The figure as an SVG element whose ids do not clash with another figure's."""
    buffer = io.StringIO()
    drawing.figure.savefig(buffer, format="svg")
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    prefix = re.sub(r"\W", "-", name)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', text)
    return re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1), count=1
    )
