"""The file of a run: JSON lines, first the environment, then a row for each case and contestant, written as they come."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, Literal

from fastconv.bench.cases import PASSES
from fastconv.bench.fields import hints_of, require, short
from fastconv.bench.hardware import Ceilings
from fastconv.bench.statistics import Sample
from fastconv.bench.suite import FAMILIES

#: Raised by one whenever a field changes its meaning; files of another version are refused.
SCHEMA = 1

Status = Literal["ok", "failed", "wrong", "rejected", "skipped"]


@dataclasses.dataclass
class Row:
    """One contestant on one case. Times are in seconds; what was not measured is None.

    `kind` is "measured" or "predicted", and a predicted row holds no time: only `predicted_seconds`, of a roofline or a cost
    model for the GPU it names.
    """

    kind: Literal["measured", "predicted"]
    key: str  # of the case
    contestant: str
    role: Literal["ours", "baseline"]
    status: Status
    reason: str = ""  # why it is not "ok"
    suite: str = ""
    layer: str = ""
    family: str = ""
    op: str = ""
    direction: str = ""
    precision: str = ""
    layout: str = ""
    batch: int = 0
    shape: dict[str, Any] = dataclasses.field(default_factory=dict)
    count: int = 1
    description: str = ""
    flops: int = 0
    bytes: int = 0
    kernel: str = ""
    config: str = ""
    cold: Sample | None = None
    warm: Sample | None = None
    graph: Sample | None = None
    tflops: float | None = None
    gbytes_per_second: float | None = None
    roofline_share: float | None = None
    bound: str = ""
    error: float | None = None
    largest_error: float | None = None
    pytorch_error: float | None = None
    pytorch_largest_error: float | None = None
    workspace_bytes: int | None = None
    peak_bytes: int | None = None
    ratio: float | None = None  # best baseline on the same tensors / this, cold medians; above one is faster
    ratio_any_layout: float | None = None  # against the best baseline in either layout
    best_baseline: str = ""
    predicted_gpu: str = ""
    predicted_seconds: float | None = None
    predicted_roof_seconds: float | None = None
    counted: dict[str, float] = dataclasses.field(default_factory=dict)  # by the emulator, on the scaled-down layer
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def id(self) -> str:
        return f"{self.key} {self.contestant}"

    def to_json(self) -> str:
        fields = {name: value for name, value in dataclasses.asdict(self).items() if value not in (None, "", [], {})}
        return json.dumps({"record": "row", **_finite(fields)})

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Row:
        """ValueError names the field that is not what a row has there."""
        hints = hints_of(cls)
        fields = {name: value for name, value in fields.items() if name in hints}
        for name in _REQUIRED:
            if name not in fields:
                raise ValueError(f"{name} is missing")
        require(fields, hints | {"direction": Literal[PASSES], "family": Literal[FAMILIES]})
        for name in ("cold", "warm", "graph"):
            if fields.get(name):
                fields[name] = Sample(**fields[name])
                if not fields[name].median > 0:
                    raise ValueError(f"the median of {name} is {fields[name].median:g} seconds, but must be above 0")
        for name in _POSITIVE:
            if fields.get(name) is not None and not fields[name] > 0:
                raise ValueError(f"{name} is {fields[name]:g}, but must be above 0")
        return cls(**fields)


_REQUIRED = ("kind", "key", "contestant", "role", "status", "family", "direction")
_POSITIVE = ("ratio", "ratio_any_layout", "predicted_seconds", "predicted_roof_seconds")


def _finite(value: Any) -> Any:
    """JSON has no infinity: an infinite error becomes a number beyond any real one."""
    if isinstance(value, float) and not math.isfinite(value):
        return 1e308
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    return value


@dataclasses.dataclass
class Results:
    environment: dict[str, Any]
    rows: list[Row]

    def by_id(self) -> dict[str, Row]:
        return {row.id: row for row in self.rows}

    @property
    def title(self) -> str:
        gpu, predicted = self.environment.get("device", {}).get("name", ""), self.environment.get("predicted_gpu", "")
        return gpu or (f"no GPU; predicted for {predicted}" if predicted else "a device whose name was not recorded")


#: What the report and comparisons read of an environment, by type.
_ENVIRONMENT = {
    **dict.fromkeys(("driver", "cuda", "commit", "predicted_gpu", "incomplete"), str | None),
    **dict.fromkeys(("versions", "gpu_state", "environment"), dict[str, str]),
    **dict.fromkeys(("device", "asked"), dict[str, Any]),
    "ceilings": Ceilings,
}


def _require_environment(record: dict[str, Any]) -> None:
    """ValueError names the fact that is not what `environment.collect` or a worker would have written."""
    require(record, _ENVIRONMENT)
    require(
        {f"the {name} of device": value for name, value in record.get("device", {}).items()},
        {"the name of device": str},
    )
    if "ceilings" in record:
        ceilings = Ceilings(**record["ceilings"])
        rates = {"bytes_per_second": ceilings.bytes_per_second, **ceilings.flops_per_second}
        if "float32" not in rates:
            raise ValueError("flops_per_second of ceilings has no float32")
        for name, value in rates.items():
            if not value > 0:
                raise ValueError(f"{name} of ceilings is {value:g}, but must be above 0")


class Writer:
    """Appends records, each a line that reaches the disk before the next row is measured."""

    def __init__(self, path: Path, environment: dict[str, Any], *, resume: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if resume and path.exists():
            _drop_torn_line(path)
            self._file: IO[str] = path.open("a")
        else:
            self._file = path.open("w")
        self.write({"record": "environment", "schema": SCHEMA, **environment})

    def write(self, record: dict[str, Any] | Row) -> None:
        self._file.write((record.to_json() if isinstance(record, Row) else json.dumps(record)) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _drop_torn_line(path: Path) -> None:
    """An interrupted run may have left half a line; appending to it would lose the next one."""
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)


def load(path: Path) -> Results:
    """A file of results; of a row that is there twice, the last. ValueError where the file is none."""
    environment: dict[str, Any] = {}
    rows: dict[str, Row] = {}
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break  # torn by an interruption
            raise ValueError(f"{path}:{number} is not JSON: {error}") from None
        if not isinstance(record, dict):
            raise ValueError(f"{path}:{number} is {short(record)}, not a record")
        if record.get("record") == "environment":
            if record.get("schema") != SCHEMA:
                raise ValueError(f"{path}:{number} has schema {record.get('schema')}, and this version reads {SCHEMA}")
            try:
                _require_environment(record)
            except ValueError as error:
                raise ValueError(f"{path}:{number} is not an environment: {error}") from None
            environment |= {name: value for name, value in record.items() if name != "record"}
        elif record.get("record") == "row":
            try:
                row = Row.from_dict(record)
            except ValueError as error:
                raise ValueError(f"{path}:{number} is not a row: {error}") from None
            if row.kind == "predicted" and row.predicted_gpu not in ("", environment.get("predicted_gpu")):
                raise ValueError(
                    f"{path}:{number} is a prediction for {row.predicted_gpu}, and the file says that it is of "
                    f"{environment.get('predicted_gpu', 'no prediction')}"
                )
            rows[row.id] = row
    if not environment:
        raise ValueError(f"{path} holds no record of its environment; is it a file of `fastconv bench`?")
    results = Results(environment, list(rows.values()))
    set_ratios(results.rows)
    return results


def set_ratios(rows: Iterable[Row]) -> None:
    """Fills in `ratio`, `ratio_any_layout` and `best_baseline` from the measured rows of the same case and run."""
    rows = list(rows)
    baselines: dict[str, list[Row]] = {}
    for row in rows:
        if row.role == "baseline" and row.status == "ok" and row.cold is not None:
            baselines.setdefault(row.key, []).append(row)
    for row in rows:
        # What a file says of itself is no figure: it may be of a time or of a rival that is not there.
        row.ratio, row.ratio_any_layout, row.best_baseline = None, None, ""
        if row.role != "ours" or row.status != "ok" or row.cold is None or row.key not in baselines:
            continue
        rivals = baselines[row.key]
        own = [rival for rival in rivals if not rival.contestant.endswith(("-nchw", "-channels_last"))]
        if own:
            best = min(own, key=lambda rival: rival.cold.median)
            row.ratio, row.best_baseline = best.cold.median / row.cold.median, best.contestant
        row.ratio_any_layout = min(rival.cold.median for rival in rivals) / row.cold.median


_FLAT = ("cold", "warm", "graph")


def flat(row: Row) -> dict[str, Any]:
    """A row for a table of columns: samples spread out, times in microseconds."""
    fields = dataclasses.asdict(row)
    for name in _FLAT:
        sample = fields.pop(name) or {}
        for figure in ("median", "p10", "p90"):
            value = sample.get(figure)
            fields[f"{name}_{figure}_us"] = None if value is None else value * 1e6
    fields["shape"] = json.dumps(fields["shape"])
    fields["counted"] = json.dumps(fields["counted"]) if fields["counted"] else ""
    fields["notes"] = "; ".join(fields["notes"])
    for name in ("predicted_seconds", "predicted_roof_seconds"):
        value = fields.pop(name)
        fields[name.replace("seconds", "us")] = None if value is None else value * 1e6
    return fields


def write_csv(results: Results, path: Path) -> None:
    rows = [flat(row) for row in results.rows]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["key"])
        writer.writeheader()
        writer.writerows(rows)
