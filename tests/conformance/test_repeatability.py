"""The same call gives the same bits: twice, on any number of threads, in any order of a block's threads."""

from __future__ import annotations

import threading

import pytest
import torch

import fastconv
from fastconv import emulator
from tests.support.cases import Case
from tests.support.check import make_tensors, run

CASES = [
    Case.parse(line)
    for line in (
        "conv2d n=3 c=8 h=17 w=16 k=16 r=3 s=3 padding=1x1 groups=2 bias=1 activation=gelu",
        "conv2d n=3 c=8 h=17 w=16 k=16 r=3 s=3 padding=1x1 bias=1 dtype=bfloat16 x_layout=channels_last w_layout=channels_last",
        "conv_transpose2d n=3 c=8 h=7 w=9 k=8 r=4 s=4 stride=2x2 padding=1x1 bias=1",
        "max_pool2d n=3 c=9 h=17 w=16 r=5 s=3 stride=2x1 padding=2x1 dtype=float16 data=ties",
    )
]


def bits(case: Case) -> dict[str, torch.Tensor]:
    tensors, dy = make_tensors(case)
    return {name: result.detach() for name, result in run(case, tensors, dy).items()}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.parametrize("case", CASES, ids=str)
def test_same_bits_twice(case):
    first = bits(case)
    for _ in range(3):
        assert_same(bits(case), first)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_same_bits_with_shuffled_threads(case):
    """Equal bits in any order mean that no result depends on an order CUDA does not promise."""
    first = bits(case)
    for seed in (1, 2):
        with emulator.check(seed=seed):
            assert_same(bits(case), first)


def test_python_threads_share_the_cache_of_plans():
    """Threads that meet the same new problems at once must all get right results."""
    expected = [bits(case) for case in CASES]
    clear_plans()
    failures = []
    start = threading.Barrier(4)

    def work(number: int) -> None:
        try:
            start.wait(timeout=60)
            for step in range(len(CASES)):
                index = (number + step) % len(CASES)
                assert_same(bits(CASES[index]), expected[index])
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def clear_plans() -> None:
    fastconv.dispatch.clear()
