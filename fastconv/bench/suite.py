"""Suites: the layers of real networks, read from the JSON files beside this module, each with its source named."""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import json
import math
from typing import Any, Literal

from fastconv.bench.names import known
from fastconv.windows import Windows

Op = Literal["conv2d", "conv_transpose2d", "max_pool2d", "conv_block"]
FAMILIES = ("dense", "depthwise", "grouped", "transposed", "stem", "pool", "block")


@dataclasses.dataclass(frozen=True)
class Pool:
    """The max-pool that ends a conv_block."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer without its batch size. Sizes are of the input, (height, width)."""

    suite: str
    name: str
    op: Op
    channels: int
    filters: int  # a pool has as many as channels
    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    output_padding: tuple[int, int] = (0, 0)
    bias: bool = False
    activation: str = "identity"
    ceil_mode: bool = False
    pool: Pool | None = None
    family: str = ""
    count: int = 1  # how often the network has it
    quick: bool = False  # part of --quick

    def __post_init__(self) -> None:
        if not self.family:
            object.__setattr__(self, "family", self._derived_family())

    def _derived_family(self) -> str:
        if self.op == "max_pool2d":
            return "pool"
        if self.op == "conv_block":
            return "block"
        if self.op == "conv_transpose2d":
            return "transposed"
        if self.groups == 1:
            return "dense"
        return "depthwise" if self.groups == self.channels else "grouped"

    @property
    def id(self) -> str:
        return f"{self.suite}/{self.name}"

    @property
    def weight_size(self) -> tuple[int, int, int, int]:
        if self.op == "conv_transpose2d":
            return (self.channels, self.filters // self.groups, *self.kernel)
        return (self.filters, self.channels // self.groups, *self.kernel)

    @property
    def convolved_size(self) -> tuple[int, int]:
        """(P, Q) of the convolution or pool itself, before a block's pool."""
        return tuple(self._output(axis) for axis in (0, 1))  # type: ignore[return-value]

    @property
    def output_size(self) -> tuple[int, int]:
        if self.pool is None:
            return self.convolved_size
        return tuple(
            (size + 2 * self.pool.padding[axis] - self.pool.kernel[axis]) // self.pool.stride[axis] + 1
            for axis, size in enumerate(self.convolved_size)
        )  # type: ignore[return-value]

    def _output(self, axis: int) -> int:
        size, padding, stride = self.size[axis], self.padding[axis], self.stride[axis]
        extent = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        if self.op == "conv_transpose2d":
            return (size - 1) * stride - 2 * padding + extent + self.output_padding[axis]
        span = size + 2 * padding - extent
        outputs = span // stride + 1
        if self.ceil_mode and span % stride and outputs * stride < size + padding:
            outputs += 1
        return outputs

    def describe(self) -> str:
        """One line for people: "64->128 3x3 s2 p1 @56x56"."""
        words = [f"{self.channels}->{self.filters}" if self.op != "max_pool2d" else f"{self.channels}"]
        words.append(f"{self.kernel[0]}x{self.kernel[1]}")
        words.append(f"s{self.stride[0]} p{self.padding[0]}")
        if self.groups > 1:
            words.append(f"g{self.groups}")
        if self.dilation != (1, 1):
            words.append(f"d{self.dilation[0]}")
        if self.pool:
            words.append(f"+{self.activation}+pool{self.pool.kernel[0]}s{self.pool.stride[0]}")
        words.append(f"@{self.size[0]}x{self.size[1]}")
        return " ".join(words)

    def shape(self) -> dict[str, Any]:
        """The fields that say what is computed, for a row of results."""
        fields = json.loads(json.dumps(dataclasses.asdict(self)))
        for name in ("suite", "name", "count", "quick", "family", "op"):
            del fields[name]
        return fields

    def flops(self, batch: int) -> int:
        """Of one pass of the convolution: two for each multiply-add of the dense definition; a pool compares R*S values."""
        rows, columns = self.size if self.op == "conv_transpose2d" else self.convolved_size
        taps = self.kernel[0] * self.kernel[1]
        if self.op == "max_pool2d":
            return batch * self.channels * rows * columns * taps
        return 2 * batch * rows * columns * self.channels * self.filters // self.groups * taps

    def seen(self) -> float:
        """The share of the larger image (x; of a transposed convolution y) that lies under a window: a 1x1 with stride 2 passes
        three elements of four over."""
        image, windows = self.size, self.convolved_size
        if self.op == "conv_transpose2d":
            image, windows = self.output_size, self.size
        geometry = zip(image, windows, self.kernel, self.stride, self.dilation, self.padding, strict=True)
        return math.prod(Windows(*one).reached() / one[0] for one in geometry)

    def elements(self, batch: int) -> dict[str, int]:
        """Of x, w and y."""
        rows, columns = self.output_size
        weight = 0
        if self.op != "max_pool2d":
            weight = self.weight_size[0] * self.weight_size[1] * self.weight_size[2] * self.weight_size[3]
        return {
            "x": batch * self.channels * self.size[0] * self.size[1],
            "w": weight,
            "y": batch * self.filters * rows * columns,
        }


@dataclasses.dataclass(frozen=True)
class Suite:
    name: str
    title: str
    source: str
    batch: int
    layers: tuple[Layer, ...]


def suite_names() -> list[str]:
    folder = importlib.resources.files(__package__) / "suites"
    return sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))


