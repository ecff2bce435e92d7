"""What this installation is and what works on this machine: the facts behind `fastconv info`, as plain values.

`collect()` never raises for something that is missing: what cannot be found out says why.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

from fastconv import backends as backend_registry
from fastconv._version import __version__
from fastconv.tuning import tables
from fastconv.tuning.mode import mode
from fastconv.tuning.store import default_folder

#: Libraries whose version changes what fastconv does.
LIBRARIES = ("torch", "triton", "numpy", "pybind11", "matplotlib", "scikit-learn")

#: Environment variables that steer the build, the backends or what they stand on.
VARIABLES = (
    r"FASTCONV_\w+",
    r"TRITON_\w+",
    r"CUDA_(HOME|PATH|VISIBLE_DEVICES|LAUNCH_BLOCKING|MODULE_LOADING)",
    r"TORCH_CUDA_ARCH_LIST|TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    r"CXX|CXXFLAGS|LDFLAGS|MAX_JOBS|OMP_NUM_THREADS",
)

#: Backend and device of the tensors -> how it works there.
WAYS = {
    ("cuda", "cuda"): "the CUDA C++ kernels on the GPU",
    ("triton", "cuda"): "the Triton kernels on the GPU",
    ("aten", "cuda"): "PyTorch's own kernels: cuDNN",
    ("cuda", "cpu"): "the CUDA C++ kernels in the host emulator",
    ("triton", "cpu"): "the Triton kernels in Triton's interpreter",
    ("aten", "cpu"): "PyTorch's own kernels: oneDNN",
    ("registered", "cuda"): "your own kernels (fastconv.register_kernel)",
    ("registered", "cpu"): "your own kernels (fastconv.register_kernel)",
}

MODULES = ("_emulator", "_emulator_checked", "_cuda")


def collect() -> dict[str, Any]:
    """Everything, as values that JSON can hold."""
    return {
        "versions": versions(),
        "machine": machine(),
        "gpus": gpus(),
        "build": build(),
        "modules": modules(),
        "backends": backends(),
        "caches": caches(),
        "environment": environment(),
        "problems": problems(),
    }


def versions() -> dict[str, str]:
    found = {"fastconv": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    found["torch"] = torch.__version__  # its metadata may leave out which CUDA it was built for
    return found


def machine() -> dict[str, Any]:
    return {
        "system": platform.platform(),
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "driver": driver_version() or "no NVIDIA driver found",
        "torch_cuda": torch.version.cuda or "torch was built without CUDA",
    }


def gpus() -> list[dict[str, Any]]:
    if not torch.cuda.is_available():
        return []
    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found.append(
            {
                "name": properties.name,
                "capability": f"{properties.major}.{properties.minor}",
                "multiprocessors": properties.multi_processor_count,
                "memory_bytes": properties.total_memory,
            }
        )
    return found


def build() -> dict[str, Any] | None:
    """The report that the build left in the package; None where nothing was built."""
    path = Path(__file__).with_name("_build.json")
    return json.loads(path.read_text()) if path.exists() else None


def modules() -> dict[str, str]:
    """Each compiled module: empty where it loads, else why it does not."""
    report = build()
    found = {}
    for name in MODULES:
        state = (report or {}).get("modules", {}).get(name, {})
        if state.get("reason"):
            found[name] = f"not built: {state['reason']}"
            continue
        try:
            importlib.import_module(f"fastconv.{name}")
            found[name] = ""
        except ImportError as error:
            found[name] = f"does not load: {error}" if state.get("built") else "not built"
    return found


def driver_version() -> str:
    """Version of the NVIDIA driver, empty where there is none."""
    proc = Path("/proc/driver/nvidia/version")
    if proc.exists():
        match = re.search(r"\s(\d+\.\d+(\.\d+)?)\s", proc.read_text())
        if match:
            return match.group(1)
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return ""


def backends() -> list[dict[str, str]]:
    """For each backend and kind of tensor: how it runs there, and what keeps it from doing so, empty where nothing does."""
    return [
        {"backend": name, "device": device, "how": how, "unavailable": _unavailable(name, device)}
        for (name, device), how in WAYS.items()
    ]


def _unavailable(backend: str, device: str) -> str:
    if device == "cuda" and not torch.cuda.is_available():
        return "PyTorch finds no GPU"
    return backend_registry.unavailable(backend, device)


def caches() -> dict[str, str]:
    """What is kept between programs, and what came with the package."""
    triton = os.environ.get("TRITON_CACHE_DIR")
    if triton is None:
        triton = str(Path(os.environ.get("TRITON_HOME") or Path.home(), ".triton", "cache"))
    return {
        "measured times": _folder_state(str(default_folder())),
        "Triton's compiled kernels": _folder_state(triton),
        "measured tables in the package": ", ".join(tables.shipped_names()) or "none",
    }


def environment() -> dict[str, str]:
    pattern = re.compile("|".join(f"(?:{variable})" for variable in VARIABLES))
    return {name: os.environ[name] for name in sorted(os.environ) if pattern.fullmatch(name)}


def problems() -> list[str]:
    """What is wrong with the environment: calls will fail until it is mended."""
    try:
        mode()
    except ValueError as error:
        return [str(error)]
    return []


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _folder_state(folder: str) -> str:
    path = Path(folder)
    if not path.is_dir():
        return f"{folder} (not there yet)"
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return f"{folder} ({size / 2**20:.0f} MiB)"
