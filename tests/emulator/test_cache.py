"""The model of the second-level cache: what comes from memory, what goes back, and when."""

from __future__ import annotations

import pytest

from fastconv import emulator
from fastconv.emulator import AccessCounts, LaunchCounts, MemoryTraffic, TensorCounts
from tests.emulator.test_counts import aligned

Runs = list[tuple[int, int]]


def launch(
    loads: Runs | tuple[()] = (), stores: Runs | tuple[()] = (), streams: Runs | tuple[()] = (), again: int = 1
) -> LaunchCounts:
    """Loads and stores runs of sectors, `again` times. streams: of the loads."""
    sectors = {"load": sum(end - first for first, end in loads), "store": sum(end - first for first, end in stores)}
    return LaunchCounts(
        kernel="a launch",
        grid=(1, 1, 1),
        block=(32, 1, 1),
        dynamic_shared_bytes=0,
        static_shared_bytes=0,
        accesses=[
            AccessCounts("x", "global", kind, 16, sectors=count * again) for kind, count in sectors.items() if count
        ],
        tensors=[
            TensorCounts("x", 0, 32 * sectors["load"], 32 * sectors["store"], list(loads), list(stores), list(streams))
        ],
        operations={},
    )


def sectors_moved(launches: list[LaunchCounts], room: int) -> tuple[int, int]:
    traffic = emulator.memory_traffic(launches, 32 * room)
    assert traffic.bytes == traffic.loaded_bytes + traffic.stored_bytes
    return traffic.loaded_bytes // 32, traffic.stored_bytes // 32


def test_what_fits_is_loaded_once_and_written_once_at_the_end() -> None:
    launches = [launch(loads=[(0, 4)], stores=[(10, 14)]), launch(loads=[(10, 14)], stores=[(20, 22)])] * 3
    assert sectors_moved(launches, 10) == (4, 6)


def test_what_was_used_longest_ago_falls_out() -> None:
    first, second, third = launch(loads=[(0, 4)]), launch(loads=[(4, 8)]), launch(loads=[(8, 12)])
    assert sectors_moved([first, second, first], 8) == (8, 0)
    assert sectors_moved([first, second, first], 7) == (12, 0)  # a launch's share goes whole
    assert sectors_moved([first, second, third, second], 8) == (12, 0)
    assert sectors_moved([first, second, third, first], 8) == (16, 0)
    assert sectors_moved([first, second, first, third, first], 8) == (12, 0)


def test_a_use_again_keeps_a_part_of_what_a_launch_touched() -> None:
    launches = [launch(loads=[(0, 4)]), launch(loads=[(2, 4), (10, 12)]), launch(loads=[(20, 22)])]
    assert sectors_moved([*launches, launch(loads=[(2, 4)])], 6) == (8, 0)
    assert sectors_moved([*launches, launch(loads=[(0, 2)])], 6) == (10, 0)


def test_stored_sectors_are_written_when_they_fall_out() -> None:
    written, other = launch(stores=[(0, 4)]), launch(loads=[(10, 14)])
    assert sectors_moved([written, written], 4) == (0, 4)
    assert sectors_moved([written, other, written], 8) == (4, 4)
    assert sectors_moved([written, other, written], 4) == (4, 8)
    assert sectors_moved([written, other, launch(loads=[(0, 4)])], 4) == (8, 4)  # clean the second time


def test_a_launch_larger_than_the_cache_moves_all_that_it_asks_for() -> None:
    large = launch(loads=[(0, 8)], stores=[(10, 12)], again=3)
    assert sectors_moved([large], 10) == (8, 2)
    assert sectors_moved([large], 9) == (24, 6)
    assert sectors_moved([launch(stores=[(0, 2)]), large, launch(loads=[(0, 2)])], 9) == (26, 8)


def test_streams_take_no_room_and_do_not_stay() -> None:
    stream, other = launch(loads=[(0, 8)], stores=[(10, 14)], streams=[(0, 8)]), launch(loads=[(10, 14)])
    assert sectors_moved([stream, other, stream, other], 4) == (16, 4)
    assert sectors_moved([launch(loads=[(0, 8)]), stream], 12) == (8, 4)
    assert sectors_moved([launch(stores=[(0, 8)]), stream, launch(loads=[(0, 8)])], 12) == (8, 12)
    assert sectors_moved([launch(loads=[(0, 4)], stores=[(0, 4)], streams=[(0, 4)]), launch(loads=[(0, 4)])], 4) == (
        4,
        4,
    )


@pytest.mark.parametrize("room", [0, 31, -32])
def test_a_cache_has_at_least_a_sector(room: int) -> None:
    with pytest.raises(ValueError, match=f"at least a sector of 32 bytes, got {room}"):
        emulator.memory_traffic([], room)


@pytest.mark.parametrize(("offset", "sectors"), [(0, 8), (4, 9), (28, 9)])
def test_kernels_tell_which_sectors_they_touched(run, offset: int, sectors: int) -> None:
    x, y = aligned(256, offset), aligned(256)
    with emulator.count() as counters:
        for _ in range(2):
            run("copy_bytes_4", x, y, grid=(1,), block=(64,))
    (loaded, stored) = counters.launches[0].tensors
    first = x.data_ptr() // 32
    assert loaded.loaded_sectors == [(first, first + sectors)]
    assert stored.stored_sectors == [(y.data_ptr() // 32, y.data_ptr() // 32 + 8)]
    assert loaded.stored_sectors == stored.loaded_sectors == []
    assert emulator.memory_traffic(counters.launches, 1 << 20) == MemoryTraffic(32 * sectors, 256)
    assert emulator.memory_traffic(counters.launches, 256).stored_bytes == 512


def test_gaps_between_sectors_are_seen(run) -> None:
    x, y = aligned(4 * 64 * 16), aligned(256)
    with emulator.count() as counters:
        run("strided_load", x, y, block=(64,), n=16)
    runs = counters.launches[0].tensors[0].loaded_sectors
    assert runs == [(x.data_ptr() // 32 + 2 * i, x.data_ptr() // 32 + 2 * i + 1) for i in range(64)]
