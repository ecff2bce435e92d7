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
#: Bank conflicts over passes without one, where words of two filter rows, which are not in one line, meet in a fragment.
CONFLICTS = {
    "stem, channels_last": 0.25,
    "stem, NCHW": 0.25,
    "stem, TF32": 0.54,
    "stem wgrad": 0.60,
    "stem wgrad, TF32": 0.32,
}
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


@pytest.mark.parametrize("name", CASES)
def test_main_loops_have_no_bank_conflicts_but_the_known(name: str) -> None:
    _, launch = counted(name)
    loop = [
        access
        for access in launch.by_line()
        if access.target == "dynamic shared memory"
        and access.kind == "load"
        and any(file in access.line for file in MAIN_LOOPS)
    ]
    assert sum(access.wavefronts for access in loop) > 0
    worst = max(loop, key=lambda access: access.bank_conflicts)
    assert round(worst.bank_conflicts / worst.ideal_wavefronts, 2) == CONFLICTS.get(name, 0), worst
