"""What the emulator counts in the memory-bound kernels, as a table. A family adds rows by adding cases to CASES.

Writes the checked-in table anew: python -m tests.core.memory_bound_counters [part of a family's name ...]
(with names, only the rows of those families; the others stay as they are).

What is counted is what threads ask of global memory, by the bytes of their accesses: a halo that a block reads into shared
memory counts once a block, and what several threads read again through L1 counts as often as it is read. Bytes of the
workspace count, those of the weights too. Nothing models the second-level cache: on a GPU it serves some of the halos.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from fastconv import emulator
from fastconv.emulator import Counters
from tests.core.family_support import FamilyCase
from tests.core.mma_support import NAMES

TABLE = Path(__file__).with_name("memory_bound_counters.csv")

#: Bytes asked for over the bytes that have to move, at most: where blocks share no input, and where they share a halo.
MOST_BYTES = 1.1
MOST_BYTES_WITH_HALO = 1.3
#: Shares of the bytes, at least. Weights, and the ends of what is not aligned, are read element by element: of a 7x7 filter
#: over 14x14 pixels they are an eighth.
LEAST_IN_FULL_SECTORS = 0.8
LEAST_IN_16_BYTES = 0.85


@dataclasses.dataclass(frozen=True)
class CountedCase:
    """A launch to count. `run` returns the compulsory bytes of what it ran."""

    family: str
    config: str
    name: str  # unique with the family, the configuration, the type and the layout
    dtype: str
    layout: str
    run: Callable[[], int]
    halo: bool = False  # whether blocks share input at their borders
    # Whether a warp's lanes lie in several rows, or step over them: conflicts are told, not gated.
    scattered: bool = False

    @property
    def key(self) -> tuple[str, ...]:
        return (self.family, self.config, self.name, self.dtype, self.layout)


@dataclasses.dataclass(frozen=True)
class Row:
    family: str
    config: str
    case: str
    dtype: str
    layout: str
    bytes_over_compulsory: str  # three decimals
    full_sectors: str  # bytes asked for over the bytes of the sectors they lie in; three decimals
    in_16_bytes: str  # share of the bytes that move by 16; three decimals
    bank_conflicts: int
    halo: str  # yes or no
    scattered: str  # yes or no

    @property
    def key(self) -> tuple[str, ...]:
        return (self.family, self.config, self.case, self.dtype, self.layout)


def count(case: CountedCase) -> Row:
    with emulator.count() as counters:
        compulsory = case.run()
    return _row(case, counters, compulsory)


def _row(case: CountedCase, counters: Counters, compulsory: int) -> Row:
    memory = counters.total(space="global")
    wide = counters.total(space="global", width=16)
    # A sector that two neighbouring lanes touch counts once; asked twice, the bytes are more than the sector's.
    full = min(memory.bytes / memory.sector_bytes, 1.0)
    return Row(
        *case.key,
        f"{memory.bytes / compulsory:.3f}",
        f"{full:.3f}",
        f"{wide.bytes / memory.bytes:.3f}",
        counters.total(space="shared").bank_conflicts,
        "yes" if case.halo else "no",
        "yes" if case.scattered else "no",
    )


def read_table() -> dict[tuple[str, ...], Row]:
    with TABLE.open(newline="") as file:
        rows = [Row(**{**row, "bank_conflicts": int(row["bank_conflicts"])}) for row in csv.DictReader(file)]
    return {row.key: row for row in rows}


def write_table(rows: list[Row]) -> None:
    with TABLE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in dataclasses.fields(Row)])
        writer.writerows(dataclasses.astuple(row) for row in sorted(rows, key=lambda row: row.key))


# --- convolutions -----------------------------------------------------------------------------------------------------


def convolution(config: str, name: str, case: FamilyCase, halo: bool = False, scattered: bool = False) -> CountedCase:
    """A convolution by kernel and configuration; its layout is that of x."""

    def run() -> int:
        tensors = case.tensors()
        case.run(config, tensors)
        compiled = emulator.module()
        plan = compiled.Plan(case.problem(compiled, tensors), case.kernel, config)
        return plan.details["compulsory_bytes"]

    layout = "channels_last" if case.x_last else "contiguous"
    return CountedCase(case.kernel, config, name, NAMES[case.dtype], layout, run, halo, scattered)


def depthwise(
    conv_pass: str, dtype: torch.dtype, last: bool, n: int, c: int, size: int, r: int, stride: int
) -> FamilyCase:
    return FamilyCase(
        conv_pass,
        dtype,
        (n, c, size, size),
        (c, 1, r, r),
        stride=(stride, stride),
        padding=(r // 2,) * 4,
        groups=c,
        x_last=last,
        y_last=last,
        w_last=False,
        family="depthwise",
        capability=90,
        multiprocessors=1,
    )


def depthwise_cases() -> list[CountedCase]:
    found = []
    for conv_pass in ("fprop", "dgrad", "wgrad"):
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            for r, stride, size in ((3, 1, 56), (3, 1, 14), (3, 2, 28), (5, 1, 28), (7, 1, 14)):
                if dtype == torch.bfloat16 and (r, size) != (3, 56):
                    continue  # the same code as float16's
                name = f"{r}x{r} stride {stride}, {size}x{size}"
                images = 12 if conv_pass == "wgrad" and size == 14 else 3  # sums of a few images are small beside them
                slab = "slab4" if r == 7 and (dtype != torch.float32 or conv_pass == "wgrad") else "slab8"
                case = depthwise(conv_pass, dtype, True, images, 64, size, r, stride)
                found.append(convolution(slab, name, case, halo=size > 14))
                case = depthwise(conv_pass, dtype, False, 2, 16, size, r, stride)
                # Two columns a lane, or two strips a warp.
                scattered = stride > 1 or size == 14
                found.append(convolution("planes", name, case, halo=size == 56, scattered=scattered))
    for conv_pass in ("fprop", "dgrad"):
        for r, size in ((7, 14), (7, 56), (13, 28)):
            case = depthwise(conv_pass, torch.float16, False, 2, 4, size, r, 1)
            name = f"{r}x{r} stride 1, {size}x{size}"
            # Lanes of a finished tile are in eight rows of the image.
            found.append(convolution("band", name, case, halo=size > 14, scattered=True))
    return found


@functools.cache
def cases() -> list[CountedCase]:
    """Every row of the table."""
    return depthwise_cases()


def main(names: list[str]) -> None:
    kept = read_table() if names else {}
    chosen = [case for case in cases() if not names or any(name in case.family for name in names)]
    fresh = {case.key: count(case) for case in chosen}
    known = {case.key for case in cases()}
    write_table([row for key, row in (kept | fresh).items() if key in known])


if __name__ == "__main__":
    main(sys.argv[1:])
