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

from build_support.settings import Settings
from build_support.toolchain import Toolchain

EMULATED_MODULES = ("_emulator", "_emulator_checked")
CUDA_MODULE = "_cuda"
ALL_MODULES = (*EMULATED_MODULES, CUDA_MODULE)

WARNINGS = ("-Wall", "-Wextra")


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
    found = [_emulated(name, settings, root, folders) for name in EMULATED_MODULES]
    if toolchain.nvcc is not None:
        found.append(_cuda(toolchain, settings, root, folders))
    return found


def _emulated(name: str, settings: Settings, root: Path, folders: Folders) -> Module:
    common = (*_host_flags(name, settings, folders), "-DFASTCONV_EMULATOR=1")
    kernels: tuple[str, ...] = ("-x", "c++")
    if name == "_emulator_checked":
        common += ("-DFASTCONV_EMULATOR_CHECKED=1",)
        # The compiler reports every load and store of the kernels to entry points that the emulator provides in place of the
        # sanitizer's library. Line tables say where they are in the source.
        kernels += ("-fsanitize=thread", "-g1")
    host = _sources(root, "bindings.cpp", "common/*.cpp", "emulator/*.cpp")
    objects = [_object("cxx", source, name, folders, common) for source in host]
    objects += [_object("cxx", source, name, folders, (*common, *kernels)) for source in _sources(root, "launch/*.cu")]
    return Module(name, folders.module(name), tuple(objects), ("-pthread", *settings.ldflags))


def _cuda(toolchain: Toolchain, settings: Settings, root: Path, folders: Folders) -> Module:
    name = CUDA_MODULE
    assert toolchain.nvcc is not None
    defines = (f'-DFASTCONV_CUDA_ARCHS="{" ".join(settings.architectures)}"',)
    includes = _toolkit_folders(toolchain.nvcc.toolkit, folders, "include")
    libraries = _toolkit_folders(toolchain.nvcc.toolkit, folders, "lib64", "lib")
    host_flags = (*_host_flags(name, settings, folders), *defines, *(f"-isystem{path}" for path in includes))
    host = _sources(root, "bindings.cpp", "common/*.cpp")
    objects = [_object("cxx", source, name, folders, host_flags) for source in host]
    device_flags = (
        "-std=c++17",
        "-O3",
        "-lineinfo",
        "-Icsrc",
        *(f"-isystem={path}" for path in includes),
        *defines,
        f"-DFASTCONV_MODULE_NAME={name}",
        *(f"-Xcompiler={flag}" for flag in ("-fPIC", "-fvisibility=hidden", "-fvisibility-inlines-hidden", *WARNINGS)),
        *(f"-ccbin={settings.cxx[-1]}" for _ in settings.cxx[:1]),
        *code_flags(settings.architectures),
    )
    objects += [_object("nvcc", source, name, folders, device_flags) for source in _sources(root, "launch/*.cu")]
    link_flags = (
        *(f"-L{path}" for path in libraries),
        "-lcudart_static",
        "-Wl,--exclude-libs,ALL",
        "-pthread",
        "-ldl",
        "-lrt",
        *settings.ldflags,
    )
    return Module(name, folders.module(name), tuple(objects), link_flags)


def code_flags(architectures: Iterable[str]) -> tuple[str, ...]:
    """nvcc's -gencode for code names: sm_90a is machine code, compute_80 is PTX. One front-end pass an architecture."""
    codes: dict[str, list[str]] = {}
    for name in architectures:
        codes.setdefault(name.rpartition("_")[2], []).append(name)
    return tuple(f"-gencode=arch=compute_{arch},code=[{','.join(names)}]" for arch, names in codes.items())


def _host_flags(name: str, settings: Settings, folders: Folders) -> tuple[str, ...]:
    return (
        "-std=c++17",
        "-O2",
        "-fPIC",
        "-fvisibility=hidden",
        "-fvisibility-inlines-hidden",
        *WARNINGS,
        "-Icsrc",
        f"-isystem{folders.links}/python",
        f"-isystem{folders.links}/pybind11",
        f"-DFASTCONV_MODULE_NAME={name}",
        *settings.cxxflags,
    )


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
