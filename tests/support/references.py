"""PyTorch as the reference: in float64 on the CPU for the truth, and in the tested precision for its own error.

PyTorch's error in a 16-bit type is that of its ops with float32 sums, each op's output rounded once, as cuDNN computes
them. PyTorch 2.13's own 16-bit convolutions on the CPU cannot serve: some sum in 16 bits, and with oneDNN some grouped
problems return garbage. (So do some float32 transposed convolutions with output_padding; `tolerance.py` drops results
that far away.)
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F

from tests.support.cases import Case
from tests.support.tolerance import Expected, unit_roundoff

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "identity": lambda x: x,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "silu": F.silu,
    "gelu": F.gelu,
    "sigmoid": torch.sigmoid,
    "hardswish": F.hardswish,
    "tanh": torch.tanh,
}

#: Activations that keep integers integers, so that a fused result is exact where the sum is.
EXACT_ACTIVATIONS = ("identity", "relu")


@dataclasses.dataclass(frozen=True)
class Tensors:
    """What a case is called with. Each requires grad where it has one."""

    x: torch.Tensor  # [N, C, H, W] or [C, H, W]
    weight: torch.Tensor | None = None  # [K, C/G, R, S], transposed convolution [C, K/G, R, S]
    bias: torch.Tensor | None = None  # [K]
    residual: torch.Tensor | None = None  # as the output

    def named(self) -> dict[str, torch.Tensor]:
        """Those that are there, in the order of their gradients."""
        fields = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        return {name: tensor for name, tensor in fields if tensor is not None}

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Tensors:
        """New leaves that require grad, each made from one of these."""
        changed = {name: function(tensor.detach()).detach().requires_grad_() for name, tensor in self.named().items()}
        return Tensors(**changed)


def preactivation(case: Case, tensors: Tensors) -> torch.Tensor:
    """The op itself by torch.nn.functional, in the precision of its tensors; 16-bit types have float32 sums."""
    dtype = tensors.x.dtype
    computed = torch.float32 if dtype.itemsize == 2 else dtype
    weight = tensors.weight.to(computed)
    bias = None if tensors.bias is None else tensors.bias.to(computed)
    if case.op == "conv_transpose2d":
        return F.conv_transpose2d(
            tensors.x.to(computed),
            weight,
            bias,
            case.stride,
            case.padding,
            case.output_padding,
            case.groups,
            case.dilation,
        ).to(dtype)
    x, padding = tensors.x.to(computed), case.padding
    if case.padding_mode != "zeros" or (not isinstance(padding, str) and len(padding) == 4):
        top, bottom, left, right = case.sides()
        mode = "constant" if case.padding_mode == "zeros" else case.padding_mode
        x, padding = F.pad(x, (left, right, top, bottom), mode, case.padding_value if mode == "constant" else None), 0
    y = F.conv2d(x, weight, bias, case.stride, padding, case.dilation, case.groups).to(dtype)
    return y if tensors.residual is None else y + tensors.residual


def max_pool2d(case: Case, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    kernel = (case.r, case.s)
    return F.max_pool2d(x, kernel, case.stride, case.padding, case.dilation, case.ceil_mode, return_indices=True)


def gradients_of(output: torch.Tensor, dy: torch.Tensor, tensors: Tensors) -> dict[str, torch.Tensor]:
    named = tensors.named()
    grads = torch.autograd.grad(output, list(named.values()), dy, retain_graph=True)
    return {f"gradient of {name}": grad for name, grad in zip(named, grads, strict=True)}


def expected_results(case: Case, tensors: Tensors, dy: torch.Tensor) -> dict[str, Expected]:
    """The output and every gradient of a case: `output`, `gradient of x`, ...; pooling adds `indices`."""
    to_double = functools.partial(_copy, dtype=torch.float64)
    exact = tensors.map(to_double)
    dy64 = to_double(dy)
    if case.op == "max_pool2d":
        return _expected_pool(case, exact, dy64, tensors, dy)

    inner = preactivation(case, exact)
    output = ACTIVATIONS[case.activation](inner)
    truth = {"output": output.detach()} | gradients_of(output, dy64, exact)

    absolute = tensors.map(lambda tensor: to_double(tensor).abs())
    inner_magnitude = preactivation(case, absolute)
    d_inner = dy64.abs()
    if case.activation not in EXACT_ACTIVATIONS:
        # The slope is of the order of 1 and, however small it is, has an absolute error, of its own and from the sum.
        d_inner = d_inner * (1 + inner_magnitude.detach())
    magnitudes = {"output": inner_magnitude.detach()} | gradients_of(inner_magnitude, d_inner, absolute)
    spreads = {}
    if case.activation not in EXACT_ACTIVATIONS and case.torch_dtype.itemsize == 2:
        squared = absolute.map(torch.square)
        squares = gradients_of(preactivation(case, squared), dy64.square(), squared)
        spreads = {name: square.sqrt() for name, square in squares.items()}

    largest_exact = 1 / unit_roundoff(case.torch_dtype)
    integers = case.data == "integers" and case.activation in EXACT_ACTIVATIONS
    exactly = {
        name: integers and float(magnitude.max() if magnitude.numel() else 0) <= largest_exact
        for name, magnitude in magnitudes.items()
    }
    own = [] if all(exactly.values()) else [_low_precision(case, order, dy) for order in _orders(case, tensors)]
    return {
        name: Expected(
            values,
            case.torch_dtype,
            exact=exactly[name],
            torch_results=[results[name] for results in own],
            # One error in a slope goes into many elements.
            independent=case.activation in EXACT_ACTIVATIONS,
            magnitude=magnitudes[name],
            spread=spreads.get(name),
        )
        for name, values in truth.items()
    }


def _expected_pool(
    case: Case, exact: Tensors, dy64: torch.Tensor, tensors: Tensors, dy: torch.Tensor
) -> dict[str, Expected]:
    output, indices = max_pool2d(case, exact.x)
    truth = gradients_of(output, dy64, exact)["gradient of x"]
    absolute = gradients_of(output, dy64.abs(), exact)["gradient of x"] if case.data != "special" else truth.abs()
    low = tensors.map(functools.partial(_copy, dtype=case.torch_dtype))
    own = gradients_of(max_pool2d(case, low.x)[0], _copy(dy, case.torch_dtype), low)["gradient of x"]
    return {
        "output": Expected(output.detach(), case.torch_dtype, exact=True),
        "indices": Expected(indices, torch.int64, exact=True),
        "gradient of x": Expected(truth, case.torch_dtype, torch_results=[own], magnitude=absolute),
    }


def _copy(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.detach().to("cpu", dtype).clone(memory_format=torch.contiguous_format)


@dataclasses.dataclass(frozen=True)
class _Order:
    """The same problem with its channels and images in another order: the same mathematics, other roundings."""

    tensors: Tensors
    memory_format: torch.memory_format
    onednn: bool
    images: torch.Tensor
    inputs: torch.Tensor  # the order of the input channels
    outputs: torch.Tensor  # the order of the output channels


def _orders(case: Case, tensors: Tensors, count: int = 4) -> list[_Order]:
    channels_last = torch.contiguous_format if case.unbatched else torch.channels_last
    generator = torch.Generator().manual_seed(case.seed)
    orders = []
    for number in range(count):
        shuffle = functools.partial(torch.randperm, generator=generator) if number >= 2 else torch.arange
        images = torch.zeros(1, dtype=torch.int64) if case.unbatched else shuffle(case.n)
        inputs = torch.cat([shuffle(case.c // case.groups) + g * (case.c // case.groups) for g in range(case.groups)])
        outputs = torch.cat([shuffle(case.k // case.groups) + g * (case.k // case.groups) for g in range(case.groups)])
        permuted = Tensors(
            x=_permute(tensors.x, images, inputs),
            weight=_permute_weight(case, tensors.weight, inputs, outputs),
            bias=None if tensors.bias is None else _copy(tensors.bias, tensors.bias.dtype)[outputs],
            residual=None if tensors.residual is None else _permute(tensors.residual, images, outputs),
        )
        memory_format = channels_last if number % 2 else torch.contiguous_format
        leaves = permuted.map(lambda tensor: tensor)
        orders.append(_Order(leaves, memory_format, number != 2, images, inputs, outputs))
    return orders


def _permute(tensor: torch.Tensor, images: torch.Tensor, channels: torch.Tensor) -> torch.Tensor:
    tensor = _copy(tensor, tensor.dtype)
    return tensor[channels] if tensor.dim() == 3 else tensor[images][:, channels]


def _permute_weight(case: Case, weight: torch.Tensor, inputs: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    weight = _copy(weight, weight.dtype)
    outer, inner = (inputs, outputs) if case.op == "conv_transpose2d" else (outputs, inputs)
    per_group = weight.shape[1]
    groups = (outer // (weight.shape[0] // case.groups)).tolist()
    rows = [
        weight[row, inner[g * per_group : (g + 1) * per_group] - g * per_group]
        for row, g in zip(outer.tolist(), groups, strict=True)
    ]
    return torch.stack(rows) if rows else weight


def _low_precision(case: Case, order: _Order, dy: torch.Tensor) -> dict[str, torch.Tensor]:
    """PyTorch's results in the case's own precision, put back into the original order."""
    tensors = order.tensors
    formatted = dataclasses.replace(tensors, x=tensors.x.contiguous(memory_format=order.memory_format))
    permuted_dy = _permute(dy, order.images, order.outputs).contiguous(memory_format=order.memory_format)
    only_this_flag = {"deterministic": None, "allow_tf32": None, "fp32_precision": None}
    with torch.backends.mkldnn.flags(enabled=order.onednn, **only_this_flag):
        output = ACTIVATIONS[case.activation](preactivation(case, formatted))
        results = {"output": output.detach()} | gradients_of(output, permuted_dy, tensors)
    back_images, back_inputs, back_outputs = (
        torch.argsort(index) for index in (order.images, order.inputs, order.outputs)
    )
    results["output"] = _permute(results["output"], back_images, back_outputs)
    results["gradient of x"] = _permute(results["gradient of x"], back_images, back_inputs)
    if "gradient of residual" in results:
        results["gradient of residual"] = _permute(results["gradient of residual"], back_images, back_outputs)
    if "gradient of bias" in results:
        results["gradient of bias"] = results["gradient of bias"][back_outputs]
    results["gradient of weight"] = _permute_weight(case, results["gradient of weight"], back_inputs, back_outputs)
    return results
