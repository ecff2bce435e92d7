"""Checked-in tables of what nvcc makes of the kernels: "# nvcc 13.0" or the like, then rows of a CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from fastconv import machine_code

_HEADING = "# nvcc "


def compiler_of(table: Path) -> str:
    with table.open() as file:
        return file.readline().removeprefix(_HEADING).strip()


def read_rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        file.readline()
        return list(csv.DictReader(file))


def write_rows(table: Path, nvcc: str, names: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with table.open("w", newline="") as file:
        file.write(f"{_HEADING}{nvcc}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(rows)


def disassembler() -> str:
    """The one that writes a table, which must be there."""
    found = machine_code.find_disassembler()
    assert found is not None, "cuobjdump is missing"
    return found
