"""Two 16-bit numbers by one instruction: every number against PyTorch's rounding and the PTX ISA's maximum."""

from __future__ import annotations

from typing import Any

import pytest
import torch

THREADS = 256
DTYPES = [torch.float16, torch.bfloat16]


def blocks_of(pairs: int) -> tuple[int]:
    return (-(-pairs // THREADS),)


def every_number(dtype: torch.dtype) -> torch.Tensor:
    return torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).view(dtype)


def assert_same_bits(result: torch.Tensor, expected: torch.Tensor) -> None:
    """Of NaN only that it is one: its bits are the instruction's own."""
    assert torch.equal(result.isnan(), expected.isnan())
    numbers = ~expected.isnan()
    assert torch.equal(result.view(torch.int16)[numbers], expected.view(torch.int16)[numbers])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_pairs_are_rounded_to_nearest_even(anywhere: Any, dtype: torch.dtype) -> None:
    exact = every_number(dtype).float()
    between = (exact[1:].double() + exact[:-1].double()).div(2).float()  # ties, and over the ends
    beside = torch.cat([torch.nextafter(between, torch.tensor(limit)) for limit in (-torch.inf, torch.inf)])
    large = torch.tensor([65519.996, 65520.0, 3.3895e38, 3.4028e38, torch.inf, torch.nan, -65520.0, -0.0])
    values = torch.cat([exact, between, beside, large])
    values = torch.cat([values, values[-(values.numel() % 2) :] if values.numel() % 2 else values[:0]]).view(-1, 2)
    for x in (values, values.flip(1)):
        result = torch.zeros(x.shape, dtype=dtype)
        anywhere(
            f"pairs_converted_{str(dtype).removeprefix('torch.')}",
            x.contiguous(),
            result,
            grid=blocks_of(len(x)),
            block=(THREADS,),
            n=len(x),
        )
        assert_same_bits(result, x.to(dtype))


def maximum(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """By the PTX ISA (max.NaN): NaN where either is one, and +0 is greater than -0."""
    greater = torch.where(a.float() > b.float(), a, b)
    zeros = (a == 0) & (b == 0)
    positive = torch.where(a.view(torch.int16) == 0, a, b)
    chosen = torch.where(zeros, positive, greater)
    return torch.where(a.isnan() | b.isnan(), torch.full_like(a, torch.nan), chosen)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_maxima_of_pairs_keep_nan_and_prefer_positive_zero(anywhere: Any, dtype: torch.dtype) -> None:
    a = every_number(dtype)
    smallest = torch.tensor([1], dtype=torch.int16).view(dtype).item()
    for other in (0.0, -0.0, smallest, -smallest, 1.0, -3.0, torch.inf, -torch.inf, torch.nan):
        b = torch.full_like(a, other)
        for first, second in ((a, b), (b, a)):
            result = torch.zeros_like(a)
            anywhere(
                f"pairs_maximum_{str(dtype).removeprefix('torch.')}",
                first,
                result,
                second,
                grid=blocks_of(a.numel() // 2),
                block=(THREADS,),
                n=a.numel() // 2,
                read_only=(0, 2),
            )
            assert_same_bits(result, maximum(first, second))
