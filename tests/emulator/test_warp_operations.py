"""Shuffles, votes, matches, reductions and atomics: every lane against the definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

WARP = range(32)


# Each lane's own mask: all lanes, halves that meet apart, every other lane, single lanes, three uneven groups.
MASKS = {
    "whole": [0xFFFFFFFF] * 32,
    "halves": [0x0000FFFF if lane < 16 else 0xFFFF0000 for lane in WARP],
    "parity": [0x55555555 if lane % 2 == 0 else 0xAAAAAAAA for lane in WARP],
    "single": [1 << lane for lane in WARP],
    "uneven": [0x00000007 if lane < 3 else (0x000FFFF8 if lane < 20 else 0xFFF00000) for lane in WARP],
}


def tensor_of(values: list[int]) -> torch.Tensor:
    return torch.from_numpy(np.array(values, dtype=np.uint32).view(np.int32).copy())


def shuffled(values: list[Any], sources: list[int], masks: list[int], got: list[Any]) -> list[Any]:
    """A source outside the lane's mask has no defined value: there any result will do."""
    return [values[source] if masks[lane] >> source & 1 else got[lane] for lane, source in enumerate(sources)]


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("width", [32, 16, 8, 4, 2, 1])
@pytest.mark.parametrize("dtype", [torch.int32, torch.float32, torch.int64, torch.float64])
def test_shuffle_reads_another_lane(anywhere, dtype, width, masks):
    kernel = "shuffles_" + str(dtype).removeprefix("torch.")
    x = torch.randint(-(1 << 30), 1 << 30, (32,)).to(dtype)
    y = torch.zeros(4, 32, dtype=dtype)
    for arguments in ([3] * 32, [1] * 32, [(5 * lane + 2) % 32 for lane in WARP], [31] * 32, [0] * 32):
        anywhere(kernel, x, y, tensor_of(MASKS[masks]), tensor_of(arguments), block=(32,), n=width, read_only=(0, 2, 3))
        indexed, up, down, exclusive = [], [], [], []
        for lane, argument in enumerate(arguments):
            first, last = lane // width * width, lane // width * width + width - 1
            indexed.append(first + argument % width)
            up.append(lane - argument if lane - argument >= first else lane)
            down.append(lane + argument if lane + argument <= last else lane)
            exclusive.append(lane ^ argument if lane ^ argument <= last else lane)
        got = y.tolist()
        for result, sources in zip(got, (indexed, up, down, exclusive), strict=True):
            assert result == shuffled(x.tolist(), sources, MASKS[masks], result)


def test_a_shuffle_from_outside_the_mask_keeps_the_own_value_in_the_emulator(run):
    """The hardware may give anything there; what the emulator gives is the same every time."""
    x, y = torch.arange(32, dtype=torch.int32), torch.zeros(4, 32, dtype=torch.int32)
    run("shuffles_int32", x, y, tensor_of(MASKS["parity"]), tensor_of([1] * 32), block=(32,), n=32, read_only=(0, 2, 3))
    assert y[1].tolist() == x.tolist()


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("values", ["small", "equal", "large"])
def test_vote_match_or_reduction_disagrees_with_its_definition(anywhere, values, masks):
    x = {
        "small": torch.randint(-2, 3, (32,)),
        "equal": torch.full((32,), 7),
        "large": torch.randint(-(1 << 31), (1 << 31) - 1, (32,)),
    }[values].int()
    y = torch.zeros(14, 32, dtype=torch.int32)
    anywhere("votes", x, y, tensor_of(MASKS[masks]), block=(32,), read_only=(0, 2))
    result = y.numpy().view(np.uint32).tolist()
    for lane in WARP:
        mask = MASKS[masks][lane]
        lanes = [other for other in WARP if mask >> other & 1]
        own, signed = int(x[lane]), [int(x[other]) for other in lanes]
        unsigned = [value % (1 << 32) for value in signed]
        equal = sum(1 << other for other in lanes if int(x[other]) == own)
        expected = [
            sum(1 << other for other in lanes if int(x[other]) > 0),
            any(value > 0 for value in signed),
            all(value > 0 for value in signed),
            equal,
            mask if equal == mask else 0,
            equal == mask,
            sum(signed) % (1 << 32),
            min(signed) % (1 << 32),
            max(signed) % (1 << 32),
            min(unsigned),
            max(unsigned),
            np.bitwise_and.reduce(np.array(unsigned, dtype=np.uint32)),
            np.bitwise_or.reduce(np.array(unsigned, dtype=np.uint32)),
            np.bitwise_xor.reduce(np.array(unsigned, dtype=np.uint32)),
        ]
        assert [row[lane] for row in result] == expected, f"lane {lane}"


def test_atomic_operation_loses_an_update(run):
    # Without check: the loop of atomicCAS begins with a plain read, as such loops do.
    x = torch.randint(-1000, 1000, (64 * 40,), dtype=torch.int32)
    y = torch.zeros(16, dtype=torch.int32)
    y[2:4] = torch.tensor([2000, -2000])
    y[4] = -1
    run("atomics", x, y, grid=(40,), block=(64,))
    values = x.numpy()
    assert y[:10].tolist() == [
        values.sum(),
        -values.sum(),
        values.min(),
        values.max(),
        np.bitwise_and.reduce(values),
        np.bitwise_or.reduce(values),
        np.bitwise_xor.reduce(values),
        len(values) % 100,
        -len(values) % 100,
        len(values),
    ]
    assert y[10:11].view(torch.float32).item() == 0.5 * len(values)
    assert y[11].item() == 7
    assert y[12:14].view(torch.float64).item() == 0.25 * len(values)
    assert y[14:16].view(torch.int64).item() == len(values) << 33


def test_thread_and_block_coordinates(anywhere):
    grid, block = (3, 2, 4), (5, 3, 2)
    y = torch.full((24, 30, 12), -1, dtype=torch.int32)
    anywhere("coordinates", torch.zeros(1), y, grid=grid, block=block)
    for b in range(24):
        for t in range(30):
            thread, place = (t % 5, t // 5 % 3, t // 15), (b % 3, b // 3 % 2, b // 6)
            assert y[b, t].tolist() == [*thread, *place, *block, *grid]


@pytest.mark.parametrize("threads", [1, 31, 32, 96, 200, 1024])
def test_counting_barrier_counts_other_threads_than_those_of_the_block(anywhere, threads):
    for predicates in (torch.zeros(threads), torch.ones(threads), torch.arange(threads) % 3 == 0):
        x, y = predicates.int(), torch.full((3, threads), -1, dtype=torch.int32)
        anywhere("counting_barriers", x, y, block=(threads,))
        assert (y[0] == x.sum()).all()
        assert (y[1] == int(x.any())).all()
        assert (y[2] == int(x.all())).all()
