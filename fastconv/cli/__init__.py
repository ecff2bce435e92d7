"""The command line: `fastconv info`, `explain`, `demo`, `bench`, `tune`, `inspect`, `profile`. One subcommand a file."""

from __future__ import annotations

from typing import Annotated

import typer

from fastconv._version import __version__
from fastconv.cli import bench, demo, explain, info, inspect, profile, tune
from fastconv.cli.models import import_module

app = typer.Typer(
    name="fastconv",
    help="Hand-written CUDA C++ and Triton kernels for convolution, pooling and transposed convolution in PyTorch.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("info")(info.info)
app.command("explain")(explain.explain)
app.command("demo")(demo.demo)
app.add_typer(bench.app, name="bench")
app.command("tune")(tune.tune)
app.command("inspect")(inspect.inspect)
app.command("profile")(profile.profile)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fastconv {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
    modules: Annotated[
        list[str] | None,
        typer.Option(
            "--import",
            metavar="MODULE",
            help="Import it first, as one that registers kernels. May be given several times.",
        ),
    ] = None,
) -> None:
    for module in modules or ():
        import_module(module, "--import", hint=f"python -m {module} shows where")


def main() -> None:
    app()
