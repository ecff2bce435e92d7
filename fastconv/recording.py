"""Whether the running primitive is being recorded for backward. Autograd turns gradients off around it, so it cannot ask."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

_here = threading.local()


def is_recorded() -> bool:
    """True in the forward pass of something that gradients will be taken of, on this thread."""
    return getattr(_here, "recorded", False)


@contextlib.contextmanager
def recorded() -> Iterator[None]:
    before = is_recorded()
    _here.recorded = True
    try:
        yield
    finally:
        _here.recorded = before
