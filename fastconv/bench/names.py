"""Names and numbers that people type, and the errors that say which are accepted."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UnknownNameError(ValueError):
    """A suite, layer, kernel, dtype, GPU ... that does not exist."""


def known(what: str, name: str, names: Iterable[str]) -> str:
    """The name itself where it is one of names; otherwise an error that lists them, the likeliest first."""
    names = list(names)
    if name in names:
        return name
    likely = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(likely)}?" if likely else "."
    listed = ", ".join(names) if len(names) <= 60 else ", ".join(names[:60]) + f", ... ({len(names)} in all)"
    raise UnknownNameError(f"{what}: unknown {name!r}{hint} Known: {listed}")


def seconds_to_spend(name: str, value: float | None) -> float:
    """A time budget: without one, infinity. ValueError for one in which nothing can be done; NaN is none."""
    if value is None:
        return float("inf")
    if not value > 0:
        raise ValueError(f"{name} is {value:g} seconds, but must be above 0")
    return value
