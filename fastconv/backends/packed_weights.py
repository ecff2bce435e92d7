"""Weights in the order that a kernel wants, kept while they do not change.

Most tensor-core kernels read weights that were repacked first: a launch of its own that reads and writes the weights once. In
inference the same weights come again with every call, so from the second call on the packed ones are kept, by the tensor that
they were made of. They are made anew when PyTorch's version counter of the tensor, its storage, or its place in it is another:
that is every in-place operation, load_state_dict, and every assignment to `.data` or `set_`. They go when the tensor goes, and
the longest unused go where all together would exceed MOST_BYTES. An optimizer's step drops those of its parameters, because
fused optimizers (`fused=True`) do not count versions.

Nothing is kept, and the launch packs for itself,

- in training, where weights change with every step: while gradients of the weight are being recorded, and in backward. Either
  also drops what was kept;
- of inference tensors, which have no version;
- while a CUDA graph is being captured: a replay must read the weights as they are then.

A weak reference to the tensor itself would keep torch.utils.swap_tensors from swapping it, and so `module.to()` where
torch.__future__.set_swap_module_params_on_conversion is on. So the reference is to the tensor's `__dict__`, which lives as long
and is swapped along with the memory: it is given one that can be referred to.

What cannot be seen is a write that bypasses the version counter: in-place operations on `w.data`, through numpy or DLPack, by
collectives of torch.distributed, by the replay of a CUDA graph, or by kernels of others. After those, call :func:`clear`, or
`fastconv.dispatch.clear`.
"""

from __future__ import annotations

import copy
import dataclasses
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from fastconv import recording

#: All packed weights together.
MOST_BYTES = 256 << 20


@dataclasses.dataclass
class _Packed:
    tensor: Tensor
    stream: int  # that made it
    ready: torch.cuda.Event | None  # None on the CPU


class _Attributes(dict):
    """The `__dict__` of a tensor, as it was, but with room for weak references. Copies and pickles know nothing of it."""

    __slots__ = ("__weakref__",)

    def __reduce_ex__(self, protocol: int) -> tuple:
        return OrderedDict, (), None, None, iter(self.items())  # which torch.load takes with weights_only

    def __deepcopy__(self, memo: dict) -> dict:
        return copy.deepcopy(dict(self), memo)


def _attributes_of(tensor: Tensor) -> _Attributes:
    attributes = tensor.__dict__
    if type(attributes) is not _Attributes:
        attributes = tensor.__dict__ = _Attributes(attributes)
    return attributes


class _Kept:
    """What is known of one weight tensor."""

    def __init__(self, weight: Tensor) -> None:
        self.state = _state_of(weight)
        self.seen: set[Hashable] = set()  # packings asked for once
        self.packed: dict[Hashable, _Packed] = {}

    def is_of(self, weight: Tensor) -> bool:
        version, place, storage = self.state
        return (
            (version, place) == (weight._version, weight.data_ptr())
            and not storage.expired()
            and storage.cdata == weight.untyped_storage()._cdata
        )


def _state_of(weight: Tensor) -> tuple[int, int, StorageWeakRef]:
    # The weak reference keeps the storage's name from being given to another; not its memory.
    return weight._version, weight.data_ptr(), StorageWeakRef(weight.untyped_storage())


#: By the id of a tensor's attributes, the longest unused first.
_kept: OrderedDict[int, tuple[weakref.ref[_Attributes], _Kept]] = OrderedDict()
_lock = threading.RLock()  # a tensor may die, and its entry go, while the lock is held


def clear() -> None:
    """Forgets all packed weights."""
    with _lock:
        _kept.clear()


def _after_step(optimizer: Optimizer, *_: object) -> None:
    """Forgets the weights that lie in the memory of the optimizer's parameters."""
    if torch.compiler.is_compiling():
        return  # a compiled step counts versions
    with _lock:
        if not _kept:
            return
        parameters = (p for group in optimizer.param_groups for p in group["params"] if p.layout is torch.strided)
        changed = {parameter.untyped_storage()._cdata for parameter in parameters}
        for name in [name for name, (_, kept) in _kept.items() if kept.state[2].cdata in changed]:
            del _kept[name]


register_optimizer_step_post_hook(_after_step)


def kept_bytes() -> int:
    """Bytes of all packed weights that are kept."""
    with _lock:
        return sum(packed.tensor.numel() for _, kept in _kept.values() for packed in kept.packed.values())


def get(weight: Tensor, packing: Hashable, size: int, pack: Callable[[Tensor], None]) -> Tensor | None:
    """The weight packed, `size` bytes on its device that the current stream may read; None where the launch is to pack it.

    `packing` says how, `pack(packed)` does it, on the current stream.
    """
    if weight.is_inference() or size > MOST_BYTES:
        return None
    if (recording.is_recorded() and weight.requires_grad) or torch._C._current_graph_task_id() != -1:
        with _lock:
            _kept.pop(id(weight.__dict__), None)
        return None
    if weight.is_cuda and torch.cuda.is_current_stream_capturing():
        return None
    with _lock:
        kept = _entry(weight)
        found = kept.packed.get(packing)
        if found is None:
            if packing not in kept.seen:
                kept.seen.add(packing)
                return None
            try:
                found = kept.packed[packing] = _make(weight, size, pack)
            except torch.OutOfMemoryError:
                return None
            _make_room()
    return _for_current_stream(found)


def _entry(weight: Tensor) -> _Kept:
    attributes = _attributes_of(weight)
    name = id(attributes)
    reference, kept = _kept.get(name, (None, None))
    if kept is None or reference() is not attributes or not kept.is_of(weight):
        kept = _Kept(weight)
        _kept[name] = weakref.ref(attributes, lambda dead: _forget(name, dead)), kept
    _kept.move_to_end(name)
    return kept


def _forget(name: int, dead: weakref.ref) -> None:
    with _lock:
        if name in _kept and _kept[name][0] is dead:
            del _kept[name]


def _make(weight: Tensor, size: int, pack: Callable[[Tensor], None]) -> _Packed:
    packed = torch.empty(size, dtype=torch.uint8, device=weight.device)
    if not weight.is_cuda:
        pack(packed)
        return _Packed(packed, 0, None)
    stream = torch.cuda.current_stream(weight.device)
    pack(packed)
    ready = torch.cuda.Event()
    ready.record(stream)
    return _Packed(packed, stream.cuda_stream, ready)


def _for_current_stream(packed: _Packed) -> Tensor:
    if packed.ready is not None:
        stream = torch.cuda.current_stream(packed.tensor.device)
        if stream.cuda_stream != packed.stream:
            stream.wait_event(packed.ready)
            packed.tensor.record_stream(stream)  # its memory must not be given away before this stream has read it
    return packed.tensor


def _make_room() -> None:
    """Drops the longest unused; the last one, which is about to be used, stays."""
    total = kept_bytes()
    for name in list(_kept)[:-1]:
        if total <= MOST_BYTES:
            return
        _, kept = _kept.pop(name)
        total -= sum(packed.tensor.numel() for packed in kept.packed.values())
