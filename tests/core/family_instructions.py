"""What loops of stems, groups, patches, 1x1, fused pools, large pools and unpooling issue, by what the instructions are for.

Writes the checked-in table from a module, or from fatbins of these kernels' sources, that nvcc 13.0 compiled:
python -m tests.core.family_instructions 13.0 fastconv/_cuda.*.so
Rows of kernels by other names than those found there stay as they are.

A row is a part of a kernel: one way round a loop, and what is done on it. Counts are of a warp, and lower bounds
(tests/core/loop_paths.py): without bias, residual and activation.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path

from fastconv import machine_code
from tests.core import nvcc_table
from tests.core.loop_paths import Instructions, Round, rounds, way_out

TABLE = Path(__file__).with_name("family_instructions.csv")
ARCHITECTURES = ("sm_80", "sm_90a")

_PRODUCT = r"\bHMMA\b"
_READ, _COPY, _ANY_COPY = r"\bLDG\.E\.128", r"\bLDGSTS\S*\.128", r"\bLDGSTS\b"
_TURN, _SHARED_ANY, _SHARED_CHUNK, _PIECE = r"\bLDSM\b", r"\bSTS\b", r"\bSTS\.128", r"\bLDGSTS\S*\.64"
_WRITE, _SHARED_WORD, _SHARED_PAIR = r"\bSTG\.E\.128", r"\bSTS\b(?!\.)", r"\bSTS\.64"
_BARRIER = r"\bBAR\.SYNC"
_READ_SHARED, _READ_TRANSPOSED = r"\bLDS\.128", r"\bLDSM\.16\.MT88\.4"

_TYPES = {"NS_4HalfE": "float16", "NS_8BFloat16E": "bfloat16", "f": "float32"}
_TYPE, _PRECISION = r"(NS_4HalfE|NS_8BFloat16E|f)", r"LNS(?:_3mma9|0_9)PrecisionE(\d)E"
_PRECISIONS = ("native", "tf32", "split_tf32")
_TILE = rf"INS0_9TileShapeI{_TYPE}{_PRECISION}" + r"Li(\d+)E" * 6 + "EE"


@dataclasses.dataclass(frozen=True, order=True)
class Kernel:
    name: str
    variant: str  # what the kernel is compiled for, such as "words 64": see the functions below
    type: str
    precision: str
    architecture: str


@dataclasses.dataclass(frozen=True)
class Part:
    """What a way round a loop has to pass, by pattern; of several such loops that in this place is meant."""

    name: str
    wanted: dict[str, int]
    operation: str  # "product": of matrices, by one instruction; "chunk": 16 bytes moved; "element"
    operations: int
    place: int = 0
    #: How many times the kernel's products come with it in one loop, which are not counted as its own.
    beside_products: int = 0
    #: Not a loop's, but all that comes behind the products, to the kernel's end.
    is_at_end: bool = False
    without: str = ""  # loops that have this are others


@dataclasses.dataclass(frozen=True)
class Parts:
    """Of a kernel. whole: how often each part comes in what the loop around them repeats; nothing if it is not counted.

    Not at all where instructions like the part's are elsewhere in that loop, too.
    """

    parts: tuple[Part, ...]
    whole: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Count:
    """Of the checked-in table. The part "rest" is what a staged tile issues beside one way through the others."""

    instructions: int
    operations: int
    operation: str

    @property
    def each(self) -> float:
        return self.instructions / self.operations


def _size(type_: str) -> int:
    return 4 if type_ == "float32" else 2


_STAGE_WORDS = Part("stage", {_READ: 1, _SHARED_WORD: 4}, "chunk", 1)


def _stage_pixels(kernel: Kernel, of: str, place: int = 0) -> tuple[Part, Part]:
    """Of channels_last, and of NCHW: four copies, which are then turned."""
    turned = {_TURN: 4, _SHARED_WORD: 16} if kernel.type != "float32" else {_SHARED_CHUNK: 4}
    return (
        Part(f"stage{of}", {_COPY: 1}, "chunk", 1, place, without=rf"{_PIECE}|{_SHARED_ANY}"),
        Part(f"stage{of} planes", {_COPY: 4} | turned, "chunk", 4, place, without=_PIECE),
    )


def _staged_conv(kernel: Kernel, column_tiles: int, units: int, by_words: int) -> tuple[str, Parts]:
    columns, factor = 8 * column_tiles * units, 3 if kernel.precision == "split_tf32" else 1
    stores = columns * _size(kernel.type) // 16  # of a lane, for the warp's 32 pixels
    multiply = Part("multiply", {_PRODUCT: 2 * column_tiles * factor}, "product", 0)
    # channels_last and NCHW, without a residual. 16 bits are written by pairs, and to NCHW read transposed.
    ways = {
        "store": {_SHARED_WORD if _size(kernel.type) == 2 else _SHARED_PAIR: columns // 2, _READ_SHARED: stores},
        "store planes": {_SHARED_WORD: columns // 2, _READ_TRANSPOSED: stores}
        if _size(kernel.type) == 2
        else {_SHARED_WORD: columns, _READ_SHARED: stores},
    }
    store, planes = (
        Part(name, {**way, _WRITE: stores}, "chunk", stores, beside_products=units) for name, way in ways.items()
    )
    # Outputs with a residual, or that are not plain for another reason: 16 pixels, told of those without one.
    general = Part("store any", {_SHARED_PAIR: columns // 4, _WRITE: stores // 2}, "chunk", stores // 2)
    if by_words:
        return f"words {columns}", Parts((_STAGE_WORDS, multiply, store, planes, general), (0, units, 1, 0, 0))
    staged = _stage_pixels(kernel, "")
    return f"chunks {columns // units}", Parts((*staged, multiply, store, planes, general), (1, 0, units, 1, 0, 0))


def _staged_wgrad(kernel: Kernel, row_tiles: int, column_tiles: int, by_words: int, taps: int) -> tuple[str, Parts]:
    factor = 3 if kernel.precision == "split_tf32" else 1
    gradient, gradient_planes = _stage_pixels(kernel, " gradient", place=-1)
    multiply = Part("multiply", {_PRODUCT: row_tiles * column_tiles * taps * factor}, "product", 0)
    if by_words:
        parts = _STAGE_WORDS, gradient, gradient_planes, multiply
        return f"words {16 * row_tiles}x{32 * column_tiles}", Parts(parts, (0, 1, 0, 1))
    parts = *_stage_pixels(kernel, ""), gradient, gradient_planes, multiply
    return f"{taps} taps, {8 * column_tiles} channels", Parts(parts, (1, 0, 1, 0, 1))


def _tile(kernel: Kernel, sizes: tuple[int, ...]) -> tuple[str, Part]:
    """Its name, the main loop."""
    rows, columns, depth, stages, warp_rows, warp_columns = sizes
    warps, size = rows // warp_rows * (columns // warp_columns), _size(kernel.type)
    products = warp_rows // 16 * (warp_columns // 8) * (depth * size // 32)
    if kernel.precision == "split_tf32":
        products *= 3
    copies = (rows + columns) * depth * size // 16 // (32 * warps)
    main = Part("multiply", {_PRODUCT: products, _ANY_COPY: copies}, "product", products)
    return f"{rows}x{columns}x{depth}_s{stages}_w{warps}", main


def _pointwise(kernel: Kernel, *numbers: int) -> tuple[str, Parts]:
    *sizes, pass_, narrow = numbers
    name, main = _tile(kernel, tuple(sizes))
    warp_rows, warp_columns = sizes[4:]
    variant = f"{('fprop', 'dgrad', 'wgrad')[pass_]} {name}{', narrow' if narrow else ''}"
    pairs = warp_rows * warp_columns // 64  # of a lane
    stores = pairs * _size(kernel.type) // 8
    # Outputs without a residual. 16 bits are written to shared memory by pairs.
    wanted = {_SHARED_WORD if _size(kernel.type) == 2 else _SHARED_PAIR: pairs, _READ_SHARED: stores, _WRITE: stores}
    return variant, Parts((main, Part("store", wanted, "chunk", stores, is_at_end=True)))


def _gather(kernel: Kernel, *numbers: int) -> tuple[str, Parts]:
    *sizes, narrow = numbers
    name, main = _tile(kernel, tuple(sizes))
    return f"{name}{', narrow' if narrow else ''}", Parts((main,))


def _unpool(kernel: Kernel) -> tuple[str, Parts]:
    # A lane reads four indices by two vectors, values by one, and writes four elements.
    put = Part("put", {_READ: 3, r"\bSTG\b": 4}, "element", 4)
    return "", Parts((Part("clear", {_WRITE: 1}, "chunk", 1), put))


def _large_forward(kernel: Kernel, *_: int) -> tuple[str, Parts]:
    elements = 4 * 16 // _size(kernel.type)
    wanted = {_READ: 4, r"\bFSETP\.(LT|GEU)": elements}
    return "", Parts((Part("take", wanted, "element", elements, place=-1),))


def _large_backward(kernel: Kernel, *_: int) -> tuple[str, Parts]:
    return "", Parts((Part("write", {_WRITE: 1}, "element", 16 // _size(kernel.type)),))


def _bands_forward(kernel: Kernel) -> tuple[str, Parts]:
    # First the elements of a row of a window are compared, then the rows' winners.
    element = r"\bLDS\.U16" if _size(kernel.type) == 2 else r"\bLDS\b(?!\.)"
    store = {r"\bSTS\.U8": 1}
    parts = (
        Part("row", store, "row", 1, place=0),
        Part("element", {element: 4}, "element", 4, place=0),
        Part("window", store, "window", 1, place=1),
        Part("winner", {r"\bLDS\.U8": 4}, "winner", 4),
    )
    return "", Parts(parts)


def _bands_blocks(kernel: Kernel) -> tuple[str, Parts]:
    # The same for four neighbours at a time, of which four elements or winners beside what they share are among the rest.
    element = r"\bLDS\.U16" if _size(kernel.type) == 2 else r"\bLDS\b(?!\.)"
    parts = (
        Part("row", {r"\bSTS\b": 2}, "row", 4, place=0),
        Part("element", {element: 4}, "element", 4, place=0),
        Part("window", {r"\bSTS\.U8": 4}, "window", 4),
        Part("winner", {r"\bLDS\.U8": 4}, "winner", 4, place=0),
    )
    return "", Parts(parts)


def _bands_backward(kernel: Kernel) -> tuple[str, Parts]:
    return "", Parts((Part("look", {r"\bLDS\.U8": 4}, "window", 4),))


#: By the kernel's name: the pattern of its symbol with the type, the precision if it has one and its numbers, and what
#: tells variant and parts.
_KERNELS: dict[str, tuple[str, Callable[..., tuple[str, Parts]]]] = {
    "staged_conv": (rf"11staged_convINS0_4UnitI{_TYPE}{_PRECISION}Li(\d+)EEELi(\d+)ELb([01])E", _staged_conv),
    "staged_wgrad": (
        rf"12staged_wgradINS0_9WgradUnitI{_TYPE}{_PRECISION}Li(\d+)ELi(\d+)ELb([01])EEELi(\d+)E",
        _staged_wgrad,
    ),
    "pointwise_gemm": (rf"14pointwise_gemm{_TILE}LNS0_13PointwisePassE(\d)ELb([01])E", _pointwise),
    "gather_gemm": (rf"11gather_gemm{_TILE}Lb([01])E", _gather),
    "pool_gemm": (rf"9pool_gemm{_TILE}Lb([01])E", _gather),
    "best_gemm": (rf"9best_gemm{_TILE}Lb([01])E", _gather),
    "max_unpool": (rf"max_unpool_kernelI{_TYPE}E", _unpool),
    "max_unpool_channels": (rf"max_unpool_channels_kernelI{_TYPE}E", _unpool),
    "max_pool_large_forward": (rf"max_pool_large_forward_kernelI{_TYPE}Li32E", _large_forward),
    "max_pool_large_channels_forward": (rf"max_pool_large_channels_forward_kernelI{_TYPE}E", _large_forward),
    "max_pool_large_backward": (rf"max_pool_large_backward_kernelI{_TYPE}Li32E", _large_backward),
    "max_pool_large_channels_backward": (rf"max_pool_large_channels_backward_kernelI{_TYPE}E", _large_backward),
    "max_pool_bands_forward": (rf"max_pool_bands_forward_kernelI{_TYPE}E", _bands_forward),
    "max_pool_bands_blocks": (rf"max_pool_bands_blocks_kernelI{_TYPE}E", _bands_blocks),
    "max_pool_bands_backward": (rf"max_pool_bands_backward_kernelI{_TYPE}E", _bands_backward),
}


def kernel_of(symbol: str, architecture: str) -> tuple[Kernel, Parts] | None:
    for name, (pattern, describe) in _KERNELS.items():
        match = re.search(pattern, symbol)
        if match is None:
            continue
        element, *numbers = match.groups()
        precision = _PRECISIONS[int(numbers.pop(0))] if "Precision" in pattern else ""
        kernel = Kernel(name, "", _TYPES[element], precision, architecture)
        variant, parts = describe(kernel, *map(int, numbers))
        return dataclasses.replace(kernel, variant=variant), parts
    return None


def _count(code: Instructions, part: Part, products: Count | None) -> Count:
    """products: of one way round the loop that multiplies, where it is known."""
    if part.is_at_end:
        behind = way_out(code, _PRODUCT, part.wanted)
        if behind is None:
            raise LookupError(f"no way out with {part.wanted} for the part {part.name!r}")
        return Count(behind, part.operations, part.operation)
    if part.beside_products:
        assert products is not None, "products are counted first"
        wanted = {**part.wanted, _PRODUCT: part.beside_products * products.operations}
        around: Round = rounds(code, wanted)[0]
        own = around.instructions - part.beside_products * products.instructions
        return Count(own, part.operations, part.operation)
    if part.operations == 0:  # products of a loop that the compiler may have unrolled
        [products] = part.wanted.values()
        loop = rounds(code, part.wanted)[0]
        unrolled = sum(bool(re.search(_PRODUCT, text)) for text in loop.loop) // products
        part = dataclasses.replace(part, wanted={_PRODUCT: unrolled * products}, operations=unrolled * products)
    found = [
        round_
        for round_ in rounds(code, part.wanted)
        if not part.without or not any(re.search(part.without, text) for text in round_.loop)
    ]
    if not found:
        raise LookupError(f"no loop with {part.wanted} for the part {part.name!r}")
    return Count(found[part.place].instructions, part.operations, part.operation)


def _rest(code: Instructions, parts: Parts, counts: list[Count]) -> Count:
    """What the loop around the parts, in which the block meets twice, has beside them."""
    wanted: dict[str, int] = {_BARRIER: 2}
    beside = 0
    for part, count, times in zip(parts.parts, counts, parts.whole, strict=True):
        if times == 0:
            continue
        for pattern, number in part.wanted.items():
            each = count.operations if pattern == _PRODUCT else number
            wanted[pattern] = wanted.get(pattern, 0) + times * each
        beside += times * count.instructions
    around: Round = rounds(code, wanted)[0]
    return Count(around.instructions - beside, 1, "tile")


def measure(cuobjdump: str, file: Path) -> dict[tuple[Kernel, str], Count]:
    """Of each part of each of these kernels in a module or fatbin."""
    found: dict[tuple[Kernel, str], Count] = {}
    words = "staged", "pointwise", "gather_gemm", "pool_gemm", "best_gemm", "unpool", "pool_large", "pool_bands"
    for architecture, symbol, code in machine_code.functions(machine_code.disassemble(cuobjdump, file, *words)):
        described = kernel_of(symbol, architecture) if architecture in ARCHITECTURES else None
        if described is None:
            continue
        kernel, parts = described
        try:
            counts: list[Count] = []
            for part in parts.parts:
                products = next((count for count in counts if count.operation == "product"), None)
                counts.append(_count(code, part, products))
        except LookupError as error:
            raise LookupError(f"{kernel}: {error}") from error
        found |= {(kernel, part.name): count for part, count in zip(parts.parts, counts, strict=True)}
        if parts.whole:
            found[kernel, "rest"] = _rest(code, parts, counts)
    return found


@functools.cache
def read_table() -> dict[tuple[Kernel, str], Count]:
    return {
        (
            Kernel(*(row[field.name if field.name != "name" else "kernel"] for field in dataclasses.fields(Kernel))),
            row["part"],
        ): Count(int(row["instructions"]), int(row["operations"]), row["operation"])
        for row in nvcc_table.read_rows(TABLE)
    }


def write_table(nvcc: str, files: list[Path]) -> None:
    cuobjdump = nvcc_table.disassembler()
    found = {place: count for file in files for place, count in measure(cuobjdump, file).items()}
    names_found = {kernel.name for kernel, _ in found}
    found |= {place: count for place, count in read_table().items() if place[0].name not in names_found}
    names = ["kernel", "variant", "type", "precision", "architecture", "part"]
    rows = (
        [*dataclasses.astuple(kernel), part, *dataclasses.astuple(count), f"{count.each:.2f}"]
        for (kernel, part), count in sorted(found.items(), key=lambda item: item[0])
    )
    nvcc_table.write_rows(TABLE, nvcc, [*names, "instructions", "operations", "operation", "each"], rows)


if __name__ == "__main__":
    write_table(sys.argv[1], [Path(name) for name in sys.argv[2:]])
