"""The memory-bound kernels as the emulator counts them: the checked-in table of what they do to memory.

What is counted, what each row must keep to and what a case can declare is in counted_case.py; which launches, in
memory_bound_convolutions.py and memory_bound_pools.py. Writes the table anew:
python -m tests.core.memory_bound_counters [part of a family's name ...]
(with names, only the rows of those families; the others stay as they are).
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from tests.core import memory_bound_convolutions, memory_bound_pools  # noqa: F401  (their families)
from tests.core.counted_case import FAMILIES, CountedCase, rewrite

TABLE = Path(__file__).with_name("memory_bound_counters.csv")


@functools.cache
def cases() -> list[CountedCase]:
    """Every row of the table."""
    return [case for declared in FAMILIES for case in declared()]


if __name__ == "__main__":
    rewrite(TABLE, cases(), sys.argv[1:])
