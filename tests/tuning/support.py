"""Problems, candidates and stores for the tests of tuning. Times in here are made up."""

import dataclasses

import torch

from fastconv import dispatch
from fastconv.plan import Candidate
from fastconv.problem import Operand, Target
from fastconv.tuning.keys import Environment

GPU = Target("cuda", 90, 132, "made-up GPU")
CPU = Target("cpu", 90, 132, "emulated sm_90")
HERE = Environment("made-up GPU", "1", "13.0", "91000", "2.11", "3.6", "0")


def conv(batch=2, target=GPU, conv_pass="fprop", dtype=torch.float32, channels=8, filters=4, groups=1, **options):
    x = _operand((batch, channels, 9, 9))
    w = _operand((filters, channels // groups, 3, 3))
    y = _operand((batch, filters, 9, 9))
    given = {
        "fprop": {"x": x, "w": w},
        "dgrad": {"x": x.sizes, "w": w, "y": y},
        "wgrad": {"x": x, "w": w.sizes, "y": y},
    }[conv_pass]
    geometry = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": groups}
    return dispatch.make_conv_problem(conv_pass, dtype, target, **given, **geometry, **options)


def pool(pool_pass="forward", target=GPU, dtype=torch.float32):
    window = {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1), "dilation": (1, 1), "ceil_mode": False}
    x = _operand((2, 4, 9, 9))
    forward = dispatch.make_pool_problem("forward", dtype, target, x=x, **window)
    return dataclasses.replace(forward, pool_pass=pool_pass)


def _operand(sizes):
    _, channels, height, width = sizes
    return Operand(sizes, (channels * height * width, height * width, width, 1))


def candidates(*seconds, reason=""):
    """ATen, and a kernel of ours for each predicted time."""
    ours = [
        Candidate("cuda", f"kernel{number}", f"config{number}", "", predicted)
        for number, predicted in enumerate(seconds)
    ]
    refused = [Candidate("triton", "refused", "", "too wide")]
    return [Candidate("aten", "conv2d_fprop", "", reason), *ours, *refused]
