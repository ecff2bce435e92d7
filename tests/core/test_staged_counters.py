"""What the emulator counts in the kernels of stems, groups and 1x1: compulsory bytes, 16-byte accesses, no bank conflicts in a
main loop."""

from __future__ import annotations

import pytest
import torch

from fastconv import emulator
from fastconv.emulator import LaunchCounts
from tests.core.family_support import FamilyCase

F16, F32 = torch.float16, torch.float32
SAME = (1, 1, 1, 1)
NCHW = {"x_last": False, "w_last": False, "y_last": False}

#: Bytes of x, y asked for over the bytes they have, at most; a tile's halo counts as often as tiles read it.
MOST, MOST_WITH_HALO = 1.1, 1.3


def stem(conv_pass: str, dtype: torch.dtype, **rest: object) -> FamilyCase:
    return FamilyCase(
        conv_pass,
        dtype,
        (1, 3, 64, 64),
        (64, 3, 7, 7),
        stride=(2, 2),
        padding=(3, 3, 3, 3),
        family="stem",
        **({"multiprocessors": 1, "allow_tf32": True} | rest),
    )


def grouped(conv_pass: str, channels: int, dtype: torch.dtype = F16, **rest: object) -> FamilyCase:
    return FamilyCase(
        conv_pass,
        dtype,
        (1, 64, 32, 32),
        (64, channels, 3, 3),
        padding=SAME,
        groups=64 // channels,
        family="grouped",
        **({"multiprocessors": 1, "allow_tf32": True} | rest),
    )


CASES = {
    "stem, channels_last": (stem("fprop", F16), "16x8"),
    "stem, NCHW": (stem("fprop", F16, **NCHW), "8x16"),
    "stem, TF32": (stem("fprop", F32), "8x16"),
    "stem wgrad": (stem("wgrad", F16), "16x8"),
    "stem wgrad, TF32": (stem("wgrad", F32), "8x16"),
    "groups of 4": (grouped("fprop", 4), "8x16"),
    "groups of 8": (grouped("fprop", 8), "8x16"),
    "groups of 16, dgrad": (grouped("dgrad", 16), "8x16"),
    "groups of 16 in TF32": (grouped("fprop", 16, F32), "8x16"),
    "groups of 8 wgrad": (grouped("wgrad", 8), "8x16"),
    "groups of 16 wgrad, TF32": (grouped("wgrad", 16, F32), "8x16"),
    "groups of 8, s2": (grouped("fprop", 8, stride=(2, 2)), "16x8"),
    "1x1": (FamilyCase("fprop", F16, (2, 64, 8, 16), (64, 64, 1, 1), family="pointwise", **NCHW), "64x128x64_s3_w4"),
    "1x1 dgrad": (
        FamilyCase("dgrad", F16, (2, 64, 8, 16), (64, 64, 1, 1), family="pointwise", **NCHW),
        "64x64x64_s4_w4",
    ),
    "1x1 wgrad": (
        FamilyCase("wgrad", F16, (2, 64, 8, 16), (64, 64, 1, 1), family="pointwise", **NCHW),
        "64x64x64_s4_w4",
    ),
}
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


def counted(name: str) -> tuple[FamilyCase, LaunchCounts]:
    case, config = CASES[name]
    assert config in case.configs()
    with emulator.count() as counters:
        case.run(config, case.tensors())
    return case, next(launch for launch in counters.launches if launch.kernel == case.kernel)


@pytest.mark.parametrize("name", CASES)
def test_inputs_are_read_once_and_outputs_written_once_by_16_bytes(name: str) -> None:
    case, launch = counted(name)
    sizes = {"x": case.x, "y": case.y}
    read = {"fprop": ["x"], "dgrad": ["dy"], "wgrad": ["x", "dy"]}[case.conv_pass]
    element = torch.finfo(case.dtype).bits // 8
    for tensor in read:
        loaded = launch.total(tensor, "load")
        elements = torch.Size(sizes["y" if tensor == "dy" else tensor]).numel()
        # Places of x that no tap takes need no reading.
        halo = case.family != "pointwise" and not (tensor == "dy" and case.conv_pass == "wgrad")
        ratio = loaded.bytes / (elements * element)
        # Halos of the smallest images: 7x7 s2 of a tile of 16x8 sees 37x21 pixels for 32x16.
        assert ratio <= (2.0 if halo else MOST), f"{tensor} is read {ratio:.2f} times"
        assert launch.total(tensor, "load", width=16).bytes >= 0.8 * loaded.bytes, f"{tensor} is read in pieces"
    if case.conv_pass == "wgrad":
        return
    written = "y" if case.conv_pass == "fprop" else "dx"
    stored = launch.total(written, "store")
    assert set(launch.widths(written, "store")) == {16}
    assert stored.sector_bytes == stored.bytes == torch.Size(sizes["y" if written == "y" else "x"]).numel() * element


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("1x1")])
def test_all_that_moves_is_little_more_than_compulsory(name: str) -> None:
    """Halos included, and weights, which every block packs for itself: at sizes of real layers they are lost in x and y."""
    case, launch = counted(name)
    element = torch.finfo(case.dtype).bits // 8
    moved = sum(
        launch.total(tensor, kind).bytes
        for tensor, kind in (("x", "load"), ("dy", "load"), ("y", "store"), ("dx", "store"))
    )
    compulsory = (torch.Size(case.x).numel() + torch.Size(case.y).numel()) * element
    assert moved <= MOST_WITH_HALO * compulsory, moved / compulsory


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


@pytest.mark.parametrize("name", CASES)
def test_main_loops_have_no_bank_conflicts(name: str) -> None:
    assert_no_bank_conflicts(counted(name)[1])


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
        padding=SAME,
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
