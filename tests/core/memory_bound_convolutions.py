"""Memory-bound convolutions that the emulator counts: rows of memory_bound_counters.csv, and what makes others of them.

A family's rows are one function that returns its cases, marked `@family`.
"""

from __future__ import annotations

import dataclasses

import torch

from fastconv import emulator
from fastconv.backends.cuda import CudaPlan
from tests.core.counted_case import CountedCase, Told, family
from tests.core.family_support import FamilyCase
from tests.core.fused_support import POOLS, WHOLE, fused_candidates, problem_of
from tests.core.mma_support import NAMES

F16, BF16, F32 = torch.float16, torch.bfloat16, torch.float32
NCHW = {"x_last": False, "w_last": False, "y_last": False}


def convolution(config: str, name: str, case: FamilyCase, **declared: object) -> CountedCase:
    """A convolution by kernel and configuration; its layout is that of x. declared: see CountedCase."""

    def run() -> int:
        tensors = case.tensors()
        case.run(config, tensors)
        compiled = emulator.module()
        plan = compiled.Plan(case.problem(compiled, tensors), case.kernel, config)
        return plan.details["compulsory_bytes"]

    layout = "channels_last" if case.x_last else "contiguous"
    return CountedCase(case.kernel, config, name, NAMES[case.dtype], layout, run, **declared)


#: Sums that a block keeps, and their way to dw.
SUMS = ("partial", "workspace", "output")


