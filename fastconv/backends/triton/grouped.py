"""Depthwise and narrow grouped convolution without tensor cores: every output channel is multiplied and added on its own.

A depthwise filter has one channel, so there is no matrix product, only a stencil that memory bandwidth bounds. The same kernels
serve groups of a few channels, where a tensor-core tile would be mostly padding: a loop over the group's channels is outermost.
Programs are counted by channels, never by channels x groups. dgrad walks, for every input pixel, the output pixels that it
reaches, so nothing is scattered.
"""

from __future__ import annotations

import math

import triton.language as tl

from fastconv.backends.triton.family import Estimate, Workspaces
from fastconv.backends.triton.gemm import accumulator_of
from fastconv.backends.triton.hints import OperandHints, alignment, is_wide, operand_arguments, step_constants, tap_step
from fastconv.backends.triton.numerics import activate, aligned, narrow, offsets_at, raised, stride_of, widen
from fastconv.backends.triton.padding import (
    along_the_image,
    padded_index,
    padding_constants,
    unfolded,
    with_constant,
)
from fastconv.backends.triton.runtime import Launch, device_function, kernel
from fastconv.backends.triton.spatial import (
    MOST_UNROLLED,
    SpatialConfig,
    spatial_configs,
    spatial_estimate,
    spatial_rejection,
    spatial_tile,
)
from fastconv.problem import ConvProblem, Operand

#: Channels of a group up to which a candidate is offered: beyond, even a half-empty tensor-core tile does better.
MOST_GROUP_CHANNELS = 16
#: Registers of sums that a thread can hold beside the loads in flight.
_MOST_HELD = 32


@device_function
def _first_tap(row, TAPS: tl.constexpr, STRIDE: tl.constexpr, DILATION: tl.constexpr, TAP_STEP: tl.constexpr):
    """The first tap that brings an input row to a whole output row; TAPS where there is none. Others follow TAP_STEP apart."""
    if STRIDE == 1:
        first = 0
    else:
        first = row * 0 + TAPS
        for tap in tl.static_range(TAP_STEP):
            first = tl.where(row % STRIDE == (tap * DILATION) % STRIDE, tap, first)
    return first


