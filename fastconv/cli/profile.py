"""fastconv profile: the kernels that one case of a suite runs, and what each of them costs."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastconv.cli.options import BackendName, fail, one_of, whole_number


def profile(
    case: Annotated[str, typer.Argument(help="SUITE/LAYER/PASS/DTYPE/LAYOUT/nBATCH, as results name it.")],
    backend: Annotated[BackendName, typer.Option(parser=one_of(BackendName), help="Whose kernels.")] = BackendName.cuda,
    kernel: Annotated[str | None, typer.Option(help="One kernel family, whatever would be chosen.")] = None,
    calls: Annotated[
        int, typer.Option(parser=whole_number(1), help="On a GPU: how many calls the times are the mean of.")
    ] = 20,
    by_line: Annotated[bool, typer.Option("--by-line", help="On a CPU: the source lines that move most.")] = False,
    full: Annotated[bool, typer.Option("--full", help="On a CPU: the layer itself, not a scaled-down one.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """On a GPU: the device time of each kernel, measured by PyTorch's profiler, warm.

    On a CPU: what each CUDA C++ kernel does to memory in the emulator, counted: bytes, sectors, bank conflicts, barriers.
    Counts are of a scaled-down layer, as those of `fastconv bench` are; they are no times.

    [bold]Examples[/bold]

      fastconv profile resnet50/layer1.0.conv2/fwd/bfloat16/channels_last/n32

      fastconv profile pools/resnet_3x3_s2/dgrad/float16/nchw/n64 --by-line
    """
    from fastconv.bench import contestants
    from fastconv.bench.cases import case_of
    from fastconv.bench.precision import PRECISIONS, switches
    from fastconv.bench.runner import make_inputs
    from fastconv.bench.suite import scaled_down

    on_gpu = torch.cuda.is_available()
    if not on_gpu and backend is not BackendName.cuda:
        fail(f"--backend {backend.value}: without a GPU the emulator counts, and it runs cuda alone.")
    try:
        chosen = case_of(case)
        if not on_gpu and not full:
            chosen = dataclasses.replace(chosen, layer=scaled_down(chosen.layer), batch=2)
        if kernel is not None:
            contestants.check_kernels([kernel], [chosen])
        call = contestants.ours(chosen, backend.value) if kernel is None else contestants.one_kernel(chosen, kernel)
    except ValueError as error:
        fail(str(error))
    if call is None:
        fail(f"{kernel} does not compute {chosen.layer.describe()}, batch {chosen.batch}")
    where = f"{chosen.layer.describe()}, batch {chosen.batch}, {chosen.direction}, {chosen.precision}, {chosen.layout}"
    device = torch.device("cuda" if on_gpu else "cpu")
    with switches(PRECISIONS[chosen.precision]):
        arguments = call.prepare(make_inputs(chosen, device, chosen.layout, seed=0))
        try:
            call.run(*arguments)
        except RuntimeError as error:
            fail(f"{case}: {error}")
        if on_gpu:
            _show_times(where, measured(lambda: call.run(*arguments), calls), as_json)
            return
        counters = _counted(lambda: call.run(*arguments))
    if as_json:
        launches = [dataclasses.asdict(launch) for launch in counters.launches]
        typer.echo(json.dumps({"case": where, "totals": counters.totals(), "launches": launches}, indent=1))
        return
    console = Console()
    console.print(Text(f"{where}: counted in the emulator, not timed"))
    console.print(counters.table())
    totals, compulsory = counters.totals(), chosen.bytes_moved()
    shares = {name: totals[f"{name}_bytes"] / compulsory for name in ("distinct", "sector")}
    console.print(
        f"{totals['launches']} launches; {compulsory} compulsory bytes, {shares['distinct']:.2f} times as many distinct ones, "
        f"{shares['sector']:.2f} in sectors; {totals['bank_conflicts']} bank conflicts, {totals['barriers']} barriers",
        highlight=False,
        soft_wrap=True,
    )
    if by_line:
        console.print(_lines(counters))


def _counted(run: Any) -> Any:
    from fastconv import emulator

    with emulator.count() as counters:
        run()
    return counters


def _lines(counters: Any) -> Table:
    table = Table("kernel", "source line", "target", "access", title="By source line", title_justify="left")
    for heading in ("width", "sectors", "wavefronts", "conflicts"):
        table.add_column(heading, justify="right")
    for launch in counters.launches:
        for one in launch.by_line()[:12]:
            numbers = (one.width, one.sectors, one.wavefronts, one.bank_conflicts if one.space == "shared" else "")
            table.add_row(launch.kernel, Text(one.line), one.target, one.kind, *map(str, numbers))
    return table


def measured(run: Any, calls: int) -> list[dict[str, Any]]:
    """Name, launches a call and mean device time of a launch, in seconds, of each kernel; the costliest first."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity

    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        for _ in range(calls):
            run()
        torch.cuda.synchronize()
    rows = [
        {"kernel": one.key, "launches": one.count / calls, "seconds": one.self_device_time_total * 1e-6 / one.count}
        for one in found.key_averages()
        if one.device_type is DeviceType.CUDA and one.count
    ]
    return sorted(rows, key=lambda row: -row["launches"] * row["seconds"])


def _show_times(where: str, rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"case": where, "gpu": torch.cuda.get_device_name(), "kernels": rows}, indent=1))
        return
    table = Table("kernel", title=f"{where}, on {torch.cuda.get_device_name()}, warm", title_justify="left")
    for heading in ("launches a call", "us a launch", "us a call"):
        table.add_column(heading, justify="right")
    for row in rows:
        total = row["launches"] * row["seconds"]
        numbers = f"{row['launches']:g}", f"{row['seconds'] * 1e6:.1f}", f"{total * 1e6:.1f}"
        table.add_row(Text(row["kernel"], overflow="fold"), *numbers)
    Console().print(table)
