"""One run of the benchmark, from what was asked for to the report: what `fastconv bench` does."""

from __future__ import annotations

import dataclasses
import datetime
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from fastconv.bench import contestants, environment, prediction, report
from fastconv.bench.cases import Case, by_expected_gap, select_some
from fastconv.bench.hardware import gpu_like, gpu_named
from fastconv.bench.measurement import Effort
from fastconv.bench.names import known, seconds_to_spend
from fastconv.bench.options import USUAL_GPU, Options
from fastconv.bench.report import tables
from fastconv.bench.results import SCHEMA, Results, Row, Writer, load
from fastconv.bench.runner import Field
from fastconv.bench.supervisor import Job, supervise
from fastconv.tuning.mode import mode

#: Where results go unless a folder is named.
HOME = Path("fastconv-bench")

#: Without a GPU a quick run must be over in three minutes with its report; what is left then is left out, and said.
QUICK_BUDGET_WITHOUT_GPU = 140.0

#: Filters with more taps are left out of a quick run without a GPU.
MOST_QUICK_TAPS = 200

QUICK_EFFORT = Effort(seconds=0.04, least=7, most=30, batch_seconds=2e-3)


@dataclasses.dataclass
class Finished:
    results: Results
    folder: Path
    complete: bool
    reason: str
    seconds: float
    files: list[Path]


def run(options: Options, console: Console) -> Finished:
    """Raises ValueError (UnknownNameError) for what cannot be asked for, before anything runs."""
    began = time.time()
    mode()  # of FASTCONV_TUNE: a wrong word would fail every row
    folder = output_folder(options)
    path = folder / "results.jsonl"
    before = asked_before(path) if options.resume else {}
    options = options.completed(before)
    asked = options.remembered()
    if before and before == asked:
        words = [f"{name} {value}" for name, value in asked.items() if value]
        console.print(f"Going on with what the run was asked for: {', '.join(words)}", highlight=False)
    selection = options.selection
    if not options.measured and selection.quick and not selection.directions:
        # The whole of training is the same primitives once more.
        selection = dataclasses.replace(selection, directions=("fwd", "dgrad", "wgrad"))
    cases = select_some(selection)
    if not options.measured:
        # Triton's interpreter takes minutes for the hundreds of taps of the largest kernels, so these come last, and not at all
        # in a quick run.
        if selection.quick and not selection.filters:
            cases = [case for case in cases if _taps(case) <= MOST_QUICK_TAPS]
        cases.sort(key=lambda case: _taps(case) > 121)
    job = make_job(options, cases, began)
    done = finished_rows(path) if options.resume else set()
    facts = environment.collect() | {"asked": asked}
    if not options.measured:
        gpu = gpu_named(options.gpu)
        facts |= {"predicted_gpu": gpu.name, "ceilings": dataclasses.asdict(gpu.ceilings())}
    if options.resume:
        require_same_device(path, facts)
    require_folder(folder, options.resume)
    writer = Writer(path, facts, resume=options.resume)
    names = [name for case in job.cases for name in row_ids(case, options, job)]
    left = [name for name in names if name not in done]
    if leaving_out := [name for name in options.backends if name not in (*job.field["backends"], "none")]:
        console.print(f"[yellow]Left out:[/yellow] {', '.join(leaving_out)}, which run nothing of ours without a GPU")
    what = "Measuring" if options.measured else f"Checking in emulation, predicting for {options.gpu}"
    if options.resume and not before and not done:
        console.print(f"[yellow]Nothing to go on with[/yellow] in {folder}: this is a new run", highlight=False)
    console.print(f"{what}: {len(left)} rows of {len(cases)} cases; results in {folder}")
    try:
        with _progress(console) as progress:
            task = progress.add_task("starting", total=len(names), completed=len(names) - len(left))
            outcome = supervise(
                job,
                writer,
                folder / "worker.log",
                done,
                on_row=lambda row: _show_row(progress, task, row),
                on_begin=lambda name: progress.update(task, description=_short(name)),
            )
        missing = len(left) - len(outcome.rows)
        if missing > 0:
            note = f"{outcome.reason or 'the run ended early'}: {missing} of {len(names)} rows are missing; --resume adds them"
        else:
            note = ""
        writer.write({"record": "environment", "schema": SCHEMA, "incomplete": note})
        if options.measured:
            writer.write({"record": "gpu state", "time": time.time(), **environment.gpu_state()})
    finally:
        writer.close()
    results = load(path)
    try:
        with console.status("Drawing the report"):
            files = report.write_all(results, folder)
    except KeyboardInterrupt:
        console.print(
            f"Interrupted; all rows are kept, and `fastconv bench report {folder}` draws them", soft_wrap=True
        )
        raise
    return Finished(results, folder, outcome.complete, note, time.time() - began, [path, *files])


def _taps(case: Case) -> int:
    return case.layer.kernel[0] * case.layer.kernel[1]


