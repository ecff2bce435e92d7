"""Forward 1x1 convolution of channels-last tensors as a plain matrix product, its operands brought by tensor descriptors.

With one tap, stride one and no padding, x is a matrix [N*H*W, C] and w a matrix [K, C], so from Hopper on the copy engine can
bring whole tiles: one instruction of one thread for a tile, which also fills up ragged edges with zeros. Compiled for sm_90, a
thread needs 22 to 31 registers less than with pointers of its own (112 to 90 for 128x128x64, 185 to 154 for 128x256x64), and
there are no address or mask instructions in the loop. Other filters do not gain alike: their tiles are gathered, and a
descriptor for w alone would bring the smaller half of the operands while both kinds of synchronisation are paid for.
"""

from __future__ import annotations

import triton.language as tl

from fastconv.backends.triton.family import Estimate, Workspaces, ceil_div
from fastconv.backends.triton.gemm import (
    GemmShape,
    TileConfig,
    collapsed,
    estimate,
    instruction_precision,
    is_pointwise,
    precision_of,
    tile_rejection,
    useful_share,
)
from fastconv.backends.triton.hints import OperandHints, alignment, is_wide, operand_arguments
from fastconv.backends.triton.implicit_gemm import finish
from fastconv.backends.triton.numerics import aligned, dot, stride_of, widen
from fastconv.backends.triton.runtime import Launch, kernel
from fastconv.problem import ConvProblem, Operand

#: Bytes that divide the address and the strides of what a descriptor describes.
_BYTES = 16
#: Compute capability, times ten, of the first GPUs with the copy engine.
_OLDEST = 90


