"""Compiler flags, by module and by kind of source. What the emulator needs of its compiler is explained in docs/emulator.md."""

from __future__ import annotations

import re
from collections.abc import Iterable

from build_support.settings import Settings
from build_support.toolchain import Toolchain

_WARNINGS = ("-Wall", "-Wextra")
_HIDDEN = ("-fvisibility=hidden", "-fvisibility-inlines-hidden")

#: cudart is static and keeps its symbols to itself, so that it meets no other CUDA runtime in the process.
CUDA_LINK = ("-lcudart_static", "-Wl,--exclude-libs,ALL", "-pthread", "-ldl", "-lrt")


def host(module: str, links: str) -> tuple[str, ...]:
    """For every C++ source of a module."""
    return (
        "-std=c++17",
        "-O2",
        "-fPIC",
        *_HIDDEN,
        *_WARNINGS,
        "-Icsrc",
        f"-isystem{links}/python",
        f"-isystem{links}/pybind11",
        f"-DFASTCONV_MODULE_NAME={module}",
    )


def emulator(toolchain: Toolchain, checked: bool) -> tuple[str, ...]:
    """For every source of an emulated module, beside `host`."""
    chosen = ["-DFASTCONV_EMULATOR=1", "-pthread", "-g1", "-ffp-contract=off", "-fno-strict-aliasing"]
    # Reports follow the frames of a kernel to its source lines.
    chosen.append("-fno-omit-frame-pointer")
    chosen.append("-Wno-unknown-pragmas")
    if checked:
        chosen.append("-DFASTCONV_EMULATOR_CHECKED=1")
    if not toolchain.is_clang:
        # Else the dynamic linker merges the static shared memory of the two emulated modules.
        chosen.append("-fno-gnu-unique")
    if toolchain.cpu_has_avx2:
        chosen.append("-march=x86-64-v3")
    return tuple(chosen)


def emulated_kernels(toolchain: Toolchain, checked: bool) -> tuple[str, ...]:
    """For CUDA sources that a C++ compiler turns into an emulated module, beside `emulator`."""
    # Every call leaves its return address, and a frame too large for its stack meets the guard page.
    common = ("-fno-optimize-sibling-calls", "-fstack-clash-protection", "-x", "c++")
    if not checked:
        return common
    # The compiler reports every load and store to entry points that the emulator provides in place of the sanitizer's library,
    # and nothing may merge or split accesses: they are counted as the kernel's author wrote them.
    chosen = ["-O1", "-fsanitize=thread"]
    if toolchain.is_clang:
        chosen += ["-fno-vectorize", "-fno-slp-vectorize"]
    else:
        chosen += ["-fno-tree-vectorize", "-fno-tree-slp-vectorize"]
        chosen += ["-fno-tree-loop-distribute-patterns", "-fno-store-merging"]
    return (*chosen, *common)


def nvcc(module: str, settings: Settings) -> tuple[str, ...]:
    """For CUDA sources that nvcc compiles."""
    return (
        "-std=c++17",
        "-O3",
        "-lineinfo",
        "-Icsrc",
        f"-DFASTCONV_MODULE_NAME={module}",
        *(f"-Xcompiler={flag}" for flag in ("-fPIC", *_HIDDEN, *_WARNINGS)),
        *(("-ccbin", settings.cxx[-1]) if settings.cxx else ()),
        *code(settings.architectures),
    )


def cuda_defines(settings: Settings) -> tuple[str, ...]:
    return (f'-DFASTCONV_CUDA_ARCHS="{" ".join(settings.architectures)}"',)


def code(architectures: Iterable[str]) -> tuple[str, ...]:
    """nvcc's -gencode for code names: sm_90a is machine code, compute_80 is PTX.

    >>> code(["sm_80", "compute_80", "sm_90a"])
    ('-gencode=arch=compute_80,code=[sm_80,compute_80,sm_90a]',)
    >>> code(["sm_80", "sm_90a", "compute_90"])
    ('-gencode=arch=compute_80,code=[sm_80,sm_90a]', '-gencode=arch=compute_90,code=[compute_90]')

    All machine code comes from PTX of the lowest architecture: nvcc spends more than half of its time on making PTX, and what
    the assembler makes of compute_80's for sm_90a is, instruction by instruction, what it makes of compute_90a's, because no
    source asks for which architecture it is compiled. PTX that is to be kept for later GPUs is its own pass, unless it is that
    one; so is machine code for a family of GPUs (sm_100f), which nvcc makes from PTX for that family alone.
    """
    names = list(dict.fromkeys(architectures))
    lowest = f"compute_{min(int(re.sub('[^0-9]', '', name)) for name in names)}"
    shared = [name for name in names if name == lowest or (name.startswith("sm_") and not name.endswith("f"))]
    passes = {lowest: shared} if shared else {}
    passes |= {name.replace("sm_", "compute_"): [name] for name in names if name not in shared}
    return tuple(f"-gencode=arch={virtual},code=[{','.join(codes)}]" for virtual, codes in passes.items())
