"""Cases: a layer, a pass, a precision, a memory layout and a batch size. And the problems that dispatch makes of one."""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Iterable, Sequence

import torch

from fastconv import dispatch
from fastconv.bench.hardware import Ceilings, Roof
from fastconv.bench.names import UnknownNameError, known
from fastconv.bench.precision import PRECISIONS, precision_named
from fastconv.bench.suite import FAMILIES, Layer, load_suite, suite_names
from fastconv.problem import Operand, Problem, Target
from fastconv.shapes import dense_strides

PASSES = ("fwd", "dgrad", "wgrad", "fwd+bwd")
LAYOUTS = ("nchw", "channels_last")


@dataclasses.dataclass(frozen=True)
class Case:
    layer: Layer
    direction: str  # one of PASSES
    precision: str
    layout: str
    batch: int

    @property
    def key(self) -> str:
        return f"{self.layer.id}/{self.direction}/{self.precision}/{self.layout}/n{self.batch}"

    @property
    def dtype(self) -> torch.dtype:
        return PRECISIONS[self.precision].dtype

    def roles(self) -> tuple[str, ...]:
        """The raw inputs, in order. "dy" is the gradient of the output."""
        pooling = self.layer.op == "max_pool2d"
        weights = () if pooling else ("w", "bias") if self.layer.bias else ("w",)
        if self.direction == "fwd":
            return ("x", *weights)
        if self.direction == "dgrad":
            return ("x", "dy") if pooling else ("w", "dy")
        if self.direction == "wgrad":
            return ("x", "dy")
        return ("x", *weights, "dy")

    def sizes(self, role: str) -> tuple[int, ...]:
        layer = self.layer
        if role == "x":
            return (self.batch, layer.channels, *layer.size)
        if role == "w":
            return layer.weight_size
        if role == "bias":
            return (layer.filters,)
        return (self.batch, layer.filters, *layer.output_size)

    def flops(self) -> int:
        passes = {"fwd+bwd": 2 if self.layer.op == "max_pool2d" else 3}.get(self.direction, 1)
        return passes * self.layer.flops(self.batch)

    def bytes_moved(self) -> int:
        """Compulsory bytes: each element of x, w, y and a residual that a pass reads or writes, once. A bias is too small to
        count, and a block's insides need not touch memory.

        What lies under no window is not read, but a gradient of it is written: a zero.
        """
        elements = self.layer.elements(self.batch)
        everything = sum(elements.values())
        larger = "y" if self.layer.op == "conv_transpose2d" else "x"
        read = everything - round((1 - self.layer.seen()) * elements[larger])
        offsets = elements["y"] if self.layer.op == "max_pool2d" else 0  # one byte each, for the backward pass
        size = self.dtype.itemsize
        writes_larger = "fwd" if larger == "y" else "dgrad"
        passes = {
            name: (everything if name == writes_larger else read) * size + (offsets if name == "dgrad" else 0)
            for name in ("fwd", "dgrad", "wgrad")
        }
        if self.direction != "fwd+bwd":
            return passes[self.direction]
        if self.layer.op == "max_pool2d":
            return passes["fwd"] + offsets + passes["dgrad"]
        return sum(passes.values())

    def roof(self, ceilings: Ceilings) -> Roof:
        return ceilings.roof(self.flops(), self.bytes_moved(), self.precision)


@dataclasses.dataclass(frozen=True)
class Selection:
    """What the command line asks for. Empty means all, or what --quick means."""

    suites: Sequence[str] = ()
    filters: Sequence[str] = ()  # patterns over "suite/layer"
    families: Sequence[str] = ()
    directions: Sequence[str] = ()
    precisions: Sequence[str] = ()
    layouts: Sequence[str] = ()
    batch: int | None = None
    quick: bool = False


