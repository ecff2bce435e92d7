"""Memory instructions whose address space the compiler knew: global (LDG, STG), shared (LDS, STS, LDSM), from one to the other
(LDGSTS), constant (LDC). It did not know that of LD and ST, which find out for each access; LDL and STL are of local memory."""

from __future__ import annotations

import re
from collections.abc import Iterable

KNOWN = {"LDG", "STG", "LDS", "STS", "LDSM", "LDGSTS", "LDGDEPBAR", "LDC", "LDCU", "ULDC"}
_OPCODE = re.compile(r"\s*(?:@!?U?P\w+\s+)?(\w+)")
_OF_MEMORY = re.compile(r"(U?LD|ST|ATOM|RED)(?!UX)")


def unknown_accesses(code: Iterable[str]) -> list[str]:
    """Of a kernel's instructions, as cuobjdump prints them, those that access memory in another way.

    >>> unknown_accesses(["@!P0 LDG.E.128 R4, [R2.64]", "@P1 ST.E [R2.64], R4", "LDL R1, [R2]", "REDUX.SUM UR4, R2"])
    ['@P1 ST.E [R2.64], R4', 'LDL R1, [R2]']
    """
    found = []
    for text in code:
        opcode = _OPCODE.match(text)
        if opcode and _OF_MEMORY.match(opcode.group(1)) and opcode.group(1) not in KNOWN:
            found.append(text)
    return found
