"""Arguments of a pool, and of what undoes one, that must fit together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastconv.arguments.single import Pair, integer
from fastconv.shapes import empty_pool_window, pool_output_size


def check_pool(
    function: str,
    sizes: Sequence[int],
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    ceil_mode: bool,
    prefix: str = "",
) -> None:
    """`sizes` are those of the input, [N, C, H, W]; `prefix` is what the function's names of these arguments begin with."""
    if padding[0] < 0 or padding[1] < 0:
        raise RuntimeError(f"{function}(): {prefix}padding is {padding}; pad must be non-negative")
    if any(2 * padding[axis] > kernel[axis] for axis in (0, 1)):
        raise RuntimeError(
            f"{function}(): {prefix}padding is {padding}; pad should be at most half of effective kernel size, and at most "
            f"half of {prefix}kernel_size {kernel} with any dilation"
        )
    if sizes[1] < 1 or sizes[2] < 1 or sizes[3] < 1:
        raise RuntimeError(
            f"{function}(): Expected 3D or 4D (batch mode) tensor with optional 0 dim batch size for input, but got: "
            f"{list(sizes)}"
        )
    outputs = tuple(
        pool_output_size(sizes[2 + axis], padding[axis], kernel[axis], stride[axis], dilation[axis], ceil_mode)
        for axis in (0, 1)
    )
    if outputs[0] < 1 or outputs[1] < 1:
        raise RuntimeError(
            f"{function}(): Given input size: {tuple(sizes[1:])}. Calculated output size: {outputs}. Output size is too "
            f"small: {prefix}kernel_size {kernel} with dilation {dilation} must fit into the padded input"
        )
    for axis in (0, 1):
        size = sizes[2 + axis]
        empty = empty_pool_window(size, padding[axis], kernel[axis], stride[axis], dilation[axis], outputs[axis])
        if empty is not None:
            # PyTorch gives it an index outside of the input, where its backward on a CPU then writes.
            raise RuntimeError(
                f"{function}(): dilation is {dilation} and {prefix}padding is {padding}; window {empty} along dimension "
                f"{2 + axis} of input {list(sizes)} has no element of it, dilation must be at most {size} there"
            )


def check_not_empty(function: str, input: Tensor) -> None:
    """The input has its batch dimension already, which alone may be empty."""
    for dim in (1, 2, 3):
        if input.shape[dim] < 1:
            raise RuntimeError(
                f"{function}(): Expected input to have non-zero size for non-batch dimensions, but input has sizes "
                f"{list(input.shape)} with dimension {dim} being empty"
            )


def adaptive_sizes(function: str, value: int | Sequence[int | None] | None, input: Tensor) -> Pair:
    """(P, Q) of an adaptive pool; None is the input's size."""
    entries = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(entries) != 2:
        raise RuntimeError(
            f"{function}(): output_size is {value!r}; output_size.size() must be 2, or a single number for both"
        )
    sizes = tuple(
        input.shape[2 + axis] if entry is None else integer(function, "output_size", entry, value)
        for axis, entry in enumerate(entries)
    )
    if min(sizes) < 0:
        raise RuntimeError(
            f"{function}(): output_size is {value}; Trying to create tensor with negative dimension, it must be 0 or more"
        )
    return sizes


def check_pool_indices(function: str, indices: Tensor, input: Tensor) -> None:
    if not isinstance(indices, Tensor):
        raise TypeError(f"{function}(): indices must be Tensor, not {type(indices).__name__}")
    if indices.dtype != torch.int64:
        raise RuntimeError(
            f"{function}(): indices are of type {indices.dtype}; elements in indices should be type int64"
        )
    if indices.shape != input.shape:
        raise RuntimeError(
            f"{function}(): Expected shape of indices to be same as that of the input tensor ({list(input.shape)}) but got "
            f"indices tensor with shape: {list(indices.shape)}"
        )
    if indices.device != input.device:
        raise RuntimeError(
            f"{function}(): input is on {input.device} and indices are on {indices.device}; Expected all tensors to be on the "
            "same device"
        )


def unpooled_size(
    function: str, input: Tensor, kernel: Pair, stride: Pair, padding: Pair, output_size: Sequence[int] | None
) -> Pair:
    """(H, W) of what was pooled to the input, which has its batch dimension already."""
    default = tuple((input.shape[2 + axis] - 1) * stride[axis] + kernel[axis] - 2 * padding[axis] for axis in (0, 1))
    sizes = default
    if output_size is not None:
        sizes = tuple(integer(function, "output_size", size, output_size) for size in output_size)
        if len(sizes) == 4:
            sizes = sizes[2:]
        if len(sizes) != 2:
            raise ValueError(
                f"{function}(): output_size should be a sequence containing 2 or 4 elements, but it has a length of "
                f"'{len(sizes)}'"
            )
        for axis in (0, 1):
            least, most = default[axis] - stride[axis], default[axis] + stride[axis]
            if not least < sizes[axis] < most:
                raise ValueError(
                    f'{function}(): invalid output_size "{tuple(output_size)}" (dim {axis} must be between {least} and {most})'
                )
    if min(sizes) < 0:
        raise ValueError(
            f"{function}(): output_size must contain non-negative spatial dimensions, but the output would be {sizes}, for "
            f"kernel_size {kernel}, stride {stride} and padding {padding}"
        )
    return sizes
