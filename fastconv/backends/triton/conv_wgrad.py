"""Gradient by the weight as an implicit GEMM: M = K/G filters, N = R*S*C/G taps, K = N*P*Q pixels.

The pixels are many and the outputs few, so the pixels are split among programs: each writes its partial sum to a workspace, and
a second kernel adds the parts in their order. The result does not depend on which program finishes first.

Where C/G is a multiple of BLOCK_N a tile lies within one tap, and its input pixels are those of the output, shifted; elsewhere
every column of the tile has a tap of its own.
"""

from __future__ import annotations

import torch
import triton.language as tl

from fastconv.backends.triton import channel_sum
from fastconv.backends.triton.family import Workspaces, ceil_div
from fastconv.backends.triton.gemm import (
    GemmFamily,
    GemmShape,
    TileConfig,
    accumulator_of,
    instruction_precision,
    is_pointwise,
    sum_dtype,
    vector_along,
)
from fastconv.backends.triton.hints import (
    OperandHints,
    alignment,
    is_wide,
    magic_division,
    operand_arguments,
    step_constants,
)
from fastconv.backends.triton.implicit_gemm import load_tile, shifted_tile
from fastconv.backends.triton.numerics import (
    aligned,
    divide,
    multiply_accumulate,
    narrow,
    offsets_at,
    stride_of,
    turned,
    widen,
)
from fastconv.backends.triton.padding import comes_from_the_image, padded_index, padding_constants, with_constant
from fastconv.backends.triton.runtime import Launch, kernel
from fastconv.problem import ConvProblem, Operand


