"""Arguments of a convolution that must fit together."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fastconv.arguments.single import IntOrPair, Pair, integer, not_negative_pair
from fastconv.validity import padding_limit


def check_weight(function: str, input: Tensor, weight: Tensor, groups: int, *, transposed: bool) -> None:
    """Ranks, channels and groups; the input has its batch dimension already."""
    if weight.dim() != 4:
        order = (
            "(in_channels, out_channels / groups, R, S)" if transposed else "(out_channels, in_channels / groups, R, S)"
        )
        raise RuntimeError(
            f"{function}(): weight has the sizes {list(weight.shape)}, but must have 4: {order}. Expected "
            f"{weight.dim()}-dimensional input for {weight.dim()}-dimensional weight"
        )
    first, second, rows, columns = weight.shape
    if first < groups:
        raise RuntimeError(
            f"{function}(): weight has the sizes {list(weight.shape)}; Given groups={groups}, expected weight to be at least "
            f"{groups} at dimension 0"
        )
    if first % groups != 0:
        raise RuntimeError(
            f"{function}(): weight has the sizes {list(weight.shape)}; Given groups={groups}, expected weight to be "
            f"divisible by {groups} at dimension 0"
        )
    channels = first if transposed else second * groups
    if input.shape[1] != channels:
        raise RuntimeError(
            f"{function}(): Given groups={groups}, weight of size {list(weight.shape)}, expected input{list(input.shape)} to "
            f"have {channels} channels, but got {input.shape[1]} channels instead"
        )
    if rows < 1 or columns < 1 or (transposed and second < 1):
        raise RuntimeError(
            f"{function}(): weight has the sizes {list(weight.shape)}; non-empty 4D weight tensor expected, each size but "
            "that of in_channels must be 1 or more"
        )


def check_bias(function: str, bias: Tensor | None, channels: int, weight: Tensor) -> None:
    if bias is not None and (bias.dim() != 1 or bias.shape[0] != channels):
        raise RuntimeError(
            f"{function}(): Given weight of size {list(weight.shape)}, expected bias to be 1-dimensional with {channels} "
            f"elements, but got bias of size {list(bias.shape)} instead"
        )


def conv_padding(
    function: str, value: str | IntOrPair, weight: Tensor, stride: Pair, dilation: Pair
) -> tuple[int, int, int, int]:
    """(top, bottom, left, right). "same" puts the odd one of an even kernel below and to the right, as PyTorch does."""
    if isinstance(value, str):
        if value == "valid":
            return 0, 0, 0, 0
        if value != "same":
            raise RuntimeError(
                f"{function}(): Invalid padding string: {value!r}, padding must be 'same', 'valid', an int or a tuple of "
                "two or four ints"
            )
        if stride != (1, 1):
            raise RuntimeError(
                f"{function}(): stride is {stride}, but must be 1 where padding is 'same'; padding='same' is not supported for "
                "strided convolutions"
            )
        vertical, horizontal = (dilation[axis] * (weight.shape[2 + axis] - 1) for axis in (0, 1))
        return vertical // 2, vertical - vertical // 2, horizontal // 2, horizontal - horizontal // 2
    if isinstance(value, (tuple, list)) and len(value) == 4:
        sides = tuple(integer(function, "padding", side, value, "ints") for side in value)
        if min(sides) < 0:
            raise RuntimeError(
                f"{function}(): padding is {value}; negative padding is not supported, it must be 0 or more"
            )
        return sides
    if isinstance(value, (tuple, list)) and len(value) not in (1, 2):
        raise RuntimeError(
            f"{function}(): padding is {value}; expected padding to be a single integer value or a list of 2 values to match "
            "the convolution dimensions (vertical, horizontal), or 4 values (top, bottom, left, right)"
        )
    vertical, horizontal = not_negative_pair(function, "padding", value)
    return vertical, vertical, horizontal, horizontal


def padding_value(function: str, mode: str, value: float, dtype: torch.dtype) -> float:
    """What padding_mode "constant" pads with; torch.nn.functional.pad has the same errors."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{function}(): padding_value is {value!r} of type {type(value).__name__}, but must be a float")
    if value != 0 and mode != "constant":
        raise RuntimeError(
            f'{function}(): padding_value is {value}; Padding mode "{mode}" doesn\'t take in value argument, it must be 0 '
            'unless padding_mode is "constant"'
        )
    largest = torch.finfo(dtype).max
    if abs(value) > largest and abs(value) != math.inf:  # of an int that no float holds isinf() is an error
        raise RuntimeError(
            f"{function}(): padding_value is {value}; value cannot be converted to type {dtype} without overflow, it must be "
            f"at most {largest}"
        )
    return float(value)


