"""Stems of any filter: the words of the sum are in an order that the main loop reads without bank conflicts."""

from __future__ import annotations

import pytest
import torch

from fastconv import emulator
from fastconv.emulator import LaunchCounts
from tests.core.family_support import FamilyCase

F16, F32 = torch.float16, torch.float32
#: Filters of stems, (R, S, stride, dilation, channels): the words of each are put in an order of its own.
STEMS = [
    (7, 7, 2, 1, 3),
    (3, 3, 2, 1, 3),
    (3, 3, 1, 1, 3),
    (5, 5, 1, 1, 3),
    (4, 4, 4, 1, 3),
    (11, 11, 4, 1, 3),
    (7, 7, 2, 1, 1),
    (3, 5, 1, 1, 1),
    (7, 7, 2, 1, 4),
    (5, 3, 3, 1, 2),
    (3, 3, 2, 2, 3),
]
#: What runs once for every step of the sum.
MAIN_LOOPS = ("operands.cuh", "warp_tile.cuh", "staged_wgrad.cuh")


def assert_no_bank_conflicts(launch: LaunchCounts) -> None:
    loop = [
        access
        for access in launch.by_line()
        if access.target == "dynamic shared memory"
        and access.kind == "load"
        and any(file in access.line for file in MAIN_LOOPS)
    ]
    assert sum(access.wavefronts for access in loop) > 0
    worst = max(loop, key=lambda access: access.bank_conflicts)
    assert worst.bank_conflicts == 0, worst


@pytest.mark.parametrize("dtype", [F16, F32])
@pytest.mark.parametrize("conv_pass", ["fprop", "wgrad"])
@pytest.mark.parametrize(("r", "s", "stride", "dilation", "channels"), STEMS)
def test_the_words_of_a_stem_are_read_without_bank_conflicts(
    conv_pass: str, dtype: torch.dtype, r: int, s: int, stride: int, dilation: int, channels: int
) -> None:
    """And in no more steps than the words have."""
    size = 16 * stride + (max(r, s) - 1) * dilation
    case = FamilyCase(
        conv_pass,
        dtype,
        (1, channels, size, size),
        (16, channels, r, s),
        stride=(stride, stride),
        dilation=(dilation, dilation),
        padding=(1, 1, 1, 1),
        family="stem",
        multiprocessors=1,
        allow_tf32=True,
    )
    configs = [config for config in ("16x8", "8x16") if config in case.configs()]
    assert configs or (r, dtype) == (11, F32)  # whose weights and image are larger than shared memory
    for config in configs:
        with emulator.count() as counters:
            case.run(config, case.tensors())
        launch = next(launch for launch in counters.launches if launch.kernel == case.kernel)
        assert_no_bank_conflicts(launch)
        if conv_pass == "fprop":
            tap_row = -(-s * (channels + pads_pixels(dtype, channels, stride, dilation)) * dtype.itemsize // 4)
            tiles = -(-case.y[2] // int(config.split("x")[0])) * -(-case.y[3] // int(config.split("x")[1]))
            steps = -(-r * tap_row // 8)
            operation = "mma.m16n8k16" if dtype == F16 else "mma.m16n8k8"
            assert launch.operations[operation] == tiles * steps * (128 // 16) * (32 // 8)


def pads_pixels(dtype: torch.dtype, channels: int, stride: int, dilation: int) -> bool:
    """Whether a pixel gets a place more, so that words of two elements begin at even places."""
    return dtype == F16 and channels % 2 == 1 and (stride % 2 == 1 or dilation > 1)
