"""What the emulator counts of a launch, as a row of a checked-in table; and what every row has to keep to.

Counted is what threads ask of global memory, by the bytes of their accesses: a halo that a block reads into shared memory
counts once a block, and what several threads read again through L1 counts as often as it is read. Bytes of the workspace count,
those of the weights too. Five things a case may declare, and its row says so:

- `in_cache`: operands that many blocks, or the threads of overlapping windows, read and that a cache holds meanwhile, so that
  memory gives each byte once a launch. What is asked for in all stands beside it and has no gate.
- `cache_bytes`, instead: the bytes between memory and a cache of that size, as fastconv.emulator.memory_traffic models it over
  all launches of the case: whole sectors, and what is left to be written back at the end. The cache is as small beside the
  case's tensors as a device's is beside those of a large batch.
- `kept`: operands that a block moves once, before it begins or when it ends (weights that it packs, sums that it has kept):
  they count as bytes, but not among the accesses of its steady state.
- `told`: where conflicts in the banks are known, and why; they are counted apart and have no gate. Nowhere else is any.
- `by_element`: accesses to places that data name, which no vector could make: they count as bytes, but not among the accesses
  that should be wide and fill sectors.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from fastconv import emulator
from fastconv.emulator import AccessCounts, Counters

#: Bytes over the bytes that have to move, at most: where blocks share no input, and where they share a halo.
MOST_BYTES = {"no": 1.1, "yes": 1.3}
#: Of the steady state, at least: bytes asked for over those of the sectors they lie in, and the share that moves by 16 bytes.
#: The ends of what is not aligned, and depthwise weights, move element by element: of a 7x7 filter over 14x14 pixels an eighth.
LEAST_IN_FULL_SECTORS = 0.8
LEAST_IN_16_BYTES = 0.85


@dataclasses.dataclass(frozen=True)
class Told:
    """Conflicts that are known: why, and at which accesses: a source file's name and "load" or "store" each; none: all."""

    why: str
    where: tuple[tuple[str, str], ...] = ()

    def covers(self, access: AccessCounts) -> bool:
        return not self.where or any(file in access.line and kind == access.kind for file, kind in self.where)


@dataclasses.dataclass(frozen=True)
class ByElement:
    """Accesses narrower than 16 bytes that cannot be wider: why, and which: an operand, a source file, "load" or "store"."""

    why: str
    target: str
    file: str
    kind: str

    def covers(self, access: AccessCounts) -> bool:
        meant = (self.target, self.kind) == (access.target, access.kind) and self.file in access.line
        return meant and access.width < 16


@dataclasses.dataclass(frozen=True)
class CountedCase:
    """Launches to count. `run` returns the compulsory bytes of what it ran."""

    family: str
    config: str
    name: str  # unique with the family, the configuration, the type and the layout
    dtype: str
    layout: str
    run: Callable[[], int]
    halo: bool = False  # whether blocks share input at their borders
    in_cache: tuple[str, ...] = ()
    cache_bytes: int | None = None
    kept: tuple[str, ...] = ()
    told: Told | None = None
    by_element: ByElement | None = None

    @property
    def key(self) -> tuple[str, ...]:
        return (self.family, self.config, self.name, self.dtype, self.layout)


#: Functions whose cases are rows of the table of memory_bound_counters.py.
FAMILIES: list[Callable[[], list[CountedCase]]] = []


def family(cases: Callable[[], list[CountedCase]]) -> Callable[[], list[CountedCase]]:
    """Marks one of them."""
    FAMILIES.append(cases)
    return cases


@dataclasses.dataclass(frozen=True)
class Row:
    """Shares have three decimals."""

    family: str
    config: str
    case: str
    dtype: str
    layout: str
    halo: str  # yes or no
    in_cache: str  # operands, where they are asked for more than once; or the modelled cache
    bytes_over_compulsory: str  # those in the cache once each
    asked_over_compulsory: str  # no gate
    kept: str  # operands
    full_sectors: str
    in_16_bytes: str
    bank_conflicts: int
    told_conflicts: int  # no gate
    told: str  # why
    by_element: str  # no gate: their share of the bytes
    by_element_why: str

    @property
    def key(self) -> tuple[str, ...]:
        return (self.family, self.config, self.case, self.dtype, self.layout)


