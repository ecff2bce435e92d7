"""The memory-bound kernels move what they must, in 16-byte accesses and whole sectors, without bank conflicts: counted by the
emulator, and as the checked-in table says. `memory_bound_counters.py` has the cases and writes the table."""

from __future__ import annotations

import pytest

from tests.core.memory_bound_counters import (
    LEAST_IN_16_BYTES,
    LEAST_IN_FULL_SECTORS,
    MOST_BYTES,
    MOST_BYTES_WITH_HALO,
    CountedCase,
    Row,
    cases,
    count,
    read_table,
)


def test_the_table_has_a_row_for_every_case_and_no_other() -> None:
    keys = [case.key for case in cases()]
    assert len(set(keys)) == len(keys)
    assert set(read_table()) == set(keys)


@pytest.mark.parametrize("row", read_table().values(), ids=lambda row: " ".join(row.key))
def test_the_table_keeps_to_the_gates(row: Row) -> None:
    most = MOST_BYTES_WITH_HALO if row.halo == "yes" else MOST_BYTES
    assert 0.95 < float(row.bytes_over_compulsory) <= most
    assert float(row.full_sectors) >= LEAST_IN_FULL_SECTORS
    assert float(row.in_16_bytes) >= LEAST_IN_16_BYTES
    assert row.bank_conflicts == 0 or row.scattered == "yes"


@pytest.mark.parametrize("case", cases(), ids=lambda case: " ".join(case.key))
def test_the_counts_are_those_of_the_table(case: CountedCase) -> None:
    assert count(case) == read_table()[case.key], "write the table anew if this is meant"
