"""What the compiler made of the depthwise kernels: memory instructions, and the instructions of their main loops.

Writes the checked-in table from a module or cubins that nvcc 13.0 compiled:
python -m tests.core.depthwise_machine_code 13.0 fastconv/_cuda.*.so
"""

from __future__ import annotations

import bisect
import dataclasses
import re
import sys
from pathlib import Path

from fastconv import machine_code
from tests.core import nvcc_table

TABLE = Path(__file__).with_name("depthwise_instructions.csv")

_TYPES = {"NS_4HalfE": "float16", "NS_8BFloat16E": "bfloat16", "f": "float32"}
_SYMBOL = re.compile(
    r"_ZN8fastconv9depthwise\d+(planes|planes_wgrad|channels_last|channels_last_wgrad|band|band_wgrad)_kernelI"
    r"(NS_4HalfE|NS_8BFloat16E|f)(?:NS0_11PlaneFilterILi(\d+)ELi(\d+)ELi(\d+)ELb(\d)E|Li(\d+)E(?:Li(\d+)E)?)"
)
_PRODUCTS = re.compile(r"\b(FFMA|HMMA)\b")


@dataclasses.dataclass(frozen=True, order=True)
class Kernel:
    name: str
    filter: str  # "3x3 stride 1"; of channels_last "3 columns"; of band "band 6"; of band_wgrad "32x32"; "any"
    type: str
    architecture: str

    @classmethod
    def of(cls, symbol: str, architecture: str) -> Kernel | None:
        match = _SYMBOL.search(symbol)
        if match is None:
            return None
        name, element, rows, columns, stride, transposed, number, second = match.groups()
        if second is not None:  # tiles of 16 x 8 taps
            unrolled = f"{16 * int(number)}x{8 * int(second)}"
        elif number is not None:
            unrolled = f"band {number}" if name == "band" else f"{number} columns"
            unrolled = "any" if number == "0" else unrolled
        else:
            unrolled = "any" if rows == "0" else f"{rows}x{columns} stride {stride}"
            unrolled += ", transposed" if transposed == "1" else ""
        return cls(name, unrolled, _TYPES[element], architecture)


@dataclasses.dataclass(frozen=True)
class Loop:
    """The main loop: of those that have no products in a loop inside of them, the shortest with the most products."""

    instructions: int
    products: int  # multiply-adds, or matrix products

    @property
    def per_product(self) -> float:
        return self.instructions / self.products


Instructions = list[tuple[int, str]]


def kernels(cuobjdump: str, file: Path) -> dict[Kernel, Instructions]:
    """The instructions of every depthwise kernel of a module or cubin, with their addresses."""
    found: dict[Kernel, Instructions] = {}
    for architecture, named, code in machine_code.functions(machine_code.disassemble(cuobjdump, file, "depthwise")):
        kernel = Kernel.of(named, architecture)
        if kernel is not None:
            found[kernel] = code
    return found


def main_loop(instructions: Instructions) -> Loop | None:
    spans = []
    for address, text in instructions:
        branch = re.search(r"\bBRA\b.*?0x([0-9a-f]+)", text)
        if branch and int(branch.group(1), 16) <= address:
            spans.append((int(branch.group(1), 16), address))
    # Each instruction belongs to the shortest loop around it.
    owners: dict[int, tuple[int, int]] = {}
    addresses = [address for address, _ in instructions]
    for begin, end in sorted(spans, key=lambda span: span[0] - span[1]):
        for address in addresses[bisect.bisect_left(addresses, begin) : bisect.bisect_right(addresses, end)]:
            owners[address] = (begin, end)
    bodies: dict[tuple[int, int], list[str]] = {}
    for address, text in instructions:
        if address in owners:
            bodies.setdefault(owners[address], []).append(text)
    products = {span: sum(bool(_PRODUCTS.search(text)) for text in body) for span, body in bodies.items()}
    multiplying = [span for span, count in products.items() if count]
    # What is around a loop with products begins and ends its work: it may have more of them, unrolled, and is run less.
    innermost = [
        (begin, end)
        for begin, end in multiplying
        if not any(begin <= first and last <= end and (begin, end) != (first, last) for first, last in multiplying)
    ]
    # An activation's polynomial is no main loop; where it was compiled into the main loop, that one is not told apart.
    loops = [
        Loop(len(bodies[span]), products[span])
        for span in innermost
        if not any("MUFU" in text for text in bodies[span])
    ]
    return max(loops, key=lambda loop: (loop.products, -loop.instructions), default=None)


def read_table() -> dict[Kernel, Loop]:
    return {
        Kernel(row["kernel"], row["filter"], row["type"], row["architecture"]): Loop(
            int(row["instructions"]), int(row["products"])
        )
        for row in nvcc_table.read_rows(TABLE)
    }


def write_table(nvcc: str, files: list[Path]) -> None:
    cuobjdump = nvcc_table.disassembler()
    found = {kernel: main_loop(code) for file in files for kernel, code in kernels(cuobjdump, file).items()}
    names = ["kernel", "filter", "type", "architecture", "instructions", "products", "per_product"]
    rows = (
        [*dataclasses.astuple(kernel), loop.instructions, loop.products, f"{loop.per_product:.2f}"]
        for kernel, loop in sorted(found.items())
        if loop is not None
    )
    nvcc_table.write_rows(TABLE, nvcc, names, rows)


if __name__ == "__main__":
    write_table(sys.argv[1], [Path(name) for name in sys.argv[2:]])
