"""Reads and checks what fastconv.functional is called with, by PyTorch's rules and with the exception types it raises.

A message names the argument, its value and what is accepted, and uses PyTorch's phrases where it has one, so that a search for
either finds the other.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastconv.dispatch import BACKENDS
from fastconv.problem import ACTIVATIONS, PADDING_MODES
from fastconv.shapes import pool_output_size
from fastconv.validity import padding_limit

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
DEVICE_TYPES = ("cpu", "cuda", "meta")

Pair = tuple[int, int]
IntOrPair = int | Sequence[int]

# --- one argument at a time -------------------------------------------------------------------------------------------


def _in_range(function: str, name: str, value: int, whole: Any) -> int:
    """The int itself where PyTorch can hold it; ValueError as PyTorch raises it."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(
            f"{function}(): {name} is {whole}; Overflow when unpacking long long, it must be between -2**63 and 2**63 - 1"
        )
    return value


def _integer(function: str, name: str, value: Any, whole: Any, accepted: str = "an int or a tuple of two ints") -> int:
    if isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool):
        return _in_range(function, name, value, whole)
    try:
        if isinstance(value, bool):
            raise TypeError
        return _in_range(function, name, operator.index(value), whole)  # numpy's integers, tensors of one integer
    except TypeError:
        raise TypeError(
            f"{function}(): {name} is {whole!r} of type {type(whole).__name__}, but must be {accepted}"
        ) from None


def pair(function: str, name: str, value: IntOrPair) -> Pair:
    """(vertical, horizontal) of an int or of one or two of them."""
    if type(value) is tuple and len(value) == 2 and type(value[0]) is int and type(value[1]) is int:
        return _in_range(function, name, value[0], value), _in_range(function, name, value[1], value)
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        number = _integer(function, name, value, value)
        return number, number
    numbers = tuple(_integer(function, name, number, value) for number in value)
    if len(numbers) == 1:
        return numbers * 2
    if len(numbers) != 2:
        raise RuntimeError(
            f"{function}(): {name} is {value!r}; expected {name} to be a single integer value or a list of 2 values to match "
            "the convolution dimensions (vertical, horizontal)"
        )
    return numbers


def positive_pair(function: str, name: str, value: IntOrPair, phrase: str = "") -> Pair:
    numbers = pair(function, name, value)
    if numbers[0] < 1 or numbers[1] < 1:
        phrase = phrase or f"non-positive {name} is not supported"
        raise RuntimeError(f"{function}(): {name} is {value}; {phrase}, it must be 1 or more")
    return numbers


def _one_of(function: str, name: str, value: Any, accepted: Sequence[str], otherwise: str = "") -> str:
    if value not in accepted:
        # A dtype or a number here is a mistake of kind, a wrong word one of value; PyTorch's own modules raise ValueError.
        error = ValueError if isinstance(value, str) else TypeError
        words = ", ".join(map(repr, accepted))
        raise error(f"{function}(): {name} is {value!r}, but must be one of {words}{otherwise}")
    return value


def padding_mode(function: str, value: str) -> str:
    return _one_of(function, "padding_mode", value, PADDING_MODES)


def activation(function: str, value: str | None) -> str:
    return "identity" if value is None else _one_of(function, "activation", value, ACTIVATIONS, " or None")


def backend(function: str, value: str | None) -> str:
    return "auto" if value is None else _one_of(function, "backend", value, BACKENDS, " or None")


def group_count(function: str, value: int) -> int:
    value = _integer(function, "groups", value, value, "an int")
    if value < 1:
        raise RuntimeError(
            f"{function}(): groups is {value}; non-positive groups is not supported, it must be 1 or more"
        )
    return value


# --- tensors ----------------------------------------------------------------------------------------------------------


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


# --- arguments that must fit together -----------------------------------------------------------------------------------


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
                "two ints"
            )
        if stride != (1, 1):
            raise RuntimeError(
                f"{function}(): stride is {stride}, but must be 1 where padding is 'same'; padding='same' is not supported for "
                "strided convolutions"
            )
        vertical, horizontal = (dilation[axis] * (weight.shape[2 + axis] - 1) for axis in (0, 1))
        return vertical // 2, vertical - vertical // 2, horizontal // 2, horizontal - horizontal // 2
    if isinstance(value, (tuple, list)) and len(value) == 4:
        sides = tuple(_integer(function, "padding", side, value, "ints") for side in value)
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


def not_negative_pair(function: str, name: str, value: IntOrPair) -> Pair:
    numbers = pair(function, name, value)
    if numbers[0] < 0 or numbers[1] < 0:
        raise RuntimeError(f"{function}(): {name} is {value}; negative {name} is not supported, it must be 0 or more")
    return numbers


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


def flag(function: str, name: str, value: bool) -> bool:
    """PyTorch takes a bool here, and not what is merely true or false."""
    if not isinstance(value, bool):
        raise TypeError(f"{function}(): {name} is {value!r}, but must be bool, not {type(value).__name__}")
    return value


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
        input.shape[2 + axis] if entry is None else _integer(function, "output_size", entry, value)
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
        sizes = tuple(_integer(function, "output_size", size, output_size) for size in output_size)
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
        raise RuntimeError(
            f"{function}(): output_size must contain non-negative spatial dimensions, but the output would be {sizes}, for "
            f"kernel_size {kernel}, stride {stride} and padding {padding}"
        )
    return sizes
