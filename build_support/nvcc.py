"""Finding nvcc: CUDA_HOME, PATH, or NVIDIA's compiler wheels from PyPI. Imports nothing but the standard library."""

from __future__ import annotations

import ctypes.util
import dataclasses
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from build_support.settings import BuildError, Settings

#: What `nvcc` from PyPI is made of: driver and assembler, code generator, internal headers, runtime, and <nv/target>.
WHEELS = (
    "nvidia-cuda-nvcc==13.0.*",
    "nvidia-nvvm==13.0.*",
    "nvidia-cuda-crt==13.0.*",
    "nvidia-cuda-runtime==13.0.*",
    "nvidia-cuda-cccl==13.0.*",
)


@dataclasses.dataclass(frozen=True)
class Nvcc:
    """A CUDA compiler and the toolkit around it."""

    executable: Path
    toolkit: Path  # holds include/ and lib/ or lib64/
    source: str  # "CUDA_HOME", "PATH" or "PyPI", for people
    version: str  # "13.0.88"


def has_driver(root: Path = Path("/")) -> bool:
    """True on a machine with an NVIDIA driver, which is one whose owner wants the CUDA module."""
    if (root / "proc/driver/nvidia/version").exists() or (root / "dev/nvidiactl").exists():
        return True
    # Windows' Linux has neither of these.
    return root == Path("/") and bool(shutil.which("nvidia-smi") or ctypes.util.find_library("cuda"))


def wants_wheels(settings: Settings, environ: Mapping[str, str]) -> bool:
    """Whether this build needs NVIDIA's wheels as build requirements."""
    if settings.build_cuda is False:
        return False
    if settings.nvcc_from_pip:
        return True
    return find_installed(settings, environ) is None and has_driver()


def find(settings: Settings, environ: Mapping[str, str]) -> tuple[Nvcc | None, str]:
    """The compiler to build `fastconv._cuda` with, or None and the reason why it is not built.

    BuildError where the module was asked for, or a driver says that it will be missed, and there is no compiler.
    """
    if settings.build_cuda is False:
        return None, "FASTCONV_BUILD_CUDA=0"
    nvcc = None if settings.nvcc_from_pip else find_installed(settings, environ)
    if nvcc is None and (settings.nvcc_from_pip or has_driver()):
        nvcc = find_in_wheels(sys.path)
        if nvcc is None:
            wish = "FASTCONV_NVCC=pip" if settings.nvcc_from_pip else "this machine has an NVIDIA driver but no nvcc"
            raise BuildError(
                f"{wish}, and NVIDIA's compiler wheels are not installed. pip installs them by itself unless it is told "
                f"--no-build-isolation; then run: pip install {' '.join(repr(wheel) for wheel in WHEELS)}\n"
                "FASTCONV_BUILD_CUDA=0 builds without the CUDA module."
            )
    if nvcc is None and settings.build_cuda:
        raise BuildError(
            "FASTCONV_BUILD_CUDA=1, and there is no nvcc in CUDA_HOME or on PATH. FASTCONV_NVCC=pip takes the compiler "
            "from PyPI."
        )
    if nvcc is None:
        return None, "no nvcc in CUDA_HOME or on PATH, and no NVIDIA driver"
    return nvcc, ""


def find_installed(settings: Settings, environ: Mapping[str, str]) -> Nvcc | None:
    """nvcc of CUDA_HOME, else of PATH; BuildError where CUDA_HOME is set to a folder without one."""
    if settings.cuda_home:
        executable = Path(settings.cuda_home, "bin", "nvcc")
        if not executable.is_file():
            raise BuildError(f"CUDA_HOME={settings.cuda_home!r}: there is no bin/nvcc in that folder.")
        return _describe(executable, "CUDA_HOME")
    found = shutil.which("nvcc", path=environ.get("PATH", ""))
    return _describe(Path(found), "PATH") if found else None


def find_in_wheels(search_path: Iterable[str]) -> Nvcc | None:
    """nvcc where NVIDIA's wheels unpack it: site-packages/nvidia/cu<major>."""
    for entry in search_path:
        for executable in sorted(Path(entry, "nvidia").glob("cu*/bin/nvcc"), reverse=True):
            return _describe(executable, "PyPI")
    return None


def _describe(executable: Path, source: str) -> Nvcc:
    try:
        text = subprocess.run([executable, "--version"], capture_output=True, text=True, check=True).stdout
        # nvcc on PATH may be a link or a script that starts the real one, so it is asked where its toolkit is.
        dry_run = subprocess.run([executable, "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BuildError(f"{executable} does not run: {error}") from error
    version = re.search(r"V(\d+\.\d+\.\d+)", text)
    top = re.search(r"^#\$ TOP=(.+)$", dry_run.stderr, re.MULTILINE)
    toolkit = Path(os.path.normpath(top.group(1))) if top else executable.resolve().parent.parent
    return Nvcc(executable, toolkit, source, version.group(1) if version else "unknown")
