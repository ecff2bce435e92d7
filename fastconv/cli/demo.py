"""fastconv demo: train a digit classifier on fastconv's kernels and set plain torch.nn beside it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from fastconv.cli.options import BackendName, DeviceName, fail, one_of, require_backend, whole_number
from fastconv.info import WAYS

if TYPE_CHECKING:
    from fastconv.demo.comparison import Comparison


def demo(
    backend: Annotated[
        BackendName, typer.Option(parser=one_of(BackendName), help="Whose kernels fastconv's layers run on.")
    ] = BackendName.cuda,
    device: Annotated[
        DeviceName,
        typer.Option(
            parser=one_of(DeviceName),
            help="Where the tensors are; auto is the GPU if there is one. On cpu, CUDA is emulated.",
        ),
    ] = DeviceName.auto,
    epochs: Annotated[
        int, typer.Option(parser=whole_number(1), help="How often the training set is gone through.")
    ] = 8,
    seed: Annotated[
        int, typer.Option(parser=whole_number(), help="Decides the first weights and the order of the batches.")
    ] = 0,
    output: Annotated[Path, typer.Option(help="Where to write the picture, a PNG.")] = Path("fastconv_demo.png"),
) -> None:
    """Train a classifier of scanned digits on fastconv's kernels, and beside it the same one in plain torch.nn.

    Both networks are conv, ReLU, pool, twice, and a linear layer; they begin with the same weights and see the same batches.
    The picture shows the loss curves, the learned filters, what they see in one digit, and the digits that were got wrong.
    Exits with 1 when one of the two is right on less than 97 % of the test digits.

    [bold]Examples[/bold]

      fastconv demo

      fastconv demo --backend aten --output picture.png
    """
    start = time.perf_counter()
    try:
        from fastconv.demo import picture
        from fastconv.demo.comparison import REQUIRED_ACCURACY, compare
        from fastconv.demo.digits import Digits
        from fastconv.demo.training import steps
    except ModuleNotFoundError as error:
        fail(f"the demo needs {error.name}, which is not installed: pip install 'fastconv[demo]'")

    _require_picture(output)
    console = Console()
    where = device.resolve()
    require_backend(backend, where)
    kernels = WAYS.get((backend.value, where.type), "the kernels that fastconv chooses")
    digits = Digits.load().to(where)
    console.print(
        f"{len(digits.train_labels)} scanned digits to learn from, {len(digits.test_labels)} to be tested on."
    )
    console.print(f"fastconv runs {kernels}; torch.nn runs PyTorch's.")
    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps, loss {task.fields[loss]:.4f}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        total = steps(digits, epochs)
        tasks = {name: progress.add_task(name, total=total, start=False, loss=0.0) for name in ("torch.nn", "fastconv")}

        def on_step(name: str, step: int, loss: float) -> None:
            if step == 1:
                progress.start_task(tasks[name])
            progress.update(tasks[name], completed=step, loss=loss)

        compared = compare(digits, backend.value, epochs, seed, on_step)

    try:
        picture.draw(output, f"fastconv demo: scanned digits on {kernels}", compared, digits)
    except OSError as error:
        fail(f"--output {output}: the picture cannot be written: {error.strerror}")
    console.print(_scores(compared))
    console.print(_kernels(compared))
    console.print(f"The picture is in {output}. All of it took {time.perf_counter() - start:.0f} s.")
    if not compared.good:
        fail(f"one of the networks is right on less than {REQUIRED_ACCURACY:.0%} of the test digits")


def _require_picture(path: Path) -> None:
    """Ends the command before minutes of training where no picture could be written."""
    if path.suffix.lower() != ".png" or path.is_dir():
        fail(f"--output {path}: accepted is a file whose name ends in .png.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(f"--output {path}: its folder cannot be made: {error.strerror}.")


def _scores(compared: Comparison) -> Table:
    table = Table("", "fastconv", "torch.nn", title="The two networks", title_justify="left")
    rows = {
        "test digits right": lambda training: f"{training.accuracy:.2%}",
        "last loss": lambda training: f"{training.losses[-1]:.5f}",
        "training time": lambda training: f"{training.seconds:.1f} s",
    }
    for name, value in rows.items():
        table.add_row(name, value(compared.ours), value(compared.theirs))
    table.add_row("largest difference of the losses", f"{compared.largest_difference:.1e}", "")
    return table


def _kernels(compared: Comparison) -> Table:
    table = Table("layer", "op", "backend", "kernel", "config", title="What each layer ran on", title_justify="left")
    for call in compared.explanation:
        layer = "" if call.is_backward else f"{call.layer}: {type(compared.network[int(call.layer)]).__name__}"
        chosen = call.chosen
        table.add_row(layer or "backward", call.problem.op, chosen.backend, chosen.kernel, chosen.config or "-")
    return table
