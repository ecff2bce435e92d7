"""What the emulator counts in the pooling kernels, against the checked-in table: bytes over what has to move, sectors, widths.

Writes the table anew: python -m tests.core.test_max_pool_counters
"""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import pytest
import torch

from fastconv import emulator
from tests.core import raw
from tests.core.pool_support import Window

TABLE = Path(__file__).with_name("pool_counters.csv")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclasses.dataclass(frozen=True)
class Counted:
    """A launch: who, what, and what the counters may say of it."""

    family: str
    config: str
    name: str
    pool_pass: str
    window: Window
    layout: str
    dtype: torch.dtype
    most_bytes: float = 1.1  # over the compulsory ones; 1.3 where threads or blocks share a halo
    least_wide: float = 0.85  # share of the bytes that move by 16: offsets of channels_last move by as many as elements
    has_conflicts: bool = False  # rows of less than a warp's outputs meet in banks

    @property
    def key(self) -> tuple[str, ...]:
        return (self.family, self.config, self.name, self.pool_pass, raw.NAMES[self.dtype], self.layout)


@dataclasses.dataclass(frozen=True)
class Row:
    bytes_over_compulsory: str
    full_sectors: str
    in_16_bytes: str
    bank_conflicts: int


def cases() -> list[Counted]:
    two, three = ((2, 2), (2, 2)), ((3, 3), (2, 2), (1, 1))
    found = []
    for pool_pass in ("forward", "backward"):
        for dtype in DTYPES:
            common = {"pool_pass": pool_pass, "dtype": dtype}
            planes = {**common, "family": "max_pool_planes", "config": "16k", "layout": "contiguous"}
            last = {**common, "family": "max_pool_channels", "config": "rows8", "layout": "channels_last"}
            large = {**common, "family": "max_pool_large"}
            found += [
                Counted(name="2x2 of 64", window=Window((1, 4, 64, 64), *two), **planes),
                Counted(name="2x2 of 14", window=Window((2, 64, 14, 14), *two), has_conflicts=True, **planes),
                Counted(name="3x3 of 64", window=Window((1, 4, 64, 64), *three), most_bytes=1.3, **planes),
                Counted(
                    name="3x3 of 112",
                    window=Window((1, 2, 112, 112), *three),
                    most_bytes=1.3,
                    has_conflicts=True,
                    **planes,
                ),
                Counted(name="2x2 of 28", window=Window((1, 64, 28, 28), *two), **last),
                Counted(name="3x3 of 32", window=Window((1, 64, 32, 32), *three), most_bytes=1.3, **last),
                Counted(
                    name="global 56",
                    window=Window((1, 8, 56, 56), (56, 56), (56, 56)),
                    config="warp",
                    layout="contiguous",
                    **large,
                ),
                Counted(
                    name="global 56",
                    window=Window((1, 64, 56, 56), (56, 56), (56, 56)),
                    config="channels",
                    layout="channels_last",
                    **large,
                ),
            ]
    return found


def count(case: Counted) -> Row:
    shape = tuple(case.window.reference(torch.empty(case.window.shape))[0].shape)
    x = raw.laid_out(torch.randn(case.window.shape).to(case.dtype), case.layout)
    y = raw.laid_out(torch.randn(shape).to(case.dtype), case.layout)
    places = torch.uint8 if case.window.kernel[0] * case.window.kernel[1] <= 256 else torch.int32
    offsets = raw.laid_out(torch.zeros(shape, dtype=places), case.layout)
    with emulator.count() as counters:
        details = raw.pool(
            emulator.module(),
            case.pool_pass,
            case.dtype,
            x,
            y,
            offsets,
            case.family,
            case.config,
            multiprocessors=1,
            **case.window.keywords,
        )
    (launch,) = counters.launches
    memory, wide = launch.total(space="global"), launch.total(space="global", width=16)
    return Row(
        f"{memory.bytes / details['compulsory_bytes']:.3f}",
        f"{min(memory.bytes / memory.sector_bytes, 1.0):.3f}",
        f"{wide.bytes / memory.bytes:.3f}",
        launch.total(space="shared").bank_conflicts,
    )


def read_table() -> dict[tuple[str, ...], Row]:
    with TABLE.open(newline="") as file:
        found = {}
        for *key, over, sectors, wide, conflicts in list(csv.reader(file))[1:]:
            found[tuple(key)] = Row(over, sectors, wide, int(conflicts))
        return found


def write_table() -> None:
    with TABLE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        names = [field.name for field in dataclasses.fields(Row)]
        writer.writerow(["family", "config", "case", "pass", "dtype", "layout", *names])
        for case in sorted(cases(), key=lambda case: case.key):
            writer.writerow([*case.key, *dataclasses.astuple(count(case))])


@pytest.mark.parametrize("case", cases(), ids=lambda case: "-".join(case.key))
def test_counters_are_those_of_the_table_and_within_bounds(case: Counted) -> None:
    row = count(case)
    assert row == read_table()[case.key], "write the table anew if this is meant: see the top of this file"
    assert float(row.bytes_over_compulsory) <= case.most_bytes
    assert float(row.full_sectors) >= 0.9
    assert float(row.in_16_bytes) >= case.least_wide
    assert case.has_conflicts or row.bank_conflicts == 0


if __name__ == "__main__":
    write_table()
