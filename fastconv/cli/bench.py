"""fastconv bench: layers of real networks against PyTorch's best, or checked and predicted where there is no GPU."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fastconv.cli.options import fail, seconds, whole_number

app = typer.Typer(invoke_without_command=True, no_args_is_help=False, rich_markup_mode="rich")

_MANY = "May be given several times."


@app.callback()
def bench(
    context: typer.Context,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few layers of every suite, bfloat16, channels_last.")
    ] = False,
    suite: Annotated[list[str] | None, typer.Option(help=f"A suite; `fastconv bench list` names them. {_MANY}")] = None,
    layer: Annotated[
        list[str] | None, typer.Option("--filter", help=f"Part or pattern of suite/layer: resnet50/layer1*. {_MANY}")
    ] = None,
    family: Annotated[list[str] | None, typer.Option(help=f"dense, depthwise, grouped, ... {_MANY}")] = None,
    direction: Annotated[list[str] | None, typer.Option("--pass", help=f"fwd, dgrad, wgrad, fwd+bwd. {_MANY}")] = None,
    dtype: Annotated[list[str] | None, typer.Option(help=f"float64, float32, tf32, float16, bfloat16. {_MANY}")] = None,
    layout: Annotated[list[str] | None, typer.Option(help=f"nchw, channels_last. {_MANY}")] = None,
    batch: Annotated[
        int | None, typer.Option(parser=whole_number(1), help="Batch size; each suite has its own.")
    ] = None,
    backend: Annotated[
        list[str] | None, typer.Option(help=f"Ours: auto, cuda, triton, aten, registered; none: PyTorch alone. {_MANY}")
    ] = None,
    kernel: Annotated[list[str] | None, typer.Option(help=f"One kernel family, beside the backends. {_MANY}")] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(help=f"pytorch, pytorch-benchmark, pytorch-other-layout, pytorch-compile, none. {_MANY}"),
    ] = None,
    peer: Annotated[
        list[str] | None, typer.Option(help=f"package.module:function that makes a Call of a Case. {_MANY}")
    ] = None,
    gpu: Annotated[
        str | None, typer.Option(help="Without a GPU: the one to predict for, A100, H100 or H200. Left out: H200.")
    ] = None,
    time_budget: Annotated[
        float | None, typer.Option(parser=seconds, help="Seconds; the biggest expected gaps are measured first.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the results. Default: fastconv-bench/<gpu>-<time>.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with --output, or with the latest run; alone, with what it was asked for."
        ),
    ] = False,
) -> None:
    """Time layers of real networks against the best PyTorch can do, every result checked against float64 first.

    On a machine without a GPU: check the kernels in emulation, count what they move, and [bold]predict[/bold] for a named GPU.

    [bold]Examples[/bold]

      fastconv bench --quick

      fastconv bench --suite resnet50 --pass fwd --dtype bfloat16 --time-budget 300

      fastconv bench compare before after
    """
    if context.invoked_subcommand is not None:
        return
    from fastconv.bench.cases import Selection

    session = _with_matplotlib("session")
    selection = Selection(
        tuple(suite or ()), tuple(layer or ()), tuple(family or ()), tuple(direction or ()), tuple(dtype or ()),
        tuple(layout or ()), batch, quick,
    )  # fmt: skip
    baselines = None if baseline is None else () if baseline == ["none"] else tuple(baseline)
    options = session.Options(
        selection,
        tuple(backend or ()),
        tuple(kernel or ()),
        baselines,
        tuple(peer or ()),
        (gpu or "").upper(),
        output,
        resume,
        time_budget,
    )
    console = Console()
    try:
        finished = session.run(options, console)
    except (ValueError, OSError, ImportError, AttributeError) as error:
        fail(str(error))
    session.print_summary(finished, console)
    if finished.reason.startswith("the worker could not start") or all(
        row.status != "ok" for row in finished.results.rows
    ):
        raise typer.Exit(1)  # no row has a figure
    if finished.reason.startswith("interrupted"):
        raise typer.Exit(130)  # as of a process that an interrupt ended


@app.command("list")
def list_suites() -> None:
    """The suites, how many layers each has, and where they are from."""
    from fastconv.bench.suite import load_suite, suite_names

    table = Table("suite", "layers", "quick", "batch", "source")
    for name in suite_names():
        suite = load_suite(name)
        quick = sum(layer.quick for layer in suite.layers)
        table.add_row(name, str(len(suite.layers)), str(quick), str(suite.batch), suite.source)
    Console().print(table)


@app.command("report")
def render_report(
    folder: Annotated[Path, typer.Argument(help="A folder with results.jsonl, or such a file.")],
    output: Annotated[Path | None, typer.Option(help="Where to write; default: beside the results.")] = None,
) -> None:
    """Write report and figures again, from results that are there."""
    from fastconv.bench.comparison import parse_side
    from fastconv.bench.results import load

    report = _with_matplotlib("report")
    try:
        path, _ = parse_side(str(folder))
        written = report.write_all(load(path), output or path.parent)
    except (ValueError, OSError) as error:
        fail(str(error))
    for path in written:
        typer.echo(path)


@app.command("compare")
def compare(
    first: Annotated[str, typer.Argument(help="FILE or FOLDER of results, or a COMMIT's; each also with :CONTESTANT.")],
    second: Annotated[str, typer.Argument(help="The same; a ratio above one says that this one is faster.")],
    figure: Annotated[str, typer.Option(help="Which time: cold, warm or graph.")] = "cold",
    rows: Annotated[
        int, typer.Option(parser=whole_number(0), help="How many of the slowest and of the fastest rows to show.")
    ] = 10,
) -> None:
    """Two results, commits or contestants: geometric mean of the ratios with a bootstrap interval, and the extremes.

    A commit's results are the newest that name it in fastconv-bench/ and in benchmarks/results/.
    """
    from fastconv.bench import comparison

    console = Console()
    try:
        found = comparison.compare(first, second, figure)
    except (ValueError, OSError) as error:
        fail(str(error))
    if found.predicted:
        console.print("[yellow]Both sides are PREDICTED, not measured.[/yellow]")
    for line in found.differences:
        console.print(f"[yellow]Not the same:[/yellow] {line}", highlight=False)
    console.print(
        f"Time of {first} / time of {second}: [bold]{found.mean()}[/bold] rows (95 % bootstrap interval)",
        soft_wrap=True,
    )
    means = Table("suite", "pass", "ratio", "95 % interval", "rows")
    for (suite, direction), mean in found.by("suite", "direction").items():
        means.add_row(suite, direction, f"{mean.value:.3f}x", f"{mean.low:.3f} to {mean.high:.3f}", str(mean.count))
    console.print(means)
    middle = max(0, len(found.pairs) - 2 * rows)
    extremes = [*found.pairs[:rows], *found.pairs[rows + middle :]] if rows else []
    table = Table()
    for heading in ("ratio", "case", "kernel before", "kernel after"):
        table.add_column(heading, overflow="fold")
    for pair in extremes:
        table.add_row(f"{pair.ratio:.3f}x", pair.second.key, _who(pair.first), _who(pair.second))
    if extremes:
        console.print(table)
    if any(found.unmatched):
        console.print(f"Only in the first: {found.unmatched[0]} rows; only in the second: {found.unmatched[1]}.")


def _who(row: Any) -> str:
    return " ".join(filter(None, (row.contestant.removeprefix("fastconv-"), row.kernel)))


def _with_matplotlib(name: str) -> Any:
    """A module of the harness that draws."""
    try:
        return importlib.import_module(f"fastconv.bench.{name}")
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        fail("the report's figures need matplotlib: pip install matplotlib, or fastconv[bench]")
