"""What every test of the harness runs under."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest
import torch

# Of mallopt in malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


@pytest.fixture(scope="session", autouse=True)
def memory_stays_with_the_process() -> None:
    """Guards compare times, and whether glibc gives freed memory back between two calls is chance."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_TRIM_THRESHOLD, 1 << 30)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine PyTorch's threads are waited for now and then, and for longer than calls take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
