"""Gradient by the input, and transposed convolution, as one dense implicit GEMM for each stride phase.

With stride u an input row h meets only the taps r where (h + pad - r*dilation) divides by u. The rows with the same
(h + pad) mod u meet the same taps, at output rows that follow each other without gaps: among them this is a dense convolution
with fewer taps. There are u*v such phases, M = N*(H/u)*(W/v) pixels, N = C/G channels, K = taps*K/G. No zero is ever inserted.

Let g = gcd(dilation, u). The taps of a phase are r = first + i*(u/g), and input row h = h_first + u*m reads the output row
p = m + (h_first + pad - first*dilation)/u - i*(dilation/g). A phase may have no tap at all: its pixels are bias alone.
"""

from __future__ import annotations

import triton.language as tl

from fastconv.backends.triton.family import ceil_div
from fastconv.backends.triton.gemm import (
    GemmFamily,
    GemmShape,
    TileConfig,
    accumulator_of,
    collapsed,
    instruction_precision,
    is_pointwise,
    vector_along,
)
from fastconv.backends.triton.hints import OperandHints, alignment, is_wide, operand_arguments, step_constants, tap_step
from fastconv.backends.triton.implicit_gemm import accumulate, finish
from fastconv.backends.triton.numerics import aligned, stride_of, widen
from fastconv.backends.triton.padding import unfolded
from fastconv.backends.triton.runtime import Launch, device_function, kernel
from fastconv.problem import ConvProblem


@device_function
def _phase(phase, pad, size, TAPS: tl.constexpr, STRIDE: tl.constexpr, DILATION: tl.constexpr, TAP_STEP: tl.constexpr):
    """Of one dimension: its first input row, how many rows, the first tap, how many taps, the output row of the first two."""
    first_row = (phase + STRIDE - pad % STRIDE) % STRIDE
    rows = (size - first_row + STRIDE - 1) // STRIDE
    first_tap = phase * 0 + TAPS
    for tap in tl.static_range(TAP_STEP):
        first_tap = tl.where((tap * DILATION) % STRIDE == phase, tap, first_tap)
    taps = tl.maximum(TAPS - first_tap + TAP_STEP - 1, 0) // TAP_STEP
    return first_row, rows, first_tap, taps, (first_row + pad - first_tap * DILATION) // STRIDE


