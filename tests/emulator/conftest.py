"""Probe kernels, run in the emulator's fast and checked builds through fastconv.emulator, and on a GPU where there is one.

What a test of a hardware operation expects is what the PTX ISA says. It takes the fixture `anywhere`, so that the emulator and
the hardware are held to the same rules.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from fastconv import emulator
from tests.emulator import build


@pytest.fixture(scope="session")
def probe_modules(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModuleType]:
    files = build.build(tmp_path_factory.mktemp("probes"))
    return {name: build.load(file) for name, file in files.items()}


@pytest.fixture
def probes(probe_modules: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """fastconv.emulator hands out the probes in place of fastconv's own kernels."""
    for module in probe_modules.values():
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(emulator, "_MODULES", ("probes_fast", "probes_checked"))
    monkeypatch.setattr(emulator, "_applied", {})
    yield
    assert not emulator._watches
    assert not emulator._devices


class Probe:
    """Runs a probe on tensors, the first of which it may read and the others write."""

    def __call__(
        self,
        name: str,
        *tensors: torch.Tensor | None,
        grid: tuple[int, ...] = (1,),
        block: tuple[int, ...] = (64,),
        dynamic_bytes: int = 0,
        n: int = 0,
        names: tuple[str, ...] = ("x", "y", "z", "w"),
        read_only: tuple[int, ...] = (0,),
    ) -> None:
        described: list[Any] = [
            ("", 0, 0, False)
            if tensor is None
            else (names[i], tensor.data_ptr(), tensor.numel() * tensor.element_size(), i not in read_only)
            for i, tensor in enumerate(tensors)
        ]
        emulator.module().run(name, _three(grid), _three(block), dynamic_bytes, described, n)


def _three(size: tuple[int, ...]) -> list[int]:
    return [*size, *(1 for _ in range(3 - len(size)))]


@pytest.fixture
def run(probes: None) -> Probe:
    return Probe()


class DeviceProbe:
    """The same on the current CUDA device: tensors are copied there and back."""

    def __init__(self, library: Path) -> None:
        self._run = ctypes.CDLL(str(library)).run_probe
        self._run.restype = ctypes.c_char_p

    def __call__(
        self,
        name: str,
        *tensors: torch.Tensor | None,
        grid: tuple[int, ...] = (1,),
        block: tuple[int, ...] = (64,),
        dynamic_bytes: int = 0,
        n: int = 0,
        names: tuple[str, ...] = (),
        read_only: tuple[int, ...] = (0,),
    ) -> None:
        copies = [None if tensor is None else tensor.cuda() for tensor in tensors]
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        addresses = [0 if copy is None else copy.data_ptr() for copy in copies]
        pointers = (ctypes.c_void_p * 4)(*addresses)
        sizes = [(ctypes.c_uint * 3)(*_three(size)) for size in (grid, block)]
        error = self._run(name.encode(), *sizes, ctypes.c_size_t(dynamic_bytes), pointers, n)
        assert error == b"", f"{name} on the device: {error.decode()}"
        for i, (tensor, copy) in enumerate(zip(tensors, copies, strict=True)):
            if tensor is not None and i not in read_only:
                tensor.copy_(copy)


@pytest.fixture(scope="session")
def on_device(tmp_path_factory: pytest.TempPathFactory) -> DeviceProbe:
    major, minor = torch.cuda.get_device_capability()
    return DeviceProbe(build.build_for_device(tmp_path_factory.mktemp("device_probes"), 10 * major + minor))


@pytest.fixture(params=["fast", "checked", pytest.param("device", marks=pytest.mark.gpu)])
def anywhere(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Runs a probe in both builds of the emulator, and on the hardware."""
    if request.param == "device":
        yield request.getfixturevalue("on_device")
        return
    probe = request.getfixturevalue("run")
    with emulator.check(seed=5) if request.param == "checked" else contextlib.nullcontext():
        yield probe


@pytest.fixture
def x() -> torch.Tensor:
    """Surrounded by memory of its own, so that what lies beside it is no other tensor."""
    return torch.arange(4096, dtype=torch.float32)[1024:2048]


@pytest.fixture
def y() -> torch.Tensor:
    return torch.zeros(4096)[1024:2048]
