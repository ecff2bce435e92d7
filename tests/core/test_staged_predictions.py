"""What staged kernels are predicted to issue, against the checked-in counts of their machine code."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.core.family_layers import LAYERS, Type
from tests.core.family_support import FamilyCase
from tests.core.mma_support import NAMES

#: Of the tile that family_layers.py counts.
CONFIG = "16x8"
TYPES = [(torch.float16, "native"), (torch.bfloat16, "native"), (torch.float32, "tf32"), (torch.float32, "split_tf32")]


def stem(size: int, stride: int, channels: int, filters: int, conv_pass: str) -> FamilyCase:
    side = (size // 2 if stride < size else 0,) * 4
    x, w = (8, channels, 224, 224), (filters, channels, size, size)
    return FamilyCase(conv_pass, torch.float16, x, w, stride=(stride, stride), padding=side, family="stem")


def groups(channels: int, conv_pass: str) -> FamilyCase:
    x, w = (8, 128, 56, 56), (128, channels, 3, 3)
    return FamilyCase(conv_pass, torch.float16, x, w, padding=(1,) * 4, groups=128 // channels, family="grouped")


CASES = {
    f"stem {conv_pass} {size}x{size} s{stride}, {channels} to {filters}": stem(
        size, stride, channels, filters, conv_pass
    )
    for size, stride, channels, filters in ((7, 2, 3, 64), (3, 2, 3, 32), (4, 4, 3, 96))
    for conv_pass in ("fprop", "wgrad")
} | {f"groups of {n} {conv_pass} 3x3": groups(n, conv_pass) for n in (4, 8, 16, 32) for conv_pass in ("fprop", "wgrad")}


def details_of(case: FamilyCase, dtype: torch.dtype, precision: str) -> dict[str, float]:
    typed = dataclasses.replace(case, dtype=dtype, allow_tf32=precision == "tf32", capability=90, multiprocessors=132)
    return next(one.details for one in typed.candidates() if one.config == CONFIG)


@pytest.mark.parametrize(("dtype", "precision"), TYPES)
@pytest.mark.parametrize("name", CASES)
def test_instructions_are_those_of_the_machine_code(name: str, dtype: torch.dtype, precision: str) -> None:
    details = details_of(CASES[name], dtype, precision)
    predicted = details["tile_instructions"] * details.get("parts", 1)
    if name.startswith("groups") and CASES[name].conv_pass == "wgrad":
        # Counted are 128 bytes of a pixel, of which a block has 64 filters.
        predicted = details["tile_instructions"] * (128 / dtype.itemsize) / details["tile_filters"]
    if precision == "split_tf32":
        tf32 = details_of(CASES[name], dtype, "tf32")
        one, three = (found["tile_instructions"] * found.get("parts", 1) for found in (tf32, details))
        assert three > 1.2 * one, "three products for one; blocks of stems have half of the filters"
        return
    counted = LAYERS[name][0](Type(NAMES[dtype], precision, "sm_90a")).instructions
    assert predicted == pytest.approx(counted, rel=0.1), details


@pytest.mark.parametrize("name", ["stem fprop 7x7 s2, 3 to 64", "groups of 8 fprop 3x3"])
def test_outputs_that_are_not_plain_are_predicted_to_take_longer(name: str) -> None:
    plain, general = (
        details_of(dataclasses.replace(CASES[name], activation=activation), torch.float16, "native")
        for activation in ("relu", "silu")
    )
    assert general["tile_instructions"] > 1.3 * plain["tile_instructions"]
    assert general["predicted_seconds"] > 1.1 * plain["predicted_seconds"]


@pytest.mark.parametrize("conv_pass", ["fprop", "wgrad"])
def test_rows_that_are_read_in_pieces_are_predicted_to_take_longer(conv_pass: str) -> None:
    """Of 7x7 planes an element at a time, of 14x14 two, of 28x28 four, and of 56x56, as of channels_last, all eight."""
    case = groups(16, conv_pass)
    planes = {"x_last": False, "w_last": False, "y_last": False}
    beside = [
        details_of(dataclasses.replace(case, **sizes, **planes), torch.float16, "native")["tile_instructions"]
        - details_of(dataclasses.replace(case, **sizes), torch.float16, "native")["tile_instructions"]
        for sizes in ({"x": (8, 128, side, side)} for side in (56, 28, 14, 7))
    ]
    assert all(pieces > 1.5 * beside[0] for pieces in beside[1:]), beside
