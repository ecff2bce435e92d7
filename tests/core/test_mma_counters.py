"""What the emulator counts in the tensor-core kernels: no bank conflicts in a main loop, global memory in whole chunks."""

from __future__ import annotations

import pytest
import torch

from fastconv import emulator
from fastconv.emulator import LaunchCounts
from tests.core.mma_support import Case

# Where a line belongs to what happens once a tile.
ONCE_A_TILE = ("epilogue.cuh", "finish.cuh", "gather_gemm.cuh", "wgrad_gemm.cuh")


#: Passes through the banks beyond one a phase, of one tile of the tests' layer.
CONFLICTS_OF_48_COLUMNS = {"160x192x32_s4_w8": 256, "160x192x16_s4_w8": 128}


def counted(conv_pass: str, dtype: torch.dtype, allow_tf32: bool, last: bool = True) -> dict[str, LaunchCounts]:
    """The main kernel's launch by configuration. Whole tiles of 64 columns, more slices than stages. last: what is written."""
    case = Case(
        conv_pass,
        dtype,
        (1, 64, 8, 16),
        (64, 64, 3, 3),
        padding=(1, 1, 1, 1),
        allow_tf32=allow_tf32,
        w_last=last or conv_pass == "fprop",
        y_last=last or conv_pass == "wgrad",
    )
    tensors = case.tensors()
    launches = {}
    for config in case.configs():
        if "_k" in config:
            continue
        with emulator.count() as counters:
            case.run(config, tensors)
        launches[config] = next(launch for launch in counters.launches if launch.kernel == case.kernel)
    return launches


TYPES = [(torch.float16, False), (torch.bfloat16, False), (torch.float32, True), (torch.float32, False)]


@pytest.mark.parametrize(("dtype", "allow_tf32"), TYPES)
@pytest.mark.parametrize("conv_pass", ["fprop", "wgrad"])
def test_main_loops_read_whole_chunks_and_have_no_bank_conflicts(
    conv_pass: str, dtype: torch.dtype, allow_tf32: bool
) -> None:
    launches = counted(conv_pass, dtype, allow_tf32)
    assert launches
    for config, launch in launches.items():
        loop = [
            access
            for access in launch.by_line()
            if access.target == "dynamic shared memory" and not any(name in access.line for name in ONCE_A_TILE)
        ]
        assert sum(access.wavefronts for access in loop) > 0
        for access in loop:
            assert access.bank_conflicts == 0, f"{config}: {access}"
        for tensor in ("x", "w") if conv_pass == "fprop" else ("x", "dy"):
            assert set(launch.widths(tensor, "load")) == {16}, f"{config} reads {tensor} in pieces"
            loaded = launch.total(tensor, "load")
            # Every sector that is asked for is used in full.
            assert loaded.sector_bytes <= loaded.bytes, f"{config}: {loaded}"
        output = "y" if conv_pass == "fprop" else "dw"
        stored = launch.total(output, "store")
        assert set(launch.widths(output, "store")) == {16}
        assert stored.sector_bytes == stored.bytes


@pytest.mark.parametrize(("dtype", "allow_tf32"), TYPES)
@pytest.mark.parametrize("conv_pass", ["fprop", "wgrad"])
@pytest.mark.parametrize("last", [True, False])
def test_epilogues_have_no_bank_conflicts(conv_pass: str, dtype: torch.dtype, allow_tf32: bool, last: bool) -> None:
    """But for one tile: rows of 48 columns are no power of two of chunks, so lanes that read at once lie in several rows."""
    for config, launch in counted(conv_pass, dtype, allow_tf32, last).items():
        accesses = [access for access in launch.by_line() if access.space == "shared"]
        assert any("epilogue.cuh" in access.line and access.kind == "load" for access in accesses)
        conflicts = {access.line: access.bank_conflicts for access in accesses if access.bank_conflicts}
        expected = CONFLICTS_OF_48_COLUMNS.get(config, 0) if last else 0
        assert sum(conflicts.values()) == expected, f"{config}: {conflicts}"


def test_products_are_those_of_the_tiles() -> None:
    launches = counted("fprop", torch.float16, False)
    for config, launch in launches.items():
        rows, columns, depth = (int(size) for size in config.split("_")[0].split("x"))
        blocks = -(-128 // rows) * -(-64 // columns)
        slices = 64 * 9 // depth
        expected = blocks * slices * (rows // 16) * (columns // 8) * (depth // 16)
        assert launch.operations["mma.m16n8k16"] == expected, config


def test_dgrad_with_a_stride_multiplies_nothing_in_vain() -> None:
    # Four phases of 64 pixels; taps: 1, 2, 2 and 4 of the 3x3 filter.
    case = Case("dgrad", torch.float16, (1, 64, 16, 16), (64, 64, 3, 3), stride=(2, 2), padding=(1, 1, 1, 1))
    config = "64x64x64_s4_w4"
    with emulator.count() as counters:
        case.run(config, case.tensors())
    launch = next(launch for launch in counters.launches if launch.kernel == "mma_dgrad")
    assert launch.grid == (4, 1, 1)
    assert launch.operations["mma.m16n8k16"] == 9 * (64 // 16) * (64 // 8) * (64 // 16)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_nchw_is_turned_in_whole_chunks_and_every_byte_moves_once(dtype: torch.dtype) -> None:
    case = Case("fprop", dtype, (2, 64, 8, 16), (64, 64, 3, 3), padding=(1, 1, 1, 1), x_last=False, w_last=False)
    config = next(config for config in case.configs() if "_k" not in config)
    with emulator.count() as counters:
        case.run(config, case.tensors())
    launches = {launch.kernel: launch for launch in counters.launches}
    turned = launches["to_channels_last"]
    for tensor, kind in (("source", "load"), ("channels_last", "store")):
        assert set(turned.widths(tensor, kind)) == {16}
        moved = turned.total(tensor, kind)
        assert moved.sector_bytes == moved.bytes == 2 * 64 * 8 * 16 * dtype.itemsize
    packed = launches["repack_weights"].total("packed_weights", "store")
    assert set(launches["repack_weights"].widths("packed_weights", "store")) == {16}
    assert packed.bytes == 64 * 64 * 9 * dtype.itemsize
