"""The compiled kernels of pools, stems, groups, 1x1 and depthwise access memory whose space is known, and none of it is local.
Needs fastconv._cuda and a disassembler, and no GPU; what is looked for is tested everywhere."""

from __future__ import annotations

import pytest

from fastconv import machine_code
from tests.core.address_spaces import unknown_accesses
from tests.core.conftest import CompiledModule

FAMILIES = {
    "pool": ("max_pool", "max_unpool"),
    "staged": ("staged_conv", "staged_wgrad"),
    "pointwise": ("pointwise_gemm",),
    "depthwise": ("depthwise",),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_access_has_a_known_space(cuda_module: CompiledModule, family: str) -> None:
    words = FAMILIES[family]
    kernels = 0
    for architecture, named, code in machine_code.functions(machine_code.disassemble(*cuda_module, *words)):
        if not any(word in named for word in words):
            continue
        kernels += 1
        found = unknown_accesses(text for _, text in code)
        assert not found, f"{architecture} {named.strip()}: {found[0]}"
    assert kernels, f"the module has no kernel of {words}"


@pytest.mark.parametrize(
    "text",
    [
        "LD.E R0, desc[UR4][R2.64]",
        "@P0 ST.E.U8 [R2.64], R5",
        "@!UP1 LD R0, [R2]",
        "STL [R1], R2",
        "LDL.64 R2, [R1+0x8]",
        "ATOM.E.ADD.STRONG.GPU PT, R2, [R2.64], R5",
    ],
)
def test_other_accesses_are_found(text: str) -> None:
    assert unknown_accesses([text, "EXIT"]) == [text]


@pytest.mark.parametrize(
    "text",
    [
        "@!P0 LDG.E.128.CONSTANT R4, desc[UR4][R2.64]",
        "STG.E.U16 [R2.64], R5",
        "LDS.U16 R1, [R0]",
        "@P3 STS.64 [R0], R2",
        "LDGSTS.E.BYPASS.LTC128B.128 [R9], [R2.64]",
        "LDGDEPBAR",
        "LDC R1, c[0x0][0x28]",
        "ULDC.64 UR4, c[0x0][0x118]",
        "LDSM.16.MT88.4 R4, [R0]",
        "REDUX.SUM UR4, R2",
        "IADD3 R2, R2, 0x1, RZ",
    ],
)
def test_known_accesses_and_other_instructions_are_not(text: str) -> None:
    assert unknown_accesses([text]) == []
