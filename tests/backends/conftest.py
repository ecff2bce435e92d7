"""Which kernel of the core runs, where a test is about what one of them needs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fastconv import dispatch
from fastconv.backends.cuda import CudaBackend


@pytest.fixture
def greedy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tensor-core kernel that wants most workspace is chosen, not the one that is predicted to be fastest."""
    candidates = CudaBackend.candidates

    def by_workspace(self, *arguments):
        def rank(candidate):
            bytes_ = candidate.details.get("workspace_bytes", 0)
            return not candidate.legal, not candidate.kernel.startswith("mma"), -bytes_

        return sorted(candidates(self, *arguments), key=rank)

    monkeypatch.setattr(CudaBackend, "candidates", by_workspace)
    dispatch.clear()
    yield
    dispatch.clear()