def select(selection: Selection) -> list[Case]:
    """Every case that is asked for. An unknown name raises UnknownNameError with the known ones."""
    for name in selection.suites:
        known("suite", name, suite_names())
    for name in selection.families:
        known("family", name, FAMILIES)
    for name in selection.directions:
        known("pass", name, PASSES)
    for name in selection.layouts:
        known("layout", name, LAYOUTS)
    for name in selection.precisions:
        precision_named(name)
    if selection.batch is not None and selection.batch < 1:
        raise ValueError(f"batch is {selection.batch}, but must be at least 1")
    layers = [layer for name in (selection.suites or suite_names()) for layer in load_suite(name).layers]
    if selection.filters:
        layers = _matching(layers, selection.filters)
    elif selection.quick:
        layers = [layer for layer in layers if layer.quick]
    if selection.families:
        layers = [layer for layer in layers if layer.family in selection.families]
        if not layers:
            raise UnknownNameError(f"family: no chosen layer is {' or '.join(selection.families)}")
    precisions = selection.precisions or (
        ("bfloat16",) if selection.quick else ("bfloat16", "float16", "float32", "tf32")
    )
    layouts = selection.layouts or (("channels_last",) if selection.quick else LAYOUTS)
    cases = [
        Case(layer, direction, precision, layout, selection.batch or load_suite(layer.suite).batch)
        for layer in layers
        for direction in (selection.directions or PASSES)
        for precision in precisions
        for layout in layouts
    ]
    return [case for case in cases if _exists(case)]


def select_some(selection: Selection) -> list[Case]:
    """`select`, and a ValueError where nothing is left."""
    found = select(selection)
    if not found:
        raise ValueError(
            f"pass is {', '.join(selection.directions) or 'any'} and dtype {', '.join(selection.precisions) or 'any'}, which "
            "none of the chosen layers has: a pool has no wgrad and no tf32, a block only fwd and fwd+bwd"
        )
    return found


def _exists(case: Case) -> bool:
    if case.layer.op == "max_pool2d":
        # TF32 is about products; a pool has none, and no weight.
        return case.direction != "wgrad" and case.precision != "tf32"
    return case.layer.op != "conv_block" or case.direction in ("fwd", "fwd+bwd")


def _matching(layers: Iterable[Layer], patterns: Sequence[str]) -> list[Layer]:
    layers = list(layers)
    found = []
    for pattern in patterns:
        matches = [layer for layer in layers if fnmatch.fnmatch(layer.id, pattern) or pattern in layer.id]
        if not matches:
            known("layer", pattern, [layer.id for layer in layers])
        found += [layer for layer in matches if layer not in found]
    return found


def problems(case: Case, target: Target) -> list[Problem]:
    """The primitives that a case is made of, for a device. A pool's forward makes offsets, as training needs them."""
    layer = case.layer
    x = _operand(case.sizes("x"), case.layout)
    if layer.op == "max_pool2d":
        window = (layer.kernel, layer.stride, layer.padding, layer.dilation, layer.ceil_mode)
        return _pool_problems(case, target, x, *window)
    w = _operand(layer.weight_size, case.layout)
    y = _operand((case.batch, layer.filters, *layer.convolved_size), case.layout)
    top_left = layer.padding
    padding = (top_left[0], top_left[0], top_left[1], top_left[1])
    shared = {
        "stride": layer.stride,
        "padding": padding,
        "dilation": layer.dilation,
        "groups": layer.groups,
        "allow_tf32": case.precision == "tf32",
        "deterministic": torch.are_deterministic_algorithms_enabled(),  # as calls have it, whose times are to be found
    }
    if layer.op == "conv_transpose2d":
        # The layer's input is the convolution's y, and its output the convolution's x.
        conv_x, conv_y, forward_pass = y, x, "dgrad"
        backward = {"dgrad": "fprop", "wgrad": "wgrad"}
    else:
        conv_x, conv_y, forward_pass = x, y, "fprop"
        backward = {"dgrad": "dgrad", "wgrad": "wgrad"}

    def make(conv_pass: str, **options: object) -> Problem:
        given = {"x": conv_x, "w": w, "y": conv_y}
        if conv_pass == "fprop":
            del given["y"]
        else:
            written = {"dgrad": "x", "wgrad": "w"}[conv_pass]
            given[written] = given[written].sizes
        return dispatch.make_conv_problem(conv_pass, case.dtype, target, **given, **shared, **options)

    made: list[Problem] = []
    if case.direction in ("fwd", "fwd+bwd"):
        epilogue = {"has_bias": layer.bias, "activation": layer.activation}
        if layer.pool is None:
            made.append(make(forward_pass, **epilogue))
        else:
            window = {f"pool_{name}": value for name, value in dataclasses.asdict(layer.pool).items()}
            made.append(
                dispatch.make_conv_max_pool_problem(case.dtype, target, x=x, w=w, **window, **shared, **epilogue)
            )
    if layer.pool is not None and case.direction == "fwd+bwd":
        inner = dataclasses.replace(case, direction="dgrad")
        made += _pool_problems(
            inner, target, y, layer.pool.kernel, layer.pool.stride, layer.pool.padding, (1, 1), False
        )
    # wgrad gives a convolution's bias its gradient; a pool's input and a transposed convolution's output are summed alone.
    summed_alone = layer.pool is not None or layer.op == "conv_transpose2d"
    if layer.bias and case.direction == "fwd+bwd" and summed_alone:
        made.append(dispatch.make_channel_sum_problem(case.dtype, target, _operand(case.sizes("dy"), case.layout)))
    for direction in ("dgrad", "wgrad"):
        if case.direction in (direction, "fwd+bwd"):
            with_bias = layer.bias and case.direction == "fwd+bwd" and not summed_alone
            bias = {"has_bias": with_bias} if direction == "wgrad" else {}
            made.append(make(backward[direction], **bias))
    return made


