"""What the compiler made of the CUDA C++ kernels: registers, stack and local memory, read from fastconv._cuda.

The module is looked at as a file, by `cuobjdump`, so no GPU is needed. Kernels are told apart by their mangled names, which are
the same in the emulator: its dry run says what a plan launches (docs/emulator.md).
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Resources:
    """What one thread of a kernel has: 32-bit registers, bytes of stack and of local memory."""

    registers: int
    stack: int = 0
    local: int = 0


class UnknownResourcesError(LookupError):
    """Nothing is known of a kernel's machine code; the message says why."""


def find_module() -> Path | None:
    """fastconv._cuda, where it was built."""
    spec = importlib.util.find_spec("fastconv._cuda")
    return Path(spec.origin) if spec is not None and spec.origin else None


def find_disassembler() -> str | None:
    """cuobjdump with its nvdisasm: the toolkit's, or the pair that Triton's wheel carries."""
    folders = [Path(os.environ[name], "bin") for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    on_path = shutil.which("cuobjdump")
    if on_path:
        folders.append(Path(on_path).parent)
    triton = importlib.util.find_spec("triton")
    if triton is not None and triton.origin:
        folders.append(Path(triton.origin).parent / "backends" / "nvidia" / "bin")
    for folder in folders:
        if (folder / "cuobjdump").is_file() and (folder / "nvdisasm").is_file():
            return str(folder / "cuobjdump")
    return None


def dump(cuobjdump: str, *arguments: str, folder: Path | None = None) -> str:
    """What cuobjdump prints, run in that folder. subprocess.CalledProcessError where it fails."""
    path = f"{Path(cuobjdump).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, "PATH": path}
    command = [cuobjdump, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=folder).stdout


def unpack(cuobjdump: str, module: Path, folder: Path) -> None:
    """Writes the machine code of a module's sources into a folder, a cubin for each architecture.

    `disassemble` and `resources` take the folder for the module; what is disassembled stays there for whoever asks next.
    """
    dump(cuobjdump, "-xelf", "all", str(module.resolve()), folder=folder)


def disassemble(cuobjdump: str, file: Path, *words: str, architecture: str = "sm_*") -> str:
    """The machine code of the sources of a module whose kernels have one of these words in their mangled names.

    Each source's begins with a line "arch = sm_80". Of a module, only these are disassembled: all of it takes minutes.
    """
    if file.suffix == ".cubin":
        return dump(cuobjdump, "-sass", str(file))
    if not file.is_dir():
        with tempfile.TemporaryDirectory() as folder:
            unpack(cuobjdump, file, Path(folder))
            return disassemble(cuobjdump, Path(folder), *words, architecture=architecture)
    chosen = [
        cubin
        for cubin in sorted(file.glob(f"*.{architecture}.cubin"))
        if any(word.encode() in cubin.read_bytes() for word in words)
    ]
    return "\n".join(f"arch = {_architecture_of(cubin)}\n{_listing(cuobjdump, cubin)}" for cubin in chosen)


def _architecture_of(cubin: Path) -> str:
    return cubin.suffixes[-2].removeprefix(".")


def _listing(cuobjdump: str, cubin: Path) -> str:
    """The cubin's instructions, kept in a file beside it, which is there whole or not at all."""
    kept = cubin.with_suffix(".sass")
    if not kept.exists():
        with tempfile.NamedTemporaryFile("w", dir=cubin.parent, delete=False) as file:
            file.write(dump(cuobjdump, "-sass", str(cubin)))
        os.replace(file.name, kept)
    return kept.read_text()


def functions(text: str) -> Iterator[tuple[str, str, list[tuple[int, str]]]]:
    """(architecture, line that names it, [(address, instruction)]) of each kernel in what `disassemble` returned."""
    architecture, of_code, named = "", "", ""
    code: list[tuple[int, str]] = []
    for line in text.splitlines():
        if match := re.match(r"(?:arch = |\s*code for )(sm_\w+)", line):
            architecture = match.group(1)
        elif "Function :" in line:
            if named:
                yield of_code, named, code
            of_code, named, code = architecture, line, []
        elif match := re.match(r"\s+/\*([0-9a-f]{4,})\*/\s+(.*?);", line):
            code.append((int(match.group(1), 16), match.group(2)))
    if named:
        yield of_code, named, code


def resources(cuobjdump: str, file: Path) -> dict[tuple[str, str], Resources]:
    """Of every kernel in a module, by architecture ("sm_80") and mangled name."""
    if not file.is_dir():
        return parse(dump(cuobjdump, "-res-usage", str(file)))
    return {
        (_architecture_of(cubin), symbol): used
        for cubin in sorted(file.glob("*.cubin"))
        for (_, symbol), used in parse(dump(cuobjdump, "-res-usage", str(cubin))).items()
    }


def parse(text: str) -> dict[tuple[str, str], Resources]:
    """What `cuobjdump -res-usage` printed, by architecture and mangled name."""
    found = {}
    architecture = symbol = ""
    for line in text.splitlines():
        if line.startswith("arch = "):
            architecture = line.removeprefix("arch = ").strip()
        elif named := re.match(r"\s*Function (\S+):", line):
            symbol = named.group(1)
        elif "REG:" in line and symbol:
            numbers = {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", line)}
            found[architecture, symbol] = Resources(numbers["REG"], numbers["STACK"], numbers["LOCAL"])
            symbol = ""
    return found


def architecture_for(capability: int, architectures: Iterable[str]) -> str | None:
    """Whose code runs on a device of that compute capability (80, 89, 90, ...); None where all are for later ones.

    It is the device's own, one with an "a" before one without, else the nearest before it. Code with an "a" runs on its own
    capability alone.
    """
    fit = []
    for name in architectures:
        number, own = re.fullmatch(r"sm_(\d+)(a?)", name).groups()
        if int(number) == capability or (int(number) < capability and not own):
            fit.append((int(number), own, name))
    return max(fit)[2] if fit else None


def of_kernel(symbol: str, capability: int) -> Resources:
    """Of the kernel of that mangled name in fastconv._cuda, in the code for a device of that compute capability.

    Raises:
        UnknownResourcesError: the module was not built or cannot be read here, or has no such kernel; the name is empty.
    """
    if not symbol:
        raise UnknownResourcesError("the emulator does not name the kernel: its module was stripped")
    known = built()
    architecture = architecture_for(capability, {name for name, _ in known})
    if architecture is None:
        raise UnknownResourcesError(f"fastconv._cuda was built without code for compute capability {capability / 10}")
    if (architecture, symbol) not in known:
        raise UnknownResourcesError(
            f"fastconv._cuda has no such kernel for {architecture}: it was built from other sources"
        )
    return known[architecture, symbol]


def built() -> Mapping[tuple[str, str], Resources]:
    """Of every kernel in fastconv._cuda; see `resources`. Raises UnknownResourcesError."""
    module = find_module()
    if module is None:
        raise UnknownResourcesError("fastconv._cuda, whose code tells, was not built")
    cuobjdump = find_disassembler()
    if cuobjdump is None:
        raise UnknownResourcesError("there is no cuobjdump, of a CUDA toolkit or of Triton, to read fastconv._cuda")
    try:
        return _read_once(cuobjdump, module, module.stat().st_mtime_ns)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UnknownResourcesError(f"cuobjdump cannot read fastconv._cuda ({error})") from error


@functools.cache
def _read_once(cuobjdump: str, module: Path, written: int) -> Mapping[tuple[str, str], Resources]:
    return resources(cuobjdump, module)
