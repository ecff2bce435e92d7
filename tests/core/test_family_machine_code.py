"""The compiled kernels of stems, groups and 1x1: tensor cores in a loop, nothing in local memory. Needs fastconv._cuda and a
disassembler, and no GPU."""

from __future__ import annotations

import re
from pathlib import Path

from fastconv.machine_code import Resources, disassemble, resources
from tests.core.conftest import CompiledModule

KERNELS = re.compile(r"fastconv\d*\w*?(staged_conv|staged_wgrad|pointwise_gemm)")


def instructions(disassembler: str, module: Path) -> dict[str, list[str]]:
    """Of every kernel of these families, whatever the architecture, by architecture and symbol."""
    found: dict[str, list[str]] = {}
    architecture, lines = "", None
    for line in disassemble(disassembler, module, "staged", "pointwise").splitlines():
        if line.startswith("arch = "):
            architecture = line.removeprefix("arch = ").strip()
        elif "Function :" in line:
            symbol = line.split("Function :")[1].strip()
            lines = found.setdefault(f"{architecture} {symbol}", []) if KERNELS.search(symbol) else None
        elif lines is not None and (match := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(.*?);", line)):
            lines.append(match.group(1))
    return found


def stacks(disassembler: str, module: Path) -> dict[tuple[str, str], Resources]:
    """Of the kernels that have a stack or local memory, by architecture and symbol."""
    return {
        kernel: used
        for kernel, used in resources(disassembler, module).items()
        if KERNELS.search(kernel[1]) and (used.stack or used.local)
    }


def test_kernels_multiply_on_tensor_cores_and_keep_to_registers(cuda_module: CompiledModule) -> None:
    kernels = instructions(*cuda_module)
    assert kernels, "the module has none of these kernels"
    for symbol, code in kernels.items():
        text = "\n".join(code)
        assert "HMMA" in text, f"{symbol} has no matrix product"
        assert not re.search(r"\b(LDL|STL)\b", text), f"{symbol} uses local memory"
        # Chunks move by 16 bytes: asynchronously, or through registers to be handed out by elements.
        assert re.search(r"LDGSTS\S*\.128|LDG\S*\.128", text), f"{symbol} has no 16-byte load"
    assert not stacks(*cuda_module)
