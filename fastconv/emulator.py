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
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from fastconv.emulator_cache import MemoryTraffic, memory_traffic
from fastconv.emulator_counts import AccessCounts, Counters, LaunchCounts, TensorCounts

__all__ = [
    "AccessCounts",
    "Counters",
    "Device",
    "KernelError",
    "LaunchCounts",
    "MemoryTraffic",
    "TensorCounts",
    "check",
    "count",
    "current_device",
    "device",
    "memory_traffic",
    "module",
]


class KernelError(RuntimeError):
    """An emulated launch that CUDA would refuse, or a kernel that did something wrong. The message is the whole report."""


@dataclasses.dataclass(frozen=True, slots=True)
class Device:
    """The device that the emulator plays."""

    name: str
    capability: int
    multiprocessors: int
    l2_bytes: int  # of the second-level cache that plans are made for


_DEVICES = {
    "sm_80": Device("emulated sm_80", 80, 108, 40 << 20),
    "sm_90": Device("emulated sm_90", 90, 132, 50 << 20),
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
        try:
            _apply_to_loaded()
        except BaseException:
            _devices.pop()
            raise
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
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed must be an int in 0 .. 2**63 - 1 or None, got {seed!r} of type {type(seed).__name__}")
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed must be in 0 .. 2**63 - 1, got {seed}")
    outer = _current_watch()
    with _watching(_Watch(check=True, count=outer.count, shuffled=order == "shuffled", seed=seed)):
        yield seed


@contextlib.contextmanager
def count() -> Iterator[Counters]:
    """Counts what the kernels that run inside do to memory; see `Counters`. Inside `check` they are checked too."""
    counters = Counters(_collect)
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
    with _lock:
        compiled = sys.modules.get(_MODULES[1])
        if compiled is None:
            return
        for launch in compiled.control.take_launches():
            lines = compiled.control.source_lines([access["site"] for access in launch["accesses"]])
            counts = LaunchCounts.read(launch, lines)
            for counters in _counters:
                counters.add(counts)