def make_job(options: Options, cases: Sequence[Case], began: float) -> Job:
    quick = options.selection.quick
    contestants.check_kernels(options.kernels, cases)
    for name in options.backends:
        known("backend", name, (*contestants.OUR_BACKENDS, "none"))
    alone = list(options.backends) == ["none"]  # PyTorch's side alone
    if "none" in options.backends and not alone:
        raise ValueError(f"backend is {', '.join(options.backends)}, but none, PyTorch alone, goes with no other")
    backends = () if alone else tuple(options.backends)
    baselines = options.baselines
    if baselines is None:
        baselines = [name for name in contestants.BASELINES if not (quick and name == "pytorch-compile")]
    for name in baselines:
        known("baseline", name, (*contestants.BASELINES, "none"))
    if "none" in baselines:
        raise ValueError(f"baseline is {', '.join(baselines)}, but none goes with no other")
    budget = seconds_to_spend("time_budget", options.time_budget)
    if not options.measured:
        if alone:
            raise ValueError(
                "backend is none, so PyTorch alone, which needs a GPU to be measured on; PyTorch sees none here"
            )
        if options.peers or options.baselines is not None:
            raise ValueError("baseline and peer need a GPU to be measured on, and PyTorch sees none here")
        backends = tuple(name for name in backends if name in prediction.BACKENDS) if backends else prediction.BACKENDS
        if not backends:
            raise ValueError(
                f"backend is {', '.join(options.backends)}, but without a GPU only cuda and triton are checked"
            )
        if quick and options.time_budget is None:
            budget = QUICK_BUDGET_WITHOUT_GPU
    field = Field(
        backends if backends or alone else Field.backends,
        tuple(options.kernels),
        tuple(baselines),
        tuple(options.peers),
    )
    device_name, capability = _device()
    gpu = gpu_like(device_name, capability) if options.measured else gpu_named(options.gpu)
    if options.time_budget is not None:
        cases = by_expected_gap(cases, gpu.ceilings())
    return Job(
        mode="measured" if options.measured else "predicted",
        cases=cases,
        field=dataclasses.asdict(field),
        effort=dataclasses.asdict(QUICK_EFFORT if quick else Effort()),
        gpu=options.gpu,
        deadline=began + budget,
    )


def row_ids(case: Case, options: Options, job: Job) -> list[str]:
    if not options.measured:
        return [f"{case.key} fastconv-{name}" for name in (*job.field["backends"], *job.field["kernels"])]
    return [f"{case.key} {one.name}" for one in Field(**job.field).of(case)]


def finished_rows(path: Path) -> set[str]:
    """What a resumed run need not do again: rows with a figure, and those that cannot have one."""
    if not has_begun(path):
        return set()
    return {row.id for row in load(path).rows}


def asked_before(path: Path) -> dict[str, Any]:
    """What the run of the file was asked for; {} where it does not tell."""
    return load(path).environment.get("asked", {}) if has_begun(path) else {}


def has_begun(path: Path) -> bool:
    """Whether a run came as far as its first line: one that was interrupted before has nothing to go on with."""
    return path.exists() and b"\n" in path.read_bytes()


def require_folder(folder: Path, resume: bool) -> None:
    """Makes it. ValueError where nothing can be written there, or where a run would be written over."""
    if not resume and has_begun(folder / "results.jsonl"):
        raise ValueError(f"output is {folder}, which holds a run; --resume goes on with it, or name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"output is {folder}, but must be a folder that is there or can be made: {error.strerror}"
        ) from None


def require_same_device(path: Path, facts: dict[str, Any]) -> None:
    """A file has one heading: rows of two devices, or of predictions for two, would all be said to be of the last."""
    if not has_begun(path):
        return
    before, now = load(path).title, Results(facts, []).title
    if before != now:
        raise ValueError(f"resume: {path} is of {before}, and this run would be of {now}; name another --output")


def output_folder(options: Options) -> Path:
    if options.output is not None:
        return options.output
    if options.resume:
        runs = sorted(HOME.glob("*/results.jsonl"), key=lambda path: path.stat().st_mtime)
        if not runs:
            raise ValueError(f"resume: there is no run in {HOME}/ yet; name one with --output")
        return runs[-1].parent
    device_name, _ = _device()
    name = re.sub(r"\W+", "-", device_name.lower()).strip("-") or f"predicted-{(options.gpu or USUAL_GPU).lower()}"
    return HOME / f"{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"


def _device() -> tuple[str, int]:
    if not torch.cuda.is_available():
        return "", 80
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return properties.name, properties.major * 10 + properties.minor


def _progress(console: Console) -> Progress:
    columns = (
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, TextColumn("{task.description}"), console=console, transient=True)


def _short(name: str) -> str:
    return name if len(name) <= 70 else name[:67] + "..."


def _show_row(progress: Progress, task: Any, row: Row) -> None:
    progress.advance(task)
    if row.status in ("wrong", "rejected", "failed"):
        progress.console.print(f"[red]{row.status}[/red] {row.id}: {row.reason}", highlight=False)


def print_summary(finished: Finished, console: Console) -> None:
    """A short table last: what a log's end shows."""
    results = finished.results
    predicted = tables.is_predicted(results)
    source = tables.predicted_summary(results) if predicted else tables.summary(results)
    title = f"PREDICTED for {results.environment.get('predicted_gpu')}, not measured" if predicted else results.title
    for content, heading in ((tables.verdict_counts(results), "Rows"), (source, title)):
        if not content.rows:
            continue
        shown = Table(title=heading, title_justify="left")
        for index, name in enumerate(content.columns):
            shown.add_column(name, justify="right" if index in content.numeric else "left", overflow="fold")
        for row in content.rows:
            shown.add_row(*row)
        console.print(shown)
    if not predicted:
        lost = [row for row in tables.ours(results.rows) if row.ratio is not None and row.ratio < 1]
        console.print(f"{len(lost)} losses; the report lists them all.")
    if finished.reason:
        console.print(f"[yellow]Not complete:[/yellow] {finished.reason}", highlight=False)
    console.print(f"{finished.seconds:.0f} s. Report: {finished.folder / 'report.html'}", soft_wrap=True)
