"""Kernel families beside the direct and the general tensor-core ones: a case names its family, everything else is that of
tests/core/mma_support.py."""

from __future__ import annotations

import dataclasses

from tests.core.mma_support import Case


@dataclasses.dataclass(frozen=True)
class FamilyCase(Case):
    """A convolution pass by one family, "stem" for stem_fprop. Prints the line that repeats it."""

    family: str = ""

    @property
    def kernel(self) -> str:
        return f"{self.family}_{self.conv_pass}"
