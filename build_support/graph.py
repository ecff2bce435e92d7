"""The ninja file: which source becomes which object of which module, with which flags.

A pure function of the toolchain and of the files in csrc, so tests read it without compiling. Command lines name only stable
paths, through links in the build folder: under pip's build isolation pybind11 and a pip-provided nvcc live in a new temporary
folder each time, and a command line that changes would rebuild everything. For the same reason depfiles leave system headers
out (-MMD), and what stands for those is one stamp a compiler: a text with its version that changes only when the version does.
"""

from __future__ import annotations

import dataclasses
import shlex
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path

from build_support import flags
from build_support.nvcc import Nvcc
from build_support.settings import Settings
from build_support.toolchain import Toolchain

CHECKED_MODULE = "_emulator_checked"
EMULATED_MODULES = ("_emulator", CHECKED_MODULE)
CUDA_MODULE = "_cuda"
ALL_MODULES = (*EMULATED_MODULES, CUDA_MODULE)

# Below csrc.
HOST_SOURCES = ("bindings.cpp", "common/**/*.cpp")
EMULATOR_SOURCES = ("emulator/**/*.cpp",)
KERNEL_SOURCES = ("launch/**/*.cu",)


@dataclasses.dataclass(frozen=True)
class Object:
    """One compile: `rule` is cxx or nvcc."""

    rule: str
    source: str
    output: str
    flags: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Module:
    name: str  # "_cuda"
    output: str
    objects: tuple[Object, ...]
    link_flags: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Folders:
    """All paths are relative to the project's root, where ninja runs."""

    build: str  # "build/cpython-311-x86_64-linux-gnu"

    @classmethod
    def of_this_python(cls) -> Folders:
        return cls(f"build/{sysconfig.get_config_var('SOABI')}")

    @property
    def links(self) -> str:
        return f"{self.build}/links"

    def module(self, name: str) -> str:
        return f"{self.build}/{name}/{name}{sysconfig.get_config_var('EXT_SUFFIX')}"

    def stamp(self, rule: str) -> str:
        return f"{self.build}/{rule}.version"


def modules(toolchain: Toolchain, settings: Settings, root: Path, folders: Folders) -> list[Module]:
    """Every module that this build makes."""
    found = [_emulated(name, toolchain, settings, root, folders) for name in EMULATED_MODULES]
    if toolchain.nvcc is not None:
        found.append(_cuda(toolchain, toolchain.nvcc, settings, root, folders))
    return found


def _emulated(name: str, toolchain: Toolchain, settings: Settings, root: Path, folders: Folders) -> Module:
    checked = name == CHECKED_MODULE
    common = (*flags.host(name, folders.links), *flags.emulator(toolchain, checked))
    host_flags = (*common, *settings.cxxflags)
    kernel_flags = (*common, *flags.emulated_kernels(toolchain, checked), *settings.cxxflags)
    host = _sources(root, *HOST_SOURCES, *EMULATOR_SOURCES)
    objects = [_object("cxx", path, name, folders, host_flags) for path in host]
    objects += [_object("cxx", path, name, folders, kernel_flags) for path in _sources(root, *KERNEL_SOURCES)]
    return Module(name, folders.module(name), tuple(objects), ("-pthread", "-ldl", *settings.ldflags))


def _cuda(toolchain: Toolchain, nvcc: Nvcc, settings: Settings, root: Path, folders: Folders) -> Module:
    includes = _toolkit_folders(nvcc.toolkit, folders, "include")
    libraries = _toolkit_folders(nvcc.toolkit, folders, "lib64", "lib")
    defines = flags.cuda_defines(settings)
    host_flags = (
        *flags.host(CUDA_MODULE, folders.links),
        *(f"-isystem{path}" for path in includes),
        *defines,
        *settings.cxxflags,
    )
    device_flags = (*flags.nvcc(CUDA_MODULE, settings), *(f"-isystem={path}" for path in includes), *defines)
    objects = [_object("cxx", path, CUDA_MODULE, folders, host_flags) for path in _sources(root, *HOST_SOURCES)]
    objects += [_object("nvcc", path, CUDA_MODULE, folders, device_flags) for path in _sources(root, *KERNEL_SOURCES)]
    link_flags = (*(f"-L{path}" for path in libraries), *flags.CUDA_LINK, *settings.ldflags)
    return Module(CUDA_MODULE, folders.module(CUDA_MODULE), tuple(objects), link_flags)


