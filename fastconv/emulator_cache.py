"""A model of the second-level cache over what the emulator has counted: which bytes come from device memory, and which go back.

The cache has lines of one sector, keeps those that were used last, and writes back. Launches are its clock: which blocks run
first is the device's affair, so nothing is said of the order inside a launch. A sector is still there if no more than the cache
holds was touched from the launch of its last use to the launch of the next, both of them counted whole.

- A sector that is loaded and not there is read from memory, once a launch. One that is stored is not: whoever stores a part of
  it stores the rest too, or leaves the rest to the cache's byte masks.
- A sector of a streaming load (`ld.global.cs`) leaves at once and takes no room.
- A stored sector is written to memory when it falls out of the cache, or at the end, and once, however often it was stored.
- A launch that touches more than the cache holds may drop and fetch what it asks for again. All that its requests ask for
  counts, and nothing is there afterwards.

At first the cache is empty.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable

from fastconv.emulator_counts import SECTOR_BYTES, LaunchCounts


@dataclasses.dataclass(frozen=True, slots=True)
class MemoryTraffic:
    """Bytes between the second-level cache and device memory, whole sectors."""

    loaded_bytes: int
    stored_bytes: int

    @property
    def bytes(self) -> int:
        return self.loaded_bytes + self.stored_bytes


def memory_traffic(launches: Iterable[LaunchCounts], cache_bytes: int) -> MemoryTraffic:
    """What the launches, one after another, move between memory and a cache of `cache_bytes`.

    ValueError where that is less than a sector of 32 bytes.

    >>> from fastconv import emulator
    >>> with emulator.count() as counters:
    ...     fastconv.conv2d(x, w, backend="cuda")  # doctest: +SKIP
    >>> emulator.memory_traffic(counters.launches, cache_bytes=50 << 20).bytes  # doctest: +SKIP
    """
    if cache_bytes < SECTOR_BYTES:
        raise ValueError(f"cache_bytes must be at least a sector of {SECTOR_BYTES} bytes, got {cache_bytes}")
    cache = _Cache(cache_bytes // SECTOR_BYTES)
    for launch in launches:
        cache.run(launch)
    cache.empty()
    return MemoryTraffic(cache.loaded * SECTOR_BYTES, cache.stored * SECTOR_BYTES)


class _Cache:
    def __init__(self, sectors: int):
        self.loaded = self.stored = 0  # sectors that have moved
        self._sectors = sectors
        self._launch = 0
        self._last_use: dict[int, int] = {}  # of each sector that may be there: the number of a launch
        self._used: Counter[int] = Counter()  # how many of them each launch was the last to use
        self._dirty: set[int] = set()

    def run(self, launch: LaunchCounts) -> None:
        loads = _sectors(run for tensor in launch.tensors for run in tensor.loaded_sectors)
        stores = _sectors(run for tensor in launch.tensors for run in tensor.stored_sectors)
        streamed = _sectors(run for tensor in launch.tensors for run in tensor.streamed_sectors) - stores
        touched = (loads | stores) - streamed
        if len(touched) > self._sectors:
            self.empty()
            memory = [access for access in launch.accesses if access.space == "global"]
            self.loaded += sum(access.sectors for access in memory if access.kind != "store")
            self.stored += sum(access.sectors for access in memory if access.kind != "load")
            return
        self._launch += 1
        self.loaded += sum(sector not in self._last_use for sector in streamed)
        for sector in streamed & self._last_use.keys():
            self._drop(sector)
        # Of the sectors that were here, in the order of their last use, as many stay as there is room for.
        oldest = self._oldest_that_stays(touched)
        for sector in [sector for sector, last in self._last_use.items() if last < oldest]:
            self._drop(sector)
        self.loaded += sum(sector not in self._last_use for sector in loads - streamed)
        for sector in touched:
            if sector in self._last_use:
                self._used[self._last_use[sector]] -= 1
            self._last_use[sector] = self._launch
        self._used[self._launch] = len(touched)
        self._dirty |= stores

    def _oldest_that_stays(self, touched: set[int]) -> int:
        """The first launch such that what it and its followers were the last to use fits beside what is touched now."""
        again = Counter(self._last_use[sector] for sector in touched if sector in self._last_use)
        room = self._sectors - len(touched)
        for launch in range(self._launch - 1, 0, -1):
            room -= self._used[launch] - again[launch]
            if room < 0:
                return launch + 1
        return 0

    def _drop(self, sector: int) -> None:
        self._used[self._last_use.pop(sector)] -= 1
        if sector in self._dirty:
            self._dirty.remove(sector)
            self.stored += 1

    def empty(self) -> None:
        """Writes back what was stored."""
        for sector in list(self._last_use):
            self._drop(sector)


def _sectors(runs: Iterable[tuple[int, int]]) -> set[int]:
    found: set[int] = set()
    for first, end in runs:
        found.update(range(first, end))
    return found
