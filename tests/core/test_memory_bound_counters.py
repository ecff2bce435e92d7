"""The memory-bound kernels move what they must, in 16-byte accesses and whole sectors, without bank conflicts: counted by the
emulator, and as the checked-in table says. `memory_bound_counters.py` has the cases and writes the table."""

from __future__ import annotations

import dataclasses

import pytest

from tests.core import memory_bound_shortfalls as shortfalls
from tests.core.counted_case import CountedCase, Row, assert_keeps_to_the_gates, count, read_table
from tests.core.memory_bound_counters import TABLE, cases

ROWS = read_table(TABLE)
SHORTFALLS = read_table(shortfalls.TABLE)


def test_the_table_has_a_row_for_every_case_and_no_other() -> None:
    keys = [case.key for case in cases()]
    assert len(set(keys)) == len(keys)
    assert set(ROWS) == set(keys)


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: " ".join(row.key))
def test_the_table_keeps_to_the_gates(row: Row) -> None:
    assert_keeps_to_the_gates(row)


@pytest.mark.parametrize("case", cases(), ids=lambda case: " ".join(case.key))
def test_the_counts_are_those_of_the_table(case: CountedCase) -> None:
    assert count(case) == ROWS[case.key], "write the table anew if this is meant: see memory_bound_counters.py"


def test_the_table_of_shortfalls_has_a_row_for_every_case_and_no_other() -> None:
    keys = [case.key for case in shortfalls.cases()]
    assert len(set(keys)) == len(keys)
    assert set(SHORTFALLS) == set(keys)
    assert not set(SHORTFALLS) & set(ROWS)


@pytest.mark.parametrize("row", SHORTFALLS.values(), ids=lambda row: " ".join(row.key))
def test_what_keeps_to_the_gates_is_no_shortfall(row: Row) -> None:
    with pytest.raises(AssertionError):
        assert_keeps_to_the_gates(row)


@pytest.mark.parametrize("case", shortfalls.cases(), ids=lambda case: " ".join(case.key))
def test_the_counts_of_shortfalls_are_those_of_the_table(case: CountedCase) -> None:
    assert count(case) == SHORTFALLS[case.key], "write the table anew if this is meant: see memory_bound_shortfalls.py"


@pytest.mark.parametrize(
    "change",
    [
        {"bytes_over_compulsory": "1.101", "asked_over_compulsory": "1.101"},
        {"halo": "yes", "bytes_over_compulsory": "1.301", "asked_over_compulsory": "1.301"},
        {"asked_over_compulsory": "1.200"},  # the operand that is read again is not named
        {"full_sectors": "0.799"},
        {"in_16_bytes": "0.849"},
        {"bank_conflicts": 1},
        {"told_conflicts": 1},  # without a reason
        {"told": "a reason for nothing"},
        {"by_element": "0.100"},
        {"by_element_why": "a reason for nothing"},
    ],
    ids=str,
)
def test_what_the_gates_are_for_does_not_pass(change: dict[str, object]) -> None:
    key = ("family", "", "case", "float16", "contiguous")
    row = Row(*key, "no", "", "1.000", "1.000", "", "1.000", "1.000", 0, 0, "", "", "")
    assert_keeps_to_the_gates(row)
    with pytest.raises(AssertionError):
        assert_keeps_to_the_gates(dataclasses.replace(row, **change))