@kernel
def conv_dgrad_kernel(
    y_pointer,  # [N, K, P, Q], the gradient that comes in
    w_pointer,  # [K, C/G, R, S]
    bias_pointer,  # [C] or None
    x_pointer,  # [N, C, H, W], the gradient that goes out
    batch, height, width, out_height, out_width, group_channels, group_filters, channel_tiles, most_taps,
    x_stride_n, x_stride_c, x_stride_h, x_stride_w,
    w_stride_k, w_stride_c, w_stride_r, w_stride_s,
    y_stride_n, y_stride_k, y_stride_p, y_stride_q,
    pad_top, pad_left,
    R: tl.constexpr, S: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    DILATION_H: tl.constexpr, DILATION_W: tl.constexpr, TAP_STEP_H: tl.constexpr, TAP_STEP_W: tl.constexpr,
    GROUPS: tl.constexpr, ACTIVATION: tl.constexpr,
    X_UNIT: tl.constexpr, X_ALIGNMENT: tl.constexpr, W_UNIT: tl.constexpr, W_ALIGNMENT: tl.constexpr,
    Y_UNIT: tl.constexpr, Y_ALIGNMENT: tl.constexpr,
    ROW_ALIGNMENT: tl.constexpr, C_ALIGNMENT: tl.constexpr, K_ALIGNMENT: tl.constexpr,
    Y_PIXELS_MINOR: tl.constexpr, W_FILTERS_MINOR: tl.constexpr, X_PIXELS_MINOR: tl.constexpr,
    PADDING: tl.constexpr, EVEN_K: tl.constexpr, EVEN_N: tl.constexpr, TAPS_INNER: tl.constexpr,
    PRECISION: tl.constexpr, ACCUMULATOR: tl.constexpr, WIDE: tl.constexpr, HALVES: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    # Pixel tiles x phases x groups x channel tiles, channels fastest: what shares dy runs together, long phases beside short.
    program = tl.program_id(0)
    tile_n = program % channel_tiles
    program = program // channel_tiles
    group = program % GROUPS
    program = program // GROUPS
    phase = program % (STRIDE_H * STRIDE_W)
    tile_m = program // (STRIDE_H * STRIDE_W)
    group_channels = aligned(group_channels, C_ALIGNMENT)
    group_filters = aligned(group_filters, K_ALIGNMENT)

    first_h, rows, first_r, taps_h, first_p = _phase(
        phase // STRIDE_W, pad_top, height, R, STRIDE_H, DILATION_H, TAP_STEP_H
    )
    first_w, columns, first_s, taps_w, first_q = _phase(
        phase % STRIDE_W, pad_left, width, S, STRIDE_W, DILATION_W, TAP_STEP_W
    )
    if STRIDE_W == 1:
        columns = aligned(columns, ROW_ALIGNMENT)
    pixels = aligned(widen(batch, WIDE) * rows * columns, ROW_ALIGNMENT)

    row = widen(tile_m, WIDE) * BLOCK_M + tl.arange(0, BLOCK_M)
    row_valid = row < pixels
    if not Y_PIXELS_MINOR:
        row = tl.minimum(row, tl.maximum(pixels - 1, 0))
    columns = tl.maximum(columns, 1)  # an image narrower than the stride has phases without pixels
    rows = tl.maximum(rows, 1)
    j = row % columns
    i = (row // columns) % rows
    n = widen(row // columns // rows, WIDE)

    column = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    column_valid = column < group_channels
    c = widen(column, WIDE)

    image_offsets = n * stride_of(y_stride_n, 0, Y_UNIT, Y_ALIGNMENT)
    w_stride_r = stride_of(w_stride_r, 2, W_UNIT, W_ALIGNMENT)
    w_stride_s = stride_of(w_stride_s, 3, W_UNIT, W_ALIGNMENT)
    filter_offset = widen(first_r, WIDE) * w_stride_r + widen(first_s, WIDE) * w_stride_s
    if GROUPS > 1:
        first_k = widen(group * group_filters, WIDE)
        image_offsets += first_k * stride_of(y_stride_k, 1, Y_UNIT, Y_ALIGNMENT)
        filter_offset += first_k * stride_of(w_stride_k, 0, W_UNIT, W_ALIGNMENT)
    p = i
    q = j
    if PADDING != "none":
        p += first_p
        q += first_q
    accumulator = tl.full([BLOCK_M, BLOCK_N], 0.0, ACCUMULATOR)
    accumulator = accumulate(
        accumulator,
        y_pointer, image_offsets, p, q, row_valid, out_height, out_width,
        stride_of(y_stride_p, 2, Y_UNIT, Y_ALIGNMENT), stride_of(y_stride_q, 3, Y_UNIT, Y_ALIGNMENT),
        stride_of(y_stride_k, 1, Y_UNIT, Y_ALIGNMENT),
        -(TAP_STEP_H * DILATION_H // STRIDE_H), -(TAP_STEP_W * DILATION_W // STRIDE_W),
        w_pointer + filter_offset, TAP_STEP_H * w_stride_r, TAP_STEP_W * w_stride_s,
        stride_of(w_stride_k, 0, W_UNIT, W_ALIGNMENT), c * stride_of(w_stride_c, 1, W_UNIT, W_ALIGNMENT), column_valid,
        tl.minimum(taps_h * taps_w, most_taps), taps_h, taps_w, group_filters,
        BLOCK_K, PADDING, 0.0, Y_PIXELS_MINOR, EVEN_K, EVEN_N, Y_PIXELS_MINOR, W_FILTERS_MINOR, TAPS_INNER, PRECISION, WIDE,
    )  # fmt: skip

    finish(
        accumulator, x_pointer, bias_pointer, None,
        n * stride_of(x_stride_n, 0, X_UNIT, X_ALIGNMENT)
        + widen(first_h + i * STRIDE_H, WIDE) * stride_of(x_stride_h, 2, X_UNIT, X_ALIGNMENT)
        + widen(first_w + j * STRIDE_W, WIDE) * stride_of(x_stride_w, 3, X_UNIT, X_ALIGNMENT),
        stride_of(x_stride_c, 1, X_UNIT, X_ALIGNMENT), n, 0,
        row_valid, tile_n, group * group_channels, group_channels,
        BLOCK_N, HALVES, X_PIXELS_MINOR, ACTIVATION, WIDE,
    )  # fmt: skip


_CONFIGS = {
    "half": (
        TileConfig(128, 256, 64, 3, 8),
        TileConfig(256, 128, 32, 4, 8),
        TileConfig(128, 128, 64, 3, 8),
        TileConfig(128, 128, 32, 4, 4),
        TileConfig(256, 64, 32, 4, 8),
        TileConfig(128, 64, 64, 4, 8),
        TileConfig(128, 64, 32, 4, 4),
        TileConfig(64, 128, 32, 4, 4),
        TileConfig(64, 64, 64, 4, 4),
        TileConfig(128, 32, 32, 4, 4),
        TileConfig(64, 32, 32, 4, 4),
        TileConfig(128, 16, 16, 4, 4),
        TileConfig(64, 16, 16, 4, 4),
        TileConfig(32, 32, 16, 4, 2),
    ),
    "tf32": (
        TileConfig(128, 128, 32, 3, 8),
        TileConfig(128, 64, 32, 3, 8),
        TileConfig(64, 64, 32, 4, 4),
        TileConfig(128, 32, 16, 4, 4),
        TileConfig(64, 32, 16, 4, 4),
        TileConfig(64, 16, 16, 4, 4),
    ),
    "float": (
        TileConfig(64, 64, 16, 3, 8),
        TileConfig(64, 64, 16, 3, 4),
        TileConfig(64, 32, 16, 3, 4),
        TileConfig(32, 32, 16, 3, 4),
        TileConfig(32, 16, 16, 3, 4),
    ),
    "double": (
        TileConfig(32, 32, 1, 2, 4),
        TileConfig(64, 16, 1, 2, 4),
        TileConfig(16, 16, 8, 2, 4),
        TileConfig(16, 16, 2, 2, 4),
    ),
}


class ConvDgrad(GemmFamily):
    name = "conv_dgrad"
    ops = ("conv2d_dgrad",)
    tiles = _CONFIGS

    def shape(self, problem: ConvProblem, config: TileConfig) -> GemmShape:
        batch, channels, height, width = problem.x.sizes
        filters, _, taps_h, taps_w = problem.w.sizes
        phases = problem.stride[0] * problem.stride[1]
        return GemmShape(
            m=batch * ceil_div(height, problem.stride[0]) * ceil_div(width, problem.stride[1]),
            n=channels // problem.groups,
            k=filters // problem.groups,
            taps=ceil_div(taps_h * taps_w, phases),
            batches=problem.groups * phases,
            left_vector=max(
                vector_along(problem.y, 1, problem.dtype, filters // problem.groups),
                vector_along(problem.y, 3, problem.dtype, width) if is_pointwise(problem) else 1,
            ),
            right_vector=max(
                vector_along(problem.w, 1, problem.dtype, channels // problem.groups),
                vector_along(problem.w, 0, problem.dtype, filters // problem.groups),
            ),
        )

    def rejection(self, problem: ConvProblem, config: TileConfig) -> str:
        return unfolded(problem) or super().rejection(problem, config)

    def launches(self, problem: ConvProblem, config: TileConfig) -> list[Launch]:
        problem = collapsed(problem)
        shape = self.shape(problem, config)
        x, w, y = (OperandHints.of(operand) for operand in (problem.x, problem.w, problem.y))
        strides, constants = operand_arguments(x=problem.x, w=problem.w, y=problem.y)
        batch, _, height, width = problem.x.sizes
        _, _, taps_h, taps_w = problem.w.sizes
        tap_steps = [tap_step(problem, axis) for axis in (0, 1)]
        channel_tiles = ceil_div(shape.n, config.block_n)
        scalars = {
            "batch": batch,
            "height": height,
            "width": width,
            "out_height": problem.y.sizes[2],
            "out_width": problem.y.sizes[3],
            "group_channels": shape.n,
            "group_filters": shape.k,
            "channel_tiles": channel_tiles,
            "most_taps": taps_h * taps_w,  # no constant: see implicit_gemm
            "pad_top": problem.padding[0],
            "pad_left": problem.padding[2],
            **strides,
        }
        constants |= {
            "R": taps_h,
            "S": taps_w,
            **step_constants(problem),
            "TAP_STEP_H": tap_steps[0],
            "TAP_STEP_W": tap_steps[1],
            "GROUPS": problem.groups,
            "ACTIVATION": problem.activation,
            "ROW_ALIGNMENT": alignment(width) if problem.stride[1] == 1 else 1,
            "C_ALIGNMENT": alignment(shape.n),
            "K_ALIGNMENT": alignment(shape.k),
            "Y_PIXELS_MINOR": not y.channels_minor_to(2, 3),
            "W_FILTERS_MINOR": not w.channels_minor_to(0),
            "X_PIXELS_MINOR": not x.channels_minor_to(2, 3),
            "PADDING": "none"
            if _taps_stay_inside(problem)
            else "zeros",  # of dy: beyond its borders there are no outputs
            "EVEN_K": shape.k % config.block_k == 0,
            "EVEN_N": shape.n % config.block_n == 0,
            "TAPS_INNER": shape.taps > ceil_div(shape.k, config.block_k),
            "PRECISION": instruction_precision(problem),
            "ACCUMULATOR": accumulator_of(problem.dtype),
            "WIDE": is_wide(problem, shape.m),
            "HALVES": config.finishes_by_halves(),
            **config.blocks(),
        }
        programs = ceil_div(shape.m, config.block_m) * shape.batches * channel_tiles
        return [Launch(conv_dgrad_kernel, programs, scalars, constants, **config.launch_options(problem))]


def _taps_stay_inside(problem: ConvProblem) -> bool:
    """True where row m of every phase reads output row m and no other, as with a 2x2 filter and stride two."""
    one_tap_each = all(
        taps == 1 or (taps <= u and dilation == 1)
        for taps, u, dilation in zip(problem.w.sizes[2:], problem.stride, problem.dilation, strict=True)
    )
    covered = all(
        ceil_div(size, u) <= outputs
        for size, u, outputs in zip(problem.x.sizes[2:], problem.stride, problem.y.sizes[2:], strict=True)
    )
    return one_tap_each and covered and not any(problem.padding)


FAMILIES = (ConvDgrad(),)