def check_padding_mode(function: str, input: Tensor, padding: tuple[int, int, int, int], mode: str) -> None:
    """That the input has what the padding is to be taken from; [N, C, H, W]."""
    for axis in (0, 1):
        size, sides = input.shape[2 + axis], padding[2 * axis : 2 * axis + 2]
        limit = padding_limit(mode, size)
        if limit is None or (sides[0] <= limit and sides[1] <= limit):
            continue
        if mode == "reflect":
            phrase = f"Padding size should be less than the corresponding input dimension, but got: padding {sides}"
        elif mode == "circular":
            phrase = f"Padding value causes wrapping around more than once: padding {sides}"
        else:
            phrase = f"Expected a non-zero size to pad with its border: padding {sides}"
        raise RuntimeError(
            f"{function}(): {phrase} at dimension {2 + axis} of input {list(input.shape)}; with padding_mode {mode!r} it "
            f"must be at most {limit}"
        )


def check_has_channels(function: str, input: Tensor) -> None:
    """A pool over a map without channels is an error for PyTorch, though such a convolution is not."""
    if input.shape[1] < 1:
        raise RuntimeError(
            f"{function}(): Expected 3D or 4D (batch mode) tensor with optional 0 dim batch size for input, but got: "
            f"{list(input.shape)}, which has no channels"
        )


def check_has_pixels(function: str, input: Tensor) -> None:
    batch, channels, height, width = input.shape
    if (height == 0 or width == 0) and batch != 0 and channels != 0:
        raise RuntimeError(
            f"{function}(): Only zero batch or zero channel inputs are supported, but got input shape: {list(input.shape)}; "
            "height and width must be 1 or more"
        )


def check_kernel_fits(
    function: str, input: Tensor, weight: Tensor, padding: tuple[int, int, int, int], dilation: Pair
) -> None:
    check_has_pixels(function, input)
    height = input.shape[2] + padding[0] + padding[1]
    width = input.shape[3] + padding[2] + padding[3]
    rows = dilation[0] * (weight.shape[2] - 1) + 1
    columns = dilation[1] * (weight.shape[3] - 1) + 1
    if height < rows or width < columns:
        raise RuntimeError(
            f"{function}(): Calculated padded input size per channel: ({height} x {width}). Kernel size: ({rows} x {columns}), "
            f"of weight {list(weight.shape)} with dilation {dilation}. Kernel size can't be greater than actual input size"
        )


def transposed_output_size(
    function: str,
    input: Tensor,
    weight: Tensor,
    stride: Pair,
    padding: Pair,
    output_padding: IntOrPair,
    dilation: Pair,
) -> Pair:
    """(H, W) of a transposed convolution of the input [N, K, P, Q]."""
    extra = not_negative_pair(function, "output_padding", output_padding)
    if any(extra[axis] >= stride[axis] and extra[axis] >= dilation[axis] for axis in (0, 1)):
        raise RuntimeError(
            f"{function}(): output_padding is {output_padding}; output padding must be smaller than either stride or dilation, "
            f"which are {stride} and {dilation}"
        )
    check_has_pixels(function, input)
    height, width = (
        (input.shape[2 + axis] - 1) * stride[axis]
        - 2 * padding[axis]
        + dilation[axis] * (weight.shape[2 + axis] - 1)
        + extra[axis]
        + 1
        for axis in (0, 1)
    )
    if height < 1 or width < 1:
        raise RuntimeError(
            f"{function}(): Given input size per channel: ({input.shape[2]} x {input.shape[3]}). Calculated output size per "
            f"channel: ({height} x {width}). Output size is too small, padding {padding} must leave 1 or more"
        )
    return height, width


def check_residual(function: str, residual: Tensor, sizes: Sequence[int]) -> None:
    if tuple(residual.shape) != tuple(sizes):
        raise RuntimeError(
            f"{function}(): residual has the sizes {list(residual.shape)}, but must have the output's, {list(sizes)}"
        )