def count(case: CountedCase) -> Row:
    with emulator.count() as counters:
        compulsory = case.run()
    memory = _accesses(counters, "global")
    pointed = [access for access in memory if case.by_element is not None and case.by_element.covers(access)]
    steady = [access for access in memory if access.target not in case.kept and access not in pointed]
    asked, steady_bytes = _bytes(memory), _bytes(steady)
    if case.cache_bytes is not None:
        held = f"a cache of {case.cache_bytes >> 10} KiB"
        from_memory = emulator.memory_traffic(counters.launches, case.cache_bytes).bytes
    else:
        held = " ".join(case.in_cache)
        from_memory = _bytes(access for access in memory if access.target not in case.in_cache) + sum(
            tensor.loaded_bytes + tensor.stored_bytes
            for launch in counters.launches
            for tensor in launch.tensors
            if tensor.name in case.in_cache
        )
    conflicts = {True: 0, False: 0}
    for access in _accesses(counters, "shared"):
        conflicts[case.told is not None and case.told.covers(access)] += access.bank_conflicts
    return Row(
        *case.key,
        halo="yes" if case.halo else "no",
        in_cache=held if from_memory != asked else "",
        bytes_over_compulsory=f"{from_memory / compulsory:.3f}",
        asked_over_compulsory=f"{asked / compulsory:.3f}",
        kept=" ".join(case.kept),
        # A sector that two neighbouring lanes touch counts once; asked twice, the bytes are more than the sector's.
        full_sectors=f"{min(steady_bytes / sum(access.sector_bytes for access in steady), 1.0):.3f}",
        in_16_bytes=f"{_bytes(access for access in steady if access.width == 16) / steady_bytes:.3f}",
        bank_conflicts=conflicts[False],
        told_conflicts=conflicts[True],
        told=case.told.why if case.told is not None and conflicts[True] else "",
        by_element=f"{_bytes(pointed) / asked:.3f}" if pointed else "",
        by_element_why=case.by_element.why if case.by_element is not None and pointed else "",
    )


def _accesses(counters: Counters, space: str) -> list[AccessCounts]:
    return [access for launch in counters.launches for access in launch.accesses if access.space == space]


def _bytes(accesses: Iterable[AccessCounts]) -> int:
    return sum(access.bytes for access in accesses)


def assert_keeps_to_the_gates(row: Row) -> None:
    assert 0.95 < float(row.bytes_over_compulsory) <= MOST_BYTES[row.halo]
    assert bool(row.in_cache) == (row.asked_over_compulsory != row.bytes_over_compulsory)
    assert float(row.full_sectors) >= LEAST_IN_FULL_SECTORS
    assert float(row.in_16_bytes) >= LEAST_IN_16_BYTES
    assert row.bank_conflicts == 0
    assert bool(row.told) == (row.told_conflicts > 0)
    assert bool(row.by_element_why) == bool(row.by_element)


def read_table(table: Path) -> dict[tuple[str, ...], Row]:
    numbers = ("bank_conflicts", "told_conflicts")
    with table.open(newline="") as file:
        rows = [Row(**{**row, **{name: int(row[name]) for name in numbers}}) for row in csv.DictReader(file)]
    return {row.key: row for row in rows}


def rewrite(table: Path, cases: Iterable[CountedCase], names: Sequence[str]) -> None:
    """Counts the cases of families that a name is part of, without names all, and keeps the other cases' rows."""
    kept = read_table(table) if names else {}
    known = {case.key: case for case in cases}
    chosen = [case for case in known.values() if not names or any(name in case.family for name in names)]
    fresh = {case.key: count(case) for case in chosen}
    write_table(table, [row for key, row in (kept | fresh).items() if key in known])


def write_table(table: Path, rows: Iterable[Row]) -> None:
    with table.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in dataclasses.fields(Row)])
        writer.writerows(dataclasses.astuple(row) for row in sorted(rows, key=lambda row: row.key))
