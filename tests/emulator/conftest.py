"""Probe kernels, run in the emulator's fast and checked builds through fastconv.emulator."""

from __future__ import annotations

import sys
from collections.abc import Iterator
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


@pytest.fixture
def x() -> torch.Tensor:
    """Surrounded by memory of its own, so that what lies beside it is no other tensor."""
    return torch.arange(4096, dtype=torch.float32)[1024:2048]


@pytest.fixture
def y() -> torch.Tensor:
    return torch.zeros(4096)[1024:2048]
