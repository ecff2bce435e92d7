"""Operands that are turned to channels-last in parts, because all at once would exceed the workspace."""

from __future__ import annotations

import pytest
import torch

from fastconv import emulator
from tests.core.mma_support import Case, assert_exact

NCHW = {"x_last": False, "w_last": False, "y_last": False}
PADDED = {"padding": (1, 1, 1, 1), "bias": True}
# The workspace is twice what a few of the images take.
CASES = {
    "fprop": Case(
        "fprop",
        torch.float16,
        (7, 20, 9, 8),
        (24, 20, 3, 3),
        residual=True,
        most_workspace_bytes=40_000,
        **PADDED,
        **NCHW,
    ),
    "fprop, groups": Case(
        "fprop",
        torch.float32,
        (5, 16, 9, 8),
        (12, 8, 3, 3),
        groups=2,
        activation="relu",
        most_workspace_bytes=40_000,
        **NCHW,
    ),
    "dgrad": Case(
        "dgrad",
        torch.bfloat16,
        (7, 24, 9, 8),
        (20, 24, 3, 3),
        stride=(2, 1),
        most_workspace_bytes=24_000,
        **PADDED,
        **NCHW,
    ),
    "wgrad": Case("wgrad", torch.float16, (7, 12, 9, 8), (10, 12, 3, 3), most_workspace_bytes=60_000, **PADDED, **NCHW),
    "wgrad, one operand": Case(
        "wgrad",
        torch.float32,
        (7, 8, 9, 8),
        (8, 8, 2, 2),
        bias=True,
        allow_tf32=True,
        x_last=False,
        most_workspace_bytes=30_000,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_parts_are_exact_and_within_the_limit(name: str) -> None:
    case = CASES[name]
    legal = [one for one in case.candidates() if not one.reason]
    assert legal, [one.reason for one in case.candidates()]
    with emulator.check(seed=3):
        for candidate in [legal[0], legal[-1], *[one for one in legal if "_k" in one.config][:1]]:
            assert candidate.details["parts"] > 1
            assert candidate.details["workspace_bytes"] <= case.most_workspace_bytes
            assert_exact(case, candidate.config)


@pytest.mark.parametrize("conv_pass", ["fprop", "dgrad", "wgrad"])
def test_large_nchw_problems_keep_tensor_cores(conv_pass: str) -> None:
    """2 GB operands of a first U-Net layer at batch 96, far beyond the 256 MiB of workspace."""
    case = Case(
        conv_pass,
        torch.bfloat16,
        (96, 64, 570, 570),
        (64, 64, 3, 3),
        x_last=False,
        w_last=False,
        y_last=False,
        index_bits=64,
    )
    legal = [one for one in case.candidates() if not one.reason]
    assert legal
    for candidate in legal:
        assert candidate.details["parts"] > 1
        assert candidate.details["workspace_bytes"] <= 256 << 20


def test_an_image_that_is_too_large_alone_is_rejected_in_one_line() -> None:
    case = Case("fprop", torch.float16, (1, 64, 1200, 1200), (8, 64, 3, 3), x_last=False)
    assert {one.reason for one in case.candidates()} == {
        "turning an image to channels-last would take more than the 256 MiB of workspace that there may be"
    }
