"""Builds the probes, kernels that only the tests have, into two modules: the fast emulator and the checked one."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

from build_support import flags
from build_support.nvcc import find as find_nvcc
from build_support.settings import Settings
from build_support.toolchain import Toolchain

ROOT = Path(__file__).resolve().parents[2]
PROBES = Path(__file__).resolve().parent / "probes"
ON_DEVICE = PROBES / "device.cu"
KERNELS = sorted(path for path in PROBES.glob("*.cu") if path != ON_DEVICE)
CONFORMANCE = ("pairs.cu", "tensor_core.cu", "warp_operations.cu")
RUNTIME = sorted((ROOT / "csrc" / "emulator").glob("*.cpp"))


def build(folder: Path) -> dict[str, Path]:
    """The modules' files by the name of the build, "fast" and "checked", compiled with the flags of the real modules."""
    toolchain = Toolchain.find(Settings.read(os.environ), os.environ)
    include = [f"-I{PROBES}", f"-isystem{toolchain.python_include}", f"-isystem{toolchain.pybind11_include}"]
    jobs: list[list[str]] = []
    objects: dict[str, list[str]] = {}
    bindings = f"{folder}/module.o"  # the same for both: nothing in it depends on the build
    for name, checked in (("fast", False), ("checked", True)):
        objects[name] = [bindings]
        common = ["-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden", "-I" + str(ROOT / "csrc")]
        common += [*flags.emulator(toolchain, checked), *include]
        for source in [*KERNELS, *RUNTIME]:
            target = f"{folder}/{name}_{source.name}.o"
            objects[name].append(target)
            kernel_flags = flags.emulated_kernels(toolchain, checked) if source.suffix == ".cu" else ()
            jobs.append([*toolchain.cxx, *common, *kernel_flags, "-c", str(source), "-o", target])
        if name == "fast":
            jobs.insert(0, [*toolchain.cxx, *common, "-O0", "-c", str(PROBES / "module.cpp"), "-o", bindings])
    with ThreadPoolExecutor(toolchain.jobs) as pool:
        list(pool.map(_run, jobs))
    modules = {}
    for name, parts in objects.items():
        modules[name] = folder / f"probes_{name}.so"
        _run([*toolchain.cxx, "-shared", "-o", str(modules[name]), *parts, "-pthread", "-ldl"])
    return modules


def build_for_device(folder: Path, capability: int) -> Path:
    """The probes of what hardware does, compiled by nvcc for a GPU of that compute capability (80, 90, ...)."""
    nvcc, reason = find_nvcc(Settings.read(os.environ | {"FASTCONV_BUILD_CUDA": "1"}), os.environ)
    if nvcc is None:
        raise RuntimeError(reason)
    library = folder / "probes_on_device.so"
    architecture = f"-gencode=arch=compute_{capability},code=sm_{capability}"
    sources = [ON_DEVICE, *(PROBES / name for name in CONFORMANCE)]
    options = ["-std=c++17", "-O3", f"-I{ROOT / 'csrc'}", f"-I{PROBES}", "-shared", "-Xcompiler=-fPIC", architecture]
    _run([str(nvcc.executable), *options, "-o", str(library), *map(str, sources)])
    return library


def load(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_loader(
        file.stem, importlib.machinery.ExtensionFileLoader(file.stem, str(file)), origin=str(file)
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
