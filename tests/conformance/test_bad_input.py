"""Every bad call raises what PyTorch raises for it, and names the argument and its value.

PyTorch is asked in the test itself. Where it accepts the call on the CPU (integer convolutions), or has no such argument,
the table says what is expected and why.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

import fastconv

OPS = {
    "conv2d": (fastconv.conv2d, F.conv2d),
    "conv_transpose2d": (fastconv.conv_transpose2d, F.conv_transpose2d),
    "max_pool2d": (fastconv.max_pool2d, F.max_pool2d),
}


@dataclasses.dataclass(frozen=True)
class BadCall:
    op: str
    argument: str  # what the message must name
    value: str  # how its value must appear, without brackets
    arguments: Callable[[], dict]
    expected: type[Exception] | None = None  # None: whatever PyTorch raises

    def __str__(self) -> str:
        return f"{self.op}-{self.argument}-{self.value}"


def tensor(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.ones(shape, dtype=dtype)


def conv(argument: str, value: str, expected: type[Exception] | None = None, **changes: object) -> BadCall:
    def arguments():
        return {"input": tensor(2, 4, 6, 7), "weight": tensor(6, 4, 3, 3), "bias": tensor(6)} | changes

    return BadCall("conv2d", argument, value, arguments, expected)


def transposed(argument: str, value: str, expected: type[Exception] | None = None, **changes: object) -> BadCall:
    def arguments():
        return {"input": tensor(2, 4, 6, 7), "weight": tensor(4, 6, 3, 3), "bias": tensor(6)} | changes

    return BadCall("conv_transpose2d", argument, value, arguments, expected)


def pool(argument: str, value: str, expected: type[Exception] | None = None, **changes: object) -> BadCall:
    def arguments():
        return {"input": tensor(2, 4, 6, 7), "kernel_size": 2} | changes

    return BadCall("max_pool2d", argument, value, arguments, expected)


def both(argument: str, value: str, expected: type[Exception] | None = None, **changes: object) -> list[BadCall]:
    return [build(argument, value, expected, **changes) for build in (conv, transposed)]


BAD_CALLS = [
    # Types.
    *both("input", "NoneType", input=None),
    *both("input", "list", input=[1.0]),
    *both("weight", "list", weight=[1.0]),
    *both("bias", "float", bias=1.0),
    *both("stride", "1.5", stride=1.5),
    *both("padding", "1.5", padding=1.5),
    *both("dilation", "1.5", dilation=1.5),
    *both("groups", "1.0", groups=1.0),
    transposed("padding", "same", padding="same"),
    transposed("output_padding", "0.5", output_padding=0.5),
    pool("input", "NoneType", input=None),
    pool("kernel_size", "2.0", kernel_size=2.0),
    pool("stride", "2.0", stride=2.0),
    pool("padding", "0.5", padding=0.5),
    pool("dilation", "1.5", dilation=1.5),
    # Ranks.
    *both("input", "6, 7", input=tensor(6, 7)),
    *both("input", "1, 2, 4, 6, 7", input=tensor(1, 2, 4, 6, 7)),
    *both("weight", "6, 4, 3", weight=tensor(6, 4, 3)),
    *both("weight", "6, 4, 3, 3, 1", weight=tensor(6, 4, 3, 3, 1)),
    *both("bias", "6, 1", bias=tensor(6, 1)),
    pool("input", "6, 7", input=tensor(6, 7)),
    pool("input", "1, 2, 4, 6, 7", input=tensor(1, 2, 4, 6, 7)),
    *both("stride", "1, 1, 1", stride=(1, 1, 1)),
    *both("padding", "1, 1, 1", padding=(1, 1, 1)),
    *both("dilation", "1, 1, 1", dilation=(1, 1, 1)),
    transposed("output_padding", "0, 0, 0", output_padding=(0, 0, 0)),
    pool("kernel_size", "2, 2, 2", kernel_size=(2, 2, 2)),
    pool("stride", "2, 2, 2", stride=(2, 2, 2)),
    pool("padding", "0, 0, 0", padding=(0, 0, 0)),
    pool("dilation", "1, 1, 1", dilation=(1, 1, 1)),
    # Channels and groups.
    *both("input", "5", input=tensor(2, 5, 6, 7)),
    *both("bias", "5", bias=tensor(5)),
    *both("groups", "0", groups=0),
    *both("groups", "-1", groups=-1),
    conv("weight", "5", weight=tensor(5, 2, 3, 3), bias=None, groups=2),
    conv("weight", "0", weight=tensor(0, 4, 3, 3), bias=None),
    transposed("weight", "4", groups=3),
    # Sizes.
    conv("weight", "8", weight=tensor(6, 4, 8, 3)),
    conv("weight", "0", weight=tensor(6, 4, 0, 3)),
    conv("input", "0", input=tensor(2, 4, 0, 7)),
    conv("input", "0", input=tensor(2, 4, 0, 7), padding=2),
    conv("weight", "3", padding="valid", dilation=4),
    transposed("input", "0", input=tensor(2, 4, 0, 7)),
    transposed("padding", "4", input=tensor(2, 4, 1, 1), padding=4),
    # PyTorch raises this for one image only; for two, oneDNN returns an empty image.
    transposed("padding", "1", RuntimeError, input=tensor(2, 4, 1, 1), weight=tensor(4, 6, 2, 2), padding=1),
    pool("kernel_size", "8", kernel_size=8),
    # PyTorch takes windows that step over all of the input, with an index outside of it, where its backward then writes.
    pool("dilation", "7", RuntimeError, padding=1, dilation=7),
    pool("dilation", "1, 8", RuntimeError, padding=(0, 1), dilation=(1, 8)),
    pool("dilation", "9", RuntimeError, kernel_size=4, stride=40, padding=2, dilation=9, ceil_mode=True),
    pool("input", "0", input=tensor(2, 4, 0, 7)),
    pool("input", "0", input=tensor(2, 0, 6, 7)),
    # Ranges.
    *both("stride", "0", stride=0),
    *both("stride", "1, -2", stride=(1, -2)),
    *both("padding", "-1", padding=-1),
    *both("dilation", "0", dilation=0),
    *both("dilation", "-1", dilation=(-1, 1)),
    conv("padding", "full", padding="full"),
    conv("stride", "2", padding="same", stride=2),
    transposed("output_padding", "1", output_padding=1),
    transposed("output_padding", "3", output_padding=3, stride=2, dilation=3),
    transposed("output_padding", "-1", output_padding=-1, stride=2),
    pool("kernel_size", "0", kernel_size=0),
    pool("kernel_size", "2, -1", kernel_size=(2, -1)),
    pool("stride", "0", stride=0),
    pool("stride", "-1", stride=-1),
    pool("padding", "-1", padding=-1),
    pool("padding", "2", padding=2),
    pool("padding", "2", padding=2, dilation=4),
    pool("dilation", "0", dilation=0),
    pool("dilation", "-1", dilation=(1, -1)),
    # Types of elements and devices.
    *both("weight", "float64", weight=tensor(6, 4, 3, 3, dtype=torch.float64), bias=None),
    *both("bias", "float64", bias=tensor(6, dtype=torch.float64)),
    *both("input", "float16", input=tensor(2, 4, 6, 7, dtype=torch.float16)),
    *both("input", "bool", input=tensor(2, 4, 6, 7, dtype=torch.bool), weight=tensor(6, 4, 3, 3, dtype=torch.bool)),
    pool("input", "bool", input=tensor(2, 4, 6, 7, dtype=torch.bool)),
    # PyTorch computes integers on the CPU; on a GPU it raises RuntimeError, and so do these kernels everywhere.
    conv(
        "input",
        "int64",
        RuntimeError,
        input=tensor(2, 4, 6, 7, dtype=torch.int64),
        weight=tensor(6, 4, 3, 3, dtype=torch.int64),
        bias=tensor(6, dtype=torch.int64),
    ),
    conv(
        "input",
        "complex64",
        RuntimeError,
        input=tensor(2, 4, 6, 7, dtype=torch.complex64),
        weight=tensor(6, 4, 3, 3, dtype=torch.complex64),
        bias=None,
    ),
    transposed(
        "input",
        "int32",
        RuntimeError,
        input=tensor(2, 4, 6, 7, dtype=torch.int32),
        weight=tensor(4, 6, 3, 3, dtype=torch.int32),
        bias=None,
    ),
    pool("input", "int64", RuntimeError, input=tensor(2, 4, 6, 7, dtype=torch.int64)),
    # PyTorch's convolution of a CPU and a meta tensor returns a meta tensor; of a CPU and a GPU tensor, RuntimeError.
    *both("weight", "meta", RuntimeError, weight=torch.ones(6, 4, 3, 3, device="meta")),
    # Numbers beyond 64 bits, which PyTorch cannot unpack.
    *both("stride", "9223372036854775808", stride=2**63),
    *both("dilation", "1180591620717411303424", dilation=2**70),
    *both("padding", "9223372036854775808", padding=2**63),
    *both("groups", "9223372036854775808", groups=2**63),
    pool("kernel_size", "9223372036854775808", kernel_size=2**63),
    pool("stride", "-9223372036854775809", stride=-(2**63) - 1),
    # Flags.
    pool("ceil_mode", "None", ceil_mode=None),
    pool("ceil_mode", "1", ceil_mode=1),
    # Arguments PyTorch does not have.
    *both("activation", "softmax", ValueError, activation="softmax"),
    *both("backend", "cudnn", ValueError, backend="cudnn"),
    pool("backend", "cudnn", ValueError, backend="cudnn"),
    conv("padding_mode", "mirror", ValueError, padding_mode="mirror"),
    *both("weight", "NoneType", weight=None),
    conv("residual", "2, 6, 4, 4", RuntimeError, residual=tensor(2, 6, 4, 4)),
    conv("residual", "float64", RuntimeError, residual=tensor(2, 6, 4, 5, dtype=torch.float64)),
    conv("residual", "float", TypeError, residual=1.0),
]


@pytest.mark.parametrize("bad", BAD_CALLS, ids=str)
def test_bad_call_raises_what_pytorch_raises_and_says_why(bad: BadCall, backend: str) -> None:
    function, torch_function = OPS[bad.op]
    arguments = bad.arguments()
    expected = bad.expected
    if expected is None:
        with pytest.raises(Exception) as torch_error:  # noqa: PT011 - the type is the question
            torch_function(**arguments)
        expected = torch_error.type
    with pytest.raises(expected) as error:
        function(**({"backend": backend} | arguments))
    message = re.sub(r"[\[\]()]", "", str(error.value))
    assert bad.argument in message
    assert bad.value in message


@pytest.mark.parametrize("bad", [bad for bad in BAD_CALLS if bad.op == "conv2d"][::4], ids=str)
def test_bad_call_raises_the_same_without_a_backend(bad: BadCall) -> None:
    """The choice of a backend comes after the checks, so that it cannot change what is an error."""
    function, _ = OPS[bad.op]
    with pytest.raises(Exception) as chosen:  # noqa: PT011
        function(**bad.arguments())
    with pytest.raises(chosen.type) as insisted:
        function(**({"backend": "cuda"} | bad.arguments()))
    assert str(chosen.value) == str(insisted.value)


def test_gradient_of_another_shape_is_refused(backend: str) -> None:
    x = torch.randn(1, 2, 5, 5, requires_grad=True)
    y = fastconv.conv2d(x, torch.randn(3, 2, 3, 3), backend=backend)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(y, x, torch.ones(1, 3, 4, 4))