def depthwise(
    conv_pass: str, dtype: torch.dtype, last: bool, n: int, c: int, size: int, r: int, stride: int
) -> FamilyCase:
    return FamilyCase(
        conv_pass,
        dtype,
        (n, c, size, size),
        (c, 1, r, r),
        stride=(stride, stride),
        padding=(r // 2,) * 4,
        groups=c,
        x_last=last,
        y_last=last,
        w_last=False,
        family="depthwise",
        capability=90,
        multiprocessors=1,
    )


@family
def depthwise_cases() -> list[CountedCase]:
    found = []
    for conv_pass in ("fprop", "dgrad", "wgrad"):
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            for r, stride, size in ((3, 1, 56), (3, 1, 14), (3, 2, 28), (5, 1, 28), (7, 1, 14)):
                if dtype == torch.bfloat16 and (r, size) != (3, 56):
                    continue  # the same code as float16's
                name = f"{r}x{r} stride {stride}, {size}x{size}"
                images = 12 if conv_pass == "wgrad" and size == 14 else 3  # sums of a few images are small beside them
                slab = "slab4" if r == 7 and (dtype != torch.float32 or conv_pass == "wgrad") else "slab8"
                case = depthwise(conv_pass, dtype, True, images, 64, size, r, stride)
                found.append(convolution(slab, name, case, halo=size > 14))
                case = depthwise(conv_pass, dtype, False, 2, 16, size, r, stride)
                # Two strips: at borders the lanes of one read the row of zeros.
                told = Told("lanes step over columns" if stride > 1 else "a warp has two strips")
                scattered = stride > 1 or size <= (28 if dtype.itemsize == 2 else 14)
                found.append(convolution("planes", name, case, halo=size == 56, told=told if scattered else None))
    for conv_pass in ("fprop", "dgrad"):
        for r, size in ((7, 14), (7, 56), (13, 28)):
            case = depthwise(conv_pass, torch.float16, False, 2, 4, size, r, 1)
            name = f"{r}x{r} stride 1, {size}x{size}"
            told = Told("a finished tile lies in eight rows")
            found.append(convolution("band", name, case, halo=size > 14, told=told))
    for size in (14, 28):
        case = depthwise("wgrad", torch.float16, False, 12, 4, size, 13, 1)
        name = f"13x13 stride 1, {size}x{size}"
        found.append(convolution("band", name, case, halo=size > 14, kept=SUMS))
    return found


#: Once a tile of outputs, or once a block.
STAGED = Told("lanes of several image rows", (("words.cuh", "store"),))


#: Input channels, filters, filter size, stride, padding.
STEMS = {
    "7x7": (3, 64, 7, 2, 3),
    "3x3": (3, 32, 3, 2, 1),
    "4x4": (3, 96, 4, 4, 0),
    "7x7 of 1 channel": (1, 64, 7, 2, 3),
}


def stem(conv_pass: str, dtype: torch.dtype, config: str, filters: str, size: int = 128, **rest: object) -> CountedCase:
    channels, outputs, r, stride, padding = STEMS[filters]
    # Each block of wgrad keeps its sums, which are many beside one image's pixels where the stride is 4. It has 64 filters, so
    # two of them read x where there are 96.
    images = (6 if stride == 4 else 2) if conv_pass == "wgrad" else 1
    again = ("x",) if conv_pass == "wgrad" and outputs > 64 else ()
    problem = FamilyCase(
        conv_pass,
        dtype,
        (images, channels, size, size),
        (outputs, channels, r, r),
        stride=(stride, stride),
        padding=(padding,) * 4,
        family="stem",
        multiprocessors=1,
        allow_tf32=True,
        **rest,
    )
    kept = SUMS if conv_pass == "wgrad" else ("w",)
    name = f"{filters} stride {stride}, {size}x{size}"
    return convolution(config, name, problem, halo=stride < r, in_cache=again, kept=kept, told=STAGED)


@family
def stem_cases() -> list[CountedCase]:
    """In NCHW rows of y are whole sectors, as those of 224x224 are."""
    return [
        case
        for conv_pass in ("fprop", "wgrad")
        for case in (
            stem(conv_pass, F16, "16x8", "7x7", 112),
            stem(conv_pass, BF16, "16x8", "7x7", 112),
            stem(conv_pass, F32, "8x16", "7x7", 112),
            *(stem(conv_pass, F16, "16x8", filters) for filters in ("3x3", "4x4", "7x7 of 1 channel")),
            *(stem(conv_pass, F32, "8x16", filters) for filters in ("3x3", "4x4")),
            *(stem(conv_pass, F16, "8x16", filters, **NCHW) for filters in STEMS),
            *(stem(conv_pass, F32, "8x16", filters, **NCHW) for filters in ("7x7", "4x4")),
        )
    ]


def grouped(
    conv_pass: str,
    config: str,
    channels: int,
    size: int,
    dtype: torch.dtype,
    stride: int,
    images: int,
    told: Told | None = None,
    side: int = 32,
    in_cache: tuple[str, ...] = (),
    **layout: bool,
) -> CountedCase:
    """64 channels in groups of so many."""
    problem = FamilyCase(
        conv_pass,
        dtype,
        (images, 64, side, side),
        (64, channels, size, size),
        stride=(stride, stride),
        padding=(size // 2 if size % 2 else 0,) * 4,
        groups=64 // channels,
        family="grouped",
        multiprocessors=1,
        allow_tf32=True,
        **layout,
    )
    kept = SUMS if conv_pass == "wgrad" else ("w",)
    name = f"groups of {channels}, {size}x{size} stride {stride}, {side}x{side}"
    return convolution(config, name, problem, halo=stride < size, kept=kept, told=told, in_cache=in_cache)


@family
def grouped_cases() -> list[CountedCase]:
    def case(conv_pass: str, channels: int, dtype: torch.dtype = F16, stride: int = 1) -> CountedCase:
        config = "8x16" if stride == 1 else "16x8"
        images = 4 if conv_pass == "wgrad" and channels > 4 else 1
        return grouped(conv_pass, config, channels, 3, dtype, stride, images, told=STAGED)

    def planes(conv_pass: str, dtype: torch.dtype) -> CountedCase:
        # In 16 bits 16 bytes hold eight pixels: of rows of 32 a tile of 16 and its halo take 24.
        images = {(F16, "wgrad"): 8, (F32, "wgrad"): 4}.get((dtype, conv_pass), 1)
        return grouped(conv_pass, "4x32" if dtype == F16 else "8x16", 16, 3, dtype, 1, images, **NCHW)

    return [
        *(case("fprop", channels) for channels in (4, 8, 16, 32)),
        case("fprop", 16, F32),
        case("fprop", 16, BF16),
        case("fprop", 8, stride=2),
        *(case("dgrad", channels) for channels in (4, 16)),
        case("dgrad", 16, F32),
        *(case("wgrad", channels) for channels in (4, 8, 16)),
        case("wgrad", 16, F32),
        *(planes(conv_pass, dtype) for conv_pass in ("fprop", "dgrad", "wgrad") for dtype in (F16, F32)),
        *(grouped("fprop", "8x16", 8, 3, dtype, 2, 1, **NCHW) for dtype in (F16, F32)),
    ]


def by_implicit_gemm_1x1(
    conv_pass: str, dtype: torch.dtype, stride: int, in_cache: tuple[str, ...], **layout: bool
) -> CountedCase:
    problem = FamilyCase(
        conv_pass,
        dtype,
        (16, 64, 32, 32),
        (64, 64, 1, 1),
        stride=(stride, stride),
        allow_tf32=True,
        family="mma",
        **layout,
    )
    config = "64x64x64_s4_w4" if dtype == F16 else "64x64x32_s4_w4"
    return convolution(config, f"1x1 stride {stride}, 32x32", problem, in_cache=in_cache)


def turned_1x1(conv_pass: str, dtype: torch.dtype) -> CountedCase:
    """With stride 2 in NCHW, a few images at a time as the workspace has room for; the cache has it for their operands. Memory
    gives whole sectors, so the skipped pixels of the rows that are read have to move too."""
    images, outputs_of_image = 32, 64 * 16 * 16 * dtype.itemsize
    problem = FamilyCase(
        conv_pass,
        dtype,
        (images, 64, 32, 32),
        (64, 64, 1, 1),
        stride=(2, 2),
        allow_tf32=True,
        family="mma",
        most_workspace_bytes=8 * outputs_of_image,
        **NCHW,
    )
    config = "64x64x64_s4_w4" if dtype == F16 else "64x64x32_s4_w4"
    case = convolution(config, "1x1 stride 2, 32x32", problem, cache_bytes=16 * outputs_of_image)
    skipped = 0 if conv_pass == "dgrad" else images * outputs_of_image
    return dataclasses.replace(case, run=lambda: case.run() + skipped)


@family
def pointwise_cases() -> list[CountedCase]:
    """NCHW by kernels of their own; channels-last, strided too, and wgrad of strided NCHW by the implicit GEMM."""
    planes = [
        convolution(
            config.format(depth=64 if dtype != F32 else 32),
            "1x1, 16x16",
            FamilyCase(
                conv_pass, dtype, (4, 64, 16, 16), (64, 64, 1, 1), family="pointwise", allow_tf32=allow_tf32, **NCHW
            ),
            in_cache=("w",),
        )
        for dtype, allow_tf32 in ((F16, False), (BF16, False), (F32, True))
        for conv_pass, config in (
            ("fprop", "64x128x{depth}_s3_w4"),
            ("dgrad", "64x64x{depth}_s4_w4"),
            ("wgrad", "64x64x{depth}_s4_w4"),
        )
    ]
    last = [
        by_implicit_gemm_1x1(conv_pass, dtype, stride, ("w", "workspace"))
        for dtype in (F16, F32)
        for stride in (1, 2)
        for conv_pass in ("fprop", "dgrad", "wgrad")
    ]
    return planes + last + [turned_1x1("wgrad", dtype) for dtype in (F16, F32)]


@family
def patch_cases() -> list[CountedCase]:
    """Batches that hide that NCHW, and dgrad, copy the weights first."""

    def case(conv_pass: str, dtype: torch.dtype, size: int, images: int, filters: int, **rest: bool) -> CountedCase:
        config = "128x64x64_s3_w4" if dtype == F16 else "64x64x32_s4_w4"
        problem = FamilyCase(
            conv_pass,
            dtype,
            (images, 3, 8 * size, 8 * size),
            (filters, 3, size, size),
            stride=(size, size),
            family="patch",
            allow_tf32=True,
            **rest,
        )
        again = ("x", "dy") if conv_pass == "wgrad" else ("x", "dy", "w", "workspace")
        name = f"{size}x{size} stride {size}, {8 * size}x{8 * size}"
        return convolution(config, name, problem, in_cache=again, kept=() if conv_pass == "wgrad" else ("w",))

    # dy, whose channels must be neighbours, is turned by two images, for which the workspace has room.
    turned = FamilyCase(
        "wgrad",
        F32,
        (32, 3, 32, 32),
        (32, 3, 4, 4),
        stride=(4, 4),
        family="patch",
        allow_tf32=True,
        most_workspace_bytes=32 << 10,
        **NCHW,
    )
    return [
        *(case(conv_pass, dtype, 16, 2, 64) for conv_pass in ("fprop", "wgrad") for dtype in (F16, F32)),
        *(case("dgrad", dtype, 16, 6, 16) for dtype in (F16, F32)),
        *(case(conv_pass, F16, 16, 6, 16, **NCHW) for conv_pass in ("fprop", "wgrad")),
        convolution("64x64x32_s4_w4", "4x4 stride 4, 32x32", turned, cache_bytes=80 << 10),
    ]


def fused(pool: str, dtype: torch.dtype, layout: str) -> CountedCase:
    """Neither writes the convolution's output to memory; x is read again for each tap, and w by each tile. In NCHW x is turned
    to channels-last, image by image, since the workspace has room for one; the cache has it for an image's x, outputs and
    weights, whose bytes are at most three quarters of it."""
    config = "256x64x16_s4_w4" if dtype == F32 else "256x64x32_s4_w4"
    is_turned = layout == "contiguous"
    sizes = {"x": (16 if is_turned else 1, 64, 32, 32), "w": (64, 64, 3, 3)}
    call = dataclasses.replace(WHOLE, **sizes, dtype=dtype, pool=POOLS[pool], x_layout=layout, w_layout=layout)
    image_bytes = 64 * 32 * 32 * dtype.itemsize

    def run() -> int:
        problem = problem_of(call, allow_tf32=True)
        most = 2 * image_bytes if is_turned else None
        (candidate,) = [one for one in fused_candidates(problem, most) if one.config == config]
        CudaPlan(problem, candidate, most)(*call.tensors())
        return candidate.details["compulsory_bytes"]

    kernel = "mma_conv_global_max" if call.pool is None else "mma_conv_max_pool"
    held = {"cache_bytes": 448 << 10} if is_turned else {"in_cache": ("x", "w", "bias", "workspace")}
    return CountedCase(kernel, config, f"3x3 of 32x32, {pool}", NAMES[dtype], layout, run, **held)


@family
def fused_cases() -> list[CountedCase]:
    pools = ("2x2s2", "3x3s2p1", "global")
    return [
        *(fused(pool, dtype, "channels_last") for pool in pools for dtype in (F16, BF16, F32)),
        *(fused(pool, F16, "contiguous") for pool in pools),
    ]