@functools.cache
def load_suite(name: str) -> Suite:
    known("suite", name, suite_names())
    text = (importlib.resources.files(__package__) / "suites" / f"{name}.json").read_text()
    return parse_suite(json.loads(text))


def parse_suite(data: dict[str, Any]) -> Suite:
    layers = tuple(_parse_layer(data["name"], fields) for fields in data["layers"])
    return Suite(data["name"], data["title"], data["source"], data["batch"], layers)


_PAIRS = ("size", "kernel", "stride", "padding", "dilation", "output_padding")


def _parse_layer(suite: str, fields: dict[str, Any]) -> Layer:
    fields = {name: tuple(value) if name in _PAIRS else value for name, value in fields.items()}
    if pool := fields.get("pool"):
        fields["pool"] = Pool(**{name: tuple(value) for name, value in pool.items()})
    fields.setdefault("filters", fields["channels"])
    return Layer(suite=suite, **fields)


def scaled_down(layer: Layer) -> Layer:
    """The same kernel, stride, padding, dilation and grouping on few channels and pixels: what an emulator runs in a blink.

    The size keeps its remainder modulo the stride, so the ragged last window stays ragged.
    """
    if layer.groups == layer.channels == layer.filters:
        # Triton's interpreter takes every tap of every channel one by one: few channels where there are many taps.
        groups = min(layer.groups, 16 if layer.kernel[0] * layer.kernel[1] <= 121 else 2)
        channels = filters = groups
    elif layer.groups > 1:
        groups = min(layer.groups, 4)
        channels = groups * min(layer.channels // layer.groups, 8)
        filters = groups * min(layer.filters // layer.groups, 8)
    else:
        groups, channels, filters = 1, min(layer.channels, 32), min(layer.filters, 32)
        if layer.op == "max_pool2d":
            channels = filters = min(layer.channels, 16)
    size = tuple(_small_size(layer, axis) for axis in (0, 1))
    return dataclasses.replace(layer, channels=channels, filters=filters, groups=groups, size=size)


def _small_size(layer: Layer, axis: int) -> int:
    size, stride = layer.size[axis], layer.stride[axis]
    if layer.op == "conv_transpose2d":
        return min(size, 6)
    extent = layer.dilation[axis] * (layer.kernel[axis] - 1) + 1
    least = max(extent - 2 * layer.padding[axis], layer.padding[axis] + 1)
    outputs = 5
    if layer.pool is not None:
        outputs = 2 * layer.pool.stride[axis] + layer.pool.kernel[axis]
    return min(size, least + stride * outputs + (size - least) % stride)
