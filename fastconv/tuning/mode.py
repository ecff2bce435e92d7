"""FASTCONV_TUNE."""

from __future__ import annotations

import enum
import os


class Mode(enum.Enum):
    use = ""
    off = "0"
    measure = "1"
    force = "force"


def mode() -> Mode:
    """What the environment says now. ValueError names the accepted values."""
    value = os.environ.get("FASTCONV_TUNE", "")
    try:
        return Mode(value)
    except ValueError:
        raise ValueError(f"the environment variable FASTCONV_TUNE must be 0, 1 or force, got {value!r}") from None
