"""Kernel families beside the direct and the general tensor-core ones: a case names its family, everything else is that of
tests/core/mma_support.py."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import torch

from tests.core.mma_support import Case


@dataclasses.dataclass(frozen=True)
class FamilyCase(Case):
    """A convolution pass by one family, "stem" for stem_fprop. Prints the line that repeats it."""

    family: str = ""

    @property
    def kernel(self) -> str:
        return f"{self.family}_{self.conv_pass}"


def assert_same_with_a_residual_of_zeros(plain: FamilyCase, configs: Iterable[str]) -> None:
    """Outputs without a residual take a shorter way to memory; with infinities and NaN in x, too."""
    general = dataclasses.replace(plain, residual=True)
    tensors = general.tensors(kind="normal")
    tensors["residual"].zero_()
    without = {name: tensor for name, tensor in tensors.items() if name != "residual"}
    for holds_infinities in (False, True):
        if holds_infinities:
            tensors["x"][0, 0, 3, 2], tensors["x"][0, -1, 4, 5] = math.inf, math.nan
        for config in configs:
            (expected,), (result,) = general.run(config, tensors).values(), plain.run(config, without).values()
            assert torch.equal(result.isnan(), expected.isnan()), config
            assert torch.equal(result.nan_to_num(nan=0.0), expected.nan_to_num(nan=0.0)), config
            assert bool(result.isfinite().all()) != holds_infinities
