"""Settings of the whole process that one contestant could leave behind for the next: found, and put back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from fastconv.bench import genuine
from fastconv.bench.guards import MeasurementError


@contextlib.contextmanager
def settable_cudnn() -> Iterator[None]:
    """Also where PyTorch's test utilities have forbidden plain assignment to the whole process."""
    with getattr(torch.backends, "__allow_nonbracketed_mutation")():
        yield


def _set_cudnn(name: str) -> Callable[[Any], None]:
    def set_to(value: Any) -> None:
        with settable_cudnn():
            setattr(torch.backends.cudnn, name, value)

    return set_to


def _stream() -> Any:
    return torch.cuda.current_stream() if torch.cuda.is_initialized() else None


def _set_stream(stream: Any) -> None:
    if stream is not None:
        torch.cuda.set_stream(stream)


#: Name -> how it is read and set. What changes precision is among `fastconv.bench.precision.switch_state`.
_SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], None]]] = {
    "the current stream": (_stream, _set_stream),
    "cudnn.enabled": (lambda: torch.backends.cudnn.enabled, _set_cudnn("enabled")),
    "cudnn.benchmark": (lambda: torch.backends.cudnn.benchmark, _set_cudnn("benchmark")),
    "cudnn.benchmark_limit": (lambda: torch.backends.cudnn.benchmark_limit, _set_cudnn("benchmark_limit")),
    "cudnn.deterministic": (lambda: torch.backends.cudnn.deterministic, _set_cudnn("deterministic")),
    "grad mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "the default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "the number of threads": (torch.get_num_threads, torch.set_num_threads),
}


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Puts every setting and every watched function back in the end.

    MeasurementError where one has changed and nothing else went wrong.
    """
    before = {name: get() for name, (get, _) in _SETTINGS.items()}
    watched, put_back = genuine.watched(), genuine.put_back  # as they are before the contestant has run
    try:
        yield
    finally:
        replaced = put_back(watched)
        changed = [name for name, (get, _) in _SETTINGS.items() if get() != before[name]]
        for name in changed:
            _SETTINGS[name][1](before[name])
    if replaced:
        raise MeasurementError(replaced[0][0], f"the call replaced {', '.join(name for _, name in replaced)}")
    if changed:
        raise MeasurementError("surroundings", f"the call left changed for the others: {', '.join(changed)}")
