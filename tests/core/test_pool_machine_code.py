"""The compiled pooling kernels for known windows: 16-byte accesses, no local memory, and the instructions that the table says.
Needs fastconv._cuda and a disassembler, and no GPU; what the table itself must fulfil is tested everywhere."""

from __future__ import annotations

from tests.core import pool_machine_code
from tests.core.conftest import CompiledModule


def test_memory_is_moved_16_bytes_at_a_time_and_never_to_a_stack(cuda_module: CompiledModule) -> None:
    resources = pool_machine_code.resources(*cuda_module)
    assert resources, "the module has no such kernel"
    assert not {kernel: usage for kernel, usage in resources.items() if usage.stack or usage.local}
    for kernel, lines in pool_machine_code.instructions(*cuda_module).items():
        text = "\n".join(lines)
        assert "STG.E.128" in text, kernel
        assert ("LDG.E.128" if kernel.has_channels else "LDGSTS.E.BYPASS.LTC128B.128") in text, kernel


def test_code_is_that_of_the_table(cuda_module: CompiledModule) -> None:
    cuda_module.skip_unless_from_the_compiler_of(pool_machine_code.TABLE)
    found = {
        kernel: code
        for kernel, code in pool_machine_code.measure(*cuda_module).items()
        if kernel.architecture in ("sm_80", "sm_90a")
    }
    assert found == pool_machine_code.read_table(), "write the table anew if this is meant: see pool_machine_code.py"


#: Windows whose instructions take longer than their memory: how many times as long.
SHORTFALLS = {
    ("bands, stride 1", 5, "float16"): 1.4,
    ("bands, stride 1", 5, "bfloat16"): 1.4,
    ("walk, stride 1", 3, "float16"): 1.0,
    ("walk, stride 1", 3, "bfloat16"): 1.1,
    ("walk, stride 1", 5, "float16"): 1.9,
    ("walk, stride 1", 5, "bfloat16"): 2.1,
    ("walk, stride 1", 5, "float32"): 1.0,
}


def test_memory_and_not_instructions_is_expected_to_bind_but_where_it_is_said() -> None:
    """An output's instructions against its share of the memory's time."""
    table = pool_machine_code.read_table()
    assert len(table) == (3 * 2 * 2 + 4 + 4) * 3 * 2
    over: dict[tuple[str, int, str], float] = {}
    for kernel, code in table.items():
        if code.per_output > kernel.budget:
            place = kernel.family, kernel.window, kernel.type
            over[place] = max(over.get(place, 0.0), round(code.per_output / kernel.budget, 1))
    assert over == SHORTFALLS
