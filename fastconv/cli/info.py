"""fastconv info: what this installation is, and what works on this machine."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from fastconv import info as facts

GOOD, BAD = "[green]yes[/green]", "[red]no[/red]"


def info(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, for other programs and for bug reports.")
    ] = False,
) -> None:
    """Print versions, GPU, driver, what was built with what, which backends work here and why the others do not.

    [bold]Examples[/bold]

      fastconv info

      fastconv info --json | python -m json.tool
    """
    found = facts.collect()
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    console = Console()
    console.print(_plain("Versions", found["versions"]))
    console.print(_plain("Machine", found["machine"]))
    console.print(_gpus(found["gpus"]))
    console.print(_build(found["build"], found["modules"]))
    console.print(_backends(found["backends"]))
    console.print(_plain("Caches", found["caches"]))
    console.print(_plain("Environment variables in force", found["environment"] or {"": "none that fastconv looks at"}))
    for problem in found["problems"]:
        console.print(f"{BAD}: {escape(problem)}", soft_wrap=True)


def _section(title: str, *columns: str) -> Table:
    # The widest title must not wrap over a narrow table.
    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, show_header=bool(columns), min_width=40
    )
    for column in columns or ("", ""):
        table.add_column(column, overflow="fold")
    return table


def _plain(title: str, values: dict[str, Any]) -> Table:
    table = _section(title)
    for name, value in values.items():
        table.add_row(name, Text(str(value)))
    return table


def _gpus(gpus: list[dict[str, Any]]) -> Table:
    if not gpus:
        return _plain("GPU", {"": "none that PyTorch can use; CUDA kernels run in the host emulator"})
    table = _section("GPU", "", "name", "capability", "multiprocessors", "memory")
    for index, gpu in enumerate(gpus):
        memory = f"{gpu['memory_bytes'] / 2**30:.1f} GiB"
        table.add_row(str(index), gpu["name"], gpu["capability"], str(gpu["multiprocessors"]), memory)
    return table


def _build(report: dict[str, Any] | None, modules: dict[str, str]) -> Table:
    table = _section("Compiled modules", "module", "loads", "")
    compilers = dict.fromkeys(modules, report["cxx"] if report else "")
    if report and report["nvcc"]:
        compilers["_cuda"] = f"nvcc {report['nvcc']}, for {' '.join(report['cuda_architectures'])}"
    for name, problem in modules.items():
        table.add_row(f"fastconv.{name}", BAD if problem else GOOD, Text(problem or compilers[name]))
    for name, flags in (report["flags"] if report else {}).items():
        table.add_row(f"  flags of {name}", "", Text(" ".join(flags), style="dim"))
    return table


def _backends(backends: list[dict[str, str]]) -> Table:
    table = _section("Backends", "backend", "tensors on", "works", "")
    for row in backends:
        problem = row["unavailable"]
        table.add_row(row["backend"], row["device"], BAD if problem else GOOD, Text(problem or row["how"]))
    return table
