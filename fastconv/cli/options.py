"""What the subcommands share: choices, sizes such as 8x64x56x56, and how a command ends in an error."""

from __future__ import annotations

import enum
import re
from typing import NoReturn

import torch
import typer

from fastconv import backends


class BackendName(str, enum.Enum):
    auto = "auto"
    cuda = "cuda"
    triton = "triton"
    aten = "aten"
    registered = "registered"


class DeviceName(str, enum.Enum):
    auto = "auto"
    cuda = "cuda"
    cpu = "cpu"

    def resolve(self) -> torch.device:
        if self is DeviceName.cuda and not torch.cuda.is_available():
            fail("--device cuda: PyTorch sees no GPU here. Accepted are cpu and auto; `fastconv info` says more.")
        if self is DeviceName.auto:
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.value)


def parse_size(text: str) -> tuple[int, ...]:
    """Numbers with an x between them: "8x64x56x56" is (8, 64, 56, 56)."""
    if not re.fullmatch(r"[0-9]+(x[0-9]+)*", text):
        raise typer.BadParameter(f"{text!r} is not a size. Accepted are whole numbers with x between them: 8x64x56x56.")
    numbers = tuple(int(number) for number in text.split("x"))
    if max(numbers) >= 2**63:
        raise typer.BadParameter(f"{text!r} is too large. Accepted are numbers below 2**63.")
    return numbers


def parse_pair(text: str, option: str) -> tuple[int, int]:
    """One number for both directions or two, vertical first: "3" is (3, 3), "3x5" is (3, 5). `option` is "--stride"."""
    if not re.fullmatch(r"[0-9]+(x[0-9]+)?", text):
        raise typer.BadParameter(
            f"{option} {text}: accepted are one whole number, or two with x between them, vertical first: 3x5."
        )
    numbers = parse_size(text)
    return numbers[0], numbers[-1]


def require_backend(backend: BackendName, device: torch.device) -> None:
    """Ends the command where that backend cannot run on tensors of that device here."""
    problem = "" if backend is BackendName.auto else backends.unavailable(backend.value, device.type)
    if problem:
        fail(f"--backend {backend.value}: {problem}. `fastconv info` lists the backends that work here.")


def fail(message: str, code: int = 1) -> NoReturn:
    typer.echo(f"fastconv: {message}", err=True)
    raise typer.Exit(code)
