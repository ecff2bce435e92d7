"""Memory-bound launches that do not keep to the gates of memory_bound_counters.py: what is counted of them, checked in too, so
that it can only change on purpose. docs/emulator.md says why each is here. A test fails once a row keeps to the gates; then its
place is in the other table. Writes the table anew: python -m tests.core.memory_bound_shortfalls [part of a family's name ...]
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from tests.core.counted_case import CountedCase, rewrite
from tests.core.family_support import FamilyCase
from tests.core.memory_bound_convolutions import (
    BF16,
    F16,
    F32,
    NCHW,
    by_implicit_gemm_1x1,
    convolution,
    grouped,
    turned_1x1,
)
from tests.core.memory_bound_pools import any_pool, unpooling, walk

TABLE = Path(__file__).with_name("memory_bound_shortfalls.csv")
AGAIN = ("x", "w", "dy", "workspace")


def odd_rows_of_groups() -> list[CountedCase]:
    """Rows that are no whole sectors are asked for by parts of them, which neighbours ask for again; those that are not
    multiples of 16 bytes, in pieces of 8, 4 and 2."""
    return [
        grouped(conv_pass, "4x32", 16, 3, F16, 1, 2, side=side, in_cache=("x", "dy"), **NCHW)
        for conv_pass in ("fprop", "wgrad")
        for side in (56, 28, 14, 7)
    ]


def planes_of_1x1() -> list[CountedCase]:
    """With a stride, outputs are written by elements; those of dgrad by a product for each phase, so lanes lie apart."""
    return [
        *(turned_1x1("fprop", dtype) for dtype in (F16, F32)),
        *(by_implicit_gemm_1x1("dgrad", dtype, 2, AGAIN, **NCHW) for dtype in (F16, F32)),
    ]


def planes_of_patches() -> list[CountedCase]:
    """y is written by elements."""
    geometry = {"x": (8, 3, 32, 32), "w": (32, 3, 4, 4), "stride": (4, 4)}
    case = FamilyCase("fprop", F32, **geometry, family="patch", allow_tf32=True, **NCHW)
    return [convolution("64x64x32_s4_w4", "4x4 stride 4, 32x32", case, in_cache=AGAIN, kept=("w",))]


def any_window() -> list[CountedCase]:
    """Where windows overlap, backward in channels_last reads the offsets again for each, in 16 bits 8 bytes a thread."""
    return [any_pool("backward", "3x3 stride 1 of 32", F16, "channels_last")]


def eight_offsets_a_thread() -> list[CountedCase]:
    """The offsets of a thread's 16 bytes of channels are 8 bytes, here a sixth of what it moves."""
    return [walk("2x2 stride 1 of 33", dtype) for dtype in (F16, BF16)]


def small_planes() -> list[CountedCase]:
    """A warp has a plane of 7x7 values, 98 bytes: it shares its first and last sector with its neighbours."""
    return [unpooling("forward", "contiguous", F16, 14)]


@functools.cache
def cases() -> list[CountedCase]:
    families = (
        odd_rows_of_groups,
        planes_of_1x1,
        planes_of_patches,
        any_window,
        eight_offsets_a_thread,
        small_planes,
    )
    return [case for family in families for case in family()]


if __name__ == "__main__":
    rewrite(TABLE, cases(), sys.argv[1:])
