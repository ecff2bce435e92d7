"""fastconv tune: measure the candidates for the layers of suites or of a model, and keep the winners for `auto`."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from fastconv.cli.options import fail, parse_size, seconds, whole_number

_MANY = "May be given several times."


def tune(
    model: Annotated[
        str | None, typer.Argument(help="package.module:factory of a model; left out, the suites' layers.")
    ] = None,
    inputs: Annotated[list[str] | None, typer.Option("--input", help=f"A model's input, NxCxHxW. {_MANY}")] = None,
    suite: Annotated[list[str] | None, typer.Option(help=f"A suite; all where none is named. {_MANY}")] = None,
    layer: Annotated[
        list[str] | None, typer.Option("--filter", help=f"Part or pattern of suite/layer. {_MANY}")
    ] = None,
    direction: Annotated[list[str] | None, typer.Option("--pass", help=f"fwd, dgrad, wgrad, fwd+bwd. {_MANY}")] = None,
    dtype: Annotated[list[str] | None, typer.Option(help=f"float32, tf32, float16, bfloat16, ... {_MANY}")] = None,
    layout: Annotated[list[str] | None, typer.Option(help=f"nchw, channels_last. {_MANY}")] = None,
    batch: Annotated[
        int | None, typer.Option(parser=whole_number(1), help="Batch size; each suite has its own.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A few layers of every suite.")] = False,
    every: Annotated[bool, typer.Option("--every", help="Every configuration, not the cost model's best.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Measure also what has been measured.")] = False,
    time_budget: Annotated[
        float | None, typer.Option(parser=seconds, help="Seconds; what they do not suffice for is left.")
    ] = None,
    export: Annotated[Path | None, typer.Option(help="Write a table of all winners known here, to ship.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of a model's own error.")] = False,
) -> None:
    """Measure every candidate, ours and ATen, for each layer on this GPU, right results only, and keep the times on disk.

    `backend="auto"` then takes the fastest. Only candidates without a time are measured: a new configuration costs its own.

    [bold]Examples[/bold]

      fastconv tune --suite resnet50 --dtype bfloat16 --layout channels_last

      fastconv tune mypackage.models:resnet --input 32x3x224x224 --dtype bfloat16
    """
    from fastconv.bench.cases import Selection, select_some
    from fastconv.tuning.mode import mode

    of_suites = {"--suite": suite, "--filter": layer, "--pass": direction, "--batch": batch, "--quick": quick}
    for option, value in of_suites.items() if model is not None else [("--input", inputs)]:
        if value:
            raise typer.BadParameter(f"{option} is for {'a model' if model is None else 'the layers of suites'}.")
    try:
        mode()  # of FASTCONV_TUNE: a wrong word would fail every problem
        if model is None:
            selection = Selection(
                suite or (), layer or (), (), direction or (), dtype or ("bfloat16",), layout or (), batch, quick
            )
            cases = select_some(selection)
    except ValueError as error:
        fail(str(error))
    if not torch.cuda.is_available():
        fail("tune measures on a GPU, and PyTorch sees none here; `fastconv bench` predicts without one.")
    from fastconv import dispatch
    from fastconv.tuning import choice, session, tables

    store = choice.store_for(dispatch.target_of(torch.device("cuda")).name)
    try:
        if model is not None:
            wanted = _of_model(model, inputs or [], dtype or ["float32"], layout or ["nchw"], debug)
        else:
            wanted = session.problems_of_cases(cases)
    except typer.Exit:  # a RuntimeError, which has said why
        raise
    except (ValueError, RuntimeError) as error:
        fail(str(error))
    console = Console()
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(wanted))

        def show(problem: object, result: object) -> None:
            progress.update(task, advance=1, description=getattr(problem, "op", ""))

        report = session.tune(
            wanted,
            store,
            most=None if every else session.MOST_PER_BACKEND,
            again=again,
            deadline=time.time() + (float("inf") if time_budget is None else time_budget),
            on_problem=show,
        )
    table = Table("problems", "candidates measured", "wrong or failed", "not tuned", "left", "fastest")
    failures = sum(len(one.failures) for one in report.tuned)
    fastest = ", ".join(f"{name} {count}" for name, count in sorted(report.winners().items()))
    table.add_row(
        str(len(wanted)), str(report.measured), str(failures), str(len(report.errors)), str(report.left), fastest
    )
    console.print(table)
    for one in report.tuned:
        for name, reason in one.failures.items():
            console.print(f"[red]{name}[/red] on {one.problem}: {reason}", highlight=False)
    for problem, reason in report.errors.items():
        console.print(f"[red]not tuned[/red] {problem}: {reason}", highlight=False)
    console.print(f"Times are kept in {store.path}", soft_wrap=True)
    if export is not None:
        try:
            export.write_text(tables.export(store.problems(), dataclasses.asdict(store.environment)))
        except OSError as error:
            fail(f"--export {export}: {error}")
        console.print(f"Winners written to {export}", soft_wrap=True)


def _of_model(target: str, inputs: list[str], dtypes: list[str], layouts: list[str], debug: bool) -> list:
    """The primitives of a training step of the model, in each precision and layout."""
    import fastconv
    from fastconv.bench.cases import LAYOUTS
    from fastconv.bench.names import known
    from fastconv.bench.precision import precision_named, switches
    from fastconv.cli.models import differentiate, load_model, named_errors
    from fastconv.tuning import session

    if not inputs:
        raise ValueError("a model takes its inputs as --input NxCxHxW, once for each of them")
    found: dict = {}
    for dtype in dtypes:
        precision = precision_named(dtype)
        for layout in layouts:
            memory_format = torch.channels_last if known("layout", layout, LAYOUTS) == "channels_last" else None
            model = load_model(target, debug)
            tensors = [
                torch.randn(parse_size(text, "--input"), device="cuda", dtype=precision.dtype) for text in inputs
            ]
            if memory_format is not None:
                tensors = [one.contiguous(memory_format=memory_format) if one.dim() == 4 else one for one in tensors]

            def step(model=model, tensors=tensors) -> None:
                with fastconv.intercept():
                    differentiate(model(*tensors))

            with switches(precision), named_errors(f"{target}: the model failed", debug):
                model.to(device="cuda", dtype=precision.dtype, memory_format=memory_format)
                found |= dict.fromkeys(session.problems_of_call(step))
    return list(found)
