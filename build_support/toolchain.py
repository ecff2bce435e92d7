"""What the build was given to work with: C++ compiler, nvcc, Python's and pybind11's headers, ninja, cores and memory."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from build_support import nvcc as nvcc_search
from build_support.nvcc import Nvcc
from build_support.settings import BuildError, Settings

#: Memory that one compile job may need, measured on the largest source.
BYTES_PER_JOB = 2 * 1024**3


@dataclasses.dataclass(frozen=True)
class Toolchain:
    cxx: tuple[str, ...]
    cxx_version: str
    nvcc: Nvcc | None
    why_no_cuda: str  # empty where nvcc is there
    python_include: Path
    pybind11_include: Path
    pybind11_version: str
    ninja: Path
    jobs: int
    cpu_has_avx2: bool  # x86-64 with avx2, fma and f16c

    @property
    def is_clang(self) -> bool:
        return "clang" in self.cxx_version

    @classmethod
    def find(cls, settings: Settings, environ: Mapping[str, str]) -> Toolchain:
        """Everything that is needed, or BuildError with what is missing and how to get it."""
        nvcc, why_no_cuda = nvcc_search.find(settings, environ)
        cxx = settings.cxx or _find_compiler()
        try:
            import pybind11
        except ImportError as error:
            raise BuildError("pybind11 is missing; pip installs it unless it is told --no-build-isolation.") from error
        include = Path(sysconfig.get_path("include"))
        if not (include / "Python.h").is_file():
            raise BuildError(f"{include} has no Python.h: install Python's headers (python3-dev on Debian and Ubuntu).")
        return cls(
            cxx=cxx,
            cxx_version=_first_line([*cxx, "--version"]),
            nvcc=nvcc,
            why_no_cuda=why_no_cuda,
            python_include=include,
            pybind11_include=Path(pybind11.get_include()),
            pybind11_version=pybind11.__version__,
            ninja=_find_ninja(),
            jobs=settings.max_jobs or jobs_for(len(os.sched_getaffinity(0)), free_memory()),
            cpu_has_avx2=_cpu_has({"avx2", "fma", "f16c"}),
        )


def jobs_for(cores: int, free_bytes: int) -> int:
    """How many compile jobs fit this machine: one a core, and no more than free memory has room for."""
    return max(1, min(cores, free_bytes // BYTES_PER_JOB))


def free_memory() -> int:
    """Bytes that can be used without swapping, within the container's limit where there is one."""
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and limit.read_text().strip() != "max":
        available = min(available, int(limit.read_text()) - int(used.read_text()))
    return available


def _cpu_has(features: set[str]) -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return False
    lines = (line for line in cpuinfo.read_text().splitlines() if line.startswith("flags"))
    return features <= set(next(lines, "").split())


def _find_compiler() -> tuple[str, ...]:
    for name in ("g++", "clang++", "c++"):
        if shutil.which(name):
            return (name,)
    raise BuildError("no C++ compiler: neither g++, clang++ nor c++ is on PATH. Install one, or name it in CXX.")


def _find_ninja() -> Path:
    try:
        import ninja

        candidate = Path(ninja.BIN_DIR, "ninja")
        if candidate.is_file():
            return candidate
    except ImportError:
        pass
    found = shutil.which("ninja")
    if found is None:
        raise BuildError("ninja is missing; pip installs it unless it is told --no-build-isolation.")
    return Path(found)


def _first_line(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise BuildError(f"the C++ compiler does not run: {' '.join(command)}: {error}") from error
