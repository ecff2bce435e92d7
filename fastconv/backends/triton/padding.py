"""Padding as maps of indices, so that no padded copy of an image is made: what stands at a position of the padded image.

Kernels take two constants: PADDING, one of "none" (every tap stays inside), "zeros", "constant", "reflect", "replicate" and
"circular", and PADDING_VALUE, which is what "constant" pads with.
"""

from __future__ import annotations

from typing import Any

import triton.language as tl

from fastconv.backends.triton.numerics import narrow
from fastconv.backends.triton.runtime import device_function
from fastconv.problem import ConvProblem


@device_function
def padded_index(index, size, PADDING: tl.constexpr):
    """Where position `index` of the padded rows (columns) comes from; clamped into the image where it comes from nowhere.

    Reflection reaches less than `size` beyond the border and circular padding at most `size`.
    """
    if PADDING == "reflect":
        index = tl.where(index < 0, -index, index)
        index = tl.minimum(index, 2 * (size - 1) - index)
    elif PADDING == "circular":
        index = tl.where(index < 0, index + size, tl.where(index >= size, index - size, index))
    return tl.minimum(tl.maximum(index, 0), size - 1)


@device_function
def along_the_image(valid, index, size, PADDING: tl.constexpr):
    """`valid` where position `index` of the padded rows (columns) is loaded: zeros and constants are not."""
    if PADDING == "none" or PADDING == "zeros" or PADDING == "constant":
        valid = valid & (index >= 0) & (index < size)
    return valid


@device_function
def comes_from_the_image(valid, h, height, w, width, PADDING: tl.constexpr):
    """`valid` where (h, w) of the padded image is loaded."""
    return along_the_image(along_the_image(valid, h, height, PADDING), w, width, PADDING)


@device_function
def with_constant(tile, outside, PADDING: tl.constexpr, PADDING_VALUE: tl.constexpr):
    """The tile with the padding's value where `outside`: elements that products use, but that no load has brought."""
    if PADDING == "constant":
        # By way of a type that the interpreter has constants of.
        COMPUTED: tl.constexpr = tl.float64 if tile.dtype == tl.float64 else tl.float32
        value = narrow(tl.full(tile.shape, PADDING_VALUE, COMPUTED), tile.dtype)
        tile = tl.where(outside, value, tile)
    return tile


#: Modes that repeat elements of the image in the padding, so that a gradient by the image has several terms an element.
FOLDED = ("reflect", "replicate", "circular")


def padding_constants(problem: ConvProblem) -> dict[str, Any]:
    mode = problem.padding_mode if any(problem.padding) else "none"
    return {"PADDING": mode, "PADDING_VALUE": float(problem.padding_value)}


def unfolded(problem: ConvProblem) -> str:
    """Why a dgrad kernel that knows no borders cannot run the problem; empty where it can."""
    mode = problem.padding_mode
    if mode not in FOLDED:
        return ""
    return f"padding mode {mode}: this kernel knows zeros only, the folded one adds up what is repeated"
