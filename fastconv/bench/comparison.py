"""Two results side by side: two files (commits, machines), or two contestants of one file."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from pathlib import Path

from fastconv.bench.names import known
from fastconv.bench.results import Results, Row, load
from fastconv.bench.statistics import GeometricMean, geometric_mean

FIGURES = ("cold", "warm", "graph")


@dataclasses.dataclass
class Pair:
    first: Row
    second: Row
    ratio: float  # first's time / second's: above one, the second is faster


@dataclasses.dataclass
class Comparison:
    names: tuple[str, str]
    predicted: bool  # both sides are predictions
    pairs: list[Pair]
    unmatched: tuple[int, int]  # rows with a time that the other side lacks
    differences: list[str]  # of the environments, that make the comparison one of two things at once

    def mean(self) -> GeometricMean:
        return geometric_mean([pair.ratio for pair in self.pairs])

    def by(self, *fields: str) -> dict[tuple[str, ...], GeometricMean]:
        """Means by fields of the row: ("suite",), ("family", "direction")."""
        groups: dict[tuple[str, ...], list[float]] = {}
        for pair in self.pairs:
            groups.setdefault(tuple(getattr(pair.first, name) for name in fields), []).append(pair.ratio)
        return {key: geometric_mean(ratios) for key, ratios in sorted(groups.items())}


def parse_side(text: str) -> tuple[Path, str]:
    """`FILE`, `FOLDER` or `COMMIT`, each also with `:CONTESTANT`; a folder stands for the results in it."""
    path, contestant = Path(text), ""
    if not path.exists() and ":" in text:
        head, _, contestant = text.rpartition(":")
        path = Path(head)
    if not path.exists() and (found := _of_commit(str(path))):
        path = found
    if path.is_dir():
        if not (path / "results.jsonl").exists():
            raise FileNotFoundError(f"{text}: the folder has no results.jsonl in it, which `fastconv bench` writes")
        path = path / "results.jsonl"
    if not path.exists():
        raise FileNotFoundError(
            f"{text}: no such file, and no results here of a commit of that name; give FILE, FOLDER or COMMIT, each with or "
            f"without :CONTESTANT"
        )
    return path, contestant


#: Where results of a commit are looked for: those of this folder's runs, and those that are kept in a checkout.
KEPT = ("fastconv-bench/*/results.jsonl", "benchmarks/results/*/*.jsonl")


def _of_commit(name: str) -> Path | None:
    """The newest results of a commit, by the beginning of its name."""
    if not re.fullmatch(r"[0-9a-f]{4,40}", name):
        return None
    found = sorted((path for pattern in KEPT for path in Path().glob(pattern)), key=lambda path: path.stat().st_mtime)
    for path in reversed(found):
        with path.open() as file:
            first = file.readline()
        with contextlib.suppress(ValueError, AttributeError):
            commit = json.loads(first).get("commit", "").rstrip("+")
            if commit and (commit.startswith(name) or name.startswith(commit)):
                return path
    return None


def compare(first: str, second: str, figure: str = "cold") -> Comparison:
    """`figure` is of measurements; predictions have one time each. ValueError where the two have nothing in common."""
    known("figure", figure, FIGURES)
    sides = []
    for text in (first, second):
        path, contestant = parse_side(text)
        results = load(path)
        if contestant:
            known("contestant", contestant, dict.fromkeys(row.contestant for row in results.rows))
        sides.append((results, _times(results, contestant, figure)))
    (results_a, rows_a), (results_b, rows_b) = sides
    common = [key for key in rows_a if key in rows_b]
    if not common:
        raise ValueError(
            f"{first} and {second} have no row in common that holds a {figure} time or a prediction: "
            f"{first} has {_of_suites(rows_a)}, {second} {_of_suites(rows_b)}"
        )
    pairs = [Pair(rows_a[key][0], rows_b[key][0], rows_a[key][1] / rows_b[key][1]) for key in common]
    kinds = {row.kind for pair in pairs for row in (pair.first, pair.second)}
    if len(kinds) > 1:
        raise ValueError("one side is measured and the other predicted; a ratio of the two would mean nothing")
    if kinds == {"predicted"} and figure != FIGURES[0]:
        raise ValueError(f"figure is {figure}, but both sides are predictions, which hold no {figure} times")
    return Comparison(
        (first, second),
        kinds == {"predicted"},
        sorted(pairs, key=lambda pair: pair.ratio),
        (len(rows_a) - len(common), len(rows_b) - len(common)),
        _differences(results_a, results_b),
    )


def _of_suites(rows: dict[str, tuple[Row, float]]) -> str:
    if not rows:
        return "no row"
    suites = dict.fromkeys(row.suite for row, _ in rows.values())
    return f"{len(rows)} rows of {', '.join(suites)}"


def _times(results: Results, contestant: str, figure: str) -> dict[str, tuple[Row, float]]:
    """By case where a contestant is named, so that two different ones compare; else by case and contestant."""
    found = {}
    for row in results.rows:
        if row.status != "ok" or (contestant and row.contestant != contestant):
            continue
        sample = getattr(row, figure)
        seconds = row.predicted_seconds if row.kind == "predicted" else sample.median if sample else None
        if seconds:
            found[row.key if contestant else row.id] = (row, seconds)
    return found


def _differences(first: Results, second: Results) -> list[str]:
    found = []
    a, b = first.environment, second.environment
    for name in ("driver", "cuda", "cudnn", "predicted_gpu"):
        if a.get(name) != b.get(name):
            found.append(f"{name}: {a.get(name)} and {b.get(name)}")
    if first.title != second.title:
        found.append(f"device: {first.title} and {second.title}")
    for name, value in a.get("versions", {}).items():
        if name != "fastconv" and b.get("versions", {}).get(name) != value:
            found.append(f"{name}: {value} and {b.get('versions', {}).get(name)}")
    return found
