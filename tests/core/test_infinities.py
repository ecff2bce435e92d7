"""Infinities at the border, in every kernel that takes the problem, against the definition in float64.

Padding is zeros, and an infinity times zero is NaN: so it is in fprop and wgrad of a padded copy. dgrad sums over what
exists: a tap that lies outside of dy is no term, whatever its weight is, and an element that every infinity misses is
finite.
"""

from __future__ import annotations

import dataclasses
import math
from types import ModuleType

import pytest
import torch

from tests.core import raw
from tests.core.geometries import Geometry

F16, BF16, F32 = torch.float16, torch.bfloat16, torch.float32
TYPES = [(F16, False), (BF16, False), (F32, True), (F32, False)]

GEOMETRIES = {
    "same": Geometry(2, 16, 16, (6, 7), (3, 3), padding=(1, 1, 1, 1)),
    "without padding": Geometry(1, 16, 24, (5, 6), (3, 2)),
    "strided": Geometry(1, 16, 8, (9, 8), (3, 3), stride=(2, 2), padding=(1, 0, 1, 1)),
    "grouped": Geometry(1, 32, 32, (6, 8), (3, 3), padding=(1, 1, 1, 1), groups=4),
    "stem": Geometry(1, 3, 16, (9, 9), (3, 3), stride=(2, 2), padding=(1, 1, 1, 1)),
    "pixels of a few bytes": Geometry(1, 3, 5, (6, 6), (3, 3), padding=(1, 1, 1, 1)),
    "depthwise": Geometry(2, 16, 16, (9, 12), (3, 3), padding=(1, 1, 1, 1), groups=16),
    "depthwise, odd rows": Geometry(1, 8, 8, (7, 9), (3, 3), padding=(1, 1, 1, 1), groups=8),
    "depthwise, strided": Geometry(1, 8, 8, (12, 12), (3, 3), stride=(2, 2), padding=(1, 1, 1, 1), groups=8),
    "depthwise, halves": Geometry(1, 8, 8, (12, 11), (5, 5), stride=(2, 2), padding=(2, 2, 2, 2), groups=8),
    "depthwise, large": Geometry(1, 8, 8, (20, 20), (13, 13), padding=(6, 6, 6, 6), groups=8),
    "depthwise, tall": Geometry(1, 8, 8, (12, 7), (10, 4), padding=(4, 5, 2, 1), groups=8),
    "depthwise, dilated": Geometry(1, 8, 8, (11, 10), (3, 3), padding=(2, 2, 2, 2), dilation=(2, 2), groups=8),
    "depthwise, any": Geometry(1, 8, 8, (9, 8), (3, 4), stride=(2, 1), padding=(1, 1, 2, 1), groups=8),
    "depthwise, multiplied": Geometry(1, 8, 16, (7, 10), (3, 3), padding=(1, 1, 1, 1), groups=8),
    "1x1": Geometry(2, 16, 24, (5, 4), (1, 1)),
    "reflect": Geometry(1, 8, 8, (6, 6), (3, 3), stride=(1, 2), padding=(1, 1, 2, 1), padding_mode="reflect"),
}


def results(core: ModuleType, conv_pass: str, geometry: Geometry, tensors: dict, allow_tf32: bool, layout: str):
    """By kernel: what the first configuration that takes the problem writes; depthwise ones are kernels of their own."""
    written = {"fprop": "y", "dgrad": "x", "wgrad": "w"}[conv_pass]
    used = {name: raw.laid_out(tensor, layout) for name, tensor in tensors.items()}
    x, w, y = used["x"], used["w"], used["y"]
    problem = core.ConvProblem(
        conv_pass=conv_pass,
        dtype=raw.NAMES[x.dtype],
        x=raw.operand(x),
        w=raw.operand(w),
        y=raw.operand(y),
        allow_tf32=allow_tf32,
        **geometry.keywords,
    )
    found = {}
    for candidate in core.candidates(problem):
        kernel = candidate.kernel
        if kernel.startswith("depthwise"):
            kernel = f"{kernel} {candidate.config}"
        if candidate.reason or kernel in found:
            continue
        output = torch.full_like(used[written], float("nan"))
        operands = [output if name == written else used[name] for name in ("x", "w", "y")]
        raw.launch(core, problem, candidate.kernel, candidate.config, (*operands, None, None))
        found[kernel] = output
    return found


def definition(conv_pass: str, geometry: Geometry, tensors: dict) -> torch.Tensor:
    x, w = (tensors[name].double().requires_grad_() for name in ("x", "w"))
    y = geometry.fprop(x, w)
    if conv_pass == "fprop":
        return y.detach()
    return torch.autograd.grad(y, x if conv_pass == "dgrad" else w, tensors["y"].double())[0]


@pytest.mark.parametrize(("dtype", "allow_tf32"), TYPES, ids=["float16", "bfloat16", "tf32", "float32"])
@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("conv_pass", ["fprop", "dgrad", "wgrad"])
def test_nan_and_infinity_are_where_the_definition_has_them(
    fast_core: ModuleType, conv_pass: str, name: str, dtype: torch.dtype, allow_tf32: bool
) -> None:
    geometry = GEOMETRIES[name]
    shapes = {"x": geometry.x_shape, "w": geometry.w_shape, "y": geometry.y_shape()}
    for infinite in {"fprop": "xw", "dgrad": "wy", "wgrad": "xy"}[conv_pass]:
        tensors = {one: torch.randint(1, 4, shape).to(dtype) for one, shape in shapes.items()}
        tensors[infinite][0, 0, 0, 0] = math.inf
        tensors[infinite][-1, -1, -1, -1] = math.inf
        expected = definition(conv_pass, geometry, tensors)
        assert expected.isinf().any()
        for layout in ("channels_last", "contiguous"):
            found = results(fast_core, conv_pass, geometry, tensors, allow_tf32, layout)
            # Of a channel multiplier there may be the direct kernels alone.
            alone = geometry.filters > geometry.channels == geometry.groups and (
                layout == "channels_last" or conv_pass == "dgrad"
            )
            assert len(found) >= (1 if alone else 2)
            for kernel, result in found.items():
                where = f"{kernel}, {layout}, infinity in {infinite}"
                assert torch.equal(result.isnan(), expected.isnan()), where
                assert torch.equal(result.isposinf(), expected.isposinf()), where


def test_a_gradient_of_finite_terms_is_finite(fast_core: ModuleType) -> None:
    """What the test above must not take from its own reference."""
    geometry = dataclasses.replace(GEOMETRIES["without padding"], kernel=(3, 1))
    shapes = {"x": geometry.x_shape, "w": geometry.w_shape, "y": geometry.y_shape()}
    tensors = {one: torch.ones(shape, dtype=F16) for one, shape in shapes.items()}
    tensors["w"][:, :, 0] = math.inf  # only rows that have a first tap see it
    expected = torch.tensor([math.inf] * 3 + [48.0, 24.0], dtype=F16)
    for kernel, result in results(fast_core, "dgrad", geometry, tensors, False, "channels_last").items():
        assert torch.equal(result, expected[:, None].expand_as(result)), kernel
