"""One random or curated problem of the public ops, with everything that its tensors need, and its one-line text form.

The text form is what a failure prints: `conv2d n=2 c=6 h=7 w=9 k=4 r=3 s=2 stride=2x1 x=sliced backend=cuda seed=17`.
Only what differs from the defaults is written, in any order.
"""

from __future__ import annotations

import dataclasses

import torch

OPS = ("conv2d", "conv_transpose2d", "max_pool2d")
DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


@dataclasses.dataclass(frozen=True)
class Case:
    op: str  # one of OPS
    n: int = 1
    c: int = 1  # channels of the op's input
    h: int = 1
    w: int = 1
    k: int = 1  # channels of the op's output; max_pool2d has none of its own
    r: int = 1  # kernel height
    s: int = 1  # kernel width
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, ...] | str = (0, 0)  # conv2d: or (top, bottom, left, right), or "same", "valid"
    output_padding: tuple[int, int] = (0, 0)  # conv_transpose2d
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    padding_mode: str = "zeros"  # conv2d
    padding_value: int = 0  # of padding_mode "constant"
    bias: bool = False
    activation: str = "identity"
    residual: str = ""  # the residual's layout; empty for none
    ceil_mode: bool = False  # max_pool2d
    unbatched: bool = False
    dtype: str = "float32"
    x_layout: str = "contiguous"
    w_layout: str = "contiguous"
    b_layout: str = "contiguous"  # or "sliced", "expanded"
    dy_layout: str = "contiguous"
    data: str = "normal"  # or "integers", "special"
    index_bits: int = 32
    backend: str = "cuda"
    device: str = "cpu"
    seed: int = 0

    @property
    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]

    @property
    def input_shape(self) -> tuple[int, ...]:
        shape = (self.n, self.c, self.h, self.w)
        return shape[1:] if self.unbatched else shape

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        if self.op == "conv_transpose2d":
            return (self.c, self.k // self.groups, self.r, self.s)
        return (self.k, self.c // self.groups, self.r, self.s)

    def sides(self) -> tuple[int, int, int, int]:
        """(top, bottom, left, right)"""
        if self.padding == "valid":
            return 0, 0, 0, 0
        if self.padding == "same":
            vertical, horizontal = (
                dilation * (kernel - 1) for dilation, kernel in zip(self.dilation, (self.r, self.s), strict=True)
            )
            return vertical // 2, vertical - vertical // 2, horizontal // 2, horizontal - horizontal // 2
        if len(self.padding) == 4:
            return self.padding
        vertical, horizontal = self.padding
        return vertical, vertical, horizontal, horizontal

    def has_what_it_pads_with(self) -> bool:
        """Whether PyTorch pads so: it reflects each element once, and wraps around once."""
        limits = {"reflect": -1, "circular": 0}
        if self.padding_mode not in limits:
            return True
        top, bottom, left, right = self.sides()
        most = limits[self.padding_mode]
        return max(top, bottom) <= max(self.h + most, 0) and max(left, right) <= max(self.w + most, 0)

    def output_size(self) -> tuple[int, int]:
        """Output height and width by PyTorch's formulas. Not positive where the kernel does not fit."""
        return tuple(self._output_length(axis) for axis in (0, 1))

    def _output_length(self, axis: int) -> int:
        length, kernel = (self.h, self.w)[axis], (self.r, self.s)[axis]
        stride, dilation = self.stride[axis], self.dilation[axis]
        low, high = self.sides()[2 * axis : 2 * axis + 2]
        reach = dilation * (kernel - 1) + 1
        if self.op == "conv_transpose2d":
            return (length - 1) * stride - low - high + reach + self.output_padding[axis]
        room = length + low + high - reach
        if room < 0:
            return 0
        if self.op == "max_pool2d" and self.ceil_mode:
            outputs = -(-room // stride) + 1
            # The last window must start inside the input or its leading padding.
            return outputs - 1 if (outputs - 1) * stride >= length + low else outputs
        return room // stride + 1

    def windows_hold_elements(self) -> bool:
        """Whether every pooling window has an element: dilation can step over a small input from padding to padding."""
        for axis, outputs in enumerate(self.output_size()):
            length, kernel = (self.h, self.w)[axis], (self.r, self.s)[axis]
            for output in range(outputs):
                start = output * self.stride[axis] - self.padding[axis]
                if not any(0 <= start + tap * self.dilation[axis] < length for tap in range(kernel)):
                    return False
        return True

    def multiply_adds(self) -> int:
        """Work of one pass: what the emulator's time grows with."""
        height, width = self.output_size()
        if self.op == "max_pool2d":
            return self.n * self.c * height * width * self.r * self.s
        pixels = self.h * self.w if self.op == "conv_transpose2d" else height * width
        return self.n * pixels * self.k * self.c // self.groups * self.r * self.s

    def __str__(self) -> str:
        words = [self.op]
        for field in dataclasses.fields(self)[1:]:
            value = getattr(self, field.name)
            if value != field.default:
                words.append(f"{field.name}={_encode(value)}")
        return " ".join(words)

    @classmethod
    def parse(cls, text: str) -> Case:
        op, *words = text.split()
        if op not in OPS:
            raise ValueError(f"a problem starts with one of {', '.join(OPS)}, not {op!r}")
        defaults = {field.name: field.default for field in dataclasses.fields(cls)[1:]}
        values = {}
        for word in words:
            name, separator, value = word.partition("=")
            if not separator or name not in defaults:
                raise ValueError(f"{word!r} is not one of {', '.join(f'{known}=...' for known in defaults)}")
            values[name] = _decode(value, defaults[name])
        return cls(op, **values)


def _encode(value: object) -> str:
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return str(int(value)) if isinstance(value, bool) else str(value)


def _decode(text: str, default: object) -> object:
    if isinstance(default, bool):
        return bool(int(text))
    if isinstance(default, int):
        return int(text)
    if isinstance(default, tuple) and text[0].isdigit():
        return tuple(map(int, text.split("x")))
    return text
