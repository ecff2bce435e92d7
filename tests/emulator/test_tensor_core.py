"""ldmatrix, mma and cp.async of the emulator against the tables of the PTX ISA, element by element, lane by lane."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fastconv import emulator
from fastconv.emulator import KernelError
from tests.emulator.conftest import Probe

LANES = range(32)


def pack(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Two 16-bit numbers a register, the even one in the low half."""
    bits = [part.view(torch.int16).to(torch.int32) & 0xFFFF for part in (low, high)]
    return bits[0] | bits[1] << 16


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_ldmatrix_gives_each_lane_its_elements(anywhere: Any, count: int, transposed: bool) -> None:
    elements = torch.arange(count * 64, dtype=torch.int16).view(count, 8, 8)
    registers = torch.zeros(32, count, dtype=torch.int32)
    anywhere(f"ldmatrix_x{count}{'_trans' if transposed else ''}", elements, registers, block=(32,))
    for lane in LANES:
        g, t = lane // 4, lane % 4
        for j in range(count):
            pair = elements[j, 2 * t : 2 * t + 2, g] if transposed else elements[j, g, 2 * t : 2 * t + 2]
            assert registers[lane, j] == pack(pair[:1], pair[1:])[0]


def fragments(a: torch.Tensor, b: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    """Registers of the lanes, [32, registers], of A [16 m, k], B [k, 8 n] and D [16 m, 8 n]."""
    rows, columns = a.shape[0] // 16, b.shape[1] // 8
    lanes = []
    for lane in LANES:
        g, t = lane // 4, lane % 4
        registers: list[torch.Tensor] = []
        for m in range(rows):
            for j in range(4):
                row = 16 * m + g + 8 * (j % 2)
                if a.dtype == torch.float32:
                    registers.append(a[row, t + 4 * (j // 2)].view(torch.int32))
                else:
                    column = 2 * t + 8 * (j // 2)
                    registers.append(pack(a[row, column : column + 1], a[row, column + 1 : column + 2])[0])
        for n in range(columns):
            for j in range(2):
                if b.dtype == torch.float32:
                    registers.append(b[t + 4 * j, 8 * n + g].contiguous().view(torch.int32))
                else:
                    k = 2 * t + 8 * j
                    pair = b[k : k + 2, 8 * n + g].contiguous()
                    registers.append(pack(pair[:1], pair[1:])[0])
        for m in range(rows):
            for n in range(columns):
                for i in range(4):
                    registers.append(d[16 * m + g + 8 * (i // 2), 8 * n + 2 * t + i % 2].view(torch.int32))
        lanes.append(torch.stack([register.reshape(()) for register in registers]))
    return torch.stack(lanes)


@pytest.mark.parametrize(
    ("name", "dtype", "rows", "columns"),
    [
        ("mma_float16", torch.float16, 1, 1),
        ("mma_bfloat16", torch.bfloat16, 1, 1),
        ("mma_tf32", torch.float32, 1, 1),
        ("mma_float16_grid", torch.float16, 2, 3),
        ("mma_tf32_grid", torch.float32, 2, 3),
    ],
)
def test_mma_multiplies_the_matrices_that_the_fragments_are(
    anywhere: Any, name: str, dtype: torch.dtype, rows: int, columns: int
) -> None:
    generator = torch.Generator().manual_seed(1)
    depth = 8 if dtype == torch.float32 else 16

    def draw(*size: int) -> torch.Tensor:
        return torch.randint(-8, 9, size, generator=generator).to(dtype)

    a, b, d = draw(16 * rows, depth), draw(depth, 8 * columns), draw(16 * rows, 8 * columns).float()
    results = torch.full((32, rows, columns, 4), float("nan"))
    anywhere(name, fragments(a, b, d), results, block=(32,))
    product = a.float() @ b.float() + d
    for lane in LANES:
        g, t = lane // 4, lane % 4
        for m in range(rows):
            for n in range(columns):
                for i in range(4):
                    expected = product[16 * m + g + 8 * (i // 2), 8 * n + 2 * t + i % 2]
                    assert results[lane, m, n, i] == expected, f"lane {lane}, tile ({m}, {n}), element {i}"


def test_mma_counts_its_tiles(run: Probe) -> None:
    zeros = torch.zeros(32, 4 * 2 + 2 * 3 + 4 * 6, dtype=torch.int32)
    with emulator.count() as counters:
        run("mma_float16_grid", zeros, torch.zeros(32 * 24), block=(32,))
    assert counters.operations()["mma.m16n8k16"] == 6


def test_tf32_drops_the_low_bits_of_what_was_not_rounded(anywhere: Any) -> None:
    a, b, d = torch.zeros(16, 8), torch.zeros(8, 8), torch.zeros(16, 8)
    a[0, 0], b[0, 0] = 1 + 2**-11, 1.0
    results = torch.zeros(32, 4)
    anywhere("mma_tf32", fragments(a, b, d), results, block=(32,))
    assert results[0, 0] == 1.0


def test_rounding_to_tf32_is_to_nearest_ties_away(anywhere: Any) -> None:
    values = [1.0, 1 + 2**-11, -(1 + 2**-11), 1 + 2**-11 - 2**-20, 1 + 2**-10, 3.4e38, float("inf"), float("-inf"), 0.0]
    expected = [1.0, 1 + 2**-10, -(1 + 2**-10), 1.0, 1 + 2**-10, None, float("inf"), float("-inf"), 0.0]
    x = torch.zeros(32)
    x[: len(values)] = torch.tensor(values)
    x[len(values)] = float("nan")
    y = torch.zeros(32)
    anywhere("round_to_tf32", x, y, block=(32,))
    for i, value in enumerate(expected):
        assert value is None or y[i] == value
    assert y[5].isinf() or (y[5].view(torch.int32) & 0x1FFF) == 0
    assert y[len(values)].isnan()


@pytest.mark.parametrize("bytes_", [4, 8, 16])
def test_cp_async_fills_with_zeros_what_does_not_exist(anywhere: Any, bytes_: int) -> None:
    x = torch.randint(1, 255, (32 * bytes_,), dtype=torch.uint8)
    for existing in range(bytes_ + 1):
        y = torch.full_like(x, 255)
        # With nothing to copy the source may be any address.
        source = x if existing else None
        anywhere(f"cp_async_{bytes_}", source, y, block=(32,), n=existing, dynamic_bytes=32 * bytes_)
        expected = x.view(32, bytes_).clone()
        expected[:, existing:] = 0
        assert torch.equal(y.view(32, bytes_), expected)


def test_cp_async_groups_are_waited_for_in_order(anywhere: Any) -> None:
    x, y = torch.arange(768, dtype=torch.float32), torch.zeros(128)
    anywhere("cp_async_groups", x, y, dynamic_bytes=3072)
    assert torch.equal(y.view(2, 64), x.view(3, 64, 4)[:2, :, 0].roll(-33, 1))


@pytest.mark.parametrize("seed", range(5))
def test_cp_async_groups_land_in_order(run: Probe, seed: int) -> None:
    x = torch.arange(768, dtype=torch.float32)
    y = torch.zeros(128)
    with emulator.check(seed=seed):
        run("cp_async_groups", x, y, dynamic_bytes=3072)
    assert torch.equal(y.view(2, 64), x.view(3, 64, 4)[:2, :, 0].roll(-33, 1))


@pytest.mark.parametrize(
    ("name", "report"),
    [
        ("cp_async_missing_wait", r"uninitialised shared memory: reads"),
        ("cp_async_missing_barrier", r"(race|uninitialised shared memory): (reads|writes)"),
        ("cp_async_overwrites_too_early", r"(race|uninitialised shared memory): (reads|writes)"),
    ],
)
@pytest.mark.parametrize("order", ["natural", "shuffled"])
def test_a_forgotten_wait_or_barrier_is_found(run: Probe, name: str, report: str, order: str) -> None:
    with emulator.check(seed=3, order=order), pytest.raises(KernelError, match=report):
        run(name, torch.ones(768), torch.zeros(192), dynamic_bytes=3072)


def test_copies_of_a_failed_launch_do_not_land_in_the_next(run: Probe) -> None:
    x, y = torch.arange(768, dtype=torch.float32), torch.zeros(192)
    with emulator.check(seed=0), pytest.raises(KernelError, match="uninitialised"):
        run("cp_async_missing_wait", torch.ones(768), y, dynamic_bytes=3072)
    with emulator.check(seed=0):
        run("cp_async_groups", x, y, dynamic_bytes=3072)
    assert torch.equal(y.view(3, 64)[:2], x.view(3, 64, 4)[:2, :, 0].roll(-33, 1))
