"""Summaries of repeated timings, and ratios over many layers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy


@dataclasses.dataclass(frozen=True)
class Sample:
    """Repeated timings of one thing, in seconds."""

    median: float
    p10: float
    p90: float
    count: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Sample:
        if len(seconds) == 0:
            raise ValueError("seconds is empty; a sample needs at least one timing")
        p10, median, p90 = numpy.percentile(seconds, (10, 50, 90))
        return cls(float(median), float(p10), float(p90), len(seconds))


@dataclasses.dataclass(frozen=True)
class GeometricMean:
    """Geometric mean of ratios, with the interval a bootstrap over the layers gives."""

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.value:.3f}x [{self.low:.3f}, {self.high:.3f}] over {self.count}"


def geometric_mean(
    ratios: Sequence[float], *, confidence: float = 0.95, resamples: int = 4000, seed: int = 0
) -> GeometricMean:
    """Mean of log ratios, and the percentile interval of that mean when layers are drawn again with replacement.

    The interval says how much the mean depends on which layers are in the suite; noise of single timings is in p10 and p90.
    """
    if len(ratios) == 0:
        raise ValueError("ratios is empty; a geometric mean needs at least one")
    if not all(ratio > 0 and math.isfinite(ratio) for ratio in ratios):
        raise ValueError(f"ratios must be positive and finite, not {[r for r in ratios if not r > 0][:3]}")
    logarithms = numpy.log(numpy.asarray(ratios, dtype=float))
    generator = numpy.random.default_rng(seed)
    draws = generator.choice(logarithms, size=(resamples, len(logarithms))).mean(axis=1)
    tail = 100 * (1 - confidence) / 2
    low, high = numpy.percentile(draws, (tail, 100 - tail))
    return GeometricMean(
        float(numpy.exp(logarithms.mean())), float(numpy.exp(low)), float(numpy.exp(high)), len(ratios)
    )