@kernel
def grouped_fprop_kernel(
    x_pointer,  # [N, C, H, W]
    w_pointer,  # [K, C/G, R, S]
    bias_pointer,  # [K] or None
    residual_pointer,  # [N, K, P, Q] or None
    y_pointer,  # [N, K, P, Q]
    filters, height, width, out_height, out_width,
    x_stride_n, x_stride_c, x_stride_h, x_stride_w,
    w_stride_k, w_stride_c, w_stride_r, w_stride_s,
    y_stride_n, y_stride_k, y_stride_p, y_stride_q,
    residual_stride_n, residual_stride_k, residual_stride_p, residual_stride_q,
    R: tl.constexpr, S: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    DILATION_H: tl.constexpr, DILATION_W: tl.constexpr, PAD_TOP: tl.constexpr, PAD_LEFT: tl.constexpr,
    GROUP_CHANNELS: tl.constexpr, GROUP_FILTERS: tl.constexpr, ACTIVATION: tl.constexpr,
    X_UNIT: tl.constexpr, X_ALIGNMENT: tl.constexpr, W_UNIT: tl.constexpr, W_ALIGNMENT: tl.constexpr,
    Y_UNIT: tl.constexpr, Y_ALIGNMENT: tl.constexpr, RESIDUAL_UNIT: tl.constexpr, RESIDUAL_ALIGNMENT: tl.constexpr,
    K_ALIGNMENT: tl.constexpr, COLUMN_ALIGNMENT: tl.constexpr, CHANNELS_MINOR: tl.constexpr, UNROLL: tl.constexpr,
    PADDING: tl.constexpr, PADDING_VALUE: tl.constexpr, ACCUMULATOR: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    filters = aligned(filters, K_ALIGNMENT)
    out_width = aligned(out_width, COLUMN_ALIGNMENT)
    width = aligned(width, COLUMN_ALIGNMENT)
    n, k, p, q = spatial_tile(
        tl.program_id(0), filters, out_height, out_width, CHANNELS_MINOR, BLOCK_C, BLOCK_H, BLOCK_W
    )
    n = widen(n, WIDE)
    filter_valid = k < filters
    valid = filter_valid & (p < out_height) & (q < out_width)
    h = p * STRIDE_H - PAD_TOP
    w = q * STRIDE_W - PAD_LEFT
    first_channel = k if GROUP_CHANNELS == 1 and GROUP_FILTERS == 1 else k // GROUP_FILTERS * GROUP_CHANNELS

    x_stride_c = stride_of(x_stride_c, 1, X_UNIT, X_ALIGNMENT)
    x_stride_h = stride_of(x_stride_h, 2, X_UNIT, X_ALIGNMENT)
    x_stride_w = stride_of(x_stride_w, 3, X_UNIT, X_ALIGNMENT)
    w_stride_s = stride_of(w_stride_s, 3, W_UNIT, W_ALIGNMENT)
    accumulator = tl.full([BLOCK_C, BLOCK_H, BLOCK_W], 0.0, ACCUMULATOR)
    for channel in range(0, GROUP_CHANNELS):
        for r in range(0, R):
            row = h + r * DILATION_H
            row_valid = along_the_image(filter_valid, row, height, PADDING)
            row = widen(padded_index(row, height, PADDING), WIDE)
            image_offsets = (
                n * stride_of(x_stride_n, 0, X_UNIT, X_ALIGNMENT)
                + widen(first_channel + channel, WIDE) * x_stride_c
                + row * x_stride_h
            )
            filter_offsets = (
                widen(k, WIDE) * stride_of(w_stride_k, 0, W_UNIT, W_ALIGNMENT)
                + channel * stride_of(w_stride_c, 1, W_UNIT, W_ALIGNMENT)
                + r * stride_of(w_stride_r, 2, W_UNIT, W_ALIGNMENT)
            )
            for s in tl.range(0, S, loop_unroll_factor=UNROLL):
                column = w + s * DILATION_W
                inside = along_the_image(row_valid, column, width, PADDING)
                column = widen(padded_index(column, width, PADDING), WIDE)
                x = tl.load(x_pointer + (image_offsets + column * x_stride_w), mask=inside, other=0.0)
                x = with_constant(x, ~inside, PADDING, PADDING_VALUE)
                weight = tl.load(w_pointer + (filter_offsets + s * w_stride_s), mask=filter_valid, other=0.0)
                accumulator += raised(x, ACCUMULATOR) * raised(weight, ACCUMULATOR)

    k = widen(k, WIDE)
    p = widen(p, WIDE)
    q = widen(q, WIDE)
    if bias_pointer is not None:
        accumulator += raised(tl.load(bias_pointer + k, mask=filter_valid, other=0.0), ACCUMULATOR)
    if residual_pointer is not None:
        residual_offsets = offsets_at(
            n, k, p, q,
            residual_stride_n, residual_stride_k, residual_stride_p, residual_stride_q, RESIDUAL_UNIT, RESIDUAL_ALIGNMENT,
        )  # fmt: skip
        accumulator += raised(tl.load(residual_pointer + residual_offsets, mask=valid, other=0.0), ACCUMULATOR)
    offsets = offsets_at(n, k, p, q, y_stride_n, y_stride_k, y_stride_p, y_stride_q, Y_UNIT, Y_ALIGNMENT)
    tl.store(y_pointer + offsets, narrow(activate(accumulator, ACTIVATION), y_pointer.dtype.element_ty), mask=valid)


@kernel
def grouped_dgrad_kernel(
    y_pointer,  # [N, K, P, Q], the gradient that comes in
    w_pointer,  # [K, C/G, R, S]
    bias_pointer,  # [C] or None
    x_pointer,  # [N, C, H, W], the gradient that goes out
    channels, height, width, out_height, out_width,
    x_stride_n, x_stride_c, x_stride_h, x_stride_w,
    w_stride_k, w_stride_c, w_stride_r, w_stride_s,
    y_stride_n, y_stride_k, y_stride_p, y_stride_q,
    R: tl.constexpr, S: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    DILATION_H: tl.constexpr, DILATION_W: tl.constexpr, PAD_TOP: tl.constexpr, PAD_LEFT: tl.constexpr,
    TAP_STEP_H: tl.constexpr, TAP_STEP_W: tl.constexpr,
    GROUP_CHANNELS: tl.constexpr, GROUP_FILTERS: tl.constexpr, ACTIVATION: tl.constexpr,
    X_UNIT: tl.constexpr, X_ALIGNMENT: tl.constexpr, W_UNIT: tl.constexpr, W_ALIGNMENT: tl.constexpr,
    Y_UNIT: tl.constexpr, Y_ALIGNMENT: tl.constexpr,
    C_ALIGNMENT: tl.constexpr, COLUMN_ALIGNMENT: tl.constexpr, CHANNELS_MINOR: tl.constexpr, UNROLL: tl.constexpr,
    ACCUMULATOR: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    channels = aligned(channels, C_ALIGNMENT)
    width = aligned(width, COLUMN_ALIGNMENT)
    n, c, h, w = spatial_tile(tl.program_id(0), channels, height, width, CHANNELS_MINOR, BLOCK_C, BLOCK_H, BLOCK_W)
    n = widen(n, WIDE)
    channel_valid = c < channels
    valid = channel_valid & (h < height) & (w < width)
    first_filter = c if GROUP_CHANNELS == 1 and GROUP_FILTERS == 1 else c // GROUP_CHANNELS * GROUP_FILTERS
    group_channel = 0 if GROUP_CHANNELS == 1 else widen(c % GROUP_CHANNELS, WIDE)
    first_r = _first_tap(h + PAD_TOP, R, STRIDE_H, DILATION_H, TAP_STEP_H)
    first_s = _first_tap(w + PAD_LEFT, S, STRIDE_W, DILATION_W, TAP_STEP_W)

    y_stride_k = stride_of(y_stride_k, 1, Y_UNIT, Y_ALIGNMENT)
    y_stride_p = stride_of(y_stride_p, 2, Y_UNIT, Y_ALIGNMENT)
    y_stride_q = stride_of(y_stride_q, 3, Y_UNIT, Y_ALIGNMENT)
    w_stride_s = stride_of(w_stride_s, 3, W_UNIT, W_ALIGNMENT)
    accumulator = tl.full([BLOCK_C, BLOCK_H, BLOCK_W], 0.0, ACCUMULATOR)
    for filter in range(0, GROUP_FILTERS):
        k = widen(first_filter + filter, WIDE)
        for i in range(0, (R + TAP_STEP_H - 1) // TAP_STEP_H):
            r = first_r + i * TAP_STEP_H
            p = (h + PAD_TOP - r * DILATION_H) // STRIDE_H
            row_valid = channel_valid & (r < R) & (p >= 0) & (p < out_height)
            p = widen(tl.minimum(tl.maximum(p, 0), out_height - 1), WIDE)
            image_offsets = n * stride_of(y_stride_n, 0, Y_UNIT, Y_ALIGNMENT) + k * y_stride_k + p * y_stride_p
            filter_offsets = (
                k * stride_of(w_stride_k, 0, W_UNIT, W_ALIGNMENT)
                + group_channel * stride_of(w_stride_c, 1, W_UNIT, W_ALIGNMENT)
                + r * stride_of(w_stride_r, 2, W_UNIT, W_ALIGNMENT)
            )
            for j in tl.range(0, (S + TAP_STEP_W - 1) // TAP_STEP_W, loop_unroll_factor=UNROLL):
                s = first_s + j * TAP_STEP_W
                q = (w + PAD_LEFT - s * DILATION_W) // STRIDE_W
                inside = row_valid & (s < S) & (q >= 0) & (q < out_width)
                q = widen(tl.minimum(tl.maximum(q, 0), out_width - 1), WIDE)
                dy = tl.load(y_pointer + (image_offsets + q * y_stride_q), mask=inside, other=0.0)
                tap_valid = channel_valid & (r < R) & (s < S)
                weight = tl.load(w_pointer + (filter_offsets + s * w_stride_s), mask=tap_valid, other=0.0)
                accumulator += raised(dy, ACCUMULATOR) * raised(weight, ACCUMULATOR)

    c = widen(c, WIDE)
    if bias_pointer is not None:
        accumulator += raised(tl.load(bias_pointer + c, mask=channel_valid, other=0.0), ACCUMULATOR)
    offsets = offsets_at(
        n, c, widen(h, WIDE), widen(w, WIDE),
        x_stride_n, x_stride_c, x_stride_h, x_stride_w, X_UNIT, X_ALIGNMENT,
    )  # fmt: skip
    tl.store(x_pointer + offsets, narrow(activate(accumulator, ACTIVATION), x_pointer.dtype.element_ty), mask=valid)


def _words(problem: ConvProblem) -> int:
    """Sums of float64 take two registers; in groups of several channels, neighbours do not share addresses."""
    return 3 if problem.w.sizes[1] > 1 else 2 if problem.dtype.itemsize == 8 else 1


class _Grouped:
    """What fprop and dgrad share; `output` is the operand that a pass writes."""

    def output(self, problem: ConvProblem) -> Operand:
        raise NotImplementedError

    def configs(self, problem: ConvProblem) -> tuple[SpatialConfig, ...]:
        return spatial_configs(self.output(problem))

    def rejection(self, problem: ConvProblem, config: SpatialConfig) -> str:
        channels, filters = problem.w.sizes[1], problem.w.sizes[0] // problem.groups
        if channels > MOST_GROUP_CHANNELS:
            return f"{channels} channels a group: this kernel is for at most {MOST_GROUP_CHANNELS}"
        if channels > 1 and filters > MOST_GROUP_CHANNELS:
            return (
                f"{filters} filters a group each read its input again: this kernel is for at most {MOST_GROUP_CHANNELS}"
            )
        if config.held(_words(problem)) > _MOST_HELD:
            return (
                f"a thread would hold {config.held(1)} sums, of about {_words(problem)} registers each, of {_MOST_HELD}"
            )
        return spatial_rejection(self.output(problem), config)

    def estimate(self, problem: ConvProblem, config: SpatialConfig) -> Estimate:
        output = self.output(problem)
        taps = problem.flops() // 2 // max(math.prod(output.sizes), 1)
        return spatial_estimate(problem, output, config, max(taps, 1))

    def workspaces(self, problem: ConvProblem, config: SpatialConfig) -> Workspaces:
        return {}

    def geometry(self, problem: ConvProblem, config: SpatialConfig) -> tuple[dict, dict]:
        """Scalars and constants that both kernels take."""
        channels_minor = OperandHints.of(self.output(problem)).channels_minor_to(2, 3)
        strides, constants = operand_arguments(x=problem.x, w=problem.w, y=problem.y)
        scalars = {
            "height": problem.x.sizes[2],
            "width": problem.x.sizes[3],
            "out_height": problem.y.sizes[2],
            "out_width": problem.y.sizes[3],
            **strides,
        }
        constants |= {
            "R": problem.w.sizes[2],
            "S": problem.w.sizes[3],
            **step_constants(problem),
            "PAD_TOP": problem.padding[0],
            "PAD_LEFT": problem.padding[2],
            "GROUP_CHANNELS": problem.w.sizes[1],
            "GROUP_FILTERS": problem.w.sizes[0] // problem.groups,
            "ACTIVATION": problem.activation,
            "COLUMN_ALIGNMENT": alignment(problem.x.sizes[3], problem.y.sizes[3]),
            "CHANNELS_MINOR": channels_minor,
            "UNROLL": problem.w.sizes[3] if problem.w.sizes[3] <= MOST_UNROLLED else 1,
            "ACCUMULATOR": accumulator_of(problem.dtype),
            "WIDE": is_wide(problem),
            **config.blocks(),
        }
        return scalars, constants


class GroupedFprop(_Grouped):
    name = "grouped_fprop"
    ops = ("conv2d_fprop",)

    def output(self, problem: ConvProblem) -> Operand:
        return problem.y

    def launches(self, problem: ConvProblem, config: SpatialConfig) -> list[Launch]:
        scalars, constants = self.geometry(problem, config)
        residual_strides, residual_constants = operand_arguments(residual=problem.residual)
        filters = problem.y.sizes[1]
        scalars |= {"filters": filters, **residual_strides}
        constants |= {"K_ALIGNMENT": alignment(filters), **residual_constants, **padding_constants(problem)}
        return [
            Launch(
                grouped_fprop_kernel,
                config.programs(problem.y),
                scalars,
                constants,
                **config.launch_options(problem.dtype.itemsize),
            )
        ]


class GroupedDgrad(_Grouped):
    name = "grouped_dgrad"
    ops = ("conv2d_dgrad",)

    def output(self, problem: ConvProblem) -> Operand:
        return problem.x

    def rejection(self, problem: ConvProblem, config: SpatialConfig) -> str:
        return unfolded(problem) or super().rejection(problem, config)

    def launches(self, problem: ConvProblem, config: SpatialConfig) -> list[Launch]:
        scalars, constants = self.geometry(problem, config)
        channels = problem.x.sizes[1]
        scalars |= {"channels": channels}
        constants |= {"C_ALIGNMENT": alignment(channels)}
        constants |= {"TAP_STEP_H": tap_step(problem, 0), "TAP_STEP_W": tap_step(problem, 1)}
        return [
            Launch(
                grouped_dgrad_kernel,
                config.programs(problem.x),
                scalars,
                constants,
                **config.launch_options(problem.dtype.itemsize),
            )
        ]


FAMILIES = (GroupedFprop(), GroupedDgrad())
