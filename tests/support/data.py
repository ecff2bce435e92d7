"""The numbers in the tensors of a test. Never zeros, never ones: both hide index errors."""

from __future__ import annotations

import torch

from tests.support.layouts import Draw


def drawer(kind: str, generator: torch.Generator, dtype: torch.dtype, device: str = "cpu") -> Draw:
    """`draw(shape)` for one of the kinds of data; every call goes on where the last one stopped.

    normal     standard normal
    integers   -2 to 2, half of them 0: sums of products are exact in every dtype as long as they stay small
    ties       four different values, so that every pooling window has more than one maximum
    special    as ties, with NaN and both infinities among them
    """

    def draw(shape: tuple[int, ...]) -> torch.Tensor:
        if kind == "normal":
            values = torch.randn(shape, generator=generator, dtype=torch.float64)
        elif kind == "integers":
            values = torch.randint(-2, 3, shape, generator=generator).double()
            values *= torch.randint(0, 2, shape, generator=generator)
        elif kind in ("ties", "special"):
            values = torch.randint(-2, 2, shape, generator=generator).double()
            if kind == "special":
                dice = torch.randint(0, 8, shape, generator=generator)
                values[dice == 0] = float("nan")
                values[(dice >= 1) & (dice <= 3)] = float("-inf")
                values[dice == 4] = float("inf")
        else:
            raise ValueError(f"unknown kind of data {kind!r}")
        return values.to(device, dtype)

    return draw


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(shape: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return drawer("normal", seeded(seed), dtype)(tuple(shape))
