"""What the host decides for the tensor-core kernels, without any data: who is rejected and why, balance, workspace."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from fastconv.bench.suite import Layer, load_suite
from tests.core.mma_support import Case

MOST_WORKSPACE = 256 << 20
BATCH = 32


def case_of(layer: Layer, conv_pass: str, multiprocessors: int) -> Case:
    channels, filters, size, out = layer.channels, layer.filters, layer.size, layer.convolved_size
    if layer.op == "conv_transpose2d":  # dgrad of the convolution that goes the other way
        channels, filters, size, out = filters, channels, out, size
    return Case(
        conv_pass,
        torch.bfloat16,
        (BATCH, channels, *size),
        (filters, channels // layer.groups, *layer.kernel),
        stride=layer.stride,
        padding=(layer.padding[0], layer.padding[0], layer.padding[1], layer.padding[1]),
        dilation=layer.dilation,
        groups=layer.groups,
        capability=90 if multiprocessors == 132 else 80,
        multiprocessors=multiprocessors,
    )


@pytest.mark.parametrize("multiprocessors", [108, 132])
@pytest.mark.parametrize(
    ("dtype", "allow_tf32"),
    [(torch.bfloat16, False), (torch.float16, False), (torch.float32, True), (torch.float32, False)],
)
def test_chosen_tiles_fill_the_last_wave_of_every_layer(
    dtype: torch.dtype, allow_tf32: bool, multiprocessors: int
) -> None:
    count = 0
    for suite in ("resnet50", "vgg16", "unet", "dcgan"):
        for layer in load_suite(suite).layers:
            if layer.op not in ("conv2d", "conv_transpose2d"):
                continue
            for conv_pass in ("fprop", "dgrad", "wgrad"):
                case = dataclasses.replace(
                    case_of(layer, conv_pass, multiprocessors), dtype=dtype, allow_tf32=allow_tf32
                )
                legal = [one for one in case.candidates() if not one.reason]
                assert legal, f"{layer.id} {conv_pass} has no tensor-core kernel"
                chosen = legal[0]
                blocks = chosen.details["grid"]
                efficiency = blocks / (-(-blocks // multiprocessors) * multiprocessors)
                assert efficiency >= 0.85, f"{layer.id} {conv_pass}: {chosen.config} fills {efficiency:.0%}"
                assert chosen.details["last_wave_percent"] == int(100 * efficiency)
                count += 1
    assert count == 195


@pytest.mark.parametrize("conv_pass", ["fprop", "dgrad", "wgrad"])
@pytest.mark.parametrize("last", [True, False])
def test_workspace_is_bounded(conv_pass: str, last: bool) -> None:
    case = Case(
        conv_pass, torch.bfloat16, (32, 512, 14, 14), (512, 512, 3, 3), padding=(1, 1, 1, 1), x_last=last, y_last=last
    )
    legal = [one for one in case.candidates() if not one.reason]
    assert any("_k" in one.config for one in legal)
    assert all(one.details["workspace_bytes"] <= MOST_WORKSPACE for one in legal)


def test_fewer_splits_where_the_workspace_would_be_exceeded() -> None:
    # 60 MiB of partial sums a split.
    case = Case("wgrad", torch.bfloat16, (1, 1280, 8, 8), (1365, 1280, 3, 3), padding=(1, 1, 1, 1))
    legal = [one for one in case.candidates() if not one.reason]
    assert legal
    assert all(one.details["workspace_bytes"] <= MOST_WORKSPACE for one in legal)
    assert max(one.details["splits"] for one in legal) <= 4


REJECTED = {
    "float64 is not a tensor-core type": (
        Case("fprop", torch.float32, (1, 8, 8, 8), (8, 8, 3, 3), capability=75),
        "needs compute capability 8.0",
    ),
    "depthwise": (Case("fprop", torch.float16, (1, 16, 8, 8), (16, 1, 3, 3), groups=16), "groups of 1 input channels"),
    "groups of 12": (Case("fprop", torch.float16, (1, 24, 8, 8), (16, 12, 3, 3), groups=2), "groups of 12 input"),
    "dgrad of odd groups": (Case("dgrad", torch.float16, (1, 16, 8, 8), (6, 8, 3, 3), groups=2), "groups of 3 output"),
    "a filter of 40 rows": (Case("fprop", torch.float16, (1, 8, 40, 4), (8, 8, 40, 1)), "more than 31 rows"),
    "positions that no int holds": (
        Case(
            "fprop",
            torch.float16,
            (1, 8, 4, 4),
            (8, 8, 1, 1),
            stride=(2**30, 1),
            padding=(0, 2**31 - 1, 0, 0),
            padding_mode="replicate",
            index_bits=64,
        ),
        "2147483651 rows and the filter spans 1; accepted are 2147418111 together",
    ),
    "stride 17": (Case("dgrad", torch.float16, (1, 8, 40, 4), (8, 8, 3, 1), stride=(17, 1)), "stride of more than 16"),
}


@pytest.mark.parametrize("name", REJECTED)
def test_what_no_configuration_takes_is_rejected_in_one_line(name: str) -> None:
    case, reason = REJECTED[name]
    candidates = case.candidates()
    assert candidates
    assert all(reason in one.reason and "\n" not in one.reason for one in candidates)


def test_small_shared_memory_rules_tiles_out() -> None:
    case = Case("fprop", torch.float16, (1, 64, 8, 8), (64, 64, 3, 3))
    reasons = {one.config: one.reason for one in dataclasses.replace(case, capability=89).candidates()}
    assert "needs" in reasons["256x128x32_s4_w8"]
    assert not reasons["64x64x64_s4_w4"]


def test_pixels_that_are_copied_in_smaller_pieces_are_predicted_to_take_longer() -> None:
    """Of 24, 20 and 18 channels a tap has as many terms; 16 bytes of them are one copy, two and four."""
    seconds = []
    for channels in (24, 20, 18):
        case = Case(
            "wgrad", torch.float16, (32, channels, 56, 56), (128, channels, 3, 3), padding=(1, 1, 1, 1), capability=90
        )
        seconds.append(min(one.details["predicted_seconds"] for one in case.candidates() if not one.reason))
    assert seconds[0] < seconds[1] < seconds[2]


def test_at_least_six_tiles_from_64x64_to_256x128() -> None:
    case = Case("fprop", torch.float16, (8, 256, 28, 28), (256, 256, 3, 3), padding=(1, 1, 1, 1))
    tiles = {(one.details["tile_rows"], one.details["tile_columns"]) for one in case.candidates()}
    assert len(tiles) >= 6
    assert {(64, 64), (256, 128)} <= tiles
