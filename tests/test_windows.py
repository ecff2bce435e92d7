"""What windows reach: against a count over a picture of positions, and what follows from it for the compulsory bytes."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
import torch.nn.functional as F

from fastconv import dispatch, emulator
from fastconv.backends.compiled_problem import compiled_problem
from fastconv.bench.cases import Selection, problems, select
from fastconv.problem import PADDING_MODES, Operand, Target
from fastconv.shapes import conv_output_size, dense_strides, pool_output_size
from fastconv.windows import Windows

TARGET = Target("cpu", 90, 132, "a device for tests")


def counted(windows: Windows) -> int:
    """Distinct positions in windows over a row that holds its own positions, padded by PyTorch."""
    row = torch.arange(windows.size, dtype=torch.float64).reshape(1, 1, -1)
    padding = (windows.low, windows.high)
    if windows.padding_mode in ("zeros", "constant"):
        padded = F.pad(row, padding, value=-1)
    else:
        padded = F.pad(row, padding, mode=windows.padding_mode)
    seen = {
        int(padded[0, 0, window * windows.stride + tap * windows.dilation])
        for window in range(windows.count)
        for tap in range(windows.taps)
    }
    return len(seen - {-1})


@pytest.mark.parametrize("mode", PADDING_MODES)
def test_reached_positions_are_those_of_a_picture(mode):
    passed_over = 0
    for size, taps, stride, dilation in itertools.product((1, 2, 7, 12), (1, 2, 3, 5), (1, 2, 3, 4, 6), (1, 2, 3)):
        for low, high in ((0, 0), (1, 0), (0, 2), (3, 3), (6, 1)):
            most = {"reflect": size - 1, "circular": size}.get(mode, size + 9)
            count = conv_output_size(size, low, high, taps, stride, dilation)
            if max(low, high) > most or count < 1:
                continue
            # A transposed convolution with output_padding has fewer windows than fit.
            for windows in {count, max(1, count - 1)}:
                one = Windows(size, windows, taps, stride, dilation, low, high, mode)
                assert one.reached() == counted(one), one
                passed_over += one.reached() < size
    assert passed_over > 50


def test_a_long_row_is_counted_without_walking_it():
    assert Windows(2**40, 2**38, 3, 4, 2, 0).reached() == 2**39
    assert Windows(4, 2, 1, 2**40, 1, 2**40 - 1, 2**40, "replicate").reached() == 2


def operand(*sizes):
    return Operand(sizes, dense_strides(sizes, False))


GEOMETRIES = [
    (1, 2, 1, (0, 0, 0, 0), "zeros"),
    (3, 2, 2, (0, 1, 2, 0), "zeros"),
    (2, 3, 1, (1, 0, 0, 1), "constant"),
    (1, 3, 1, (2, 1, 1, 2), "circular"),
    (2, 4, 1, (3, 2, 3, 0), "reflect"),
    (2, 5, 3, (1, 4, 0, 2), "replicate"),
    (3, 1, 1, (1, 1, 1, 1), "zeros"),
]


@pytest.mark.parametrize("conv_pass", ["fprop", "dgrad", "wgrad"])
@pytest.mark.parametrize(("taps", "stride", "dilation", "padding", "mode"), GEOMETRIES)
def test_what_no_window_reaches_is_written_but_not_read(conv_pass, taps, stride, dilation, padding, mode):
    x, w = operand(2, 3, 9, 11), operand(4, 3, taps, taps)
    pairs = {"stride": [stride] * 2, "padding": list(padding), "dilation": [dilation] * 2}
    given = pairs | {"groups": 1, "padding_mode": mode, "padding_value": 1.5 if mode == "constant" else 0.0}
    y = dispatch.make_conv_problem("fprop", torch.float32, TARGET, x=x, w=w, **given).y
    operands = {"x": x, "w": w, "y": y}
    if conv_pass == "fprop":
        del operands["y"]
    else:
        written = {"dgrad": "x", "wgrad": "w"}[conv_pass]
        operands[written] = operands[written].sizes
    problem = dispatch.make_conv_problem(conv_pass, torch.float32, TARGET, **operands, **given)
    rows, columns = (
        counted(Windows(x.sizes[2 + axis], y.sizes[2 + axis], taps, stride, dilation, *padding[2 * axis :][:2], mode))
        for axis in (0, 1)
    )
    of_x = 9 * 11 if conv_pass == "dgrad" else rows * columns
    expected = 4 * (2 * 3 * of_x + 4 * 3 * taps**2 + 2 * 4 * y.sizes[2] * y.sizes[3])
    assert problem.compulsory_bytes() == expected
    assert compiled_bytes(problem) == {expected}


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), [(2, 2, 0, 1), (1, 3, 0, 1), (2, 5, 1, 2)])
def test_a_pool_does_not_read_what_lies_between_its_windows(kernel, stride, padding, dilation):
    x = operand(2, 3, 9, 11)
    sizes = [pool_output_size(size, padding, kernel, stride, dilation, False) for size in x.sizes[2:]]
    rows, columns = (
        counted(Windows(size, count, kernel, stride, dilation, padding, padding))
        for size, count in zip(x.sizes[2:], sizes, strict=True)
    )
    outputs = 6 * sizes[0] * sizes[1]
    window = {"kernel": [kernel] * 2, "stride": [stride] * 2, "padding": [padding] * 2, "dilation": [dilation] * 2}
    forward = dispatch.make_pool_problem("forward", torch.float32, TARGET, x=x, ceil_mode=False, **window)
    backward = dataclasses.replace(forward, pool_pass="backward")
    for problem, of_x in ((forward, rows * columns), (backward, 9 * 11)):
        assert problem.compulsory_bytes() == 4 * 6 * of_x + 5 * outputs
        assert compiled_bytes(problem) == {problem.compulsory_bytes()}


def compiled_bytes(problem) -> set[int]:
    """What the candidates of the compiled core say."""
    core = emulator.module()
    found = {one.details.get("compulsory_bytes") for one in core.candidates(compiled_problem(core, problem))}
    return found - {None}


def test_the_harness_counts_what_the_problems_count():
    """A case of one problem moves that problem's bytes, but for a pool's offsets, which inference does not need."""
    compared = 0
    for case in select(Selection(precisions=["bfloat16"], layouts=["nchw"], directions=["fwd", "dgrad", "wgrad"])):
        made = problems(case, TARGET)
        if len(made) != 1:
            continue
        offsets = (
            case.layer.elements(case.batch)["y"] if (case.layer.op, case.direction) == ("max_pool2d", "fwd") else 0
        )
        if case.layer.op == "conv_block":
            offsets = made[0].compulsory_bytes() - case.bytes_moved()
            assert offsets in (0, case.layer.elements(case.batch)["y"])
        assert made[0].compulsory_bytes() == case.bytes_moved() + offsets, case.key
        compared += 1
    assert compared > 300