def _object(rule: str, source: str, module: str, folders: Folders, flags: tuple[str, ...]) -> Object:
    inside = source.removeprefix("csrc/")
    return Object(rule, source, f"{folders.build}/{module}/{inside}.o", flags)


def _sources(root: Path, *patterns: str) -> list[str]:
    return [str(path.relative_to(root)) for pattern in patterns for path in sorted((root / "csrc").glob(pattern))]


def _toolkit_folders(toolkit: Path, folders: Folders, *names: str) -> list[str]:
    """Where toolkits keep headers or libraries: NVIDIA's installer, its wheels and conda each have their own way."""
    found: dict[Path, str] = {}
    for name in names:
        for place in (name, f"targets/x86_64-linux/{name}", f"targets/sbsa-linux/{name}"):
            if (toolkit / place).is_dir():
                found.setdefault((toolkit / place).resolve(), f"{folders.links}/cuda/{place}")
    return list(found.values())


def nvcc_command(toolchain: Toolchain, folders: Folders) -> str:
    """nvcc through the stable link where it is inside its toolkit, which all but some distributions' packages are."""
    assert toolchain.nvcc is not None
    if (toolchain.nvcc.toolkit / "bin" / "nvcc").is_file():
        return f"{folders.links}/cuda/bin/nvcc"
    return str(toolchain.nvcc.executable)


def links(toolchain: Toolchain, folders: Folders) -> Mapping[str, Path]:
    """Stable paths and what they have to point to."""
    targets = {
        f"{folders.links}/python": toolchain.python_include,
        f"{folders.links}/pybind11": toolchain.pybind11_include,
    }
    if toolchain.nvcc is not None:
        targets[f"{folders.links}/cuda"] = toolchain.nvcc.toolkit
    return targets


def stamps(toolchain: Toolchain, folders: Folders) -> Mapping[str, str]:
    """What each rule's objects depend on beside their sources."""
    host = (
        f"{toolchain.cxx_version}\npybind11 {toolchain.pybind11_version}\nPython {sysconfig.get_config_var('SOABI')}\n"
    )
    texts = {folders.stamp("cxx"): host}
    if toolchain.nvcc is not None:
        texts[folders.stamp("nvcc")] = f"nvcc {toolchain.nvcc.version}\n{host}"
    return texts


def ninja_file(toolchain: Toolchain, built: Iterable[Module], folders: Folders) -> str:
    """The text of build.ninja."""
    lines = [
        "ninja_required_version = 1.5",
        f"builddir = {_escape(folders.build)}",
        "",
        "rule cxx",
        f"  command = {_shell(toolchain.cxx)} $flags -MMD -MF $out.d -c $in -o $out",
        "  description = C++  $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "",
        "rule link",
        f"  command = {_shell(toolchain.cxx)} -shared -o $out $in $flags",
        "  description = link $out",
        "",
    ]
    if toolchain.nvcc is not None:
        lines += [
            "rule nvcc",
            f"  command = {_shell([nvcc_command(toolchain, folders)])} $flags -MMD -MF $out.d -c $in -o $out",
            "  description = nvcc $out",
            "  depfile = $out.d",
            "  deps = gcc",
            "",
        ]
    for module in built:
        for item in module.objects:
            stamp = folders.stamp(item.rule)
            lines += [
                f"build {_escape(item.output)}: {item.rule} {_escape(item.source)} | {_escape(stamp)}",
                f"  flags = {_shell(item.flags)}",
            ]
        objects = " ".join(_escape(item.output) for item in module.objects)
        lines += [
            f"build {_escape(module.output)}: link {objects}",
            f"  flags = {_shell(module.link_flags)}",
            f"build {module.name}: phony {_escape(module.output)}",
            f"default {module.name}",
            "",
        ]
    return "\n".join(lines)


def _escape(path: str) -> str:
    return path.replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def _shell(words: Iterable[str]) -> str:
    return " ".join(shlex.quote(word) for word in words).replace("$", "$$")
