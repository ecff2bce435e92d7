"""What a dishonest measurement runs into. Each guard raises MeasurementError with the kind of cheat it found."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from fastconv.bench.precision import ObservedDtypes, Precision


class MeasurementError(Exception):
    """A timing that must not be written down. `kind` is one word for the report, the message says what was seen."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


def require_random(tensors: Sequence[torch.Tensor]) -> None:
    """Zeros and constants hide unwritten outputs and wrong indices, and they run faster than data does."""
    for position, tensor in enumerate(tensors):
        if not tensor.dtype.is_floating_point or tensor.numel() < 2:
            continue
        zeros = 1 - torch.count_nonzero(tensor).item() / tensor.numel()
        low, high = torch.aminmax(tensor)
        if zeros > 0.02 or low == high:
            raise MeasurementError("zeros", f"input {position} is {zeros:.0%} zeros, from {low:g} to {high:g}")


def require_unchanged(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> None:
    for position, (old, new) in enumerate(zip(before, after, strict=True)):
        if not torch.equal(old, new):
            raise MeasurementError("mutated", f"the call changed its input {position}")


@contextlib.contextmanager
def no_writes(tensors: Sequence[torch.Tensor]) -> Iterator[None]:
    """An input that was changed and put back is the same bits again; its version counter has moved on."""
    before = [tensor._version for tensor in tensors]
    yield
    for position, (old, tensor) in enumerate(zip(before, tensors, strict=True)):
        if tensor._version != old:
            raise MeasurementError("mutated", f"the call wrote to its input {position}, though it put it back")


def require_own_memory(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> None:
    """Outputs of a call whose results are still held must not be handed out again by the next call."""
    held = {tensor.untyped_storage().data_ptr() for tensor in first if tensor.numel()}
    for position, tensor in enumerate(second):
        if tensor.numel() and tensor.untyped_storage().data_ptr() in held:
            raise MeasurementError("left over", f"output {position} is the memory that the last call returned")


def storages(outputs: Sequence[torch.Tensor]) -> list[StorageWeakRef]:
    """The outputs' memory, without a hold on it."""
    return [StorageWeakRef(tensor.untyped_storage()) for tensor in outputs]


def require_let_go(memory: Sequence[StorageWeakRef]) -> None:
    """Outputs that nobody needs any more are freed: memory that a call keeps is memory that a later call hands out again."""
    if not all(one.expired() for one in memory):
        gc.collect()  # what was in a cycle
    for position, one in enumerate(memory):
        if not one.expired():
            raise MeasurementError("left over", f"the call still holds output {position} after its caller let go of it")


@contextlib.contextmanager
def no_modes() -> Iterator[None]:
    """A mode of PyTorch's that a call leaves behind would stand between the judge and every tensor it reads."""
    before = _modes()
    yield
    if _modes() != before:
        raise MeasurementError("judge", "the call left a function or dispatch mode of PyTorch's behind")


def _modes() -> tuple[int, int]:
    return torch._C._len_torch_function_stack(), torch._C._len_torch_dispatch_stack()


def require_plain(outputs: Sequence[torch.Tensor], device: torch.device) -> None:
    """A list of ordinary tensors where the inputs are, with nothing of their own: no attribute, no pending sign.

    A subclass, of the list too, or a method put on a tensor may put work off until somebody looks, after the clock stopped.
    """
    if type(outputs) not in (list, tuple):
        raise MeasurementError("lazy", f"the outputs are a {type(outputs).__name__}, not a list or tuple")
    for position, output in enumerate(outputs):
        if type(output) is not torch.Tensor or output.layout is not torch.strided:
            found = (
                f"{type(output).__name__}, {output.layout}" if isinstance(output, torch.Tensor) else repr(output)[:80]
            )
            raise MeasurementError("lazy", f"output {position} is a {found}, not a plain tensor")
        if own := vars(output):
            raise MeasurementError("lazy", f"output {position} has attributes of its own: {', '.join(map(str, own))}")
        if output.is_neg() or output.is_conj():
            raise MeasurementError("lazy", f"output {position} is still to be negated or conjugated")
        if output.device.type != device.type:
            raise MeasurementError("lazy", f"output {position} is on {output.device}, and the inputs on {device}")


def require_work_in_the_call(complaint: str) -> None:
    """A call that is wrong only about inputs which changed after `prepare` saw them did its work in `prepare`, untimed."""
    raise MeasurementError("prepared", f"the call computes from what `prepare` saw, not from its inputs ({complaint})")


def require_different(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor], position: int) -> None:
    """The outputs of two calls between which an input changed."""
    if all(torch.equal(one, other) for one, other in zip(first, second, strict=True)):
        raise MeasurementError("cached", f"the outputs stayed the same when input {position} changed")


def poison(tensor: torch.Tensor) -> torch.Tensor:
    """NaN everywhere, or the largest integer: what nothing computes by accident."""
    if tensor.dtype.is_floating_point:
        return tensor.fill_(float("nan"))
    return tensor.fill_(torch.iinfo(tensor.dtype).max)


@contextlib.contextmanager
def poisoned_allocations() -> Iterator[None]:
    """Inside it every uninitialised tensor that Python code asks for is full of poison."""
    places = [(torch, "empty"), (torch, "empty_like"), (torch, "empty_strided")]
    places += [(torch.Tensor, "new_empty"), (torch.Tensor, "new_empty_strided")]
    originals = [(owner, name, getattr(owner, name)) for owner, name in places]

    def poisoning(original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def allocate(*args: Any, **kwargs: Any) -> torch.Tensor:
            tensor = original(*args, **kwargs)
            return poison(tensor) if tensor.device.type in ("cpu", "cuda") and tensor.dtype != torch.bool else tensor

        return allocate

    try:
        for owner, name, original in originals:
            setattr(owner, name, poisoning(original))
        yield
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


def poison_allocator(expected: Sequence[torch.Tensor], like: Sequence[torch.dtype]) -> None:
    """Fill and free blocks of the outputs' sizes: a caching allocator hands them out again to code we cannot see into."""
    blocks = [
        poison(torch.empty(tensor.shape, dtype=dtype, device=tensor.device))
        for tensor, dtype in zip(expected, like, strict=True)
    ]
    del blocks


def holds_poison(tensor: torch.Tensor) -> bool:
    return tensor.dtype.is_floating_point and bool(torch.isnan(tensor).any())


#: The host's clock, as it was before any contestant ran.
host_seconds = time.perf_counter


def require_clocks_agree(device_seconds: float, wall_seconds: float) -> None:
    """Device events beside the host's clock around the same calls, the whole device waited for at both ends.

    Events see only their stream. Work that a call leaves on another stream is in the host's time alone; events that claim more
    than the host saw are no clock at all. The batch must be long (milliseconds), so that waiting costs little beside it.
    """
    if device_seconds < 0.75 * wall_seconds - 5e-4:
        raise MeasurementError(
            "side stream",
            f"events saw {device_seconds * 1e3:.3f} ms of the {wall_seconds * 1e3:.3f} ms that the device was busy",
        )
    if device_seconds > 1.1 * wall_seconds + 1e-4:
        raise MeasurementError(
            "timer", f"events claim {device_seconds * 1e3:.3f} ms in {wall_seconds * 1e3:.3f} ms of host time"
        )


def require_no_head_start(cold_seconds: float, seconds_without_pause: float) -> None:
    """The device's time of a cold call, beside that of one before which the device was idle and so could not run ahead.

    A call's work on another stream can begin before the first event of a cold call is reached, and be done by then.
    """
    if seconds_without_pause > 1.4 * cold_seconds + 3e-5:
        raise MeasurementError(
            "side stream",
            f"the call takes {seconds_without_pause * 1e6:.1f} us where nothing may run before it, and "
            f"{cold_seconds * 1e6:.1f} us behind other work",
        )


def same_time(pairs: Sequence[tuple[float, float]]) -> bool:
    """Whether in any pair a call takes as long on inputs that stay (first) as on inputs that change (second), in seconds."""
    return any(changing <= 1.5 * staying + 2e-5 for staying, changing in pairs)


def require_same_time_on_new_contents(pairs: Sequence[tuple[float, float]]) -> None:
    if not same_time(pairs):
        staying, changing = min(pairs, key=lambda pair: pair[1] - pair[0])
        raise MeasurementError(
            "cached", f"{changing * 1e6:.1f} us a call on inputs that change, {staying * 1e6:.1f} us where they stay"
        )


def require_precision(
    call: Callable[[], Sequence[torch.Tensor]], precision: Precision, arithmetic_visible: bool = True
) -> Sequence[torch.Tensor]:
    """The call's arithmetic and its outputs are in the row's dtype: no hidden upcast makes a baseline slow or a rival fast."""
    if arithmetic_visible:
        with ObservedDtypes() as observed:
            outputs = call()
        for name, dtypes in observed.seen.items():
            if others := dtypes - {precision.dtype}:
                found = ", ".join(sorted(str(dtype) for dtype in others))
                raise MeasurementError("precision", f"{name} ran on {found}, and the row says {precision.name}")
    else:
        outputs = call()
    for position, output in enumerate(outputs):
        if output.dtype.is_floating_point and output.dtype != precision.dtype:
            raise MeasurementError(
                "precision", f"output {position} is {output.dtype}, and the row says {precision.name}"
            )
    return outputs


def require_same_switches(before: dict[str, Any], after: dict[str, Any]) -> None:
    for name, value in before.items():
        if after[name] != value:
            raise MeasurementError("precision", f"the call left {name} at {after[name]!r}; it was {value!r}")


def require_error_of_precision(error: float, precision: Precision) -> None:
    if error > precision.error_limit:
        raise MeasurementError(
            "precision", f"relative error {error:.2e} is not {precision.name}'s (at most {precision.error_limit:.0e})"
        )


def require_below_roof(seconds: float, roof_seconds: float, figure: str = "cold") -> None:
    """A figure above the roofline is an error, not a record. Five per cent are left to the noise of the ceilings."""
    if seconds < roof_seconds / 1.05:
        raise MeasurementError(
            "above the roofline",
            f"{figure}: {seconds * 1e6:.2f} us where the roofline needs {roof_seconds * 1e6:.2f} us",
        )
