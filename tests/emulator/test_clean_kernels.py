"""Correct kernels compute what they should and are never reported, whatever the order of their threads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from fastconv import emulator


def modes() -> list[Any]:
    seeds = [pytest.param(("shuffled", seed), id=f"checked, shuffled, seed {seed}") for seed in range(3)]
    return [pytest.param(None, id="fast"), pytest.param(("natural", 0), id="checked"), *seeds]


@pytest.fixture(params=modes())
def watched(request: pytest.FixtureRequest) -> Iterator[None]:
    order = request.param
    with emulator.check(seed=order[1], order=order[0]) if order else contextlib.nullcontext():
        yield


@pytest.fixture
def clean(run: Any, watched: None) -> Any:
    return run


def test_warp_synchronous_reduce(clean):
    x, y = torch.arange(256.0), torch.zeros(1)
    clean("warp_synchronous_reduce", x, y, block=(256,))
    assert y.item() == x.sum().item()


def test_double_buffered_tile(clean):
    x, y = torch.randn(1024), torch.zeros(1024)
    clean("double_buffered_tile", x, y, block=(128,), n=1024)
    assert torch.equal(y, x.view(8, 128).roll(-1, 1).flatten())


def test_block_reduce(clean):
    x, y = torch.arange(1000.0), torch.zeros(4)
    clean("block_reduce", x, y, grid=(4,), block=(256,), n=1000)
    assert torch.equal(y, torch.nn.functional.pad(x, (0, 24)).view(4, 256).sum(1) + 256)


def test_grid_stride_loop(clean):
    x, y = torch.randn(5000), torch.zeros(5000)
    clean("grid_stride_loop", x, y, grid=(3,), block=(64,), n=5000)
    assert torch.equal(y, 2 * x)


def test_atomic_histogram(clean):
    x, y = torch.randint(0, 1 << 30, (3000,), dtype=torch.int32), torch.zeros(16, dtype=torch.int32)
    clean("atomic_histogram", x, y, grid=(5,), block=(96,), n=3000)
    assert torch.equal(y, torch.bincount(x & 15, minlength=16).int())


def test_exit_without_barrier(clean):
    x, y = torch.randn(1000), torch.zeros(1000)
    clean("exit_without_barrier", x, y, grid=(4,), block=(256,), n=1000)
    assert torch.equal(y, x)


def test_producer_and_consumer(clean):
    x, y = torch.randn(640), torch.zeros(640)
    clean("producer_and_consumer", x, y, block=(128,), n=640)
    assert torch.equal(y, x.view(10, 64).flip(1).flatten())


def test_last_block_adds(clean):
    partial, ticket, total = torch.zeros(20), torch.zeros(1, dtype=torch.int32), torch.zeros(1)
    clean("last_block_adds", torch.zeros(1), partial, ticket, total, grid=(20,), block=(32,))
    assert total.item() == 210


def test_half_warps_apart(clean):
    y = torch.zeros(4, 32)
    clean("half_warps_apart", torch.zeros(1), y, block=(32,))
    assert torch.equal(y, torch.arange(4.0)[:, None].expand(4, 32))


def test_halves_of_a_word(clean):
    y = torch.zeros(256, dtype=torch.int16)
    clean("halves_of_a_word", torch.zeros(1), y, block=(256,))
    assert torch.equal(y, (torch.arange(256) ^ 1).short())


def test_constants_and_locals(clean):
    y = torch.zeros(64)
    clean("constants_and_locals", torch.zeros(1), y, n=3)
    assert torch.equal(y, torch.full((64,), 30.0))


def test_unrolled_barriers(clean):
    y = torch.zeros(64)
    clean("unrolled_barriers", torch.zeros(1), y, n=0)
    assert torch.equal(y, torch.full((64,), 4.0))


def test_large_dynamic_shared(clean):
    n = 227 * 1024 // 4
    y = torch.zeros(n)
    clean("large_dynamic_shared", torch.zeros(1), y, block=(128,), dynamic_bytes=227 * 1024, n=n)
    assert torch.equal(y, torch.arange(n).float().flip(0))
