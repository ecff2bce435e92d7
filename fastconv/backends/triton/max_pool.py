"""Max pooling: forward with the winner's place in its window, backward by gathering, and the two maps that follow from places.

PyTorch's rules: the first maximum wins, any NaN wins over numbers and the last NaN over earlier ones, and where everything is
minus infinity the first element inside the image is the winner. Padding never wins.
"""

from __future__ import annotations

import triton.language as tl

from fastconv.backends.triton.family import Estimate, Workspaces
from fastconv.backends.triton.gemm import accumulator_of
from fastconv.backends.triton.hints import OperandHints, alignment, is_wide, operand_arguments, step_constants
from fastconv.backends.triton.numerics import aligned, narrow, offsets_at, raised, stride_of, widen
from fastconv.backends.triton.runtime import Launch, kernel
from fastconv.backends.triton.spatial import (
    MOST_UNROLLED,
    SpatialConfig,
    spatial_configs,
    spatial_estimate,
    spatial_rejection,
    spatial_tile,
)
from fastconv.backends.triton.winners import first_inside, keep_winner
from fastconv.problem import Operand, PoolProblem


@kernel
def max_pool_forward_kernel(
    x_pointer,  # [N, C, H, W]
    y_pointer,  # [N, C, P, Q]
    offsets_pointer,  # [N, C, P, Q]
    channels, height, width, out_height, out_width,
    x_stride_n, x_stride_c, x_stride_h, x_stride_w,
    y_stride_n, y_stride_k, y_stride_p, y_stride_q,
    offsets_stride_n, offsets_stride_k, offsets_stride_p, offsets_stride_q,
    R: tl.constexpr, S: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    PAD_H: tl.constexpr, PAD_W: tl.constexpr, DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
    X_UNIT: tl.constexpr, X_ALIGNMENT: tl.constexpr, Y_UNIT: tl.constexpr, Y_ALIGNMENT: tl.constexpr,
    OFFSETS_UNIT: tl.constexpr, OFFSETS_ALIGNMENT: tl.constexpr,
    C_ALIGNMENT: tl.constexpr, Q_ALIGNMENT: tl.constexpr, CHANNELS_MINOR: tl.constexpr, UNROLL: tl.constexpr,
    ACCUMULATOR: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    channels = aligned(channels, C_ALIGNMENT)
    out_width = aligned(out_width, Q_ALIGNMENT)
    n, c, p, q = spatial_tile(
        tl.program_id(0), channels, out_height, out_width, CHANNELS_MINOR, BLOCK_C, BLOCK_H, BLOCK_W
    )
    channel_valid = c < channels
    valid = channel_valid & (p < out_height) & (q < out_width)
    n = widen(n, WIDE)
    c = widen(c, WIDE)
    h = p * STRIDE_H - PAD_H
    w = q * STRIDE_W - PAD_W
    image_offsets = (
        n * stride_of(x_stride_n, 0, X_UNIT, X_ALIGNMENT) + c * stride_of(x_stride_c, 1, X_UNIT, X_ALIGNMENT)
    )  # fmt: skip
    best = tl.full([BLOCK_C, BLOCK_H, BLOCK_W], -float("inf"), ACCUMULATOR)
    place = tl.full([BLOCK_C, BLOCK_H, BLOCK_W], 0, tl.int32)
    place += first_inside(h, DILATION_H) * S + first_inside(w, DILATION_W)
    for r in range(0, R):
        row = h + r * DILATION_H
        row_valid = channel_valid & (row >= 0) & (row < height)
        row = widen(tl.minimum(tl.maximum(row, 0), height - 1), WIDE)
        row_offsets = image_offsets + row * stride_of(x_stride_h, 2, X_UNIT, X_ALIGNMENT)
        for s in tl.range(0, S, loop_unroll_factor=UNROLL):
            column = w + s * DILATION_W
            inside = row_valid & (column >= 0) & (column < width)
            column = widen(tl.minimum(tl.maximum(column, 0), width - 1), WIDE)
            pointers = x_pointer + (row_offsets + column * stride_of(x_stride_w, 3, X_UNIT, X_ALIGNMENT))
            value = raised(tl.load(pointers, mask=inside, other=-float("inf")), ACCUMULATOR)
            best, place = keep_winner(best, place, value, r * S + s, inside)
    p = widen(p, WIDE)
    q = widen(q, WIDE)
    y_offsets = offsets_at(n, c, p, q, y_stride_n, y_stride_k, y_stride_p, y_stride_q, Y_UNIT, Y_ALIGNMENT)
    place_offsets = offsets_at(
        n, c, p, q,
        offsets_stride_n, offsets_stride_k, offsets_stride_p, offsets_stride_q, OFFSETS_UNIT, OFFSETS_ALIGNMENT,
    )  # fmt: skip
    tl.store(y_pointer + y_offsets, narrow(best, y_pointer.dtype.element_ty), mask=valid)
    tl.store(offsets_pointer + place_offsets, place.to(offsets_pointer.dtype.element_ty), mask=valid)


@kernel
def max_pool_backward_kernel(
    y_pointer,  # [N, C, P, Q], the gradient that comes in
    offsets_pointer,  # [N, C, P, Q]
    x_pointer,  # [N, C, H, W], the gradient that goes out
    channels, height, width, out_height, out_width,
    x_stride_n, x_stride_c, x_stride_h, x_stride_w,
    y_stride_n, y_stride_k, y_stride_p, y_stride_q,
    offsets_stride_n, offsets_stride_k, offsets_stride_p, offsets_stride_q,
    R: tl.constexpr, S: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    PAD_H: tl.constexpr, PAD_W: tl.constexpr, DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
    WINDOWS_H: tl.constexpr, WINDOWS_W: tl.constexpr,
    X_UNIT: tl.constexpr, X_ALIGNMENT: tl.constexpr, Y_UNIT: tl.constexpr, Y_ALIGNMENT: tl.constexpr,
    OFFSETS_UNIT: tl.constexpr, OFFSETS_ALIGNMENT: tl.constexpr,
    C_ALIGNMENT: tl.constexpr, W_ALIGNMENT: tl.constexpr, CHANNELS_MINOR: tl.constexpr, UNROLL: tl.constexpr,
    ACCUMULATOR: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """Every input pixel visits the windows it lies in, from top left to bottom right, and takes what it won."""
    channels = aligned(channels, C_ALIGNMENT)
    width = aligned(width, W_ALIGNMENT)
    n, c, h, w = spatial_tile(tl.program_id(0), channels, height, width, CHANNELS_MINOR, BLOCK_C, BLOCK_H, BLOCK_W)
    channel_valid = c < channels
    valid = channel_valid & (h < height) & (w < width)
    n = widen(n, WIDE)
    c = widen(c, WIDE)
    y_image = n * stride_of(y_stride_n, 0, Y_UNIT, Y_ALIGNMENT) + c * stride_of(y_stride_k, 1, Y_UNIT, Y_ALIGNMENT)
    place_image = (
        n * stride_of(offsets_stride_n, 0, OFFSETS_UNIT, OFFSETS_ALIGNMENT)
        + c * stride_of(offsets_stride_k, 1, OFFSETS_UNIT, OFFSETS_ALIGNMENT)
    )  # fmt: skip
    accumulator = tl.full([BLOCK_C, BLOCK_H, BLOCK_W], 0.0, ACCUMULATOR)
    for i in range(0, WINDOWS_H):
        p = (h + PAD_H) // STRIDE_H - (WINDOWS_H - 1) + i
        rows_in = h + PAD_H - p * STRIDE_H
        r = rows_in // DILATION_H
        row_valid = channel_valid & (p >= 0) & (p < out_height) & (r < R) & (r * DILATION_H == rows_in)
        p = widen(tl.minimum(tl.maximum(p, 0), out_height - 1), WIDE)
        y_row = y_image + p * stride_of(y_stride_p, 2, Y_UNIT, Y_ALIGNMENT)
        place_row = place_image + p * stride_of(offsets_stride_p, 2, OFFSETS_UNIT, OFFSETS_ALIGNMENT)
        for j in tl.range(0, WINDOWS_W, loop_unroll_factor=UNROLL):
            q = (w + PAD_W) // STRIDE_W - (WINDOWS_W - 1) + j
            columns_in = w + PAD_W - q * STRIDE_W
            s = columns_in // DILATION_W
            inside = row_valid & (q >= 0) & (q < out_width) & (s < S) & (s * DILATION_W == columns_in)
            q = widen(tl.minimum(tl.maximum(q, 0), out_width - 1), WIDE)
            place_pointers = offsets_pointer + (
                place_row + q * stride_of(offsets_stride_q, 3, OFFSETS_UNIT, OFFSETS_ALIGNMENT)
            )
            place = tl.load(place_pointers, mask=inside, other=0).to(tl.int32)
            y_pointers = y_pointer + (y_row + q * stride_of(y_stride_q, 3, Y_UNIT, Y_ALIGNMENT))
            dy = raised(tl.load(y_pointers, mask=inside, other=0.0), ACCUMULATOR)
            accumulator += tl.where(inside & (place == r * S + s), dy, 0.0)
    offsets = offsets_at(
        n, c, widen(h, WIDE), widen(w, WIDE),
        x_stride_n, x_stride_c, x_stride_h, x_stride_w, X_UNIT, X_ALIGNMENT,
    )  # fmt: skip
    tl.store(x_pointer + offsets, narrow(accumulator, x_pointer.dtype.element_ty), mask=valid)


@kernel
def max_pool_lookup_kernel(
    offsets_pointer,  # [N, C, P, Q]
    x_pointer,  # [N, C, H, W], or None where flat indices are wanted
    y_pointer,  # [N, C, P, Q]: the winners' values, or their flat indices h * W + w
    channels, height, width, out_height, out_width,
    x_stride_n, x_stride_c, x_stride_h, x_stride_w,
    y_stride_n, y_stride_k, y_stride_p, y_stride_q,
    offsets_stride_n, offsets_stride_k, offsets_stride_p, offsets_stride_q,
    S: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    PAD_H: tl.constexpr, PAD_W: tl.constexpr, DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
    X_UNIT: tl.constexpr, X_ALIGNMENT: tl.constexpr, Y_UNIT: tl.constexpr, Y_ALIGNMENT: tl.constexpr,
    OFFSETS_UNIT: tl.constexpr, OFFSETS_ALIGNMENT: tl.constexpr,
    C_ALIGNMENT: tl.constexpr, Q_ALIGNMENT: tl.constexpr, CHANNELS_MINOR: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    channels = aligned(channels, C_ALIGNMENT)
    out_width = aligned(out_width, Q_ALIGNMENT)
    n, c, p, q = spatial_tile(
        tl.program_id(0), channels, out_height, out_width, CHANNELS_MINOR, BLOCK_C, BLOCK_H, BLOCK_W
    )
    valid = (c < channels) & (p < out_height) & (q < out_width)
    n = widen(n, WIDE)
    c = widen(c, WIDE)
    place_offsets = offsets_at(
        n, c, widen(p, WIDE), widen(q, WIDE),
        offsets_stride_n, offsets_stride_k, offsets_stride_p, offsets_stride_q, OFFSETS_UNIT, OFFSETS_ALIGNMENT,
    )  # fmt: skip
    y_offsets = offsets_at(
        n, c, widen(p, WIDE), widen(q, WIDE),
        y_stride_n, y_stride_k, y_stride_p, y_stride_q, Y_UNIT, Y_ALIGNMENT,
    )  # fmt: skip
    place = tl.load(offsets_pointer + place_offsets, mask=valid, other=0).to(tl.int32)
    r = place // S
    h = p * STRIDE_H - PAD_H + r * DILATION_H
    w = q * STRIDE_W - PAD_W + (place - r * S) * DILATION_W
    if x_pointer is None:
        tl.store(y_pointer + y_offsets, h.to(tl.int64) * width + w, mask=valid)
    else:
        inside = valid & (h >= 0) & (h < height) & (w >= 0) & (w < width)
        h = widen(tl.minimum(tl.maximum(h, 0), height - 1), WIDE)
        w = widen(tl.minimum(tl.maximum(w, 0), width - 1), WIDE)
        x_offsets = offsets_at(n, c, h, w, x_stride_n, x_stride_c, x_stride_h, x_stride_w, X_UNIT, X_ALIGNMENT)
        value = tl.load(x_pointer + x_offsets, mask=inside, other=0.0)
        tl.store(y_pointer + y_offsets, value, mask=valid)


class _MaxPool:
    """What the passes share; `output` is the operand whose elements programs are divided by."""

    def output(self, problem: PoolProblem) -> Operand:
        return problem.y

    def configs(self, problem: PoolProblem) -> tuple[SpatialConfig, ...]:
        return spatial_configs(self.output(problem))

    def rejection(self, problem: PoolProblem, config: SpatialConfig) -> str:
        return spatial_rejection(self.output(problem), config)

    def visits(self, problem: PoolProblem) -> int:
        """Neighbours that each output looks at."""
        return problem.kernel[0] * problem.kernel[1]

    def estimate(self, problem: PoolProblem, config: SpatialConfig) -> Estimate:
        return spatial_estimate(problem, self.output(problem), config, self.visits(problem))

    def workspaces(self, problem: PoolProblem, config: SpatialConfig) -> Workspaces:
        return {}

    def geometry(self, problem: PoolProblem, config: SpatialConfig) -> tuple[dict, dict]:
        """Scalars and constants that all kernels take."""
        strides, constants = operand_arguments(x=problem.x, y=problem.y, offsets=problem.offsets)
        channels = problem.x.sizes[1]
        scalars = {
            "channels": channels,
            "height": problem.x.sizes[2],
            "width": problem.x.sizes[3],
            "out_height": problem.y.sizes[2],
            "out_width": problem.y.sizes[3],
            **strides,
        }
        constants |= {
            "S": problem.kernel[1],
            **step_constants(problem),
            "PAD_H": problem.padding[0],
            "PAD_W": problem.padding[1],
            "C_ALIGNMENT": alignment(channels),
            "CHANNELS_MINOR": OperandHints.of(self.output(problem)).channels_minor_to(2, 3),
            "WIDE": is_wide(problem),
            **config.blocks(),
        }
        return scalars, constants


class MaxPoolForward(_MaxPool):
    name = "max_pool_forward"
    ops = ("max_pool2d_forward",)

    def launches(self, problem: PoolProblem, config: SpatialConfig) -> list[Launch]:
        scalars, constants = self.geometry(problem, config)
        constants |= {
            "R": problem.kernel[0],
            "Q_ALIGNMENT": alignment(problem.y.sizes[3]),
            "UNROLL": problem.kernel[1] if problem.kernel[1] <= MOST_UNROLLED else 1,
            "ACCUMULATOR": accumulator_of(problem.dtype),
        }
        options = config.launch_options(problem.dtype.itemsize)
        return [Launch(max_pool_forward_kernel, config.programs(problem.y), scalars, constants, **options)]


class MaxPoolBackward(_MaxPool):
    name = "max_pool_backward"
    ops = ("max_pool2d_backward",)

    def output(self, problem: PoolProblem) -> Operand:
        return problem.x

    def _windows(self, problem: PoolProblem) -> tuple[int, int]:
        """How many windows of a dimension a pixel can lie in."""
        vertical, horizontal = (
            (taps - 1) * dilation // stride + 1
            for taps, dilation, stride in zip(problem.kernel, problem.dilation, problem.stride, strict=True)
        )
        return vertical, horizontal

    def visits(self, problem: PoolProblem) -> int:
        vertical, horizontal = self._windows(problem)
        return vertical * horizontal

    def launches(self, problem: PoolProblem, config: SpatialConfig) -> list[Launch]:
        scalars, constants = self.geometry(problem, config)
        vertical, horizontal = self._windows(problem)
        constants |= {
            "R": problem.kernel[0],
            "WINDOWS_H": vertical,
            "WINDOWS_W": horizontal,
            "W_ALIGNMENT": alignment(problem.x.sizes[3]),
            "UNROLL": horizontal if horizontal <= MOST_UNROLLED else 1,
            "ACCUMULATOR": accumulator_of(problem.dtype),
        }
        options = config.launch_options(problem.dtype.itemsize)
        return [Launch(max_pool_backward_kernel, config.programs(problem.x), scalars, constants, **options)]


class MaxPoolLookup(_MaxPool):
    """Winners' places to winners' values (gather) or to their flat indices."""

    name = "max_pool_lookup"
    ops = ("max_pool2d_gather", "max_pool2d_indices")

    def visits(self, problem: PoolProblem) -> int:
        return 1

    def launches(self, problem: PoolProblem, config: SpatialConfig) -> list[Launch]:
        scalars, constants = self.geometry(problem, config)
        constants |= {"Q_ALIGNMENT": alignment(problem.y.sizes[3])}
        aliases = {"y": "indices"} if problem.pool_pass == "indices" else {}
        programs = config.programs(problem.y)
        options = config.launch_options(problem.dtype.itemsize)
        return [Launch(max_pool_lookup_kernel, programs, scalars, constants, **options, aliases=aliases)]


FAMILIES = (MaxPoolForward(), MaxPoolBackward(), MaxPoolLookup())
