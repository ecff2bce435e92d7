"""Max pooling and unpooling that the emulator counts: rows of memory_bound_counters.csv, and what makes others of them.

A family's rows are one function that returns its cases, marked `@family`.
"""

from __future__ import annotations

import torch

from fastconv import emulator
from tests.core import raw
from tests.core.counted_case import ByElement, CountedCase, Told, family
from tests.core.pool_support import Window

F16, BF16, F32 = torch.float16, torch.bfloat16, torch.float32


def pooling(
    family: str,
    config: str,
    name: str,
    pool_pass: str,
    window: Window,
    layout: str,
    dtype: torch.dtype,
    **declared: object,
) -> CountedCase:
    """declared: see CountedCase."""

    def run() -> int:
        shape = tuple(window.reference(torch.empty(window.shape))[0].shape)
        # The host's compiler may load by branches, so that counts hang on the numbers.
        draw = torch.Generator().manual_seed(0)
        x, y = (raw.laid_out(torch.randn(sizes, generator=draw).to(dtype), layout) for sizes in (window.shape, shape))
        places = torch.uint8 if window.kernel[0] * window.kernel[1] <= 256 else torch.int32
        offsets = raw.laid_out(torch.zeros(shape, dtype=places), layout)
        chosen = {"family": family, "config": config, "multiprocessors": 1}
        details = raw.pool(emulator.module(), pool_pass, dtype, x, y, offsets, **chosen, **window.keywords)
        return details["compulsory_bytes"]

    return CountedCase(f"{family}_{pool_pass}", config, name, raw.NAMES[dtype], layout, run, **declared)


@family
def max_pool_cases() -> list[CountedCase]:
    two, three = ((2, 2), (2, 2)), ((3, 3), (2, 2), (1, 1))
    whole = ((56, 56), (56, 56))
    narrow = Told("a row has less than a warp's windows, or no multiple")
    planes = ("max_pool_planes", "16k", "contiguous")
    last = ("max_pool_channels", "rows8", "channels_last")
    warp, channels = ("max_pool_large", "warp", "contiguous"), ("max_pool_large", "channels", "channels_last")
    return [
        pooling(family, config, name, pool_pass, window, layout, dtype, **declared)
        for pool_pass in ("forward", "backward")
        for dtype in (F32, F16, BF16)
        for (family, config, layout), name, window, declared in (
            (planes, "2x2 of 64", Window((1, 4, 64, 64), *two), {}),
            (planes, "2x2 of 14", Window((2, 64, 14, 14), *two), {"told": narrow}),
            (planes, "3x3 of 64", Window((1, 4, 64, 64), *three), {"halo": True}),
            (planes, "3x3 of 112", Window((1, 2, 112, 112), *three), {"halo": True, "told": narrow}),
            (last, "2x2 of 28", Window((1, 64, 28, 28), *two), {}),
            (last, "3x3 of 32", Window((1, 64, 32, 32), *three), {"halo": True}),
            (warp, "global 56", Window((1, 8, 56, 56), *whole), {}),
            (channels, "global 56", Window((1, 64, 56, 56), *whole), {}),
        )
    ]


def adaptive(config: str, dtype: torch.dtype) -> CountedCase:
    layout = "contiguous" if config == "warp" else "channels_last"
    window = Window((1, 8 if config == "warp" else 64, 56, 56), (8, 8), (8, 8))
    return pooling("max_pool_large", config, "8x8 of 56", "forward", window, layout, dtype)


@family
def adaptive_cases() -> list[CountedCase]:
    """Adaptive to 7x7 of 56x56: windows of 64 elements. To 1x1 is the global pool above. NCHW: bands_cases."""
    return [adaptive("warp", F32), *(adaptive("channels", dtype) for dtype in (F32, F16, BF16))]


#: Windows over dense NCHW planes, but for 2x2 s2 and 3x3 s2 p1.
BANDED = {
    "3x3 stride 1 of 64": (Window((1, 4, 64, 64), (3, 3), (1, 1), (1, 1)), True),
    "3x3 stride 1 of 14": (Window((2, 64, 14, 14), (3, 3), (1, 1), (1, 1)), False),
    "2x2 stride 1 of 65": (Window((1, 4, 65, 65), (2, 2), (1, 1)), True),
    "3x3 stride 2 of 65": (Window((1, 4, 65, 65), (3, 3), (2, 2)), True),
    "5x5 stride 1 of 64": (Window((1, 4, 64, 64), (5, 5), (1, 1), (2, 2)), True),
    "7x7 stride 1 of 64": (Window((1, 4, 64, 64), (7, 7), (1, 1), (3, 3)), True),
    "13x13 stride 1 of 20": (Window((1, 16, 20, 20), (13, 13), (1, 1), (6, 6)), False),
    "8x8 stride 8 of 56": (Window((1, 8, 56, 56), (8, 8), (8, 8)), False),
}