def _pool_problems(case, target, x, kernel, stride, padding, dilation, ceil_mode) -> list[Problem]:
    window = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}
    forward = dispatch.make_pool_problem("forward", case.dtype, target, x=x, **window)
    backward = dispatch.make_pool_problem(
        "backward", case.dtype, target, x=x.sizes, y=forward.y, offsets=forward.offsets, **window
    )
    return {"fwd": [forward], "dgrad": [backward], "fwd+bwd": [forward, backward]}[case.direction]


def _operand(sizes: Sequence[int], layout: str) -> Operand:
    """As `contiguous` with that memory format leaves an NCHW tensor: alone where it is of both formats already."""
    is_both = sizes[1] == 1 or sizes[2] == sizes[3] == 1
    return Operand(tuple(sizes), tuple(dense_strides(sizes, layout == "channels_last" and not is_both)))


def case_of(key: str) -> Case:
    """The case of that key, of a layer that a suite has."""
    words = key.split("/")
    if len(words) != 6 or not re.fullmatch(r"n[1-9]\d*", words[5]):
        raise ValueError(f"{key!r} is no case; a case is SUITE/LAYER/PASS/DTYPE/LAYOUT/nBATCH")
    suite, layer, direction, precision, layout, batch = words
    names = [one.name for one in load_suite(known("suite", suite, suite_names())).layers]
    known("layer", layer, names)
    known("pass", direction, PASSES)
    found = load_suite(suite).layers[names.index(layer)]
    case = Case(found, direction, precision_named(precision).name, known("layout", layout, LAYOUTS), int(batch[1:]))
    if not _exists(case):
        raise ValueError(f"{key!r} is no case: {found.op} has no {direction} in {precision}")
    return case


#: How many times slower than its roofline PyTorch is expected to be, by family: what decides the order under a time budget.
#: Guesses from what is known of cuDNN, not measurements.
EXPECTED_GAPS = {
    "depthwise": 8.0,
    "pool": 7.0,
    "stem": 5.0,
    "transposed": 4.0,
    "grouped": 3.0,
    "block": 3.0,
    "dense": 1.5,
}


def by_expected_gap(cases: Sequence[Case], ceilings: Ceilings) -> list[Case]:
    """The biggest expected gaps first; among equals, what costs a network the most time."""

    def weight(case: Case) -> tuple[float, float]:
        gap = EXPECTED_GAPS[case.layer.family]
        if case.layer.family == "depthwise":
            gap *= max(case.layer.kernel) / 3
        if case.direction != "fwd":
            gap *= 1.25
        return -gap, -case.roof(ceilings).seconds * case.layer.count

    return sorted(cases, key=weight)
