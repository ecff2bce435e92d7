"""The compiled direct kernels: nothing in local memory, and no division in the loop over pixels of direct_wgrad's larger tile.
Needs fastconv._cuda and a disassembler, and no GPU."""

from __future__ import annotations

import re

from fastconv import machine_code
from tests.core.conftest import CompiledModule

#: 4 filters x 8 places of float16, bfloat16 or float32, offsets of 32 bits, padding by zeros.
_LARGER_TILE = re.compile(r"direct_wgrad_kernelI(NS_4HalfE|NS_8BFloat16E|f)iLi4ELi8ELb0E")
_PRODUCTS = 32


def _loop_over_pixels(code: list[tuple[int, str]]) -> list[str]:
    loops = []
    for address, text in code:
        branch = re.search(r"\bBRA\b.*?0x([0-9a-f]+)", text)
        if branch and int(branch.group(1), 16) < address:
            loops.append([other for place, other in code if int(branch.group(1), 16) <= place <= address])
    return min((loop for loop in loops if sum("FFMA" in text for text in loop) >= _PRODUCTS), key=len)


def test_nothing_is_in_local_memory(cuda_module: CompiledModule) -> None:
    used = machine_code.resources(*cuda_module)
    direct = {kernel: one for kernel, one in used.items() if "direct_" in kernel[1]}
    assert direct
    assert not {kernel: one for kernel, one in direct.items() if one.stack or one.local}


def test_a_place_of_the_weight_is_divided_once_and_not_at_every_pixel(cuda_module: CompiledModule) -> None:
    """Of 286 to 303 instructions; with the divisions in the loop there were 457 to 530."""
    text = machine_code.disassemble(*cuda_module, "direct_wgrad_kernel")
    loops = {
        (architecture, symbol): _loop_over_pixels(code)
        for architecture, symbol, code in machine_code.functions(text)
        if _LARGER_TILE.search(symbol)
    }
    assert loops
    for kernel, loop in loops.items():
        assert len(loop) <= 10 * _PRODUCTS, kernel
