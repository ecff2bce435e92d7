"""The largest of many values and its place, by PyTorch's rules, where more than one program looks for it.

The first maximum wins, any NaN wins over numbers and the last NaN over earlier ones. Candidates must come in the order of their
places: a later one wins only if it is larger or NaN.
"""

from __future__ import annotations

import torch
import triton.language as tl

from fastconv.backends.triton.family import Workspaces, ceil_div
from fastconv.backends.triton.gemm import accumulator_of, sum_dtype
from fastconv.backends.triton.numerics import max_over, narrow, widen
from fastconv.backends.triton.runtime import Launch, device_function, kernel


@device_function
def first_inside(start, DILATION: tl.constexpr):
    """The first tap of a window that starts at `start` which does not lie before the image."""
    return tl.maximum(DILATION - 1 - start, 0) // DILATION


@device_function
def keep_winner(best, place, value, candidate, valid):
    """(best, place) after looking at a later candidate."""
    wins = valid & ((value > best) | (value != value))
    return tl.where(wins, value, best), tl.where(wins, candidate, place)


@device_function
def winner_over(best, place, AXIS: tl.constexpr):
    """The winner among those of one axis, which need not lie in the order of their places."""
    is_number = best == best
    numbers = tl.where(is_number, best, -float("inf"))
    largest = max_over(numbers, AXIS)
    first = -max_over(tl.where(is_number & (numbers == tl.expand_dims(largest, AXIS)), -place, -_NO_PLACE), AXIS)
    last_nan = max_over(tl.where(is_number, -1, place), AXIS)
    return tl.where(last_nan >= 0, float("nan"), largest), tl.where(last_nan >= 0, last_nan, first)


#: Later than every place.
_NO_PLACE = tl.constexpr((1 << 31) - 1)


@kernel
def combine_winners_kernel(
    best_pointer,  # [parts, features]
    place_pointer,  # [parts, features]
    y_pointer,  # [features]
    offsets_pointer,  # [features]
    parts, features, ACCUMULATOR: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The winner of all parts; a part's places lie before those of the next."""
    feature = widen(tl.program_id(0), WIDE) * BLOCK + tl.arange(0, BLOCK)
    valid = feature < features
    best = tl.load(best_pointer + feature, mask=valid, other=0.0)
    place = tl.load(place_pointer + feature, mask=valid, other=0)
    for part in range(1, parts):
        offsets = widen(part, WIDE) * features + feature
        value = tl.load(best_pointer + offsets, mask=valid, other=0.0)
        candidate = tl.load(place_pointer + offsets, mask=valid, other=0)
        best, place = keep_winner(best, place, value, candidate, valid)
    tl.store(y_pointer + feature, narrow(best, y_pointer.dtype.element_ty), mask=valid)
    tl.store(offsets_pointer + feature, place.to(offsets_pointer.dtype.element_ty), mask=valid)


_BLOCK = 128


def workspaces(dtype: torch.dtype, parts: int, features: int) -> Workspaces:
    elements = parts * features
    return {"best": (elements, sum_dtype(dtype)), "place": (elements, torch.int32)}


def combine(dtype: torch.dtype, parts: int, features: int, wide: bool, places: str) -> Launch:
    """From the workspaces into y [features] and the role `places`, both dense."""
    constants = {"ACCUMULATOR": accumulator_of(dtype), "WIDE": wide, "BLOCK": _BLOCK}
    sizes = {"parts": parts, "features": features}
    return Launch(combine_winners_kernel, ceil_div(features, _BLOCK), sizes, constants, aliases={"offsets": places})
