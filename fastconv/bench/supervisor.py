"""Runs the worker, writes what it finds as it comes, and goes on without it where a row hangs or takes the process down."""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastconv.backends import registered
from fastconv.bench.cases import Case, case_of
from fastconv.bench.results import SCHEMA, Row, Writer, set_ratios
from fastconv.bench.rows import make_row
from fastconv.bench.runner import Field

#: Seconds after which a row that says nothing counts as hung. torch.compile tries many kernels; a start compiles and loads.
PATIENCE = {"row": 90.0, "compile": 240.0, "start": 180.0}

#: A worker is started again at most so often: a machine where nothing works must end too.
MOST_RESTARTS = 25


@dataclasses.dataclass
class Job:
    mode: str  # "measured" or "predicted"
    cases: Sequence[Case]
    field: dict[str, Any]
    effort: dict[str, Any]
    gpu: str = ""  # of predictions
    deadline: float = float("inf")  # of time.time()
    patience: dict[str, float] = dataclasses.field(default_factory=lambda: dict(PATIENCE))
    command: Sequence[str] = (sys.executable, "-m", "fastconv.bench.worker")


@dataclasses.dataclass
class Outcome:
    rows: list[Row]
    complete: bool
    reason: str = ""  # why it is not complete


def supervise(
    job: Job,
    writer: Writer,
    log: Path,
    done: set[str],
    on_row: Callable[[Row], None] = lambda row: None,
    on_begin: Callable[[str], None] = lambda name: None,
) -> Outcome:
    """Measures what is not in `done` (row ids) and writes every row. Interruption (Ctrl-C) keeps what there is."""
    rows: list[Row] = []
    skip = set(done)
    by_case: dict[str, list[Row]] = {}
    ceilings: dict[str, Any] = {}

    def keep(row: Row) -> None:
        siblings = by_case.setdefault(row.key, [])
        siblings.append(row)
        set_ratios(siblings)
        writer.write(row)
        rows.append(row)
        skip.add(row.id)
        on_row(row)

    for _ in range(MOST_RESTARTS):
        ended = _run_worker(job, ceilings, skip, log, keep, on_begin, writer)
        if ended.reason == "end":
            return Outcome(rows, complete=True)
        if ended.reason in ("out of time", "interrupted"):
            return Outcome(rows, complete=False, reason=ended.reason)
        if ended.at in ("", "start"):
            return Outcome(rows, complete=False, reason=f"the worker could not start: {ended.reason} (see {log})")
        for row in _blamed(ended, job):
            if row.id not in skip:
                keep(row)
    return Outcome(rows, complete=False, reason=f"given up after {MOST_RESTARTS} restarts")


@dataclasses.dataclass
class _End:
    reason: str
    at: str = ""  # what the worker was at: a row's id, a case's key, or "start"


def _run_worker(
    job: Job,
    ceilings: dict[str, Any],
    skip: set[str],
    log: Path,
    keep: Callable[[Row], None],
    on_begin: Callable[[str], None],
    writer: Writer,
) -> _End:
    given = {
        "mode": job.mode,
        "cases": [case.key for case in job.cases],
        "field": job.field,
        "effort": job.effort,
        "gpu": job.gpu,
        "modules": registered.backend.modules(),
        "skip": sorted(skip),
        "deadline": min(job.deadline, 1e300),
        "ceilings": ceilings.get("ceilings"),
    }
    with log.open("a") as log_file:
        process = subprocess.Popen(
            job.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_file,
            text=True,
            start_new_session=True,
        )
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    at, lost = "start", ""
    try:
        try:
            process.stdin.write(json.dumps(given) + "\n")
            process.stdin.close()
        except BrokenPipeError:
            return _End(f"it ended with {process.wait()}", at)
        while True:
            try:
                line = lines.get(timeout=_patience(job, at))
            except queue.Empty:
                if time.time() > job.deadline:
                    return _End("out of time", at)
                return _End(f"hung: no answer for {_patience(job, at):.0f} s", at)
            if line is None:
                return _End(lost or _how_it_ended(process.wait()), at)
            event = json.loads(line)
            kind = event["event"]
            if kind == "row":
                keep(Row.from_dict(event["row"]))
            elif kind == "begin":
                at = event["id"]
                on_begin(at)
            elif kind == "ceilings":
                ceilings["ceilings"] = event["ceilings"]
                writer.write({"record": "environment", "schema": SCHEMA, "ceilings": event["ceilings"]})
            elif kind == "gpu state":
                writer.write({"record": "gpu state", "time": time.time(), **event["state"]})
            elif kind == "lost":
                lost = f"the device was lost: {event['reason']}"
            else:
                return _End(kind, at)
    except KeyboardInterrupt:
        return _End("interrupted", at)
    finally:
        _stop(process)


def _read(stream: Any, lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _patience(job: Job, at: str) -> float:
    kind = "start" if at == "start" else "compile" if at.endswith("compile") else "row"
    patience = job.patience[kind]
    if job.deadline < float("inf"):
        # A row that is under way when time is up may end; it is not waited for much longer.
        patience = min(patience, max(5.0, job.deadline + 5.0 - time.time()))
    return patience


def _how_it_ended(code: int) -> str:
    if code < 0:
        return f"the process died of {signal.Signals(-code).name}"
    return f"the process ended with {code}"


def _stop(process: subprocess.Popen) -> None:
    """The worker and whatever compilers it started: they share a process group of their own."""
    if process.poll() is None:
        for number, wait in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 10.0)):
            try:
                os.killpg(process.pid, number)
                process.wait(wait)
                break
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
    process.stdout.close()


def _blamed(ended: _End, job: Job) -> list[Row]:
    """The row that the worker was at; all of a case's where it died before the first."""
    key, _, contestant = ended.at.partition(" ")
    case = case_of(key)
    kind = "measured" if job.mode == "measured" else "predicted"
    if contestant:
        blamed = [(contestant, "ours" if contestant.startswith("fastconv") else "baseline")]
    elif kind == "measured":
        blamed = [(one.name, one.role) for one in Field(**job.field).of(case)]
    else:
        blamed = [(f"fastconv-{name}", "ours") for name in (*job.field["backends"], *job.field["kernels"])]
    rows = []
    for name, role in blamed:
        row = make_row(case, name, role, kind)
        row.status, row.reason = "failed", ended.reason
        rows.append(row)
    return rows
