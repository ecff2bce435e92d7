"""What was built, what not and why: printed at the end of the build, kept in the package, repeated by `fastconv info`."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable
from typing import Any

from build_support.graph import ALL_MODULES, CUDA_MODULE, EMULATED_MODULES, Module
from build_support.settings import Settings
from build_support.toolchain import Toolchain

FILE_NAME = "_build.json"


def make(toolchain: Toolchain, settings: Settings, built: Iterable[Module]) -> dict[str, Any]:
    """A description of the build in plain values."""
    names = [module.name for module in built]
    modules = {name: {"built": name in names, "reason": ""} for name in ALL_MODULES}
    if CUDA_MODULE not in names:
        modules[CUDA_MODULE]["reason"] = toolchain.why_no_cuda
    nvcc = toolchain.nvcc
    return {
        "modules": modules,
        "python": platform.python_version(),
        "cxx": toolchain.cxx_version,
        "nvcc": f"{nvcc.version} from {nvcc.source}" if nvcc else None,
        "cuda_architectures": list(settings.architectures) if nvcc else [],
        "architectures_left_out": list(settings.too_old) if nvcc else [],
        "pybind11": toolchain.pybind11_version,
        "flags": {module.name: list(module.objects[-1].flags) for module in built},
    }


def dumps(report: dict[str, Any]) -> str:
    return json.dumps(report, indent=1) + "\n"


def block(report: dict[str, Any]) -> str:
    """The report as the few lines that end a build."""
    lines = ["fastconv was built:"]
    compilers = dict.fromkeys(EMULATED_MODULES, report["cxx"])
    compilers[CUDA_MODULE] = f"nvcc {report['nvcc']}, for {' '.join(report['cuda_architectures'])}"
    for name, state in report["modules"].items():
        result = f"built with {compilers[name]}" if state["built"] else f"NOT built: {state['reason']}"
        lines.append(f"  fastconv.{name:<18} {result}")
    if report["architectures_left_out"]:
        lines.append(f"  left out, older than the kernels support: {' '.join(report['architectures_left_out'])}")
    if not report["modules"][CUDA_MODULE]["built"]:
        lines.append("  GPU kernels in CUDA C++ need fastconv._cuda. FASTCONV_NVCC=pip gets a compiler from PyPI.")
    width = max(len(line) for line in lines)
    return "\n".join(["-" * width, *lines, "-" * width])
