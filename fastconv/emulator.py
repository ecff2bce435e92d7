"""The host emulator: CUDA kernels on the CPU, and the microscope that looks at them while they run.

>>> from fastconv import emulator
>>> with emulator.check():                      # out of bounds, races, uninitialised shared memory, divergent barriers
...     fastconv.conv2d(x, w, backend="cuda")   # doctest: +SKIP
>>> with emulator.count() as counters:          # sectors, bank conflicts, access widths, barriers, mma operations
...     fastconv.conv2d(x, w, backend="cuda")   # doctest: +SKIP
>>> print(counters)                             # doctest: +SKIP
>>> with emulator.device("sm_80"):              # what an A100 would run
...     fastconv.conv2d(x, w, backend="cuda")   # doctest: +SKIP

All state belongs to the process: what one thread switches on, every thread sees, autograd's among them.

======================== ================= ============================================================================
environment              accepted          is
======================== ================= ============================================================================
FASTCONV_EMULATOR_MODE   fast, check       whether kernels are checked outside of `check` and `count`; fast
FASTCONV_EMULATOR_DEVICE sm_80, sm_90      the device that is played outside of `device`; sm_90
FASTCONV_EMULATOR_THREADS 1, 2, ...        threads of the CPU that run blocks; as many as the process may use
======================== ================= ============================================================================
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import secrets
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.table import Table

Space = Literal["global", "shared", ""]  # the last where several are added up
Kind = Literal["load", "store", "atomic", ""]

SECTOR_BYTES = 32


class KernelError(RuntimeError):
    """An emulated launch that CUDA would refuse, or a kernel that did something wrong. The message is the whole report."""


@dataclasses.dataclass(frozen=True, slots=True)
class Device:
    """The device that the emulator plays."""

    name: str
    capability: int
    multiprocessors: int


_DEVICES = {
    "sm_80": Device("emulated sm_80", 80, 108),
    "sm_90": Device("emulated sm_90", 90, 132),
}
_MODES = ("fast", "check")
_ORDERS = ("shuffled", "natural")
_MODULES = ("fastconv._emulator", "fastconv._emulator_checked")


@dataclasses.dataclass(frozen=True, slots=True)
class _Watch:
    """What the compiled modules are told of the contexts that are open."""

    check: bool = False
    count: bool = False
    shuffled: bool = False
    seed: int = 0


_lock = threading.RLock()
_watches: list[_Watch] = []
_devices: list[str] = []
_counters: list[Counters] = []
_applied: dict[str, tuple[Any, ...]] = {}


def module() -> ModuleType:
    """The compiled module that emulates kernels now: `fastconv._emulator`, or inside `check` and `count`
    `fastconv._emulator_checked`. ImportError where it was not built.
    """
    with _lock:
        watch = _current_watch()
        name = _MODULES[1] if watch.check or watch.count else _MODULES[0]
        try:
            compiled = importlib.import_module(name)
        except ImportError as error:
            raise ImportError(
                f"{name}, the compiled CUDA emulator, cannot be imported ({error}). It is built when fastconv is "
                "installed: run `pip install .` (or `pip install -e .`) in the source tree, with a C++ compiler "
                "that knows C++17; `fastconv info` tells what was built",
                name=name,
            ) from error
        _apply(compiled)
        return compiled


def current_device() -> Device:
    """The device that the emulator plays now."""
    with _lock:
        return _DEVICES[_devices[-1] if _devices else _choice("FASTCONV_EMULATOR_DEVICE", tuple(_DEVICES), "sm_90")]


@contextlib.contextmanager
def device(name: str) -> Iterator[Device]:
    """Plays another device: "sm_80" (108 multiprocessors, 163 KiB of shared memory a block) or "sm_90" (132, 227 KiB)."""
    if name not in _DEVICES:
        raise ValueError(f"device must be one of {', '.join(_DEVICES)}, got {name!r}")
    with _lock:
        _devices.append(name)
        _apply_to_loaded()
    try:
        yield _DEVICES[name]
    finally:
        with _lock:
            _remove_last(_devices, name)
            _apply_to_loaded()


@contextlib.contextmanager
def check(seed: int | None = None, order: str = "shuffled") -> Iterator[int]:
    """Checks every access and barrier of the kernels that run inside; KernelError with a report at the first mistake.

    order: "shuffled" runs blocks and threads in an order drawn from the seed, "natural" by their numbers. The seed is
    random where it is not given; it is what the context returns, and a report names the one that repeats it.
    """
    if order not in _ORDERS:
        raise ValueError(f"order must be one of {', '.join(_ORDERS)}, got {order!r}")
    if seed is None:
        seed = secrets.randbits(32)
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed must be in 0 .. 2**63 - 1, got {seed}")
    outer = _current_watch()
    with _watching(_Watch(check=True, count=outer.count, shuffled=order == "shuffled", seed=seed)):
        yield seed


@contextlib.contextmanager
def count() -> Iterator[Counters]:
    """Counts what the kernels that run inside do to memory; see `Counters`. Inside `check` they are checked too."""
    counters = Counters()
    with _lock:
        _collect()
        _counters.append(counters)
    try:
        with _watching(dataclasses.replace(_current_watch(), count=True)):
            yield counters
    finally:
        with _lock:
            _collect()
            _counters.remove(counters)


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

    _launches: list[LaunchCounts] = dataclasses.field(default_factory=list)

    @property
    def launches(self) -> list[LaunchCounts]:
        with _lock:
            _collect()
        return self._launches

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


# --- state ------------------------------------------------------------------------------------------------------------


def _choice(variable: str, accepted: tuple[str, ...], default: str) -> str:
    value = os.environ.get(variable) or default
    if value not in accepted:
        raise ValueError(f"the environment variable {variable} must be one of {', '.join(accepted)}, got {value!r}")
    return value


def _threads() -> int | None:
    value = os.environ.get("FASTCONV_EMULATOR_THREADS")
    if not value:
        return None
    if not value.isdecimal() or not 1 <= int(value) <= 4096:
        raise ValueError(
            f"the environment variable FASTCONV_EMULATOR_THREADS must be a number from 1 to 4096, got {value!r}"
        )
    return int(value)


def _current_watch() -> _Watch:
    if _watches:
        return _watches[-1]
    return _Watch(check=_choice("FASTCONV_EMULATOR_MODE", _MODES, "fast") == "check")


@contextlib.contextmanager
def _watching(watch: _Watch) -> Iterator[None]:
    with _lock:
        _watches.append(watch)
        try:
            module()
        except BaseException:
            _watches.pop()
            raise
    try:
        yield
    finally:
        with _lock:
            _remove_last(_watches, watch)
            _apply_to_loaded()


def _remove_last(stack: list[Any], item: Any) -> None:
    """Contexts of several threads may end in any order."""
    del stack[len(stack) - 1 - stack[::-1].index(item)]


def _apply(compiled: ModuleType) -> None:
    """Tells a compiled module what the contexts and the environment say, where that has changed."""
    watch = _current_watch() if compiled.__name__ == _MODULES[1] else _Watch()
    wanted = (watch, current_device().capability, _threads())
    if _applied.get(compiled.__name__) == wanted:
        return
    compiled.control.watch(check=watch.check, count=watch.count, shuffled=watch.shuffled, seed=watch.seed)
    compiled.control.set_device(current_device().capability)
    threads = _threads()
    if threads is not None:
        compiled.control.set_threads(threads)
    _applied[compiled.__name__] = wanted


def _apply_to_loaded() -> None:
    for name in _MODULES:
        if name in sys.modules:
            _apply(sys.modules[name])


# --- counters ---------------------------------------------------------------------------------------------------------


def _collect() -> None:
    """Hands the launches counted since the last call to all who count."""
    compiled = sys.modules.get(_MODULES[1])
    if compiled is None:
        return
    for launch in compiled.control.take_launches():
        counts = _launch_counts(launch, compiled)
        for counters in _counters:
            counters._launches.append(counts)


def _launch_counts(launch: dict[str, Any], compiled: ModuleType) -> LaunchCounts:
    lines = compiled.control.source_lines([access["site"] for access in launch["accesses"]])
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
    return LaunchCounts(
        kernel=launch["kernel"],
        grid=launch["grid"],
        block=launch["block"],
        dynamic_shared_bytes=launch["dynamic_shared_bytes"],
        static_shared_bytes=launch["static_shared_bytes"],
        accesses=accesses,
        tensors=tensors,
        operations=launch["operations"],
    )


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
