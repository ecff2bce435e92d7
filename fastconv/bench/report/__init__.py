"""From a file of results to what people read: CSV, Markdown, PNG figures and one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path

from fastconv.bench.report import figures, markdown, page
from fastconv.bench.results import Results, write_csv


def write_all(results: Results, folder: Path) -> list[Path]:
    """Everything beside the results, in `folder`; returns what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(results, folder / "results.csv")
    (folder / "report.md").write_text(markdown.render(results))
    drawn = figures.draw_all(results)
    written = [folder / "results.csv", folder / "report.md"]
    picture_folder = folder / "figures"
    picture_folder.mkdir(exist_ok=True)
    for name, drawing in drawn.items():
        path = picture_folder / f"{name}.png"
        drawing.figure.savefig(path, dpi=140)
        written.append(path)
    (folder / "report.html").write_text(page.render(results, drawn))
    return [*written, folder / "report.html"]
