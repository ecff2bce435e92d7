"""A single layer that a command line describes: which of the options its op takes, and the call that they come to."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any

import torch
import typer

import fastconv
from fastconv.cli.options import parse_pair, parse_size

_CONVOLUTION = ("out_channels", "kernel", "stride", "padding", "dilation", "groups", "bias", "activation")
_CONV2D = (*_CONVOLUTION, "padding_mode", "padding_value")

#: Op -> the options that it takes.
OPS: dict[str, tuple[str, ...]] = {
    "conv2d": _CONV2D,
    "conv_transpose2d": (*_CONVOLUTION, "output_padding"),
    "max_pool2d": ("kernel", "stride", "padding", "dilation", "ceil_mode"),
    "conv2d_max_pool2d": (*_CONV2D, "pool_kernel", "pool_stride", "pool_padding"),
    "conv2d_global_max": _CONV2D,
    "adaptive_max_pool2d": ("output_size",),
    "max_unpool2d": ("kernel", "stride", "padding"),
}

#: Options that are one number or two, by the name of the function's argument.
_PAIRS = {
    "stride": "stride",
    "dilation": "dilation",
    "output_padding": "output_padding",
    "output_size": "output_size",
    "pool_kernel": "pool_kernel_size",
    "pool_stride": "pool_stride",
    "pool_padding": "pool_padding",
}


@dataclasses.dataclass
class Layer:
    """An op, the sizes of its input, and the options that were given."""

    op: str
    size: tuple[int, ...]
    options: dict[str, Any]

    def call(self, backend: str, tensor: Callable[..., torch.Tensor]) -> tuple[Callable[..., Any], list[torch.Tensor]]:
        """The function and its tensors; `tensor` makes one of given sizes. What fits together the function itself checks."""
        given = self.options
        arguments: dict[str, Any] = {"backend": backend}
        arguments |= {
            name: parse_pair(given[option], option_name(option)) for option, name in _PAIRS.items() if option in given
        }
        arguments |= {name: given[name] for name in ("activation", "padding_mode", "padding_value") if name in given}
        if "padding" in given:
            arguments["padding"] = _padding(given["padding"])
        taps, channels = parse_pair(given.get("kernel", "3"), "--kernel"), self.size[-3]
        tensors = [tensor(*self.size)]
        if self.op == "adaptive_max_pool2d":
            arguments.setdefault("output_size", 1)
        elif self.op == "max_pool2d":
            arguments |= {"kernel_size": taps, "ceil_mode": given.get("ceil_mode", False)}
        elif self.op == "max_unpool2d":
            arguments["kernel_size"] = taps
            tensors.append(_winners(tensors[0], arguments))
        else:
            if min(taps) < 1:
                raise typer.BadParameter(f"--kernel {given['kernel']}: accepted are numbers of 1 or more.")
            groups, filters = given.get("groups", 1), given.get("out_channels", channels)
            for option, count in (("--out-channels", filters), ("the input's channels", channels)):
                if count % groups:
                    raise typer.BadParameter(f"--groups {groups}: accepted are divisors of {option}, {count}.")
            ends = (channels, filters // groups) if self.op == "conv_transpose2d" else (filters, channels // groups)
            tensors.append(tensor(*ends, *taps))
            if given.get("bias", True):
                tensors.append(tensor(filters))
            arguments["groups"] = groups
        return functools.partial(getattr(fastconv, self.op), **arguments), tensors


def _winners(pooled: torch.Tensor, window: dict[str, Any]) -> torch.Tensor:
    """Indices of the sizes of `pooled` that a pool of random numbers made."""
    geometry = [window["kernel_size"], window.get("stride"), window.get("padding", 0)]
    image = fastconv.max_unpool2d(pooled.detach(), torch.zeros_like(pooled, dtype=torch.int64), *geometry)
    return torch.nn.functional.max_pool2d(torch.randn_like(image), *geometry, return_indices=True)[1]


def described(op: str, size: str | None, options: dict[str, Any]) -> Layer:
    """BadParameter where the op is none of ours, the size is none, or an option is one that the op does not take."""
    if op not in OPS:
        raise typer.BadParameter(f"{op!r} is neither one of {', '.join(OPS)} nor a package.module:factory.")
    if size is None:
        raise typer.BadParameter(f"{op} takes the size of its input as second argument: {op} 8x64x56x56.")
    sizes = parse_size(size, "size")
    if len(sizes) not in (3, 4):
        raise typer.BadParameter(f"size {size!r} has {len(sizes)} numbers. Accepted are NxCxHxW and CxHxW.")
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in OPS[op]:
            takers = ", ".join(other for other, names in OPS.items() if name in names)
            raise typer.BadParameter(f"{option_name(name)} is not for {op}. It is for {takers}.")
    return Layer(op, sizes, given)


def option_name(argument: str) -> str:
    return f"--{argument.replace('_', '-')}"


def _padding(text: str) -> str | tuple[int, ...]:
    """Numbers as a tuple; everything else, "same" and "valid" and mistakes, for the function to look at."""
    if not re.fullmatch(r"-?\d+(x-?\d+)*", text):
        return text
    return tuple(int(number) for number in text.split("x"))
