"""What the subcommands share: choices, numbers, sizes such as 8x64x56x56, and how a command ends in an error.

Typer's own words for a wrong number leave the number out, so the values of options are read here.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable
from typing import NoReturn, TypeVar

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


Choice = TypeVar("Choice", bound=enum.Enum)


def one_of(choices: type[Choice]) -> Callable[[str | Choice], Choice]:
    """Reads one of the enumeration's values, for ``typer.Option(parser=...)``, as the functions below do."""

    def choice(given: str | Choice) -> Choice:
        try:
            return choices(given)
        except ValueError:
            accepted = ", ".join(one.value for one in choices)
            raise typer.BadParameter(f"{given!r}. Accepted are {accepted}.") from None

    return choice


def whole_number(least: int | None = None) -> Callable[[str | int], int]:
    """Reads a whole number, of at least `least`, that PyTorch can hold."""
    words = "whole numbers" + ("" if least is None else f" of {least} or more")

    def integer(given: str | int) -> int:
        try:
            number = int(given)
        except ValueError:
            number = None
        if number is None or (least is not None and number < least):
            raise typer.BadParameter(f"{given!r}. Accepted are {words}.")
        if not -(2**63) <= number < 2**63:
            raise typer.BadParameter(f"{given!r}. Accepted are {words}, below 2**63.")
        return number

    return integer


def real_number(given: str | float) -> float:
    """Reads any number, infinities and NaN among them."""
    try:
        return float(given)
    except ValueError:
        raise typer.BadParameter(f"{given!r}. Accepted are numbers.") from None


def seconds(given: str | float) -> float:
    """Reads a time in which something can be done."""
    try:
        number = float(given)
    except ValueError:
        number = math.nan
    if not number > 0:
        raise typer.BadParameter(f"{given!r}. Accepted are seconds, a number above 0.")
    return number


def parse_size(text: str, name: str) -> tuple[int, ...]:
    """Numbers with an x between them: "8x64x56x56" is (8, 64, 56, 56). `name` is that of the option, "--input"."""
    if not re.fullmatch(r"[0-9]+(x[0-9]+)*", text):
        raise typer.BadParameter(
            f"{name} {text!r} is not a size. Accepted are whole numbers with x between them: 8x64x56x56."
        )
    words = text.split("x")
    # Longer ones Python may refuse to read.
    if max(map(len, words)) > 100 or max(map(int, words)) >= 2**63:
        raise typer.BadParameter(f"{name} {text!r} is too large. Accepted are numbers below 2**63.")
    return tuple(map(int, words))


def parse_pair(text: str, option: str) -> tuple[int, int]:
    """One number for both directions or two, vertical first: "3" is (3, 3), "3x5" is (3, 5). `option` is "--stride"."""
    if not re.fullmatch(r"[0-9]+(x[0-9]+)?", text):
        raise typer.BadParameter(
            f"{option} {text}: accepted are one whole number, or two with x between them, vertical first: 3x5."
        )
    numbers = parse_size(text, option)
    return numbers[0], numbers[-1]


def require_backend(backend: BackendName, device: torch.device) -> None:
    """Ends the command where that backend cannot run on tensors of that device here."""
    problem = "" if backend is BackendName.auto else backends.unavailable(backend.value, device.type)
    if problem:
        fail(f"--backend {backend.value}: {problem}. `fastconv info` lists the backends that work here.")


def fail(message: str, code: int = 1) -> NoReturn:
    typer.echo(f"fastconv: {message}", err=True)
    raise typer.Exit(code)
