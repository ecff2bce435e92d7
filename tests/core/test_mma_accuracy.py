"""Rounding, infinities, NaN and denormals of the tensor-core kernels, against float64 and PyTorch in the same precision."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from tests.core.mma_support import Case

PASSES = ["fprop", "dgrad", "wgrad"]


def torch_result(case: Case, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    x, w, y = tensors["x"], tensors["w"], tensors["y"]
    padding = case.padding[::2]
    if case.conv_pass == "fprop":
        return torch.nn.functional.conv2d(x, w, None, case.stride, padding)
    if case.conv_pass == "dgrad":
        return torch.nn.grad.conv2d_input(x.shape, w, y, case.stride, padding)
    return torch.nn.grad.conv2d_weight(x, w.shape, y, case.stride, padding)


def problem(conv_pass: str, dtype: torch.dtype = torch.float32, allow_tf32: bool = False) -> Case:
    return Case(conv_pass, dtype, (2, 24, 9, 9), (40, 24, 3, 3), padding=(1, 1, 1, 1), allow_tf32=allow_tf32)


def relative_error(result: torch.Tensor, expected: torch.Tensor) -> float:
    return float((result.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("conv_pass", PASSES)
@pytest.mark.parametrize(
    ("dtype", "allow_tf32", "roundings"),
    [
        # Roundings of the inputs and one of the output; float32 adds up hundreds of them.
        (torch.float16, False, 2**-11),
        (torch.bfloat16, False, 2**-8),
        (torch.float32, True, 2**-11),
        (torch.float32, False, 2**-21),
    ],
)
def test_error_is_that_of_the_precision(conv_pass: str, dtype: torch.dtype, allow_tf32: bool, roundings: float) -> None:
    case = problem(conv_pass, dtype, allow_tf32)
    tensors = case.tensors(kind="normal")
    (expected,) = case.reference(tensors).values()
    for config in case.configs()[:3]:
        (result,) = case.run(config, tensors).values()
        error = relative_error(result, expected)
        assert error < roundings, config
        assert allow_tf32 is False or error > 2**-16, "this is not TF32"


@pytest.mark.parametrize("pad", [0, 1])
@pytest.mark.parametrize("conv_pass", PASSES)
def test_infinities_and_nan_are_where_float32_has_them(conv_pass: str, pad: int) -> None:
    case = dataclasses.replace(problem(conv_pass), padding=(pad,) * 4)
    tensors = case.tensors(kind="normal")
    x, w, y = tensors["x"], tensors["w"], tensors["y"]
    x[0, 1, 2, 3] = math.inf
    x[0, 2, 5, 5] = math.nan
    x[1, :, 0] = 0
    # A sum may overflow. With padding the pixel meets an infinity too, and float64, the reference, would not overflow first.
    x[1, 3, 8, 8] = 3e37 if pad else 3e38
    w[1, 1, 0, 0] = -math.inf
    w[2, 3] = 2.0
    y[0, 0, 0, 0] = math.inf
    y[1, 1, 1, 1] = math.nan
    (expected,) = case.reference(tensors).values()
    as_float32 = expected.float()
    for config in case.configs()[:3]:
        (result,) = case.run(config, tensors).values()
        assert torch.equal(result.isnan(), as_float32.isnan()), config
        assert torch.equal(result.isposinf(), as_float32.isposinf()), config
        assert torch.equal(result.isneginf(), as_float32.isneginf()), config
        finite = as_float32.isfinite()
        assert relative_error(result[finite], expected[finite]) < 2**-20


@pytest.mark.parametrize("conv_pass", PASSES)
@pytest.mark.parametrize(
    ("x_scale", "w_scale", "y_scale"), [(1e-40, 1.0, 1e-41), (1e-20, 1e-19, 1e-22), (1e-36, 1e3, 1e-37)]
)
def test_denormals_are_not_lost(conv_pass: str, x_scale: float, w_scale: float, y_scale: float) -> None:
    case = problem(conv_pass)
    tensors = case.tensors(kind="normal")
    for name, scale in (("x", x_scale), ("w", w_scale), ("y", y_scale)):
        tensors[name] *= scale
    (expected,) = case.reference(tensors).values()
    theirs = (torch_result(case, tensors).double() - expected).abs().max()
    for config in case.configs()[:3]:
        (result,) = case.run(config, tensors).values()
        error = (result.double() - expected).abs().max()
        assert error <= 4 * theirs + 2**-149, config


@pytest.mark.parametrize("conv_pass", PASSES)
@pytest.mark.parametrize(("tiny", "huge"), [(2.0**-120, 2.0**60), (2.0**-126, 2.0**100), (2.0**-140, 2.0**127)])
def test_tiny_numbers_times_huge_ones_are_as_accurate_as_float32(conv_pass: str, tiny: float, huge: float) -> None:
    """The low parts of the tiny ones fall under TF32's range, and the products are numbers like any other."""
    case = problem(conv_pass)
    tensors = case.tensors(kind="normal")
    scales = {"fprop": ("x", "w"), "dgrad": ("y", "w"), "wgrad": ("y", "x")}[conv_pass]
    tensors[scales[0]] *= tiny
    tensors[scales[1]] *= huge / 8  # the largest of some thousand normal numbers is below 8
    (expected,) = case.reference(tensors).values()
    theirs = (torch_result(case, tensors).double() - expected).abs().max()
    for config in case.configs()[:3]:
        (result,) = case.run(config, tensors).values()
        error = (result.double() - expected).abs().max()
        assert error <= 4 * theirs + expected.abs().max() * 2**-23, config


@pytest.mark.parametrize("conv_pass", PASSES)
def test_one_tiny_number_among_ordinary_ones_costs_no_accuracy(conv_pass: str) -> None:
    case = problem(conv_pass)
    tensors = case.tensors(kind="normal")
    for name in ("x", "w", "y"):
        tensors[name][0, 0, 0, 0] = 2.0**-130
    (expected,) = case.reference(tensors).values()
    for config in case.configs()[:2]:
        (result,) = case.run(config, tensors).values()
        assert relative_error(result, expected) < 2**-21, config
