"""What `fastconv.emulator.count` hands out: the memory requests of emulated kernels, by launch, tensor and source line."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.table import Table

Space = Literal["global", "shared", ""]  # the last where several are added up
Kind = Literal["load", "store", "atomic", ""]

SECTOR_BYTES = 32


@dataclasses.dataclass(frozen=True, slots=True)
class AccessCounts:
    """What one instruction, or several taken together, did to one tensor or shared array."""

    target: str
    space: Space
    kind: Kind
    width: int  # bytes of one thread's access; 0 where widths are mixed
    accesses: int = 0  # by single threads
    bytes: int = 0  # accesses times their width
    requests: int = 0  # what the lanes of a warp do together
    sectors: int = 0  # global: distinct 32-byte sectors of each request
    wavefronts: int = 0  # shared: passes through the 32 banks
    ideal_wavefronts: int = 0  # shared: passes without a bank conflict
    line: str = ""

    @property
    def bank_conflicts(self) -> int:
        """Passes through the banks that a better layout would save."""
        return self.wavefronts - self.ideal_wavefronts

    @property
    def sector_bytes(self) -> int:
        """Bytes that move between the multiprocessor and its cache."""
        return SECTOR_BYTES * self.sectors


@dataclasses.dataclass(frozen=True, slots=True)
class TensorCounts:
    """How much of a tensor was touched, each byte once."""

    name: str
    bytes: int
    loaded_bytes: int
    stored_bytes: int
    loaded_sectors: list[tuple[int, int]]  # runs of 32-byte sectors in order: the first, and the one after the last
    stored_sectors: list[tuple[int, int]]  # a sector's number is its address over 32
    streamed_sectors: list[tuple[int, int]]  # of the loaded ones, those that a load asked the cache not to keep


@dataclasses.dataclass(frozen=True)
class LaunchCounts:
    """One launch of a kernel."""

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    dynamic_shared_bytes: int
    static_shared_bytes: int
    accesses: list[AccessCounts]  # one an instruction, target and width
    tensors: list[TensorCounts]
    operations: dict[str, int]  # "barrier", "__syncwarp", "shuffle", "mma.m16n8k16", ...

    @classmethod
    def read(cls, launch: dict[str, Any], lines: list[str]) -> LaunchCounts:
        """From what the compiled module tells; lines are those of the accesses."""
        accesses = [
            AccessCounts(
                target=access["target"],
                space=access["space"],
                kind=access["kind"],
                width=access["width"],
                accesses=access["accesses"],
                bytes=access["accesses"] * access["width"],
                requests=access["requests"],
                sectors=access["sectors"],
                wavefronts=access["wavefronts"],
                ideal_wavefronts=access["ideal_wavefronts"],
                line=line,
            )
            for access, line in zip(launch["accesses"], lines, strict=True)
        ]
        tensors = [TensorCounts(**tensor) for tensor in launch["tensors"]]
        return cls(
            kernel=launch["kernel"],
            grid=launch["grid"],
            block=launch["block"],
            dynamic_shared_bytes=launch["dynamic_shared_bytes"],
            static_shared_bytes=launch["static_shared_bytes"],
            accesses=accesses,
            tensors=tensors,
            operations=launch["operations"],
        )

    def total(
        self, target: str | None = None, kind: Kind | None = None, space: Space | None = None, width: int | None = None
    ) -> AccessCounts:
        """Everything that fits the arguments, added up."""
        return _sum(_matching(self.accesses, target, kind, space, width))

    def widths(self, target: str | None = None, kind: Kind | None = None, space: Space | None = None) -> dict[int, int]:
        """How many accesses of single threads had each width in bytes."""
        histogram: Counter[int] = Counter()
        for access in _matching(self.accesses, target, kind, space, None):
            histogram[access.width] += access.accesses
        return dict(sorted(histogram.items()))

    def by_line(self) -> list[AccessCounts]:
        """The accesses of each source line, those that move most first."""
        groups: dict[tuple[Any, ...], list[AccessCounts]] = {}
        for access in self.accesses:
            groups.setdefault((access.line, access.target, access.kind, access.width), []).append(access)
        lines = [_sum(group) for group in groups.values()]
        return sorted(lines, key=lambda line: max(line.sectors, line.wavefronts), reverse=True)


@dataclasses.dataclass(eq=False)
class Counters:
    """What was counted, launch by launch. It may be read while the context is still open."""

    _collect: Callable[[], None]  # fetches what the emulator has counted since
    _launches: list[LaunchCounts] = dataclasses.field(default_factory=list)

    @property
    def launches(self) -> list[LaunchCounts]:
        self._collect()
        return self._launches

    def add(self, launch: LaunchCounts) -> None:
        self._launches.append(launch)

    def total(
        self, target: str | None = None, kind: Kind | None = None, space: Space | None = None, width: int | None = None
    ) -> AccessCounts:
        """Everything of all launches that fits the arguments, added up."""
        accesses = [access for launch in self.launches for access in launch.accesses]
        return _sum(_matching(accesses, target, kind, space, width))

    def operations(self) -> dict[str, int]:
        """Barriers, warp operations and matrix operations of all launches."""
        total: Counter[str] = Counter()
        for launch in self.launches:
            total.update(launch.operations)
        return dict(sorted(total.items()))

    def totals(self) -> dict[str, float]:
        """All launches in a few figures."""
        memory, shared = self.total(space="global"), self.total(space="shared")
        loaded = sum(tensor.loaded_bytes for launch in self.launches for tensor in launch.tensors)
        stored = sum(tensor.stored_bytes for launch in self.launches for tensor in launch.tensors)
        return {
            "launches": len(self.launches),
            "global_bytes": memory.bytes,
            "sectors": memory.sectors,
            "sector_bytes": memory.sector_bytes,
            "distinct_bytes": loaded + stored,
            "shared_wavefronts": shared.wavefronts,
            "bank_conflicts": shared.bank_conflicts,
            "barriers": self.operations().get("barrier", 0),
        }

    def table(self) -> Table:
        """For rich.print: one row a launch, target and kind of access."""
        from rich.table import Table

        table = Table(title="Memory, as the emulator counts it")
        for heading in ("kernel", "target", "access"):
            table.add_column(heading, no_wrap=heading != "access")
        for heading in ("widths", "MB asked", "MB in sectors", "MB distinct", "requests", "wavefronts", "conflicts"):
            table.add_column(heading, justify="right")
        for launch in self.launches:
            first = launch.kernel
            touched = {(tensor.name, "load"): tensor.loaded_bytes for tensor in launch.tensors}
            touched |= {(tensor.name, "store"): tensor.stored_bytes for tensor in launch.tensors}
            for key in dict.fromkeys((access.space, access.target, access.kind) for access in launch.accesses):
                space, target, kind = key
                sum_ = launch.total(target, kind, space)
                memory = space == "global"
                table.add_row(
                    first,
                    target,
                    kind,
                    " ".join(map(str, launch.widths(target, kind, space))),
                    f"{sum_.bytes / 1e6:.3f}",
                    f"{sum_.sector_bytes / 1e6:.3f}" if memory else "",
                    f"{touched.get((target, kind), 0) / 1e6:.3f}" if memory else "",
                    str(sum_.requests),
                    "" if memory else str(sum_.wavefronts),
                    "" if memory else str(sum_.bank_conflicts),
                )
                first = ""
            operations = ", ".join(f"{name} {number}" for name, number in sorted(launch.operations.items()))
            table.add_row(first, "", operations or "no barriers", end_section=True)
        return table

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=150, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
        console.print(self.table())
        return console.export_text()


def _matching(
    accesses: list[AccessCounts], target: str | None, kind: str | None, space: str | None, width: int | None
) -> list[AccessCounts]:
    return [
        access
        for access in accesses
        if (target is None or access.target == target)
        and (kind is None or access.kind == kind)
        and (space is None or access.space == space)
        and (width is None or access.width == width)
    ]


def _sum(accesses: list[AccessCounts]) -> AccessCounts:
    """One record of several; what they do not agree on is empty."""
    if not accesses:
        return AccessCounts("", "", "", 0)

    def common(field: str, otherwise: Any) -> Any:
        values = {getattr(access, field) for access in accesses}
        return values.pop() if len(values) == 1 else otherwise

    def added(field: str) -> int:
        return sum(getattr(access, field) for access in accesses)

    return AccessCounts(
        target=common("target", ""),
        space=common("space", ""),
        kind=common("kind", ""),
        width=common("width", 0),
        accesses=added("accesses"),
        bytes=added("bytes"),
        requests=added("requests"),
        sectors=added("sectors"),
        wavefronts=added("wavefronts"),
        ideal_wavefronts=added("ideal_wavefronts"),
        line=common("line", ""),
    )
