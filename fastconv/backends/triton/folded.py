"""Gradient by the input where the padding repeats elements of it: reflect, replicate and circular.

An element then stands at several positions of the padded image, and its gradient is the sum over them. A dgrad kernel that
knows no borders writes the gradient by the padded image, unrounded; a second kernel adds up what belongs together, always in
the same order, and rounds once. The second one is a pass over memory: two times four bytes an element beside the product.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import triton.language as tl

from fastconv.backends.triton import conv_dgrad, grouped
from fastconv.backends.triton.family import Estimate, Family, Workspaces
from fastconv.backends.triton.gemm import accumulator_of, sum_dtype
from fastconv.backends.triton.hints import OperandHints, alignment, is_wide, operand_arguments
from fastconv.backends.triton.numerics import activate, aligned, narrow, offsets_at, raised, stride_of, widen
from fastconv.backends.triton.padding import FOLDED
from fastconv.backends.triton.runtime import Launch, device_function, kernel
from fastconv.backends.triton.spatial import SpatialConfig, spatial_configs, spatial_tile
from fastconv.backends.triton.target import memory_seconds
from fastconv.problem import ConvProblem, Operand
from fastconv.shapes import dense_strides


@device_function
def _image(position, size, low, high, image, MODE: tl.constexpr):
    """(where, exists): the image-th position of the padded rows that row `position` is repeated at. Image 0 is its own."""
    from_end = size - 1 - position
    if MODE == "reflect":
        where = tl.where(image == 1, low - position, low + size - 1 + from_end)
        exists = tl.where(image == 1, (position >= 1) & (position <= low), (from_end >= 1) & (from_end <= high))
    elif MODE == "circular":
        where = tl.where(image == 1, low - 1 - from_end, low + size + position)
        exists = tl.where(image == 1, from_end < low, position < high)
    else:
        where = tl.where(image <= low, low - image, size - 1 + image)
        exists = tl.where(image <= low, position, from_end) == 0
    return tl.where(image == 0, low + position, where), exists | (image == 0)


@kernel
def fold_kernel(
    padded_pointer,  # [N, C, top + H + bottom, left + W + right], the gradient by the padded image
    bias_pointer,  # [C] or None
    x_pointer,  # [N, C, H, W], the gradient that goes out
    channels, height, width, top, bottom, left, right, images_h, images_w,
    padded_stride_n, padded_stride_c, padded_stride_h, padded_stride_w,
    x_stride_n, x_stride_c, x_stride_h, x_stride_w,
    MODE: tl.constexpr, ACTIVATION: tl.constexpr,
    PADDED_UNIT: tl.constexpr, PADDED_ALIGNMENT: tl.constexpr, X_UNIT: tl.constexpr, X_ALIGNMENT: tl.constexpr,
    C_ALIGNMENT: tl.constexpr, CHANNELS_MINOR: tl.constexpr, ACCUMULATOR: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    channels = aligned(channels, C_ALIGNMENT)
    n, c, h, w = spatial_tile(tl.program_id(0), channels, height, width, CHANNELS_MINOR, BLOCK_C, BLOCK_H, BLOCK_W)
    channel_valid = c < channels
    valid = channel_valid & (h < height) & (w < width)
    n = widen(n, WIDE)
    c = widen(c, WIDE)
    image_offsets = n * stride_of(padded_stride_n, 0, PADDED_UNIT, PADDED_ALIGNMENT) + c * stride_of(
        padded_stride_c, 1, PADDED_UNIT, PADDED_ALIGNMENT
    )
    total = tl.full([BLOCK_C, BLOCK_H, BLOCK_W], 0.0, ACCUMULATOR)
    for i in range(images_h):
        row, row_exists = _image(h, height, top, bottom, i, MODE)
        row = widen(tl.minimum(tl.maximum(row, 0), top + height + bottom - 1), WIDE)
        row_offsets = image_offsets + row * stride_of(padded_stride_h, 2, PADDED_UNIT, PADDED_ALIGNMENT)
        for j in range(images_w):
            column, column_exists = _image(w, width, left, right, j, MODE)
            column = widen(tl.minimum(tl.maximum(column, 0), left + width + right - 1), WIDE)
            offsets = row_offsets + column * stride_of(padded_stride_w, 3, PADDED_UNIT, PADDED_ALIGNMENT)
            total += tl.load(padded_pointer + offsets, mask=valid & row_exists & column_exists, other=0.0)
    if bias_pointer is not None:
        total += raised(tl.load(bias_pointer + c, mask=channel_valid, other=0.0), ACCUMULATOR)
    offsets = offsets_at(
        n, c, widen(h, WIDE), widen(w, WIDE),
        x_stride_n, x_stride_c, x_stride_h, x_stride_w, X_UNIT, X_ALIGNMENT,
    )  # fmt: skip
    tl.store(x_pointer + offsets, narrow(activate(total, ACTIVATION), x_pointer.dtype.element_ty), mask=valid)


def _images(mode: str, low: int, high: int) -> int:
    """At how many positions of the padded rows one row can stand."""
    if low == high == 0:
        return 1
    return 1 + low + high if mode == "replicate" else 3


class Folded:
    """A dgrad family on the padded image, with the configurations of that family, and the fold behind it."""

    ops = ("conv2d_dgrad",)

    def __init__(self, base: Family) -> None:
        self.base = base
        self.name = f"folded_{base.name}"

    def configs(self, problem: ConvProblem) -> tuple[Any, ...]:
        """None where the padding repeats nothing."""
        return self.base.configs(self._padded(problem)) if problem.padding_mode in FOLDED else ()

    def _padded(self, problem: ConvProblem) -> ConvProblem:
        """The same pass, by the padded image."""
        batch, channels, height, width = problem.x.sizes
        top, bottom, left, right = problem.padding
        sizes = (batch, channels, top + height + bottom, left + width + right)
        strides = dense_strides(sizes, OperandHints.of(problem.x).channels_minor_to(2, 3))
        return dataclasses.replace(
            problem,
            x=Operand(sizes, strides),
            padding=(0, 0, 0, 0),
            padding_mode="zeros",
            has_bias=False,
            activation="identity",
            index_bits=64 if math.prod(sizes) >= 1 << 31 else problem.index_bits,
        )

    def rejection(self, problem: ConvProblem, config: Any) -> str:
        return self.base.rejection(self._padded(problem), config)

    def estimate(self, problem: ConvProblem, config: Any) -> Estimate:
        padded = self._padded(problem)
        costs = self.base.estimate(padded, config)
        (elements, dtype) = self.workspaces(problem, config)["padded"]
        fold = _fold_config(problem)
        programs = fold.programs(problem.x)
        moved = 2 * elements * dtype.itemsize
        folding = memory_seconds(problem, programs * fold.elements(), programs, moved, 1)
        return dataclasses.replace(costs, seconds=costs.seconds + folding)

    def workspaces(self, problem: ConvProblem, config: Any) -> Workspaces:
        padded = self._padded(problem)
        spaces = {"padded": (math.prod(padded.x.sizes), sum_dtype(problem.dtype))}
        return spaces | self.base.workspaces(padded, config)

    def launches(self, problem: ConvProblem, config: Any) -> list[Launch]:
        padded = self._padded(problem)
        products = [
            dataclasses.replace(launch, aliases={**launch.aliases, "x": "padded", "bias": "none"})  # the fold adds it
            for launch in self.base.launches(padded, config)
        ]
        return [*products, _fold(problem, padded)]


def _fold_config(problem: ConvProblem) -> SpatialConfig:
    """The tile that covers the image with the least waste, the largest of several."""
    return max(spatial_configs(problem.x), key=lambda config: (config.useful(problem.x), config.elements()))


def _fold(problem: ConvProblem, padded: ConvProblem) -> Launch:
    config = _fold_config(problem)
    channels, height, width = problem.x.sizes[1:]
    top, bottom, left, right = problem.padding
    strides, constants = operand_arguments(x=problem.x, padded=padded.x)
    mode = problem.padding_mode
    scalars = {
        "channels": channels,
        "height": height,
        "width": width,
        "top": top,
        "bottom": bottom,
        "left": left,
        "right": right,
        "images_h": _images(mode, top, bottom),
        "images_w": _images(mode, left, right),
        **strides,
    }
    constants |= {
        "MODE": mode,
        "ACTIVATION": problem.activation,
        "C_ALIGNMENT": alignment(channels),
        "CHANNELS_MINOR": OperandHints.of(problem.x).channels_minor_to(2, 3),
        "ACCUMULATOR": accumulator_of(problem.dtype),
        "WIDE": is_wide(padded),
        **config.blocks(),
    }
    return Launch(
        fold_kernel, config.programs(problem.x), scalars, constants, **config.launch_options(problem.dtype.itemsize)
    )


FAMILIES = tuple(
    Folded(family) for module in (conv_dgrad, grouped) for family in module.FAMILIES if family.ops == Folded.ops
)
