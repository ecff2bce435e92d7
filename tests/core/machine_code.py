"""What the compiler made of the tensor-core kernels: registers, memory, and the instructions of the main loop.

Writes the checked-in table from a module, or from fatbins of all its sources, that nvcc 13.0 compiled:
python -m tests.core.machine_code 13.0 fastconv/_cuda.*.so
"""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

import torch

from fastconv import emulator
from fastconv import machine_code as compiled_code
from fastconv.machine_code import Resources
from tests.core import nvcc_table
from tests.core.mma_support import NAMES, Case

TABLE = Path(__file__).with_name("mma_resources.csv")
_PRECISIONS = ("native", "tf32", "split_tf32")
_SYMBOL = re.compile(
    r"_ZN8fastconv3mma\d+(gather|wgrad|pool|best)_gemmINS0_9TileShapeI(NS_4HalfE|NS_8BFloat16E|f)LNS0_9PrecisionE(\d)E"
    r"Li(\d+)ELi(\d+)ELi(\d+)ELi(\d+)ELi(\d+)ELi(\d+)EEELb(\d)E"
)


@dataclasses.dataclass(frozen=True, order=True)
class Kernel:
    family: str  # "gather": fprop and dgrad; "wgrad"; "pool", "best": a convolution that is pooled
    type: str
    precision: str
    tile: str
    narrow: bool
    architecture: str = ""

    @classmethod
    def of(cls, symbol: str, architecture: str) -> Kernel | None:
        match = _SYMBOL.search(symbol)
        if match is None:
            return None
        family, element, precision, *sizes, narrow = match.groups()
        rows, columns, depth, stages, warp_rows, warp_columns = map(int, sizes)
        warps = rows // warp_rows * (columns // warp_columns)
        names = {"NS_4HalfE": "float16", "NS_8BFloat16E": "bfloat16", "f": "float32"}
        tile = f"{rows}x{columns}x{depth}_s{stages}_w{warps}"
        return cls(family, names[element], _PRECISIONS[int(precision)], tile, narrow == "1", architecture)


@dataclasses.dataclass(frozen=True)
class Row:
    """Of the checked-in table."""

    registers: int
    shared_bytes: int  # dynamic


def resources(cuobjdump: str, module: Path) -> dict[Kernel, Resources]:
    """Of every tensor-core kernel and architecture in the module."""
    used = compiled_code.resources(cuobjdump, module)
    named = ((Kernel.of(symbol, architecture), one) for (architecture, symbol), one in used.items())
    return {kernel: one for kernel, one in named if kernel is not None}


def main_loops(cuobjdump: str, module: Path, architecture: str) -> dict[Kernel, list[str]]:
    """The instructions of the shortest loop around the matrix operations of every kernel."""
    loops: dict[Kernel, list[str]] = {}
    kernel: Kernel | None = None
    lines: list[tuple[int, str]] = []

    def finish() -> None:
        if kernel is not None:
            loops[kernel] = _main_loop(lines)

    for line in compiled_code.disassemble(cuobjdump, module, "3mma", architecture=architecture).splitlines():
        if "Function :" in line:
            finish()
            kernel, lines = Kernel.of(line, architecture), []
        match = re.match(r"\s+/\*([0-9a-f]{4,})\*/\s+(.*?);", line)
        if match:
            lines.append((int(match.group(1), 16), match.group(2)))
    finish()
    return loops


def _main_loop(lines: list[tuple[int, str]]) -> list[str]:
    products = [address for address, text in lines if "HMMA" in text]
    best: list[str] = []
    for address, text in lines:
        branch = re.search(r"\bBRA\b.*?0x([0-9a-f]+)", text)
        if branch is None or int(branch.group(1), 16) >= address:
            continue
        begin = int(branch.group(1), 16)
        if not any(begin <= product <= address for product in products):
            continue
        inside = [other for place, other in lines if begin <= place <= address and not _leaves(other, address)]
        if not best or len(inside) < len(best):
            best = inside
    return best


def shared_bytes() -> dict[tuple[str, str, str, str, bool], int]:
    """Dynamic shared memory by family, type, precision, tile and whether it is the kernel for unaligned pixels."""
    found = {}
    for dtype, allow_tf32, precision in (
        (torch.float16, False, "native"),
        (torch.bfloat16, False, "native"),
        (torch.float32, True, "tf32"),
        (torch.float32, False, "split_tf32"),
    ):
        for narrow, channels in ((False, 64), (True, 3)):
            sizes = (1, channels, 8, 8), (64, channels, 3, 3)
            fprop, wgrad = (
                Case(conv_pass, dtype, *sizes, allow_tf32=allow_tf32, capability=90) for conv_pass in ("fprop", "wgrad")
            )
            candidates = {"gather": fprop.candidates(), "wgrad": wgrad.candidates()} | _fused_candidates(fprop)
            for family, members in candidates.items():
                for candidate in members:
                    tile = candidate.config.split("_k")[0]
                    found[family, NAMES[dtype], precision, tile, narrow] = candidate.details["shared_bytes"]
    return found


def _fused_candidates(convolution: Case) -> dict[str, list[Any]]:
    """Of the convolution followed by a 2x2 pool, and by a global one."""
    compiled = emulator.module()
    conv = convolution.problem(compiled)
    batch, filters, height, width = convolution.y
    maps, pooled = (
        ((batch, filters, h, w), (filters * h * w, 1, filters * w, filters))
        for h, w in ((height, width), (height // 2, width // 2))
    )
    pool = compiled.PoolProblem(
        pool_pass="forward",
        dtype=NAMES[convolution.dtype],
        x=maps,
        y=pooled,
        offsets=pooled,
        kernel=(2, 2),
        stride=(2, 2),
    )
    return {
        "pool": compiled.candidates(compiled.ConvMaxPoolProblem(conv=conv, pool=pool)),
        "best": compiled.candidates(compiled.ConvGlobalMaxProblem(conv=conv)),
    }


def _leaves(text: str, end: int) -> bool:
    """A CALL to right behind the loop's last instruction is how some compilers write the loop's exit."""
    target = re.search(r"\bCALL\.REL\.NOINC 0x([0-9a-f]+)", text)
    return target is not None and end < int(target.group(1), 16) <= end + 0x40


def read_table() -> dict[Kernel, Row]:
    return {
        Kernel(
            row["family"], row["type"], row["precision"], row["tile"], row["narrow"] == "yes", row["architecture"]
        ): Row(int(row["registers"]), int(row["shared_bytes"]))
        for row in nvcc_table.read_rows(TABLE)
    }


def write_table(nvcc: str, files: list[Path]) -> None:
    cuobjdump = nvcc_table.disassembler()
    shared = shared_bytes()
    found = {kernel: used for file in files for kernel, used in resources(cuobjdump, file).items()}
    names = ["family", "type", "precision", "tile", "narrow", "architecture", "registers", "shared_bytes"]
    rows = []
    for kernel, used in sorted(found.items()):
        narrow = "yes" if kernel.narrow else "no"
        bytes_ = shared[kernel.family, kernel.type, kernel.precision, kernel.tile, kernel.narrow]
        row = [kernel.family, kernel.type, kernel.precision, kernel.tile, narrow, kernel.architecture]
        rows.append([*row, used.registers, bytes_])
    nvcc_table.write_rows(TABLE, nvcc, names, rows)


if __name__ == "__main__":
    write_table(sys.argv[1], [Path(argument) for argument in sys.argv[2:]])