@kernel
def conv_wgrad_kernel(
    y_pointer,  # [N, K, P, Q], the gradient that comes in
    x_pointer,  # [N, C, H, W]
    w_pointer,  # [K, C/G, R, S], the gradient that goes out
    workspace_pointer,  # [splits, K, R*S*C/G] or None
    pixels, pixels_per_split, height, width, group_channels, group_filters, columns, filter_tiles, column_tiles,
    out_width, out_width_magic, out_width_shift, out_height, out_height_magic, out_height_shift,
    x_stride_n, x_stride_c, x_stride_h, x_stride_w,
    w_stride_k, w_stride_c, w_stride_r, w_stride_s,
    y_stride_n, y_stride_k, y_stride_p, y_stride_q,
    pad_top, pad_left,
    S: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
    GROUPS: tl.constexpr,
    X_UNIT: tl.constexpr, X_ALIGNMENT: tl.constexpr, W_UNIT: tl.constexpr, W_ALIGNMENT: tl.constexpr,
    Y_UNIT: tl.constexpr, Y_ALIGNMENT: tl.constexpr,
    Q_ALIGNMENT: tl.constexpr, C_ALIGNMENT: tl.constexpr, K_ALIGNMENT: tl.constexpr,
    X_PIXELS_MINOR: tl.constexpr, Y_PIXELS_MINOR: tl.constexpr,
    PADDING: tl.constexpr, PADDING_VALUE: tl.constexpr, EVEN_M: tl.constexpr, EVEN_K: tl.constexpr, ONE_TAP: tl.constexpr,
    PRECISION: tl.constexpr, ACCUMULATOR: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    # Splits x groups x filter tiles x column tiles: the programs that read the same pixels run together.
    program = tl.program_id(0)
    tile_n = program % column_tiles
    program = program // column_tiles
    tile_m = program % filter_tiles
    program = program // filter_tiles
    group = program % GROUPS
    split = program // GROUPS
    group_channels = aligned(group_channels, C_ALIGNMENT)
    group_filters = aligned(group_filters, K_ALIGNMENT)
    out_width = aligned(out_width, Q_ALIGNMENT)
    pixels = aligned(pixels, Q_ALIGNMENT)
    columns = aligned(columns, C_ALIGNMENT)
    x_stride_n = stride_of(x_stride_n, 0, X_UNIT, X_ALIGNMENT)
    x_stride_c = stride_of(x_stride_c, 1, X_UNIT, X_ALIGNMENT)
    x_stride_h = stride_of(x_stride_h, 2, X_UNIT, X_ALIGNMENT)
    x_stride_w = stride_of(x_stride_w, 3, X_UNIT, X_ALIGNMENT)
    y_stride_k = stride_of(y_stride_k, 1, Y_UNIT, Y_ALIGNMENT)

    filter = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    filter_valid = filter < group_filters
    k = widen(group * group_filters + filter, WIDE)
    column = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    column_valid = column < columns
    tap = tile_n * BLOCK_N // group_channels if ONE_TAP else column // group_channels
    channel = column - tap * group_channels
    r = tap // S
    s = tap - r * S
    tap_h = r * DILATION_H
    tap_w = s * DILATION_W
    if PADDING != "none":
        tap_h -= pad_top
        tap_w -= pad_left
    channel_offsets = widen(group * group_channels + channel, WIDE) * x_stride_c

    accumulator = tl.full([BLOCK_M, BLOCK_N], 0.0, ACCUMULATOR)
    first = widen(split, WIDE) * aligned(pixels_per_split, BLOCK_K)  # where loads start decides how wide they are
    for start in range(first, tl.minimum(first + pixels_per_split, pixels), BLOCK_K):
        pixel = widen(start + tl.arange(0, BLOCK_K), WIDE)
        pixel_valid = pixel < pixels
        if not (X_PIXELS_MINOR and Y_PIXELS_MINOR):
            pixel = tl.minimum(pixel, pixels - 1)
        row = divide(pixel, out_width, out_width_magic, out_width_shift, WIDE or Y_PIXELS_MINOR)
        q = pixel - row * out_width
        n = divide(row, out_height, out_height_magic, out_height_shift, WIDE or Y_PIXELS_MINOR)
        p = widen(row - n * out_height, WIDE)
        n = widen(n, WIDE)
        left = load_tile(
            y_pointer, k * y_stride_k,
            n * stride_of(y_stride_n, 0, Y_UNIT, Y_ALIGNMENT)
            + p * stride_of(y_stride_p, 2, Y_UNIT, Y_ALIGNMENT)
            + widen(q, WIDE) * stride_of(y_stride_q, 3, Y_UNIT, Y_ALIGNMENT),
            filter_valid, pixel_valid, not EVEN_M, not EVEN_K, not Y_PIXELS_MINOR,
        )  # fmt: skip
        h = p * STRIDE_H
        w = q * STRIDE_W
        image_offsets = n * x_stride_n
        if ONE_TAP:
            h += tap_h
            w += tap_w
            inside = pixel_valid
            if PADDING != "none":
                inside = comes_from_the_image(pixel_valid, h, height, w, width, PADDING)
                h = padded_index(h, height, PADDING)
                w = padded_index(w, width, PADDING)
            right = load_tile(
                x_pointer, image_offsets + (widen(h, WIDE) * x_stride_h + widen(w, WIDE) * x_stride_w), channel_offsets,
                inside, column_valid, PADDING == "zeros" or PADDING == "constant" or not EVEN_K, False, X_PIXELS_MINOR,
            )  # fmt: skip
            if PADDING == "constant":
                right = with_constant(right, (pixel_valid & ~inside)[:, None], PADDING, PADDING_VALUE)
        elif X_PIXELS_MINOR:
            transposed = shifted_tile(
                x_pointer, tap_h, tap_w, channel_offsets, column_valid, h, w, image_offsets, pixel_valid,
                height, width, x_stride_h, x_stride_w, PADDING, PADDING_VALUE, WIDE,
            )  # fmt: skip
            right = tl.trans(transposed)
        else:
            right = shifted_tile(
                x_pointer, h, w, image_offsets, pixel_valid, tap_h, tap_w, channel_offsets, column_valid,
                height, width, x_stride_h, x_stride_w, PADDING, PADDING_VALUE, WIDE,
            )  # fmt: skip
        if not Y_PIXELS_MINOR:
            left = turned(left, PRECISION)
        if not X_PIXELS_MINOR:
            right = turned(right, PRECISION)
        accumulator = multiply_accumulate(left, right, accumulator, PRECISION, BLOCK_K)

    valid = filter_valid[:, None] & column_valid[None, :]
    if workspace_pointer is not None:
        row_of_part = widen(split, WIDE) * (group_filters * GROUPS) + k
        tl.store(workspace_pointer + (row_of_part[:, None] * columns + column[None, :]), accumulator, mask=valid)
    else:
        offsets = (
            k[:, None] * stride_of(w_stride_k, 0, W_UNIT, W_ALIGNMENT)
            + (channel * stride_of(w_stride_c, 1, W_UNIT, W_ALIGNMENT)
            + r * stride_of(w_stride_r, 2, W_UNIT, W_ALIGNMENT)
            + s * stride_of(w_stride_s, 3, W_UNIT, W_ALIGNMENT))[None, :]
        )  # fmt: skip
        tl.store(w_pointer + offsets, narrow(accumulator, w_pointer.dtype.element_ty), mask=valid)


@kernel
def add_splits_kernel(
    workspace_pointer,  # [splits, elements]
    w_pointer,  # [K, C/G, R, S]
    splits, elements, columns, group_channels,
    w_stride_k, w_stride_c, w_stride_r, w_stride_s,
    S: tl.constexpr, W_UNIT: tl.constexpr, W_ALIGNMENT: tl.constexpr, C_ALIGNMENT: tl.constexpr,
    ACCUMULATOR: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The parts of every weight, added from the first split to the last."""
    elements = aligned(elements, C_ALIGNMENT)
    columns = aligned(columns, C_ALIGNMENT)
    group_channels = aligned(group_channels, C_ALIGNMENT)
    element = widen(tl.program_id(0), WIDE) * BLOCK + tl.arange(0, BLOCK)
    valid = element < elements
    total = tl.full([BLOCK], 0.0, ACCUMULATOR)
    for split in range(splits):
        total += tl.load(workspace_pointer + (widen(split, WIDE) * elements + element), mask=valid, other=0.0)
    k = element // columns
    column = element - k * columns
    tap = column // group_channels
    channel = column - tap * group_channels
    r = tap // S
    s = tap - r * S
    offsets = offsets_at(k, channel, r, s, w_stride_k, w_stride_c, w_stride_r, w_stride_s, W_UNIT, W_ALIGNMENT)
    tl.store(w_pointer + offsets, narrow(total, w_pointer.dtype.element_ty), mask=valid)


def add_splits(w: Operand, dtype: torch.dtype, splits: int, wide: bool) -> Launch:
    """Adds a workspace [splits, K, R*S*C/G], columns in the order r, s, c, into w."""
    strides, constants = operand_arguments(w=w)
    filters, group_channels, taps_h, taps_w = w.sizes
    columns = taps_h * taps_w * group_channels
    elements = filters * columns
    scalars = {"splits": splits, "elements": elements, "columns": columns, "group_channels": group_channels, **strides}
    constants |= {
        "S": taps_w,
        "C_ALIGNMENT": alignment(group_channels),
        "ACCUMULATOR": accumulator_of(dtype),
        "WIDE": wide,
        "BLOCK": _REDUCTION_BLOCK,
    }
    return Launch(add_splits_kernel, ceil_div(elements, _REDUCTION_BLOCK), scalars, constants)


_REDUCTION_BLOCK = 512
_CONFIGS = {
    "half": (
        TileConfig(128, 256, 32, 4, 8),
        TileConfig(128, 128, 64, 3, 8),
        TileConfig(128, 128, 32, 4, 4),
        TileConfig(64, 256, 32, 4, 8),
        TileConfig(64, 128, 32, 4, 4),
        TileConfig(128, 64, 32, 4, 4),
        TileConfig(64, 64, 64, 4, 4),
        TileConfig(64, 64, 32, 4, 4),
        TileConfig(32, 64, 32, 4, 4),
        TileConfig(16, 64, 32, 4, 4),
        TileConfig(16, 32, 64, 3, 4),
    ),
    "tf32": (
        TileConfig(128, 128, 32, 3, 8),
        TileConfig(64, 128, 32, 3, 8),
        TileConfig(64, 64, 32, 3, 4),
        TileConfig(32, 64, 32, 3, 4),
        TileConfig(16, 64, 32, 3, 4),
    ),
    "float": (
        TileConfig(64, 64, 16, 3, 8),
        TileConfig(64, 64, 16, 3, 4),
        TileConfig(32, 32, 32, 3, 4),
        TileConfig(16, 32, 32, 3, 4),
    ),
    "double": (
        TileConfig(32, 32, 1, 2, 4),
        TileConfig(16, 16, 8, 2, 4),
        TileConfig(8, 32, 4, 2, 4),
    ),
}


class ConvWgrad(GemmFamily):
    name = "conv_wgrad"
    ops = ("conv2d_wgrad",)
    tiles = _CONFIGS

    def shape(self, problem: ConvProblem, config: TileConfig) -> GemmShape:
        batch, filters, height, width = problem.y.sizes
        _, channels, taps_h, taps_w = problem.w.sizes
        m, n, k = filters // problem.groups, channels * taps_h * taps_w, batch * height * width
        tiles = ceil_div(m, config.block_m) * ceil_div(n, config.block_n) * problem.groups
        # Two programs for every multiprocessor, as long as each has four steps or more.
        wanted = 2 * problem.target.multiprocessors // max(tiles, 1)
        splits = max(min(wanted, ceil_div(k, config.block_k) // 4), 1)
        return GemmShape(
            m=m,
            n=n,
            k=k,
            taps=1,
            batches=problem.groups,
            splits=splits,
            left_vector=max(
                vector_along(problem.y, 1, problem.dtype, m), vector_along(problem.y, 3, problem.dtype, width)
            ),
            right_vector=max(
                vector_along(problem.x, 1, problem.dtype, channels),
                vector_along(problem.x, 3, problem.dtype, width) if is_pointwise(problem) else 1,
            ),
        )

    def workspaces(self, problem: ConvProblem, config: TileConfig) -> Workspaces:
        shape = self.shape(problem, config)
        spaces = {}
        if shape.splits > 1:
            spaces["workspace"] = (shape.splits * shape.m * shape.n * problem.groups, sum_dtype(problem.dtype))
        if problem.has_bias:
            spaces["sums_workspace"] = channel_sum.workspace(problem.y, problem.dtype, problem.target)
        return spaces

    def launches(self, problem: ConvProblem, config: TileConfig) -> list[Launch]:
        shape = self.shape(problem, config)
        x, y = OperandHints.of(problem.x), OperandHints.of(problem.y)
        strides, constants = operand_arguments(x=problem.x, w=problem.w, y=problem.y)
        group_channels, taps_w = problem.w.sizes[1], problem.w.sizes[3]
        filter_tiles, column_tiles = ceil_div(shape.m, config.block_m), ceil_div(shape.n, config.block_n)
        pixels_per_split = ceil_div(ceil_div(shape.k, config.block_k), shape.splits) * config.block_k
        wide = is_wide(problem, shape.k, shape.splits * shape.m * shape.n * problem.groups)
        scalars = {
            "pixels": shape.k,
            "pixels_per_split": pixels_per_split,
            "height": problem.x.sizes[2],
            "width": problem.x.sizes[3],
            "group_channels": group_channels,
            "group_filters": shape.m,
            "columns": shape.n,
            "filter_tiles": filter_tiles,
            "column_tiles": column_tiles,
            "pad_top": problem.padding[0],
            "pad_left": problem.padding[2],
            **magic_division("out_width", problem.y.sizes[3]),
            **magic_division("out_height", problem.y.sizes[2]),
            **strides,
        }
        accumulator = accumulator_of(problem.dtype)
        constants |= {
            "S": taps_w,
            **step_constants(problem),
            "GROUPS": problem.groups,
            "Q_ALIGNMENT": alignment(problem.y.sizes[3]),
            "C_ALIGNMENT": alignment(group_channels),
            "K_ALIGNMENT": alignment(shape.m),
            "X_PIXELS_MINOR": not x.channels_minor_to(2, 3),
            "Y_PIXELS_MINOR": not y.channels_minor_to(2, 3),
            **padding_constants(problem),
            "EVEN_M": shape.m % config.block_m == 0,
            "EVEN_K": shape.k % config.block_k == 0,
            "ONE_TAP": group_channels % config.block_n == 0,
            "PRECISION": instruction_precision(problem),
            "ACCUMULATOR": accumulator,
            "WIDE": wide,
            **config.blocks(),
        }
        programs = shape.splits * problem.groups * filter_tiles * column_tiles
        launches = [Launch(conv_wgrad_kernel, programs, scalars, constants, **config.launch_options(problem))]
        if shape.splits > 1:
            launches.append(add_splits(problem.w, problem.dtype, shape.splits, wide))
        if problem.has_bias:
            aliases = {"x": "y", "sums": "bias"}
            launches += channel_sum.launches_of(problem.y, problem.dtype, problem.target, wide, aliases)
        return launches


FAMILIES = (ConvWgrad(),)