@kernel
def pointwise_fprop_kernel(
    x_pointer,  # [N, C, 1, H*W]
    w_pointer,  # [K, C, 1, 1]
    bias_pointer,  # [K] or None
    residual_pointer,  # [N, K, 1, H*W] or None
    y_pointer,  # [N, K, 1, H*W]
    pixels, image_pixels, channels, filters, filter_tiles, x_stride_pixel, w_stride_filter,
    y_stride_n, y_stride_k, y_stride_p, y_stride_q,
    residual_stride_n, residual_stride_k, residual_stride_p, residual_stride_q,
    ACTIVATION: tl.constexpr, Y_UNIT: tl.constexpr, Y_ALIGNMENT: tl.constexpr,
    RESIDUAL_UNIT: tl.constexpr, RESIDUAL_ALIGNMENT: tl.constexpr,
    STRIDE_ALIGNMENT: tl.constexpr, K_ALIGNMENT: tl.constexpr, Y_PIXELS_MINOR: tl.constexpr,
    PRECISION: tl.constexpr, WIDE: tl.constexpr, HALVES: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    tile_n = program % filter_tiles
    tile_m = program // filter_tiles
    filters = aligned(filters, K_ALIGNMENT)
    x_tiles = tl.make_tensor_descriptor(
        x_pointer, [pixels, channels], [aligned(x_stride_pixel, STRIDE_ALIGNMENT), 1], [BLOCK_M, BLOCK_K]
    )
    w_tiles = tl.make_tensor_descriptor(
        w_pointer, [filters, channels], [aligned(w_stride_filter, STRIDE_ALIGNMENT), 1], [BLOCK_N, BLOCK_K]
    )
    accumulator = tl.full([BLOCK_M, BLOCK_N], 0.0, tl.float32)
    for channel in range(0, channels, BLOCK_K):
        left = x_tiles.load([tile_m * BLOCK_M, channel])
        right = w_tiles.load([tile_n * BLOCK_N, channel])
        accumulator = dot(left, tl.trans(right), accumulator, PRECISION)

    row = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    row_valid = row < pixels
    row = tl.minimum(row, pixels - 1)
    n = row // image_pixels
    q = widen(row - n * image_pixels, WIDE)
    n = widen(n, WIDE)
    residual_rows = n
    residual_stride_k = stride_of(residual_stride_k, 1, RESIDUAL_UNIT, RESIDUAL_ALIGNMENT)
    if residual_pointer is not None:
        residual_rows = n * stride_of(residual_stride_n, 0, RESIDUAL_UNIT, RESIDUAL_ALIGNMENT) + q * stride_of(
            residual_stride_q, 3, RESIDUAL_UNIT, RESIDUAL_ALIGNMENT
        )
    finish(
        accumulator, y_pointer, bias_pointer, residual_pointer,
        n * stride_of(y_stride_n, 0, Y_UNIT, Y_ALIGNMENT) + q * stride_of(y_stride_q, 3, Y_UNIT, Y_ALIGNMENT),
        stride_of(y_stride_k, 1, Y_UNIT, Y_ALIGNMENT), residual_rows, residual_stride_k,
        row_valid, tile_n, 0, filters, BLOCK_N, HALVES, Y_PIXELS_MINOR, ACTIVATION, WIDE,
    )  # fmt: skip


_CONFIGS = {
    "half": (
        TileConfig(128, 256, 64, 3, 8),
        TileConfig(128, 128, 64, 4, 8),
        TileConfig(128, 64, 64, 4, 4),
        TileConfig(64, 64, 64, 4, 4),
        TileConfig(64, 32, 32, 4, 4),
    ),
    "tf32": (TileConfig(128, 128, 32, 4, 8), TileConfig(64, 64, 32, 4, 4)),
}


class PointwiseFprop:
    name = "pointwise_fprop"
    ops = ("conv2d_fprop",)
    aligned_inputs = ("x", "w")  # a plan copies those whose address does not divide by 16

    def configs(self, problem: ConvProblem) -> tuple[TileConfig, ...]:
        """None for float64 and exact float32: these have no products on tensor cores."""
        if problem.dtype.itemsize == 2:
            return _CONFIGS["half"]
        return _CONFIGS["tf32"] if precision_of(problem) == "tf32" else ()

    def _unsuitable(self, problem: ConvProblem) -> str:
        if problem.target.capability < _OLDEST and problem.target.device_type == "cuda":
            return f"tensor descriptors need compute capability 9.0, this GPU has {problem.target.capability / 10}"
        if not is_pointwise(problem) or problem.groups != 1:
            return "not a 1x1 convolution of one group with stride one and no padding"
        problem = collapsed(problem)
        if problem.x.sizes[2] != 1 or not _is_matrix(problem.x, problem.dtype.itemsize):
            return "x is not a matrix of pixels by channels in memory, of 16-byte rows"
        if (problem.w.sizes[1] > 1 and problem.w.strides[1] != 1) or problem.w.strides[
            0
        ] * problem.dtype.itemsize % _BYTES:
            return "w is not a matrix of filters by channels in memory, of 16-byte rows"
        if problem.index_bits == 64:
            return "tensor descriptors count in 32 bits"
        return ""

    def shape(self, problem: ConvProblem) -> GemmShape:
        batch, filters, height, width = problem.y.sizes
        # A tile is one instruction of one thread, as if a load brought a row of it.
        return GemmShape(batch * height * width, filters, problem.w.sizes[1], 1, left_vector=64, right_vector=64)

    def rejection(self, problem: ConvProblem, config: TileConfig) -> str:
        shares = {other: useful_share(self.shape(problem), other) for other in self.configs(problem)}
        return self._unsuitable(problem) or tile_rejection(problem, config, self.estimate(problem, config), shares)

    def estimate(self, problem: ConvProblem, config: TileConfig) -> Estimate:
        return estimate(problem, self.shape(problem), config)

    def workspaces(self, problem: ConvProblem, config: TileConfig) -> Workspaces:
        return {}

    def launches(self, problem: ConvProblem, config: TileConfig) -> list[Launch]:
        problem = collapsed(problem)
        shape = self.shape(problem)
        strides, constants = operand_arguments(y=problem.y, residual=problem.residual)
        filter_tiles = ceil_div(shape.n, config.block_n)
        x_stride, w_stride = problem.x.strides[3], problem.w.strides[0]
        scalars = {
            "pixels": shape.m,
            "image_pixels": problem.y.sizes[3],
            "channels": shape.k,
            "filters": shape.n,
            "filter_tiles": filter_tiles,
            "x_stride_pixel": x_stride,
            "w_stride_filter": w_stride,
            **strides,
        }
        constants |= {
            "ACTIVATION": problem.activation,
            "STRIDE_ALIGNMENT": alignment(x_stride, w_stride),
            "K_ALIGNMENT": alignment(shape.n),
            "Y_PIXELS_MINOR": not OperandHints.of(problem.y).channels_minor_to(2, 3),
            "PRECISION": instruction_precision(problem),
            "WIDE": is_wide(problem, shape.m),
            "HALVES": config.finishes_by_halves(),
            **config.blocks(),
        }
        programs = ceil_div(shape.m, config.block_m) * filter_tiles
        options = config.launch_options(problem)
        return [Launch(pointwise_fprop_kernel, programs, scalars, constants, **options, descriptors=True)]


def _is_matrix(image: Operand, itemsize: int) -> bool:
    """True for [N, C, 1, W] whose pixels lie at equal distances, also from image to image, each with its channels in a row."""
    batch, channels, _, width = image.sizes
    in_a_row = channels <= 1 or image.strides[1] == 1
    evenly = batch <= 1 or image.strides[0] == width * image.strides[3]
    return in_a_row and evenly and image.strides[3] >= channels and image.strides[3] * itemsize % _BYTES == 0


FAMILIES = (PointwiseFprop(),)
