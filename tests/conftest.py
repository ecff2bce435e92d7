"""What every test runs under: seeded generators, NaN in fresh memory, and the line that repeats a failure."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator

import pytest
import torch

BACKENDS = ("aten", "cuda", "triton")

#: Each has PyTorch loaded, and on a machine with a GPU a context there.
MOST_WORKERS = 4


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fastconv")
    group.addoption("--seed", type=int, default=0, help="seed of every test that draws random numbers")
    group.addoption("--fuzz-problems", type=int, default=500, help="how many random problems the fuzzer tries")
    group.addoption("--fuzz-seed", type=int, default=0, help="seed of the fuzzer's problems")
    group.addoption("--fuzz-backends", default="cuda", help="backends the fuzzer draws from, separated by commas")
    group.addoption(
        "--problem", action="append", default=[], metavar="LINE", help="only this problem, as a failure printed it"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """The whole suite runs on several cores where pytest-xdist is there; chosen tests run here, as `-n 0` lets all do."""
    here = config.args_source is pytest.Config.ArgsSource.ARGS or config.option.usepdb or config.option.collectonly
    if here or not config.pluginmanager.hasplugin("xdist") or "PYTEST_XDIST_WORKER" in os.environ:
        return
    if config.option.numprocesses is None:
        config.option.numprocesses = min(len(os.sched_getaffinity(0)), MOST_WORKERS)
        config.option.dist = "loadfile"  # what a file makes for all its tests is made once


def pytest_configure(config: pytest.Config) -> None:
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:  # or PyTorch's threads wait for each other's cores, and longer than they compute
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // workers))
    config.addinivalue_line("markers", "gpu: needs a CUDA device and fastconv._cuda; deselected without them")
    config.addinivalue_line("markers", "plain_memory: runs without NaN in fresh memory and without deterministic mode")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`device` is "cpu", and "cuda" too where there is a GPU."""
    if "device" in metafunc.fixturenames:
        devices = ["cpu"]
        if torch.cuda.is_available():
            devices.append(pytest.param("cuda", marks=pytest.mark.gpu))
        metafunc.parametrize("device", devices)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    without_gpu = [item for item in items if item.get_closest_marker("gpu") is None]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(without_gpu)])
    items[:] = without_gpu


@pytest.fixture(params=BACKENDS[:2])
def backend(request: pytest.FixtureRequest) -> str:
    """Every backend that can do every problem. One that does not load here is a failure, never a skip."""
    return request.param


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The test's own seed: it follows from --seed and the test's name, so tests may run alone and in any order."""
    return zlib.crc32(f"{request.config.getoption('--seed')} {request.node.nodeid}".encode())


def pytest_collection_finish() -> None:
    """PyTorch's own test utilities, once imported, forbid cudnn's flags to the whole process; the harness sets them."""
    setattr(torch.backends, "__allow_nonbracketed_mutation_flag", True)


@pytest.fixture(autouse=True)
def seeded(seed: int) -> None:
    torch.manual_seed(seed)


@pytest.fixture(autouse=True)
def fresh_memory_is_nan(request: pytest.FixtureRequest) -> Iterator[None]:
    """torch.empty and its kin return NaN, or the largest integer, so that an element nobody wrote is seen.

    PyTorch does that only in its deterministic mode. A test marked `plain_memory` runs outside of both.
    """
    if request.node.get_closest_marker("plain_memory"):
        yield
        return
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
    torch.utils.deterministic.fill_uninitialized_memory = fill


@pytest.fixture(autouse=True)
def float32_is_float32() -> Iterator[None]:
    """PyTorch lets convolutions of CUDA tensors use TF32 by default. The tolerances are those of float32."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    report = yield
    if report.failed and call.when == "call":
        line = f'pytest "{item.nodeid}" --seed {item.config.getoption("--seed")}'
        report.sections.append(("repeat with", line))
    return report
