"""The backends by name. Each is imported when it is first asked for, so that importing fastconv stays light."""

from __future__ import annotations

import functools
import importlib

from fastconv.plan import Backend

#: name -> module whose attribute `backend` follows fastconv.plan.Backend
MODULES = {
    "cuda": "fastconv.backends.cuda",
    "triton": "fastconv.backends.triton",
    "aten": "fastconv.backends.aten",
    "registered": "fastconv.backends.registered",
}

NAMES = tuple(MODULES)


class BackendUnavailableError(RuntimeError):
    """A backend that was asked for by name cannot work on this machine."""


@functools.cache
def get(name: str) -> Backend:
    """The backend of that name. BackendUnavailableError where its code or a library it needs is not there."""
    try:
        return importlib.import_module(MODULES[name]).backend
    except ImportError as error:
        raise BackendUnavailableError(f"backend {name!r} cannot be loaded: {error}") from error


def unavailable(name: str, device_type: str) -> str:
    """Why that backend cannot run on tensors of that device type here; empty where it can."""
    try:
        return get(name).unavailable(device_type)
    except BackendUnavailableError as error:
        return str(error)