@family
def bands_cases() -> list[CountedCase]:
    """2x2 of float64 has no kernel of its own."""
    scattered = {
        "forward": Told("lanes have windows of several rows, step over columns, or begin at a border"),
        "backward": Told("winners may lie anywhere"),
    }
    two = Window((1, 32, 28, 28), (2, 2), (2, 2))
    cases = [
        ("32k" if name.startswith(("5x5", "7x7")) else "16k", name, window, dtype, halo)
        for name, (window, halo) in BANDED.items()
        for dtype in (F32, F16, BF16)
    ]
    return [
        pooling("max_pool_bands", config, name, pool_pass, window, "contiguous", dtype, halo=halo, told=told)
        for pool_pass, told in scattered.items()
        for config, name, window, dtype, halo in (*cases, ("16k", "2x2 of 28", two, torch.float64, False))
    ]


#: Of the general kernel: pass, windows, type.
ANY_POOL = [
    (pool_pass, name, dtype)
    for pool_pass in ("forward", "backward")
    for name, dtype in (("3x3 stride 1 of 32", F16), ("2x2 of 28", torch.float64))
]


def any_pool(pool_pass: str, name: str, dtype: torch.dtype, layout: str) -> CountedCase:
    """Windows that overlap are read again while a cache has them, and so are those that several elements of dx lie in."""
    three, two = Window((1, 32, 32, 32), (3, 3), (1, 1), (1, 1)), Window((1, 32, 28, 28), (2, 2), (2, 2))
    again = ("x",) if pool_pass == "forward" else ("y", "offsets")
    window = three if name.startswith("3x3") else two
    return pooling("max_pool", "", name, pool_pass, window, layout, dtype, in_cache=again)


@family
def any_pool_cases() -> list[CountedCase]:
    """NCHW: bands_cases. Offsets of windows that overlap: memory_bound_shortfalls.py."""
    return [
        *(any_pool(*case, "channels_last") for case in ANY_POOL if case[:2] != ("backward", "3x3 stride 1 of 32")),
        *(any_pool("forward", "3x3 stride 1 of 32", dtype, "channels_last") for dtype in (BF16, F32)),
    ]


#: Windows that overlap, where the channel is innermost.
WALKED = {
    "2x2 stride 1 of 33": Window((1, 32, 33, 33), (2, 2), (1, 1)),
    "3x3 stride 1 of 32": Window((1, 32, 32, 32), (3, 3), (1, 1), (1, 1)),
    "3x3 stride 2 of 33": Window((1, 32, 33, 33), (3, 3), (2, 2)),
    "5x5 stride 1 of 32": Window((1, 32, 32, 32), (5, 5), (1, 1), (2, 2)),
}


def walk(name: str, dtype: torch.dtype) -> CountedCase:
    """Neighbouring threads read what their windows share again while a cache has it."""
    return pooling("max_pool_walk", "rows8", name, "forward", WALKED[name], "channels_last", dtype, in_cache=("x",))


@family
def walk_cases() -> list[CountedCase]:
    """2x2 in 16 bits: memory_bound_shortfalls.py."""
    cases = [(name, dtype) for name in WALKED for dtype in (F32, F16, BF16)]
    return [walk(name, dtype) for name, dtype in cases if not name.startswith("2x2") or dtype == F32]


#: What an index names, a vector cannot have.
NAMED = {
    "forward": ByElement("indices say where", "y", "max_unpool.cuh", "store"),
    "gather": ByElement("indices say where", "y", "max_unpool_gather.cuh", "load"),
}


def unpooling(unpool_pass: str, layout: str, dtype: torch.dtype, size: int = 32) -> CountedCase:
    """Positions of y are written twice: zeros, then what belongs there, while a cache still has them."""
    is_gather = unpool_pass == "gather"
    config = "" if is_gather else "s1"

    def run() -> int:
        x = torch.randn(2, 32, size, size, generator=torch.Generator().manual_seed(0)).to(dtype)
        pooled, indices = torch.nn.functional.max_pool2d(x.float(), 2, return_indices=True)
        tensors = (raw.laid_out(tensor, layout) for tensor in (pooled.to(dtype), indices, x))
        return raw.unpool(emulator.module(), unpool_pass, *tensors, config, multiprocessors=1)["compulsory_bytes"]

    return CountedCase(
        "max_unpool_gather" if is_gather else "max_unpool",
        config,
        f"2x2 of {size}",
        raw.NAMES[dtype],
        layout,
        run,
        in_cache=() if is_gather else ("y",),
        by_element=NAMED[unpool_pass],
    )


@family
def unpool_cases() -> list[CountedCase]:
    """Of 14 in 16 bits: memory_bound_shortfalls.py."""
    return [
        *(unpooling("forward", "contiguous", dtype, 14) for dtype in (F32, torch.float64)),
        *(
            unpooling(unpool_pass, layout, dtype)
            for unpool_pass in ("forward", "gather")
            for layout in ("contiguous", "channels_last")
            for dtype in (F16, BF16, F32, torch.float64)
        ),
    ]
