"""How many rows or columns of an image lie under a window, and so are read. The twin of csrc/common/windows.cpp."""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True, slots=True)
class Windows:
    """Windows along one dimension: number p begins at p * stride - low and has `taps` positions, `dilation` apart."""

    size: int  # of the image
    count: int
    taps: int
    stride: int
    dilation: int
    low: int  # padding before the image
    high: int = 0  # and after it
    padding_mode: str = "zeros"

    def reached(self) -> int:
        """Positions of the image that some window reads: all of them, unless a stride or a dilation passes some over."""
        direct = self._reached_directly()
        if direct == self.size or self.padding_mode not in ("reflect", "replicate", "circular"):
            return direct
        if self.padding_mode == "replicate":
            # Only two positions are repeated, however much padding there is: the outermost taps tell whether they are read.
            last = (self.count - 1) * self.stride + (self.taps - 1) * self.dilation - self.low
            beyond = [position for position in (-self.low, last) if not 0 <= position < self.size]
        else:
            beyond = [*range(-self.low, 0), *range(self.size, self.size + self.high)]
        repeated = {self._source(position) for position in beyond if self._is_under_a_window(position)}
        return direct + sum(not self._is_under_a_window(position) for position in repeated)

    def _reached_directly(self) -> int:
        # Taps whose distance is a multiple of the stride reach positions of one progression, other taps never meet them.
        period = self.stride // math.gcd(self.stride, self.dilation)
        reached = 0
        for first_tap in range(min(period, self.taps)):
            uncounted = 0
            for tap in range(first_tap, self.taps, period):
                at = tap * self.dilation - self.low
                first = at + self.stride * max(0, -(at // self.stride))
                last = at + self.stride * min(self.count - 1, (self.size - 1 - at) // self.stride)
                first = max(first, uncounted)
                if last >= first:
                    reached += (last - first) // self.stride + 1
                    uncounted = last + self.stride
        return reached

    def _is_under_a_window(self, position: int) -> bool:
        distances = (position + self.low - tap * self.dilation for tap in range(self.taps))
        return any(one % self.stride == 0 and 0 <= one // self.stride < self.count for one in distances)

    def _source(self, position: int) -> int:
        """Where a position of the padding comes from."""
        if self.padding_mode == "circular":
            return position % self.size
        if self.padding_mode == "reflect":
            return -position if position < 0 else 2 * (self.size - 1) - position
        return min(max(position, 0), self.size - 1)
