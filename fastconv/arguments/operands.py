"""Tensors: their kind, type, device, layout and rank; and autocast."""

from __future__ import annotations

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
DEVICE_TYPES = ("cpu", "cuda", "meta")

_OPTIONAL_TENSORS = ("bias", "residual")


def tensors(function: str, **named: Tensor | None) -> None:
    """The first is the input; all the others that are there must be tensors like it, and only some may be absent."""
    (first, reference), *others = named.items()
    if not isinstance(reference, Tensor):
        raise TypeError(f"{function}(): {first} must be Tensor, not {type(reference).__name__}")
    dtype, device = reference.dtype, reference.device
    for name, tensor in others:
        if tensor is None and name in _OPTIONAL_TENSORS:
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{function}(): {name} must be Tensor, not {type(tensor).__name__}")
        if tensor.dtype != dtype:
            raise RuntimeError(
                f"{function}(): {first} is of type {dtype} and {name} of type {tensor.dtype}; Input type ({dtype}) and "
                f"{name} type ({tensor.dtype}) should be the same"
            )
        if tensor.device != device:
            raise RuntimeError(
                f"{function}(): {first} is on {device} and {name} is on {tensor.device}; Expected all tensors to be on the "
                "same device"
            )
    if dtype not in DTYPES:
        raise NotImplementedError(
            f'{function}(): "{function}" not implemented for {dtype}; {first} must be of one of the types '
            f"{', '.join(map(str, DTYPES))}"
        )
    if device.type not in DEVICE_TYPES:
        raise NotImplementedError(f"{function}(): {first} is on {device}, but must be on a CPU or a CUDA device")
    if reference.layout != torch.strided:
        raise NotImplementedError(
            f"{function}(): {first} has the layout {reference.layout}, but must be dense (torch.strided)"
        )


def with_batch(function: str, name: str, tensor: Tensor) -> Tensor:
    """[N, C, H, W] of a batched or unbatched input."""
    if tensor.dim() == 4:
        return tensor
    if tensor.dim() == 3:
        return tensor.unsqueeze(0)
    raise RuntimeError(
        f"{function}(): {name} has the sizes {list(tensor.shape)}; Expected 3D (unbatched: C, H, W) or 4D (batched: N, C, H, "
        f"W) input to {function}"
    )


def autocast(input: Tensor, *others: Tensor | None) -> tuple[Tensor | None, ...]:
    """All of them, in autocast's type where autocast is on for the device of `input`. float64 is never cast."""
    device_type = input.device.type if isinstance(input, Tensor) else "cpu"
    if device_type == "meta" or not torch.is_autocast_enabled(device_type):
        return input, *others
    dtype = torch.get_autocast_dtype(device_type)
    return tuple(
        tensor.to(dtype)
        if isinstance(tensor, Tensor)
        and tensor.is_floating_point()
        and tensor.dtype != torch.float64
        and tensor.device.type == device_type
        else tensor
        for tensor in (input, *others)
    )
