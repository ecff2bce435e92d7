"""Known access patterns are counted exactly."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fastconv import emulator
from fastconv.emulator import LaunchCounts
from tests.emulator.build import PROBES


def aligned(bytes_: int, offset: int = 0) -> torch.Tensor:
    """Fresh float32 memory whose address is `offset` bytes past a multiple of 128."""
    memory = torch.zeros((bytes_ + 256) // 4)
    skip = (-memory.data_ptr() % 128 + offset) // 4
    return memory[skip : skip + bytes_ // 4]


def count(run: Any, kernel: str, x: torch.Tensor, y: torch.Tensor, **options: Any) -> LaunchCounts:
    with emulator.count() as counters:
        run(kernel, x, y, **options)
    assert len(counters.launches) == 1
    return counters.launches[0]


# kernel, bytes a lane: 8 warps side by side; 32 lanes fill width sectors of 32 bytes.
@pytest.mark.parametrize(
    ("kernel", "width"),
    [
        ("copy_bytes_1", 1),
        ("copy_bytes_2", 2),
        ("copy_bytes_4", 4),
        ("copy_bytes_8", 8),
        ("copy_vector_8", 8),
        ("copy_vector_16", 16),
        ("copy_vector_16_of_halves", 16),
    ],
)
def test_coalesced_access_is_split_or_costs_more_than_its_bytes(run, kernel, width):
    x, y = aligned(256 * width), aligned(256 * width)
    launch = count(run, kernel, x, y, grid=(4,), block=(64,))
    for target, kind in (("x", "load"), ("y", "store")):
        total = launch.total(target, kind)
        assert (total.width, total.accesses, total.requests) == (width, 256, 8)
        assert total.sectors == 8 * width
        assert total.bytes == total.sector_bytes == 256 * width
        assert launch.widths(target, kind) == {width: 256}
    sizes = {tensor.name: (tensor.bytes, tensor.loaded_bytes, tensor.stored_bytes) for tensor in launch.tensors}
    assert sizes == {"x": (256 * width, 256 * width, 0), "y": (256 * width, 0, 256 * width)}


@pytest.mark.parametrize(("stride", "sectors"), [(1, 4), (2, 8), (4, 16), (8, 32), (16, 32), (3, 12)])
def test_strided_load(run, stride, sectors):
    launch = count(run, "strided_load", aligned(4 * 64 * stride), aligned(256), block=(64,), n=stride)
    assert launch.total("x", "load").sectors == 2 * sectors
    assert launch.tensors[0].loaded_bytes == 256


@pytest.mark.parametrize(("shift", "sectors"), [(0, 4), (1, 5), (4, 5), (7, 5), (8, 4)])
def test_misaligned_load(run, shift, sectors):
    launch = count(run, "shifted_load", aligned(512), aligned(128), block=(32,), n=shift)
    assert launch.total("x", "load").sectors == sectors


def test_tensor_that_begins_in_the_middle_of_a_sector(run):
    launch = count(run, "shifted_load", aligned(512, offset=16), aligned(128, offset=4), block=(32,), n=0)
    assert launch.total("x", "load").sectors == 5
    assert launch.total("y", "store").sectors == 5


def test_broadcast_load(run):
    launch = count(run, "broadcast_load", aligned(128), aligned(256), block=(64,))
    load = launch.total("x", "load")
    assert (load.requests, load.sectors, load.bytes) == (2, 2, 256)
    assert launch.tensors[0].loaded_bytes == 4


def test_each_iteration_of_a_loop_is_a_request(run):
    launch = count(run, "row_a_lane", aligned(4 * 32 * 32), aligned(128), block=(32,))
    load = launch.total("x", "load")
    assert (load.requests, load.sectors) == (32, 32 * 32)
    assert launch.tensors[0].loaded_bytes == 4 * 32 * 32


def test_lanes_are_aligned_again_after_a_warp_barrier(run):
    launch = count(run, "predicated_then_aligned", aligned(512), aligned(128), block=(32,))
    load = launch.total("x", "load")
    assert (load.accesses, load.requests, load.sectors) == (32, 2, 8)
    assert launch.operations["__syncwarp"] == 2


@pytest.mark.parametrize("stride", [1, 2, 4, 8, 16, 32, 3, 33])
def test_bank_conflicts_of_a_strided_load(run, stride):
    launch = count(run, "shared_stride", aligned(4), aligned(128), block=(32,), n=stride)
    load, store = launch.total("tile", "load"), launch.total("tile", "store")
    ways = stride & -stride  # the largest power of two in the stride
    assert (load.requests, load.wavefronts, load.bank_conflicts) == (1, ways, ways - 1)
    assert (store.requests, store.wavefronts, store.bank_conflicts) == (32, 32, 0)
    assert launch.static_shared_bytes == 4096


def test_broadcast_of_a_shared_word_is_free(run):
    launch = count(run, "shared_broadcast", aligned(4), aligned(256), block=(64,))
    assert launch.total("tile", "load").wavefronts == launch.total("tile", "load").ideal_wavefronts == 2


# Pairs n apart: the 16 lanes of a phase need 32 n words; 2 phases a request.
@pytest.mark.parametrize(("stride", "wavefronts"), [(1, 2), (2, 4), (4, 8), (16, 32), (0, 2)])
def test_vectors_of_8_bytes_go_by_half_warps(run, stride, wavefronts):
    launch = count(run, "shared_vectors_8", aligned(4), aligned(128), block=(32,), n=stride)
    load = launch.total("tile", "load")
    assert (load.width, load.requests, load.ideal_wavefronts, load.wavefronts) == (8, 1, 2, wavefronts)


# Fours n apart: the 8 lanes of a phase need 32 n words; 4 phases a request.
@pytest.mark.parametrize(("stride", "wavefronts"), [(1, 4), (2, 8), (4, 16), (8, 32), (3, 4), (9, 4), (0, 4)])
def test_vectors_of_16_bytes_go_by_quarter_warps(run, stride, wavefronts):
    launch = count(run, "shared_vectors_16", aligned(4), aligned(128), block=(32,), n=stride)
    load = launch.total("tile", "load")
    assert (load.width, load.requests, load.ideal_wavefronts, load.wavefronts) == (16, 1, 4, wavefronts)


def test_padded_column_has_conflicts(run):
    launch = count(run, "padded_column", aligned(4), aligned(128), block=(32,))
    assert launch.total(space="shared").bank_conflicts == 0
    assert launch.total(space="shared").wavefronts == 33


def test_bytes_of_one_word_are_a_conflict(run):
    launch = count(run, "bytes_of_a_word", aligned(4), aligned(128), block=(128,))
    assert launch.total("tile", "load").wavefronts == 4
    assert launch.total("tile", "load").width == 1


def test_operations_are_counted_once_a_warp_or_block(run):
    launch = count(run, "counts_operations", aligned(4), aligned(4), grid=(5,), block=(96,))
    assert launch.operations == {"barrier": 5 * 4, "__syncwarp": 5 * 3, "shuffle": 5 * 3}
    atomic = launch.total("y", "atomic")
    assert (atomic.accesses, atomic.requests, atomic.sectors) == (5 * 96, 5 * 3, 5 * 3)
    assert launch.total("y", "load").accesses == launch.total("y", "store").accesses == 0


def test_count_depends_on_the_number_of_threads(run, monkeypatch):
    counts = []
    x, y = aligned(4096), aligned(4096)
    for threads in ("1", "3"):
        monkeypatch.setenv("FASTCONV_EMULATOR_THREADS", threads)
        launch = count(run, "copy_bytes_4", x, y, grid=(16,), block=(64,))
        counts.append((launch.total("x"), launch.total("y"), launch.tensors))
    assert counts[0] == counts[1]


def test_lines_are_those_of_other_instructions(run):
    launch = count(run, "strided_load", aligned(4 * 64 * 8), aligned(256), block=(64,), n=8)
    file, _, line = launch.by_line()[0].line.rpartition(":")
    assert file == "tests/emulator/probes/access_patterns.cu"
    assert "[p.n * i]" in (PROBES / "access_patterns.cu").read_text().splitlines()[int(line) - 1]


def test_table_and_totals_name_what_was_counted(run):
    with emulator.count() as counters:
        run("shared_stride", aligned(4), aligned(128), block=(32,), n=32)
        run("copy_vector_16", aligned(4096), aligned(4096), grid=(4,), block=(64,))
    text = str(counters)
    for word in ("shared_stride", "copy_vector_16", "tile", "barrier 1", "0.004"):
        assert word in text, text
    totals = counters.totals()
    assert totals["launches"] == 2
    assert totals["bank_conflicts"] == 31
    assert totals["sector_bytes"] == 4096 + 4096 + 128
    assert totals["distinct_bytes"] == 4096 + 4096 + 128
