"""Blocks on threads, threads on fibers: cost, fork, several launches at once."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from typing import Any

import pytest
import torch

from fastconv import emulator


# Of this thread on the CPU, which runs the only block by itself: what else the machine does is not counted. The best of
# many runs, because others still share the caches.
def best_of(call: Any, tries: int = 30) -> float:
    best = float("inf")
    for _ in range(tries):
        start = time.thread_time()
        call()
        best = min(best, time.thread_time() - start)
    return best


@pytest.mark.parametrize("threads", [64, 256, 1024])
def test_barrier_costs_more_than_60_ns_a_fiber(run, x, threads):
    barriers = 100
    empty = best_of(lambda: run("many_barriers", x, block=(threads,), n=0))
    full = best_of(lambda: run("many_barriers", x, block=(threads,), n=barriers))
    assert (full - empty) / (barriers * threads) < 60e-9


def test_shuffle_costs_more_than_100_ns_a_lane(run, x, y):
    shuffles = 100
    empty = best_of(lambda: run("many_shuffles", x, y, block=(256,), n=0))
    full = best_of(lambda: run("many_shuffles", x, y, block=(256,), n=shuffles))
    assert (full - empty) / (shuffles * 256) < 100e-9


def test_polling_thread_keeps_others_from_running(run):
    flag = torch.zeros(1, dtype=torch.int32)
    for threads in (2, 32, 64, 500):
        flag.zero_()
        run("polls", None, flag, block=(threads,))
        assert flag.item() == 2


@pytest.mark.parametrize("cores", ["1", "2", "5"])
def test_number_of_cpu_threads_changes_the_result(run, monkeypatch, cores):
    monkeypatch.setenv("FASTCONV_EMULATOR_THREADS", cores)
    x, y = torch.randn(100_000), torch.zeros(100_000)
    run("grid_stride_loop", x, y, grid=(50,), block=(128,), n=100_000)
    assert torch.equal(y, 2 * x)


def test_launches_from_several_threads_at_once_disturb_each_other(run):
    failures: list[str] = []

    def launch(number: int) -> None:
        x, y = torch.full((4096,), float(number)), torch.zeros(16)
        for _ in range(20):
            run("block_reduce", x, y, grid=(16,), block=(256,), n=4096)
            if not torch.equal(y, torch.full((16,), 256.0 * number + 256)):
                failures.append(f"thread {number}: {y}")

    threads = [threading.Thread(target=launch, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def in_child(run: Any, results: Any) -> None:
    x, y = torch.arange(1000.0), torch.zeros(1000)  # few enough elements to keep torch from its own threads
    run("grid_stride_loop", x, y, grid=(40,), block=(128,), n=1000)
    caught = ""
    try:
        run("deadlock", x, y)
    except emulator.KernelError as error:
        caught = str(error)
    results.put((torch.equal(y, 2 * x), "deadlock: no thread of the block can go on" in caught))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python's own, of fork beside threads: that is the point
def test_forked_child_waits_for_threads_that_it_does_not_have(run, x, y):
    run("grid_stride_loop", x, y, grid=(40,), block=(128,), n=1024)  # the parent has its pool now
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    children = [context.Process(target=in_child, args=(run, results), daemon=True) for _ in range(3)]
    for child in children:
        child.start()
    answers = [results.get(timeout=60) for _ in children]
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert answers == [(True, True)] * 3
    run("grid_stride_loop", x, y, grid=(40,), block=(128,), n=1024)
    assert torch.equal(y, 2 * x)


def test_memory_grows_from_launch_to_launch(run, x, y):
    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def many_launches() -> None:
        for _ in range(200):
            run("grid_stride_loop", x, y, grid=(8,), block=(128,), n=1024)
            with pytest.raises(emulator.KernelError):
                run("deadlock", x, y)

    many_launches()
    before = resident()
    many_launches()
    assert resident() - before < 8 << 20
