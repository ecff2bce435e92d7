"""Names that people type, and the error that lists the known ones."""

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
