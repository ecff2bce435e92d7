"""The environment variables that steer the build, each checked where it is read."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Mapping


class BuildError(Exception):
    """A build that cannot go on. The message says what was found and what would be accepted."""


#: Where CUDA runs that nobody asked about: Ampere and, through its PTX, what came later; Hopper with its own instructions.
DEFAULT_ARCHITECTURES = "8.0+PTX;9.0a"
OLDEST_ARCHITECTURE = 80


@dataclasses.dataclass(frozen=True)
class Settings:
    build_cuda: bool | None  # FASTCONV_BUILD_CUDA: True insists, False skips, None builds where there is an nvcc
    nvcc_from_pip: bool  # FASTCONV_NVCC=pip
    cuda_home: str  # CUDA_HOME or CUDA_PATH
    architectures: tuple[str, ...]  # TORCH_CUDA_ARCH_LIST as nvcc names it: ("sm_80", "compute_80", "sm_90a")
    too_old: tuple[str, ...]  # entries of TORCH_CUDA_ARCH_LIST that the kernels do not support, for the report
    max_jobs: int | None  # MAX_JOBS
    cxx: tuple[str, ...]  # CXX, empty where unset
    cxxflags: tuple[str, ...]  # CXXFLAGS
    ldflags: tuple[str, ...]  # LDFLAGS

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Settings:
        """Settings from environment variables; BuildError for a value that is not understood."""
        nvcc = environ.get("FASTCONV_NVCC", "")
        if nvcc not in ("", "pip"):
            raise BuildError(
                f"FASTCONV_NVCC={nvcc!r}: accepted is 'pip', which takes the compiler from PyPI's wheels. "
                "For an nvcc of your own, set CUDA_HOME to the folder that holds bin/nvcc."
            )
        architectures, too_old = parse_architectures(environ.get("TORCH_CUDA_ARCH_LIST", "") or DEFAULT_ARCHITECTURES)
        return cls(
            build_cuda=_switch(environ, "FASTCONV_BUILD_CUDA"),
            nvcc_from_pip=nvcc == "pip",
            cuda_home=environ.get("CUDA_HOME", "") or environ.get("CUDA_PATH", ""),
            architectures=architectures,
            too_old=too_old,
            max_jobs=_positive(environ, "MAX_JOBS"),
            cxx=tuple(shlex.split(environ.get("CXX", ""))),
            cxxflags=tuple(shlex.split(environ.get("CXXFLAGS", ""))),
            ldflags=tuple(shlex.split(environ.get("LDFLAGS", ""))),
        )


def parse_architectures(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """PyTorch's list of architectures, as nvcc's code names, and the entries that are too old for the kernels.

    >>> parse_architectures("7.5 8.0;9.0a+PTX")
    (('sm_80', 'sm_90a', 'compute_90'), ('7.5',))

    9.0 is built as 9.0a: both run on exactly the same GPUs, and only the second has Hopper's own instructions. PTX is made for
    the plain architecture, because PTX of an "a" one does not run on later GPUs.
    """
    names: list[str] = []
    too_old: list[str] = []
    for entry in re.split(r"[;,\s]+", text.strip(" ;,")):
        match = re.fullmatch(r"(\d+)\.(\d)([af]?)(\+PTX)?", entry)
        if match is None:
            raise BuildError(
                f"TORCH_CUDA_ARCH_LIST={text!r}: {entry!r} is not an architecture. Accepted are compute capabilities "
                "separated by semicolons or spaces, such as '8.0;9.0a+PTX'."
            )
        major, minor, suffix, ptx = match.groups()
        number = f"{major}{minor}"
        if int(number) < OLDEST_ARCHITECTURE:
            too_old.append(entry)
            continue
        names.append(f"sm_{number}{'a' if number == '90' else suffix}")
        if ptx:
            names.append(f"compute_{number}")
    if not names:
        raise BuildError(f"TORCH_CUDA_ARCH_LIST={text!r}: the kernels need compute capability 8.0 or later.")
    return tuple(dict.fromkeys(names)), tuple(too_old)


def _switch(environ: Mapping[str, str], name: str) -> bool | None:
    value = environ.get(name, "")
    if value not in ("", "0", "1"):
        raise BuildError(f"{name}={value!r}: accepted are '1' (build the CUDA module or fail) and '0' (do not).")
    return {"": None, "0": False, "1": True}[value]


def _positive(environ: Mapping[str, str], name: str) -> int | None:
    value = environ.get(name, "")
    if not value:
        return None
    if not value.isdigit() or int(value) == 0:
        raise BuildError(f"{name}={value!r}: accepted is a number of compile jobs, 1 or more.")
    return int(value)
