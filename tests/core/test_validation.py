"""Everything that a problem may not be, and that the message names the argument and what would be accepted."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest


def dense(*sizes: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    strides = [1]
    for size in reversed(sizes[1:]):
        strides.insert(0, strides[0] * size)
    return sizes, tuple(strides)


def conv(core: ModuleType, **changes: Any) -> Any:
    keywords: dict[str, Any] = {
        "conv_pass": "fprop",
        "dtype": "float32",
        "x": dense(2, 6, 9, 8),
        "w": dense(4, 3, 3, 3),
        "y": dense(2, 4, 5, 4),
        "stride": (2, 2),
        "padding": (1, 1, 1, 1),
        "dilation": (1, 1),
        "groups": 2,
    }
    return core.ConvProblem(**{**keywords, **changes})


def pool(core: ModuleType, **changes: Any) -> Any:
    keywords: dict[str, Any] = {
        "pool_pass": "forward",
        "dtype": "float32",
        "x": dense(2, 3, 9, 8),
        "y": dense(2, 3, 5, 4),
        "offsets": dense(2, 3, 5, 4),
        "kernel": (3, 3),
        "stride": (2, 2),
        "padding": (1, 1),
    }
    return core.PoolProblem(**{**keywords, **changes})


HUGE = ((2, 6, 9, 8), (2**31, 72, 8, 1))

BAD_CONVOLUTIONS = [
    ({"conv_pass": "forward"}, "conv_pass is 'forward'.*fprop, dgrad, wgrad"),
    ({"dtype": "int8"}, "dtype is 'int8'.*float64, float32, float16, bfloat16"),
    ({"activation": "selu"}, "activation is 'selu'.*identity"),
    ({"index_bits": 16}, "index_bits is 16.*32 or 64"),
    ({"capability": 8}, "capability is 8"),
    ({"multiprocessors": 0}, "multiprocessors is 0.*1 or more"),
    ({"l2_bytes": -1}, "l2_bytes is -1.*or 0 for what devices of the capability mostly have"),
    ({"stride": (0, 1)}, r"stride is \(0, 1\).*1 or more"),
    ({"stride": (2, -2)}, r"stride is \(2, -2\)"),
    ({"dilation": (1, 0)}, r"dilation is \(1, 0\)"),
    ({"padding": (1, -1, 1, 1)}, r"padding is \(1, -1, 1, 1\).*0 or more"),
    ({"padding_mode": "mirror"}, "padding_mode is 'mirror'.*zeros, reflect, replicate, circular, constant"),
    ({"padding_value": 1.5}, "padding_value is 1.5.*0 where padding_mode is zeros"),
    (
        {"padding_mode": "reflect", "padding_value": float("nan")},
        "padding_value is nan.*0 where padding_mode is reflect",
    ),
    ({"padding_mode": "reflect", "padding": (9, 1, 1, 1), "y": dense(2, 4, 9, 4)}, "padding is.*less than H = 9"),
    ({"padding_mode": "reflect", "padding": (1, 1, 1, 8), "y": dense(2, 4, 5, 8)}, "padding is.*less than W = 8"),
    ({"padding_mode": "circular", "padding": (1, 10, 1, 1), "y": dense(2, 4, 9, 4)}, "padding is.*at most H = 9"),
    ({"groups": 0}, "groups is 0.*1 or more"),
    ({"groups": 4}, "groups is 4.*divisor of x's channels, 6"),
    ({"x": dense(2, 9, 9, 8), "groups": 3}, "groups is 3.*divisor of y's channels, 4"),
    ({"x": dense(3, 6, 9, 8)}, "batch of y is 2.*3"),
    ({"w": dense(5, 3, 3, 3)}, r"w size 0 .*is 5.*4"),
    ({"w": dense(4, 6, 3, 3)}, r"w size 1 .*is 6.*3, x's channels divided by groups"),
    ({"w": dense(4, 3, 0, 3)}, "w sizes.*1 or more in height and width"),
    ({"y": dense(2, 4, 6, 4)}, r"y size 2 \(P\) is 6.*must be 5.*H = 9"),
    ({"y": dense(2, 4, 3, 4)}, r"y size 2 \(P\) is 3.*must be 5"),
    ({"y": dense(2, 4, 5, 0)}, r"y size 3 \(Q\) is 0"),
    ({"x": dense(2, 6, 0, 8), "padding": (0, 0, 1, 1)}, r"fits into the padded input"),
    ({"x": ((2, 6, 9, 8), (432, 72, 8, -1))}, "x strides.*0 or more"),
    ({"x": ((2, 6, -9, 8), (432, 72, 8, 1))}, "x sizes.*0 or more"),
    ({"x": HUGE}, r"index_bits is 32.*64 where an operand spans 2\*\*31"),
    ({"x": ((2, 6, 9, 8), (2**61, 72, 8, 1)), "index_bits": 64}, "addressable"),
    ({"y": ((2, 4, 5, 4), (0, 20, 4, 1))}, "y strides.*free of overlap"),
    ({"y": ((2, 4, 5, 4), (80, 20, 3, 1))}, "y strides.*free of overlap"),
    ({"conv_pass": "dgrad", "x": ((2, 6, 9, 8), (0, 72, 8, 1))}, "x strides.*free of overlap"),
    ({"conv_pass": "wgrad", "w": ((4, 3, 3, 3), (27, 0, 3, 1))}, "w strides.*free of overlap"),
    ({"conv_pass": "dgrad", "residual": dense(2, 4, 5, 4)}, "residual is given.*None in dgrad"),
    ({"residual": dense(2, 4, 5, 5)}, r"residual sizes is \(2, 4, 5, 5\).*\(2, 4, 5, 4\)"),
    ({"conv_pass": "wgrad", "activation": "relu"}, "activation is not identity"),
]

BAD_POOLS = [
    ({"pool_pass": "average"}, "pool_pass is 'average'.*forward, backward, gather, indices"),
    ({"offsets_dtype": "int64"}, "offsets_dtype is 'int64'.*uint8, int32"),
    ({"kernel": (0, 3)}, r"kernel is \(0, 3\)"),
    ({"stride": (2, 0)}, r"stride is \(2, 0\)"),
    ({"dilation": (0, 1)}, r"dilation is \(0, 1\)"),
    ({"padding": (-1, 1)}, r"padding is \(-1, 1\)"),
    ({"padding": (2, 1)}, r"padding is \(2, 1\).*at most half of the dilated kernel of 3"),
    ({"kernel": (17, 17)}, "offsets_dtype is uint8.*int32 where the window has more than 256"),
    ({"y": dense(2, 3, 6, 4), "offsets": dense(2, 3, 6, 4)}, r"y size 2 \(P\) is 6.*must be 5"),
    ({"y": dense(2, 3, 5, 3), "offsets": dense(2, 3, 5, 3)}, r"y size 3 \(Q\) is 3.*must be 4, or 5 with ceil_mode"),
    ({"offsets": dense(2, 3, 5, 5)}, "offsets sizes"),
    ({"x": dense(1, 3, 9, 8)}, "batch of y"),
    ({"x": dense(2, 4, 9, 8)}, "channels of y"),
    ({"y": ((2, 3, 5, 4), (60, 20, 4, 0))}, "y strides.*free of overlap"),
    ({"offsets": ((2, 3, 5, 4), (0, 20, 4, 1))}, "offsets strides.*free of overlap"),
    ({"pool_pass": "backward", "x": ((2, 3, 9, 8), (216, 72, 8, 0))}, "x strides.*free of overlap"),
    ({"x": ((2, 3, 9, 8), (2**31, 72, 8, 1))}, "index_bits is 32"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_CONVOLUTIONS)
def test_a_bad_convolution_is_refused(fast_core: ModuleType, changes: dict[str, Any], message: str) -> None:
    conv(fast_core)
    with pytest.raises(ValueError, match=message):
        conv(fast_core, **changes)


@pytest.mark.parametrize(("changes", "message"), BAD_POOLS)
def test_a_bad_pool_is_refused(fast_core: ModuleType, changes: dict[str, Any], message: str) -> None:
    pool(fast_core)
    with pytest.raises(ValueError, match=message):
        pool(fast_core, **changes)


def test_a_bad_channel_sum_is_refused(fast_core: ModuleType) -> None:
    with pytest.raises(ValueError, match="index_bits is 32"):
        fast_core.ChannelSumProblem(dtype="float32", x=HUGE)
    with pytest.raises(ValueError, match="x strides"):
        fast_core.ChannelSumProblem(dtype="float32", x=((1, 1, 1, 1), (1, 1, 1, -1)))


def test_inputs_may_overlap_and_be_large_where_the_index_is_wide(fast_core: ModuleType) -> None:
    conv(fast_core, x=HUGE, index_bits=64)
    conv(fast_core, x=((2, 6, 9, 8), (0, 0, 0, 0)))
    fast_core.ChannelSumProblem(dtype="float32", x=((2**20, 2**20, 4, 4), (0, 0, 0, 0)), index_bits=64)
    # What is counted must fit as well as what is spanned.
    with pytest.raises(ValueError, match="index_bits is 32"):
        fast_core.ChannelSumProblem(dtype="float32", x=((2**16, 2**16, 1, 1), (0, 0, 0, 0)))


def test_both_sizes_that_ceil_mode_can_give_are_accepted(fast_core: ModuleType) -> None:
    for width in (4, 5):
        pool(fast_core, y=dense(2, 3, 5, width), offsets=dense(2, 3, 5, width))


def test_a_plan_refuses_what_it_cannot_launch(fast_core: ModuleType) -> None:
    problem = conv(fast_core)
    with pytest.raises(ValueError, match=r"kernel is 'none', but conv2d_fprop has .*direct_fprop"):
        fast_core.Plan(problem, "none", "")
    with pytest.raises(ValueError, match=r"config is 'large', but direct_fprop has 'k8p4'"):
        fast_core.Plan(problem, "direct_fprop", "large")
    plan = fast_core.Plan(problem, "direct_fprop", "k8p4")
    with pytest.raises(ValueError, match="takes 5 pointers, but was given 3"):
        plan.launch((64, 64, 64))
    with pytest.raises(ValueError, match="pointer of w is 0, but the problem needs it"):
        plan.launch((64, 0, 64, 0, 0))
    with pytest.raises(ValueError, match="pointer of bias is given, but the problem has none"):
        plan.launch((64, 64, 64, 64, 0))
    with pytest.raises(ValueError, match="pointer of y is 66, but must be a multiple of 4"):
        plan.launch((64, 64, 66, 0, 0))


def test_a_plan_refuses_to_run_without_its_workspace(fast_core: ModuleType) -> None:
    problem = conv(
        fast_core,
        conv_pass="wgrad",
        x=dense(8, 2, 64, 64),
        w=dense(2, 2, 1, 1),
        y=dense(8, 2, 64, 64),
        stride=(1, 1),
        padding=(0, 0, 0, 0),
        groups=1,
    )
    plan = fast_core.Plan(problem, "direct_wgrad", "f4c8")
    assert plan.workspace_bytes > 0
    with pytest.raises(ValueError, match="the workspace is 0"):
        plan.launch((64, 64, 64, 0, 0))


def test_candidates_tell_what_a_launch_will_be(fast_core: ModuleType) -> None:
    problem = conv(fast_core)
    assert problem.op == "conv2d_fprop"
    direct = [candidate for candidate in fast_core.candidates(problem) if candidate.kernel == "direct_fprop"]
    assert [candidate.config for candidate in direct] == ["k8p4", "k4p2", "k1p8"]
    for candidate in direct:
        assert not candidate.reason
        details = candidate.details
        assert details == fast_core.Plan(problem, candidate.kernel, candidate.config).details
        assert details["grid"] >= 1
        assert details["block"] == 128
        assert 0 < details["shared_bytes"] <= 48 * 1024
        assert details["workspace_bytes"] == 0
        assert details["flops"] == 2 * (2 * 4 * 5 * 4) * 3 * 9
        assert details["compulsory_bytes"] == 4 * (2 * 6 * 72 + 4 * 27 + 2 * 4 * 20)
        assert details["predicted_seconds"] > 0


def test_every_op_has_a_direct_kernel(fast_core: ModuleType) -> None:
    kernels = {(op, kernel) for op, kernel, description in fast_core.kernels() if description}
    assert kernels >= {
        ("conv2d_fprop", "direct_fprop"),
        ("conv2d_dgrad", "direct_dgrad"),
        ("conv2d_wgrad", "direct_wgrad"),
        ("channel_sum", "channel_sum"),
        ("max_pool2d_forward", "max_pool_forward"),
        ("max_pool2d_backward", "max_pool_backward"),
        ("max_pool2d_gather", "max_pool_gather"),
        ("max_pool2d_indices", "max_pool_indices"),
        ("max_unpool2d_forward", "max_unpool"),
        ("max_unpool2d_add", "max_unpool"),
        ("max_unpool2d_gather", "max_unpool_gather"),
    }
