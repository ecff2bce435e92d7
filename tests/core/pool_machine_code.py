"""What the compiler made of the pooling kernels for known windows: registers, and instructions for an output.

Writes the checked-in table from a module or cubins that nvcc 13.0 compiled:
python -m tests.core.pool_machine_code 13.0 fastconv/_cuda.*.so

An output is a window: forward writes one element for it, backward the elements of dx under it, stride x stride of them. Its
instructions are those of the innermost loop, and its share of the copies between global and shared memory; what begins a strip
is not counted. The budget
is what the four schedulers of an H200's 132 multiprocessors issue at about 1.7 GHz while the memory moves an output's bytes at
4.3 TB/s. Where an output takes fewer, memory is expected to be what binds: a prediction.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from fastconv import machine_code
from tests.core import nvcc_table

TABLE = Path(__file__).with_name("pool_instructions.csv")
INSTRUCTIONS_A_BYTE = 132 * 4 * 32 * 1.7e9 / 4.3e12

_TYPES = {"NS_4HalfE": "float16", "NS_8BFloat16E": "bfloat16", "f": "float32"}
_ELEMENT = "(NS_4HalfE|NS_8BFloat16E|f)E"
_SYMBOL = re.compile(rf"max_pool_(planes|channels)_(forward|backward)_kernelILi([23])E(?:Lb([01])E)?{_ELEMENT}")
_WALK = re.compile(rf"max_pool_(bands_walk|walk_forward)_kernelILi([235])ELi([12])E{_ELEMENT}")


@dataclasses.dataclass(frozen=True, order=True)
class Kernel:
    family: str  # "planes", "planes, odd rows" (W is odd), "channels"; "bands, stride 1", "walk, stride 2" and the like
    pool_pass: str
    window: int
    type: str
    architecture: str

    @classmethod
    def of(cls, symbol: str, architecture: str) -> Kernel | None:
        walk, match = _WALK.search(symbol), _SYMBOL.search(symbol)
        if walk is not None:
            name, window, stride, element = walk.groups()
            family = "bands" if name == "bands_walk" else "walk"
            return cls(f"{family}, stride {stride}", "forward", int(window), _TYPES[element], architecture)
        if match is None:
            return None
        family, pool_pass, window, pairs, element = match.groups()
        return cls(
            family + (", odd rows" if pairs == "0" else ""), pool_pass, int(window), _TYPES[element], architecture
        )

    @property
    def element_bytes(self) -> int:
        return 4 if self.type == "float32" else 2

    @property
    def inputs(self) -> int:
        """Elements of x for an output."""
        return 1 if self.family.endswith("stride 1") else 4

    @property
    def bytes_an_output(self) -> int:
        """Of x, of y, and its place."""
        return (self.inputs + 1) * self.element_bytes + 1

    @property
    def budget(self) -> float:
        return INSTRUCTIONS_A_BYTE * self.bytes_an_output

    @property
    def has_channels(self) -> bool:
        """Of a thread, 16 bytes; without shared memory."""
        return self.family.startswith(("channels", "walk"))

    def outputs_a_step(self, stores: int) -> float:
        """Of the innermost loop, which has so many stores; those of bands and walks are of values or of their places."""
        if self.family.startswith("planes"):
            return 1
        if self.family.startswith("bands"):
            return stores / 2
        if self.family.startswith("walk"):
            return stores / 2 * 16 // self.element_bytes
        return 16 // self.element_bytes * (2 if self.window == 3 else 1)


@dataclasses.dataclass(frozen=True)
class Code:
    registers: int
    per_output: float


def _functions(cuobjdump: str, file: Path) -> dict[Kernel, list[tuple[int, str]]]:
    found: dict[Kernel, list[tuple[int, str]]] = {}
    for architecture, named, code in machine_code.functions(machine_code.disassemble(cuobjdump, file, "max_pool")):
        kernel = Kernel.of(named, architecture)
        if kernel is not None:
            found[kernel] = code
    return found


def instructions(cuobjdump: str, file: Path) -> dict[Kernel, list[str]]:
    return {kernel: [text for _, text in code] for kernel, code in _functions(cuobjdump, file).items()}


def resources(cuobjdump: str, file: Path) -> dict[Kernel, machine_code.Resources]:
    used = machine_code.resources(cuobjdump, file)
    named = ((Kernel.of(symbol, architecture), one) for (architecture, symbol), one in used.items())
    return {kernel: one for kernel, one in named if kernel is not None}


def _loops(code: list[tuple[int, str]]) -> Iterator[list[str]]:
    for address, text in code:
        branch = re.search(r"\bBRA\b.*?0x([0-9a-f]+)", text)
        if branch and int(branch.group(1), 16) < address:
            yield [other for place, other in code if int(branch.group(1), 16) <= place <= address]


def _innermost(code: list[tuple[int, str]], belongs: Callable[[list[str]], bool]) -> list[str]:
    return min((loop for loop in _loops(code) if belongs(loop)), key=len)


def per_output(kernel: Kernel, code: list[tuple[int, str]]) -> float:
    def has(loop: list[str], pattern: str) -> int:
        return sum(bool(re.search(pattern, text)) for text in loop)

    if kernel.has_channels:
        innermost = _innermost(code, lambda loop: has(loop, r"\bSTG") > 0)
        return len(innermost) / kernel.outputs_a_step(has(innermost, r"\bSTG"))
    stores = r"\bSTS\b|\bSTS\."
    innermost = _innermost(code, lambda loop: has(loop, stores) > 0 and not has(loop, "LDGSTS|STG"))
    step = len(innermost) / kernel.outputs_a_step(has(innermost, stores))
    # Copies of 16 bytes: so many instructions each, in the unrolled loops.
    read, write = (
        min(len(loop) / has(loop, pattern) for loop in _loops(code) if has(loop, pattern))
        for pattern in (r"LDGSTS.*128", r"STG\.E\.128")
    )
    inside = kernel.inputs * kernel.element_bytes, kernel.element_bytes + 1  # of x; of y and the offsets
    read_bytes, written_bytes = inside if kernel.pool_pass == "forward" else inside[::-1]
    return step + read * read_bytes / 16 + write * written_bytes / 16


def measure(cuobjdump: str, file: Path) -> dict[Kernel, Code]:
    used = resources(cuobjdump, file)
    return {
        kernel: Code(used[kernel].registers, round(per_output(kernel, code), 1))
        for kernel, code in _functions(cuobjdump, file).items()
    }


def read_table() -> dict[Kernel, Code]:
    return {
        Kernel(row["family"], row["pass"], int(row["window"]), row["type"], row["architecture"]): Code(
            int(row["registers"]), float(row["per_output"])
        )
        for row in nvcc_table.read_rows(TABLE)
    }


def write_table(nvcc: str, files: list[Path]) -> None:
    cuobjdump = nvcc_table.disassembler()
    found = {kernel: code for file in files for kernel, code in measure(cuobjdump, file).items()}
    names = ["family", "pass", "window", "type", "architecture", "registers", "per_output", "budget"]
    rows = (
        [*dataclasses.astuple(kernel), code.registers, code.per_output, round(kernel.budget, 1)]
        for kernel, code in sorted(found.items())
    )
    nvcc_table.write_rows(TABLE, nvcc, names, rows)


if __name__ == "__main__":
    write_table(sys.argv[1], [Path(name) for name in sys.argv[2:]])
