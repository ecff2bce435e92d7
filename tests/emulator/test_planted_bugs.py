"""Every kind of mistake is found, and the report names kernel, block, thread and source line."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from fastconv import emulator
from fastconv.emulator import KernelError
from tests.emulator.build import PROBES

SOURCE = "probes/planted_bugs.cu"


def marked_lines(kernel: str) -> list[int]:
    """Where the source says that the mistake is."""
    text = (PROBES / "planted_bugs.cu").read_text().splitlines()
    lines = [number for number, line in enumerate(text, 1) if line.endswith(f"// <- {kernel}")]
    assert lines, f"no line of planted_bugs.cu is marked as the mistake of {kernel}"
    return lines


# kernel, how it is launched, what the report says, the thread that it names where only one can be meant.
BUGS: list[tuple[str, dict[str, Any], str, str | None]] = [
    ("reads_past_the_end", {"sizes": (64, 64)}, r"reads 4 bytes just past the end of tensor x \(256 bytes\)", "(63, 0, 0)"),
    ("reads_before_the_start", {"sizes": (64, 64)}, r"reads 4 bytes 4 bytes before the start of tensor x", "(0, 0, 0)"),
    ("writes_past_the_end", {"sizes": (64, 64)}, r"writes 4 bytes (just past|4 bytes past) the end of tensor y", None),
    ("writes_read_only_tensor", {"sizes": (64, 64)}, r"may only read: writes 4 bytes at byte \d+ of tensor x", None),
    ("vector_reads_past_the_end", {"sizes": (250, 256)}, r"reads 16 bytes (across|8 .* past) the end of ten", "(62, 0, 0)"),
    ("misaligned_vector", {"sizes": (256, 64)}, r"misaligned: reads 16 bytes at address 0x\w+4, which is not", None),
    ("atomic_past_the_end", {"sizes": (64, 64)}, r"updates 4 bytes (just|\d+ bytes) past the end of tensor y", None),
    ("null_pointer", {"sizes": (64, 64)}, r"reads 4 bytes at address 0x0, which lies in no tensor", None),
    ("static_shared_past_the_end", {}, r"out of bounds: .*shared array tile \(256 bytes\)", None),
    ("dynamic_shared_past_the_end", {"dynamic_bytes": 256}, r"just past the end of dynamic shared memory", "(63, 0, 0)"),
    ("uninitialised_static_shared", {}, r"uninitialised .* reads byte \d+ of shared array tile", None),
    ("uninitialised_dynamic_shared", {"dynamic_bytes": 256}, r"uninitialised .* of dynamic shared memory", None),
    ("relies_on_an_earlier_block", {"grid": (4,), "sizes": (64, 256)}, r"uninitialised .* shared array tile", None),
    ("missing_first_barrier", {}, r"uninitialised .* shared array tile", None),
    ("missing_barrier", {}, r"race: (reads|writes) byte \d+ of shared array tile, which thread \(\d+, 0, 0\)", None),
    ("missing_barrier_before_overwriting", {}, r"race: (reads|writes) byte \d+ of shared array tile", None),
    ("all_write_one_element", {}, r"race: writes byte 0 of shared array winner, which thread .* wrote", None),
    ("relies_on_warps_in_step", {"block": (32,)}, r"race: (reads|writes) byte \d+ of shared array tile", None),
    ("warp_barrier_for_two_warps", {}, r"(race|uninitialised shared memory): reads byte \d+ of shared array tile", None),
    ("named_barrier_without_the_reader", {"block": (128,)}, r"(race|uninitialised shared memory): .* tile", None),
    ("atomic_and_plain_write", {}, r"race: (writes|updates) byte 0 of shared array sum", None),
    ("blocks_write_one_element", {"grid": (8,)}, r"race: writes byte 0 of tensor y, .* of block \(\d, 0, 0\) wrote", None),
    ("threads_write_one_element", {}, r"race: writes byte \d+ of tensor y, which thread .* wrote in the same", None),
    ("reads_what_another_block_writes", {"grid": (2,), "sizes": (64, 128)}, r"race: (reads|writes) byte \d+ of tensor y", None),
    ("block_fence_between_blocks", {"grid": (2,), "sizes": (64, 128)}, r"race: (reads|writes) byte \d+ of tensor y", None),
    ("divergent_barrier", {}, r"divergent barrier", None),
    ("early_exit", {}, r"exited although other threads of the block wait for it", "(40, 0, 0)"),
    ("deadlock", {}, r"deadlock: no thread of the block can go on", None),
    ("half_a_warp_shuffles", {"block": (32,)}, r"deadlock: no thread of the block can go on", None),
    ("lane_outside_its_mask", {"block": (32,)}, r"__syncwarp by lane (1[6-9]|[23]\d), which its mask 0x0000ffff", None),
    ("lanes_do_different_things", {"block": (32,)}, r"meet in different operations: .*(__syncwarp.*vote|vote.*__sync)", None),
    ("barrier_with_two_counts", {}, r"barrier 3 is waited for with different counts", None),
]  # fmt: skip


def launch(run: Any, kernel: str, sizes: tuple[int, int] = (64, 64), **options: Any) -> None:
    memory = torch.zeros(2, 4096)  # what lies beside a tensor is no other tensor
    run(kernel, memory[0, 1024 : 1024 + sizes[0]], memory[1, 1024 : 1024 + sizes[1]], **options)


@pytest.mark.parametrize("order", ["natural", "shuffled"])
@pytest.mark.parametrize(("kernel", "options", "says", "thread"), BUGS, ids=[bug[0] for bug in BUGS])
def test_mistake_goes_unnoticed_or_is_reported_elsewhere(run, kernel, options, says, thread, order):
    with emulator.check(seed=7, order=order), pytest.raises(KernelError) as caught:
        launch(run, kernel, **options)
    report = str(caught.value)
    head = re.match(rf"kernel {kernel}, block \(\d+, 0, 0\), thread (\(\d+, 0, 0\)): ", report)
    assert head, report
    assert re.search(says, report), report
    if thread is not None and order == "natural":
        assert head[1] == thread, report
    places = {int(line) for line in re.findall(rf"{SOURCE}:(\d+) in {kernel}", report)}
    assert places & set(marked_lines(kernel)), f"none of the lines {marked_lines(kernel)} in:\n{report}"
    assert f'repeat with: fastconv.emulator.check(seed=7, order="{order}")' in report


def test_race_report_names_one_of_its_two_sides_only(run):
    with emulator.check(seed=3), pytest.raises(KernelError) as caught:
        launch(run, "missing_barrier")
    # The write of one thread and the read of another.
    write, read = marked_lines("missing_barrier")[0], marked_lines("missing_barrier")[0] + 1
    lines = [int(line) for line in re.findall(rf"{SOURCE}:(\d+)", str(caught.value))]
    assert {write, read} <= set(lines), caught.value


def test_divergent_barrier_report_names_one_barrier_only(run):
    with emulator.check(seed=3), pytest.raises(KernelError) as caught:
        launch(run, "divergent_barrier")
    for line in marked_lines("divergent_barrier"):
        assert f"{SOURCE}:{line}" in str(caught.value)


def test_deadlock_report_leaves_out_who_waits_where(run):
    with emulator.check(seed=3), pytest.raises(KernelError) as caught:
        launch(run, "deadlock")
    for line in marked_lines("deadlock"):
        assert f"{SOURCE}:{line}" in str(caught.value)
    assert "32 threads" in str(caught.value)


def test_seed_gives_another_report_when_repeated(run):
    reports = set()
    for _ in range(5):
        with emulator.check(seed=11), pytest.raises(KernelError) as caught:
            launch(run, "all_write_one_element", grid=(16,))
        reports.add(str(caught.value))
    assert len(reports) == 1, "\n".join(reports)
    with emulator.check(seed=12), pytest.raises(KernelError) as caught:
        launch(run, "all_write_one_element", grid=(16,))
    assert str(caught.value).splitlines()[0] not in {report.splitlines()[0] for report in reports}


def test_launch_after_a_failed_one_fails_too(run, x, y):
    for kernel in ("deadlock", "divergent_barrier", "reads_before_the_start"):
        with emulator.check(seed=1), pytest.raises(KernelError):
            launch(run, kernel)
        with emulator.check(seed=1):
            run("grid_stride_loop", x, y, grid=(4,), n=1024)
        assert torch.equal(y, 2 * x)
        y.zero_()


def test_errors_that_the_fast_build_must_find_too(run):
    for kernel, options, says in (
        ("deadlock", {}, "deadlock"),
        ("lane_outside_its_mask", {"block": (32,)}, "does not name"),
        ("lanes_do_different_things", {"block": (32,)}, "meet in different operations"),
        ("barrier_with_two_counts", {}, "different counts"),
        ("half_a_warp_shuffles", {"block": (32,)}, "deadlock"),
    ):
        with pytest.raises(KernelError, match=says) as caught:
            launch(run, kernel, **options)
        assert SOURCE in str(caught.value)


# What CUDA refuses, in both builds.
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("bounded", {"block": (129,)}, r"129 threads in a block, its launch bound is 128"),
    ("grid_stride_loop", {"block": (32, 33)}, r"block \(32, 33, 1\), accepted are"),
    ("grid_stride_loop", {"block": (1, 1, 65)}, r"block \(1, 1, 65\), accepted are"),
    ("grid_stride_loop", {"block": (0,)}, r"block \(0, 1, 1\), accepted are"),
    ("grid_stride_loop", {"grid": (0,)}, r"grid \(0, 1, 1\), accepted are"),
    ("grid_stride_loop", {"grid": (1, 65536)}, r"grid \(1, 65536, 1\), accepted are"),
    ("grid_stride_loop", {"dynamic_bytes": 227 * 1024 + 1}, r"232449 bytes of shared memory .*at most 232448"),
    ("static_and_dynamic_shared", {"dynamic_bytes": 220 * 1024}, r"233472 bytes of shared memory \(8192 static\)"),
    ("too_much_static_shared", {}, r"50176 bytes of static shared memory, a kernel may declare at most 49152"),
]


@pytest.mark.parametrize("checked", [False, True])
@pytest.mark.parametrize(("kernel", "options", "says"), REFUSED)
def test_launch_that_cuda_refuses_is_run(run, kernel, options, says, checked):
    if checked:
        with emulator.check(), pytest.raises(KernelError, match=says):
            launch(run, kernel, **options)
    else:
        with pytest.raises(KernelError, match=says):
            launch(run, kernel, **options)


def test_shared_memory_limit_of_the_device_is_not_its_own(run):
    with emulator.device("sm_80"):
        launch(run, "bounded", dynamic_bytes=163 * 1024)
        with pytest.raises(KernelError, match="a block of sm_80 has at most 166912"):
            launch(run, "bounded", dynamic_bytes=163 * 1024 + 1)
    with emulator.device("sm_90"):
        launch(run, "bounded", dynamic_bytes=227 * 1024)


@pytest.mark.parametrize("checked", [False, True])
@pytest.mark.parametrize(
    ("kernel", "n", "says"),
    [
        ("divides_by_zero", 0, "integer division by zero"),
        ("overflows_the_stack", 10_000, "stack overflow"),
        ("shuffles_then_overflows", 10_000, "stack overflow"),
    ],
)
def test_fault_of_a_kernel_kills_the_process(run, kernel, n, says, checked):
    for _ in range(2):
        if checked:
            with emulator.check(), pytest.raises(KernelError, match=says) as caught:
                launch(run, kernel, n=n)
        else:
            with pytest.raises(KernelError, match=says) as caught:
                launch(run, kernel, n=n)
        assert SOURCE in str(caught.value)


def test_null_pointer_in_the_fast_build_kills_the_process(run):
    with pytest.raises(KernelError, match="illegal memory access at address 0x0") as caught:
        launch(run, "null_pointer")
    assert f"{SOURCE}:{marked_lines('null_pointer')[0]}" in str(caught.value)
