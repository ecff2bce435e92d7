"""Problems that stand for what networks ask of the Triton kernels, at real sizes: they are compiled, never run.

Between them they take every kernel, both layouts, every dtype, and the branches that cost registers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from fastconv.make_problem import make_conv_global_max_problem, make_conv_max_pool_problem
from fastconv.problem import (
    ActivationBackwardProblem,
    ChannelSumProblem,
    ConvProblem,
    Operand,
    PoolProblem,
    Problem,
    Target,
    UnpoolProblem,
)
from fastconv.shapes import conv_output_sizes, dense_strides, pool_output_sizes

BF16, F16, F32, F64 = torch.bfloat16, torch.float16, torch.float32, torch.float64


def dense(sizes: tuple[int, ...], channels_last: bool) -> Operand:
    return Operand(tuple(sizes), dense_strides(tuple(sizes), channels_last))


def conv(conv_pass: str, x: tuple, w: tuple, dtype=BF16, *, stride=1, padding=0, groups=1, nchw=False, **options):
    """Maker of a convolution problem for a target: x [N, C, H, W], w [K, C/G, R, S]; `residual=True` adds one."""
    strides, pads = (stride, stride), (padding,) * 4
    dilation = (options.pop("dilation", 1),) * 2
    y = conv_output_sizes(x, w, strides, pads, dilation)
    residual = dense(y, not nchw) if options.pop("residual", False) else None

    def make(target: Target) -> Problem:
        x_operand, w_operand, y_operand = (dense(sizes, not nchw) for sizes in (x, w, y))
        return ConvProblem(
            conv_pass, dtype, x_operand, w_operand, y_operand, strides, pads, dilation, groups, target,
            residual=residual, **options,
        )  # fmt: skip

    return make


def pool(pool_pass: str, x: tuple, kernel: int, stride: int, padding: int, dtype=BF16, *, nchw=False):
    pair = (kernel, kernel), (stride, stride), (padding, padding), (1, 1)
    y = pool_output_sizes(x, *pair, False)

    def make(target: Target) -> Problem:
        x_operand, y_operand = dense(x, not nchw), dense(y, not nchw)
        return PoolProblem(pool_pass, dtype, x_operand, y_operand, y_operand, torch.uint8, *pair, target)

    return make


def unpool(unpool_pass: str, x: tuple, size: tuple[int, int], dtype=BF16, *, nchw=False):
    y = (*x[:2], *size)
    return lambda target: UnpoolProblem(
        unpool_pass, dtype, dense(x, not nchw), dense(x, not nchw), dense(y, not nchw), target
    )


def channel_sum(x: tuple, dtype=BF16, *, nchw=False):
    return lambda target: ChannelSumProblem(dtype, dense(x, not nchw), target)


def activation_backward(x: tuple, activation: str, dtype=BF16, *, dy_nchw=False):
    """Channels-last, but for dy where that is asked."""
    return lambda target: ActivationBackwardProblem(
        dtype, dense(x, not dy_nchw), dense(x, True), dense(x, True), activation, target
    )


def conv_max_pool(window: tuple[int, int, int], dtype=BF16, **convolution):
    """Maker of a convolution with bias and relu, given as for `conv`, and a pool over it: (kernel, stride, padding)."""
    kernel, step, pad = window
    pool = {"pool_kernel": (kernel,) * 2, "pool_stride": (step,) * 2, "pool_padding": (pad,) * 2}
    return lambda target: make_conv_max_pool_problem(dtype, target, **_fused(**convolution), **pool)


def conv_global_max(dtype=BF16, **convolution):
    return lambda target: make_conv_global_max_problem(dtype, target, **_fused(**convolution))


def _fused(x: tuple, w: tuple, stride=1, padding=0, nchw=False, **options):
    geometry = {"stride": (stride, stride), "padding": (padding,) * 4, "dilation": (1, 1), "groups": 1}
    return {
        "x": dense(x, not nchw),
        "w": dense(w, not nchw),
        **geometry,
        "has_bias": True,
        "activation": "relu",
        **options,
    }


def wide(make: Callable[[Target], Problem]) -> Callable[[Target], Problem]:
    return lambda target: dataclasses.replace(make(target), index_bits=64)


MIDDLE, MIDDLE_3X3 = (32, 256, 56, 56), (256, 256, 3, 3)
DEPTHWISE = {"x": (32, 256, 56, 56), "w": (256, 1, 3, 3), "padding": 1, "groups": 256}
STEM = {"x": (32, 3, 224, 224), "w": (64, 3, 7, 7), "stride": 2, "padding": 3}
RESNEXT = {"x": (32, 128, 56, 56), "w": (128, 4, 3, 3), "padding": 1, "groups": 32}
ODD = {"x": (8, 20, 33, 35), "w": (24, 20, 3, 3), "padding": 1}
UPSAMPLE = {"x": (8, 128, 64, 64), "w": (256, 128, 2, 2), "stride": 2}

FOUR_CHANNELS = {"x": (32, 4, 64, 64), "w": (64, 4, 3, 3), "padding": 1}
TWELVE_CHANNELS = {"x": (32, 12, 64, 64), "w": (64, 12, 5, 5), "padding": 2}
DEPTHWISE_7X7 = {"x": (32, 128, 28, 28), "w": (128, 1, 7, 7), "padding": 3, "groups": 128}
DEPTHWISE_LARGE = {"x": (4, 32, 256, 256), "w": (32, 1, 3, 3), "padding": 1, "groups": 32}
LARGE = (4, 32, 512, 512)

PROBLEMS: dict[str, Callable[[Target], Problem]] = {
    "fprop_3x3": conv("fprop", MIDDLE, MIDDLE_3X3, padding=1, has_bias=True),
    "fprop_3x3_relu": conv("fprop", MIDDLE, MIDDLE_3X3, padding=1, has_bias=True, residual=True, activation="relu"),
    "fprop_3x3_gelu": conv("fprop", MIDDLE, MIDDLE_3X3, padding=1, has_bias=True, activation="gelu"),
    "fprop_1x1_tanh_f16": conv("fprop", MIDDLE, (64, 256, 1, 1), F16, activation="tanh"),
    "fprop_1x1": conv("fprop", MIDDLE, (256, 256, 1, 1), has_bias=True, residual=True, activation="relu"),
    "fprop_1x1_tf32": conv("fprop", MIDDLE, (256, 256, 1, 1), F32, allow_tf32=True),
    "fprop_3x3_wide": wide(conv("fprop", MIDDLE, MIDDLE_3X3, padding=1)),
    "fprop_3x3_nchw": conv("fprop", (32, 128, 28, 28), (128, 128, 3, 3), padding=1, nchw=True),
    "fprop_1x1_nchw": conv("fprop", MIDDLE, (256, 256, 1, 1), nchw=True),
    "fprop_3x3_tf32": conv("fprop", MIDDLE, MIDDLE_3X3, F32, padding=1, allow_tf32=True),
    "fprop_3x3_tf32_nchw": conv("fprop", MIDDLE, MIDDLE_3X3, F32, padding=1, allow_tf32=True, nchw=True),
    "fprop_3x3_f32": conv("fprop", MIDDLE, MIDDLE_3X3, F32, padding=1),
    "fprop_3x3_f64": conv("fprop", (2, 16, 16, 16), (16, 16, 3, 3), F64, padding=1, nchw=True),
    "fprop_odd": conv("fprop", dtype=F16, **ODD),
    "fprop_stem": conv("fprop", **STEM),
    "fprop_stem_tf32_nchw": conv("fprop", dtype=F32, allow_tf32=True, nchw=True, **STEM),
    "fprop_stem_f32": conv("fprop", dtype=F32, **STEM),
    "fprop_four": conv("fprop", **FOUR_CHANNELS),
    "fprop_four_f32": conv("fprop", dtype=F32, **FOUR_CHANNELS),
    "fprop_twelve": conv("fprop", **TWELVE_CHANNELS),
    "fprop_resnext": conv("fprop", **RESNEXT),
    "fprop_depthwise": conv("fprop", **DEPTHWISE),
    "fprop_depthwise_nchw": conv("fprop", nchw=True, **DEPTHWISE),
    "fprop_depthwise_large_nchw": conv("fprop", nchw=True, **DEPTHWISE_LARGE),
    "fprop_depthwise_f32_nchw": conv("fprop", dtype=F32, nchw=True, has_bias=True, activation="silu", **DEPTHWISE),
    "dgrad_3x3": conv("dgrad", MIDDLE, MIDDLE_3X3, padding=1),
    "dgrad_3x3_stride2": conv("dgrad", MIDDLE, MIDDLE_3X3, padding=1, stride=2),
    "dgrad_3x3_stride2_nchw": conv("dgrad", MIDDLE, MIDDLE_3X3, padding=1, stride=2, nchw=True),
    "dgrad_upsample_relu": conv("dgrad", has_bias=True, activation="relu", **UPSAMPLE),
    "dgrad_3x3_tf32": conv("dgrad", MIDDLE, MIDDLE_3X3, F32, padding=1, allow_tf32=True),
    "dgrad_3x3_f32": conv("dgrad", MIDDLE, MIDDLE_3X3, F32, padding=1),
    "dgrad_3x3_f64": conv("dgrad", (2, 16, 16, 16), (16, 16, 3, 3), F64, padding=1),
    "dgrad_resnext": conv("dgrad", **RESNEXT),
    "dgrad_odd": conv("dgrad", dtype=F16, **ODD),
    "dgrad_depthwise": conv("dgrad", **DEPTHWISE),
    "dgrad_depthwise_stride2": conv("dgrad", stride=2, **DEPTHWISE),
    "dgrad_depthwise_nchw": conv("dgrad", nchw=True, **DEPTHWISE),
    "wgrad_3x3": conv("wgrad", MIDDLE, MIDDLE_3X3, padding=1, has_bias=True),
    "wgrad_3x3_nchw": conv("wgrad", MIDDLE, MIDDLE_3X3, padding=1, nchw=True),
    "wgrad_1x1_stride2_tf32": conv("wgrad", MIDDLE, (512, 256, 1, 1), F32, stride=2, allow_tf32=True),
    "wgrad_3x3_tf32": conv("wgrad", MIDDLE, MIDDLE_3X3, F32, padding=1, allow_tf32=True),
    "wgrad_3x3_tf32_nchw": conv("wgrad", MIDDLE, MIDDLE_3X3, F32, padding=1, allow_tf32=True, nchw=True),
    "wgrad_3x3_f32": conv("wgrad", MIDDLE, MIDDLE_3X3, F32, padding=1),
    "wgrad_3x3_f64": conv("wgrad", (2, 16, 16, 16), (16, 16, 3, 3), F64, padding=1),
    "wgrad_odd": conv("wgrad", dtype=F16, **ODD),
    "wgrad_resnext": conv("wgrad", **RESNEXT),
    "wgrad_depthwise": conv("wgrad", **DEPTHWISE),
    "wgrad_depthwise_nchw": conv("wgrad", nchw=True, **DEPTHWISE),
    "wgrad_depthwise_7x7": conv("wgrad", **DEPTHWISE_7X7),
    "fprop_3x3_reflect_tf32": conv(
        "fprop", MIDDLE, MIDDLE_3X3, F32, padding=1, padding_mode="reflect", allow_tf32=True
    ),
    "fprop_stem_constant_tf32": conv(
        "fprop", dtype=F32, allow_tf32=True, padding_mode="constant", padding_value=0.5, **STEM
    ),
    "fprop_depthwise_circular_nchw": conv("fprop", padding_mode="circular", nchw=True, **DEPTHWISE),
    "dgrad_3x3_reflect_tf32": conv(
        "dgrad", MIDDLE, MIDDLE_3X3, F32, padding=1, padding_mode="reflect", allow_tf32=True
    ),
    "dgrad_depthwise_replicate_nchw": conv("dgrad", padding_mode="replicate", nchw=True, **DEPTHWISE),
    "wgrad_3x3_circular_tf32": conv(
        "wgrad", MIDDLE, MIDDLE_3X3, F32, padding=1, padding_mode="circular", allow_tf32=True
    ),
    "wgrad_depthwise_constant": conv("wgrad", padding_mode="constant", padding_value=0.5, **DEPTHWISE),
    "conv_max_pool_2x2": conv_max_pool((2, 2, 0), x=(32, 64, 56, 56), w=(128, 64, 3, 3), padding=1),
    "conv_max_pool_3x3": conv_max_pool((3, 2, 1), x=(32, 64, 56, 56), w=(64, 64, 3, 3), padding=1),
    "conv_max_pool_2x2_tf32": conv_max_pool(
        (2, 2, 0), F32, x=(32, 64, 56, 56), w=(128, 64, 3, 3), padding=1, allow_tf32=True
    ),
    "conv_max_pool_2x2_f32_nchw": conv_max_pool(
        (2, 2, 0), F32, x=(32, 64, 56, 56), w=(128, 64, 3, 3), padding=1, nchw=True
    ),
    "conv_global_max": conv_global_max(x=(32, 64, 56, 56), w=(128, 64, 3, 3), padding=1),
    "conv_global_max_tf32": conv_global_max(F32, x=(32, 64, 56, 56), w=(128, 64, 3, 3), padding=1, allow_tf32=True),
    "conv_global_max_f64": conv_global_max(F64, x=(2, 16, 16, 16), w=(16, 16, 3, 3), padding=1),
    "channel_sum": channel_sum(MIDDLE),
    "channel_sum_nchw": channel_sum(MIDDLE, nchw=True),
    "channel_sum_f64": channel_sum((2, 16, 16, 16), F64),
    "activation_backward_relu": activation_backward(MIDDLE, "relu"),
    "activation_backward_gelu_f32_mixed": activation_backward(MIDDLE, "gelu", F32, dy_nchw=True),
    "pool_forward_3x3": pool("forward", (32, 64, 112, 112), 3, 2, 1),
    "pool_forward_3x3_nchw": pool("forward", (32, 64, 112, 112), 3, 2, 1, nchw=True),
    "pool_backward_3x3": pool("backward", (32, 64, 112, 112), 3, 2, 1),
    "pool_backward_2x2_nchw": pool("backward", MIDDLE, 2, 2, 0, nchw=True),
    "pool_forward_large_nchw": pool("forward", LARGE, 2, 2, 0, nchw=True),
    "pool_global": pool("forward", (32, 512, 28, 28), 28, 28, 0),
    "pool_global_nchw": pool("forward", (32, 512, 28, 28), 28, 28, 0, nchw=True),
    "pool_gather_3x3_nchw": pool("gather", (32, 64, 112, 112), 3, 2, 1, nchw=True),
    "pool_indices_3x3": pool("indices", (32, 64, 112, 112), 3, 2, 1),
    "unpool_2x2": unpool("forward", (32, 64, 56, 56), (112, 112)),
    "unpool_2x2_nchw": unpool("forward", (32, 64, 56, 56), (112, 112), nchw=True),
    "unpool_add_2x2_f32": unpool("add", (32, 64, 56, 56), (112, 112), F32),
    "unpool_gather_2x2": unpool("gather", (32, 64, 56, 56), (112, 112)),
    "unpool_gather_2x2_nchw": unpool("gather", (32, 64, 56, 56), (112, 112), nchw=True),
}

#: Multiprocessors of an A100, an H200 and a B200.
TARGETS = {80: 108, 90: 132, 100: 148}


def problem(name: str, capability: int) -> Problem:
    return PROBLEMS[name](Target("cuda", capability, TARGETS[capability]))
