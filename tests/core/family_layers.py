"""What layers that users have take of an H200, by three counts: instructions, matrix products and memory.

All are of one tile, in the turns of a warp scheduler: of 132 x 4 at 1.7 GHz. Memory moves 4.3 TB/s, which is 0.21 turns a
byte, and only the compulsory bytes count: halos come from the cache. A tensor core takes 4 turns for a product of 16 x 8 x 16
in 16 bits (989 TFLOP/s) or of 16 x 8 x 8 in TF32. These are predictions from data-sheet figures. Instructions are
family_instructions.csv's, so lower bounds: bias, residual and activation cost more.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

from tests.core.family_instructions import Count, Kernel, read_table

TURNS_A_BYTE = 132 * 4 * 1.7e9 / 4.3e12
TURNS_A_PRODUCT = 4
WARPS, TILE_PIXELS = 4, 128


@dataclasses.dataclass(frozen=True)
class Turns:
    instructions: float
    tensor_cores: float
    memory: float

    @property
    def binding(self) -> str:
        taken = dataclasses.asdict(self)
        return max(taken, key=taken.__getitem__)


@dataclasses.dataclass(frozen=True)
class Type:
    name: str
    precision: str
    architecture: str

    @property
    def size(self) -> int:
        return 4 if self.name == "float32" else 2

    @property
    def chunk(self) -> int:
        """Elements of 16 bytes."""
        return 16 // self.size

    @property
    def depth(self) -> int:
        """Terms of a product."""
        return 2 * self.chunk

    def count(self, name: str, variant: str, part: str, precision: str | None = None) -> Count:
        precision = self.precision if precision is None else precision
        return read_table()[Kernel(name, variant, self.name, precision, self.architecture), part]


def _turns(instructions: float, products: float, bytes_: float) -> Turns:
    return Turns(instructions, TURNS_A_PRODUCT * products, TURNS_A_BYTE * bytes_)


def _stem_stage(type_: Type, size: int, stride: int, channels: int, *, eights: bool = False) -> int:
    """Rounds of a warp that stage a tile of 16 x 8 pixels: rows of the image by the 16 bytes that they lie in.

    eights: rows get whole eights of lanes.
    """
    rows, columns = 15 * stride + size, 7 * stride + size
    # A row may begin anywhere in its first 16 bytes.
    chunks = math.ceil((columns * channels + type_.chunk - 1) / type_.chunk)
    if eights:
        chunks = math.ceil(chunks / 8) * 8
    return math.ceil(rows * chunks / 32)


def _stem_bytes(type_: Type, stride: int, channels: int, filters: int) -> int:
    return TILE_PIXELS * type_.size * (stride**2 * channels + filters)


def _stem_terms(type_: Type, size: int, channels: int) -> int:
    """Rows of the filter are whole words."""
    of_word = 4 // type_.size
    return size * math.ceil(size * channels / of_word) * of_word


def stem_fprop(type_: Type, size: int, stride: int, channels: int, filters: int) -> Turns:
    """With 32 or 64 filters at once, whichever takes fewer instructions."""
    candidates = [_stem_fprop(type_, size, stride, channels, filters, columns) for columns in (32, 64)]
    return min(candidates, key=lambda turns: turns.instructions)


def _stem_fprop(type_: Type, size: int, stride: int, channels: int, filters: int, columns: int) -> Turns:
    passes = math.ceil(filters / columns)

    def count(part: str) -> Count:
        return type_.count("staged_conv", f"words {columns}", part)

    steps = math.ceil(_stem_terms(type_, size, channels) / type_.depth)
    products = WARPS * passes * steps * 2 * columns / 8
    stored = max(count("store"), count("store planes"), key=lambda one: one.instructions)
    instructions = (
        count("multiply").each * products
        + count("stage").each * _stem_stage(type_, size, stride, channels)
        + WARPS * passes * stored.instructions
        + WARPS * count("rest").instructions
    )
    return _turns(instructions, products, _stem_bytes(type_, stride, channels, filters))


def stem_wgrad(type_: Type, size: int, stride: int, channels: int, filters: int) -> Turns:
    terms = 64 if _stem_terms(type_, size, channels) <= 64 else 192

    def count(part: str) -> Count:
        return type_.count("staged_wgrad", f"words 64x{terms}", part)

    passes = math.ceil(filters / 64) * math.ceil(_stem_terms(type_, size, channels) / terms)
    products = passes * 64 // 16 * terms // 8 * TILE_PIXELS / type_.depth
    chunks = TILE_PIXELS * 64 / type_.chunk  # those of filters that do not exist are filled with zeros
    instructions = count("multiply").each * products + passes * (
        count("stage").each * _stem_stage(type_, size, stride, channels, eights=type_.size == 4 and size == 4)
        + count("stage gradient").each * chunks / 32
        + WARPS * count("rest").instructions
    )
    return _turns(instructions, products, _stem_bytes(type_, stride, channels, filters))


def _slab(type_: Type) -> tuple[int, float, int]:
    """128 bytes of a pixel: channels; rounds that stage a tile of 16 x 8 pixels with the halo of 3x3; bytes of x and y."""
    return 128 // type_.size, math.ceil(18 * 10 * 8 / 32), 2 * TILE_PIXELS * 128


def grouped_fprop(type_: Type, group: int) -> Turns:
    channels, rounds, bytes_ = _slab(type_)
    unit = max(group, type_.chunk)
    columns = max(unit, 8)

    def count(part: str) -> Count:
        return type_.count("staged_conv", f"chunks {columns}", part)

    units = channels // unit
    steps = math.ceil(9 * unit / type_.depth)
    products = WARPS * units * steps * 2 * columns / 8
    stored = max(count("store"), count("store planes"), key=lambda one: one.instructions)
    instructions = (
        count("multiply").each * products
        + count("stage").each * rounds
        # 32 columns are stored at a time.
        + WARPS * units * columns / 32 * stored.instructions
        + WARPS * count("rest").instructions
    )
    return _turns(instructions, products, bytes_)


def grouped_wgrad(type_: Type, group: int) -> Turns:
    channels, rounds, bytes_ = _slab(type_)

    def count(part: str) -> Count:
        return type_.count("staged_wgrad", f"9 taps, {max(group, 16)} channels", part)

    # A warp has 16 filters.
    products = channels / 16 * 9 * max(group, 16) / 8 * TILE_PIXELS / type_.depth
    instructions = (
        count("multiply").each * products
        + count("stage").each * rounds
        + count("stage gradient").each * TILE_PIXELS * 8 / 32
        + WARPS * count("rest").instructions
    )
    return _turns(instructions, products, bytes_)


def _pointwise_tile(type_: Type, rows: int) -> tuple[str, int]:
    """Of 64 rows, whose depth is 128 bytes, or of 128 and half of that; its name and its rows. 128 columns, four warps."""
    depth = 128 // type_.size
    return (f"64x128x{depth}_s3_w4", 64) if rows <= 64 else (f"128x128x{depth // 2}_s4_w4", 128)


def pointwise(type_: Type, pass_: str, rows: int, depth: int) -> Turns:
    """rows: outputs of a pixel, depth: its inputs; of 128 pixels."""
    tile, tile_rows = _pointwise_tile(type_, rows)

    def count(part: str) -> Count:
        return type_.count("pointwise_gemm", f"{pass_} {tile}", part)

    tiles = math.ceil(rows / tile_rows)
    products = tiles * tile_rows / 16 * 128 / 8 * depth / type_.depth
    instructions = count("multiply").each * products + tiles * WARPS * count("store").instructions
    return _turns(instructions, products, 128 * (rows + depth) * type_.size)


def pointwise_wgrad(type_: Type, rows: int, columns: int) -> Turns:
    """Of 128 pixels; the sums are stored once for very many."""
    count = type_.count("pointwise_gemm", f"wgrad {_pointwise_tile(type_, 64)[0]}", "multiply")
    products = math.ceil(rows / 64) * 4 * math.ceil(columns / 128) * 16 * 128 / type_.depth
    return _turns(count.each * products, products, 128 * (rows + columns) * type_.size)


def patch_fprop(type_: Type, depth: int, filters: int) -> Turns:
    """Of 128 patches: the main loop of a tile of 256x128, without the finishing."""
    count = type_.count("gather_gemm", "256x128x32_s4_w8", "multiply")
    products = 128 / 16 * filters / 8 * depth / type_.depth
    return _turns(count.each * products, products, 128 * (depth + filters) * type_.size)


def unpool_2x2(type_: Type, name: str) -> Turns:
    """Of 32 values: an index of 8 bytes and a value are read, and four elements written, of which one is not zero.

    A warp has a whole plane; where planes are shared, each share goes through all indices.
    """
    put, clear = (type_.count(name, "", part, precision="") for part in ("put", "clear"))
    return _turns(put.each + clear.each * 4 / type_.chunk, 0, 32 * (8 + 5 * type_.size))


def large_pool(type_: Type, name: str, part: str) -> Turns:
    """Of 32 elements of the image."""
    return _turns(type_.count(name, "", part, precision="").each, 0, 32 * type_.size)


def any_pool(type_: Type, window: int, stride: int) -> Turns:
    """Forward of 32 windows, by whole planes: a row of x has winners of all its windows, which are compared by columns.

    With stride 1 four neighbours share all but three elements at either end, which are compared with what begins and ends.
    """
    name = "max_pool_bands_blocks" if stride == 1 else "max_pool_bands_forward"
    compared = (window - 4) / 4 if stride == 1 else window

    def each(part: str) -> float:
        return type_.count(name, "", part, precision="").each

    rows = stride * (each("row") + compared * each("element"))
    return _turns(rows + each("window") + compared * each("winner"), 0, 32 * ((stride**2 + 1) * type_.size + 1))


def any_pool_backward(type_: Type, window: int, stride: int) -> Turns:
    """Of 32 elements of dx, in patches of 4 columns and 9 rows, by the windows that a patch looks at alone."""
    looked_at = math.prod((size + window - 2) // stride + 1 for size in (4, 9)) / 36
    look = type_.count("max_pool_bands_backward", "", "look", precision="")
    return _turns(look.each * looked_at, 0, 32 * (type_.size + (type_.size + 1) / stride**2))


def _layers() -> Iterator[tuple[str, Callable[[Type], Turns], bool]]:
    for size, stride, channels, filters in ((7, 2, 3, 64), (3, 2, 3, 32), (4, 4, 3, 96)):
        sizes = size, stride, channels, filters
        name = f"{size}x{size} s{stride}, {channels} to {filters}"
        yield f"stem fprop {name}", lambda type_, sizes=sizes: stem_fprop(type_, *sizes), True
        yield f"stem wgrad {name}", lambda type_, sizes=sizes: stem_wgrad(type_, *sizes), True
    for group in (4, 8, 16, 32):
        yield f"groups of {group} fprop 3x3", lambda type_, group=group: grouped_fprop(type_, group), True
        yield f"groups of {group} wgrad 3x3", lambda type_, group=group: grouped_wgrad(type_, group), True
    for inputs, outputs in ((256, 64), (64, 256)):
        name = f"1x1 {inputs} to {outputs}"
        yield f"{name} fprop", lambda type_, n=(outputs, inputs): pointwise(type_, "fprop", *n), True
        yield f"{name} dgrad", lambda type_, n=(inputs, outputs): pointwise(type_, "dgrad", *n), True
        yield f"{name} wgrad", lambda type_, n=(outputs, inputs): pointwise_wgrad(type_, *n), True
    yield "patch fprop 16x16 s16, 3 to 768", lambda type_: patch_fprop(type_, 3 * 16 * 16, 768), False
    yield "unpool 2x2, NCHW", lambda type_: unpool_2x2(type_, "max_unpool"), True
    yield "unpool 2x2, channels_last", lambda type_: unpool_2x2(type_, "max_unpool_channels"), True
    for name, part in (
        ("max_pool_large_forward", "take"),
        ("max_pool_large_channels_forward", "take"),
        ("max_pool_large_backward", "write"),
        ("max_pool_large_channels_backward", "write"),
    ):
        yield name, lambda type_, name=name, part=part: large_pool(type_, name, part), True
    for window, stride in ((7, 1), (13, 1), (4, 4), (8, 8)):
        sizes = window, stride
        yield f"pool {window}x{window} s{stride}", lambda type_, sizes=sizes: any_pool(type_, *sizes), True
    for window, stride in ((2, 1), (3, 1), (5, 1), (13, 1), (3, 2), (8, 8)):
        sizes = window, stride
        name = f"pool {window}x{window} s{stride} backward"
        yield name, lambda type_, sizes=sizes: any_pool_backward(type_, *sizes), True


#: What a layer takes, and whether there is a float32 kernel.
LAYERS = {name: (turns, has_float32) for name, turns, has_float32 in _layers()}


def types(has_float32: bool) -> Iterator[Type]:
    for architecture in ("sm_80", "sm_90a"):
        yield Type("float16", "native", architecture)
        yield Type("bfloat16", "native", architecture)
        if has_float32:
            yield Type("float32", "tf32", architecture)
