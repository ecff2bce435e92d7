"""The loops of `planes` that are unrolled, in both of their forms: where half of the filter is padding, pairs of elements lie
in one word and nothing but relu follows the sums, whole rows are known to exist and sums stay in their registers; elsewhere
everything is asked for. A shift of all operands by one element of 16 bits takes a problem from one form to the other."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from fastconv import emulator
from fastconv.activation import APPLY
from tests.core.family_support import FamilyCase
from tests.core.mma_support import assert_exact
from tests.core.test_depthwise import DTYPES, depthwise, same

FILTERS = [(3, 1), (5, 1), (7, 1), (9, 1), (3, 2), (5, 2)]  # rows and columns, stride


def planes(
    conv_pass: str, dtype: torch.dtype, size: tuple[int, int, int, int], r: int, stride: int, **options: object
) -> FamilyCase:
    options = {"padding": same((r, r)), "bias": True, "capability": 90} | options
    return depthwise(conv_pass, dtype, size, (r, r), stride=(stride, stride), **options)


def shifted(tensor: torch.Tensor, elements: int) -> torch.Tensor:
    """The same values, so many elements behind a multiple of 16 bytes."""
    memory = torch.empty(tensor.numel() + 32, dtype=tensor.dtype)
    start = -memory.data_ptr() % 16 // tensor.element_size() + elements
    return memory[start : start + tensor.numel()].view(tensor.shape).copy_(tensor)


def run_shifted(case: FamilyCase, elements: int, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    (result,) = case.run("planes", {name: shifted(tensor, elements) for name, tensor in tensors.items()}).values()
    return result


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("r", "stride"), FILTERS)
@pytest.mark.parametrize("conv_pass", ["fprop", "dgrad"])
def test_wherever_operands_begin_the_outputs_are_the_same_bits(
    conv_pass: str, r: int, stride: int, dtype: torch.dtype
) -> None:
    for activation in ("identity", "relu"):
        # A lot of small planes, a plane in pieces, and rows of more columns than a warp has.
        for size, multiprocessors in (((2, 12, 12, 8), 1), ((1, 2, 44, 28), 108), ((1, 1, 10, 140), 1)):
            case = planes(conv_pass, dtype, size, r, stride, activation=activation, multiprocessors=multiprocessors)
            tensors = case.tensors(kind="normal")
            aligned = run_shifted(case, 0, tensors)
            (expected,) = case.reference(tensors).values()
            assert torch.allclose(aligned.double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-5)
            for elements in range(1, 16 // dtype.itemsize):
                assert torch.equal(run_shifted(case, elements, tensors), aligned), (case, elements)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(("r", "stride"), FILTERS)
@pytest.mark.parametrize("conv_pass", ["fprop", "dgrad"])
def test_no_form_of_a_loop_touches_what_it_should_not(conv_pass: str, r: int, stride: int, dtype: torch.dtype) -> None:
    for size, multiprocessors in (((2, 5, 12, 8), 1), ((1, 1, 40, 20), 108), ((1, 2, 7, 70), 1)):
        case = planes(conv_pass, dtype, size, r, stride, activation="relu", multiprocessors=multiprocessors)
        tensors = case.tensors()
        (expected,) = case.reference(tensors).values()
        for elements in range(16 // dtype.itemsize):
            with emulator.check(elements):
                assert torch.equal(run_shifted(case, elements, tensors).double(), expected), (case, elements)


@pytest.mark.parametrize(("r", "stride"), FILTERS)
@pytest.mark.parametrize("conv_pass", ["fprop", "dgrad"])
def test_any_number_of_rows_is_exact(conv_pass: str, r: int, stride: int) -> None:
    """Turns of the unrolled loop end with the rows that are known to exist, for every lane of a warp."""
    for rows in range(1, 26):
        for below in (0, r // 2, r // 2 + 3):
            case = planes(conv_pass, torch.float16, (1, 3, rows, 8), r, stride, padding=(r // 2, below, r // 2, r // 2))
            if min(case.y) >= 1:
                assert_exact(case, "planes", seed=rows)


@pytest.mark.parametrize(("r", "stride"), FILTERS)
@pytest.mark.parametrize("conv_pass", ["fprop", "dgrad"])
def test_any_number_of_columns_is_exact(conv_pass: str, r: int, stride: int) -> None:
    for columns in range(1, 40):
        for right in (0, r // 2, r // 2 + 2):
            case = planes(
                conv_pass, torch.bfloat16, (2, 3, 11, columns), r, stride, padding=(r // 2, r // 2, r // 2, right)
            )
            if min(case.y) >= 1:
                assert_exact(case, "planes", seed=columns)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", APPLY)
def test_every_activation_with_and_without_a_residual(activation: str, dtype: torch.dtype) -> None:
    for conv_pass, stride in (("fprop", 1), ("fprop", 2), ("dgrad", 1), ("dgrad", 2)):
        for columns in (12, 13):
            for residual in (False, True):
                if residual and conv_pass == "dgrad":
                    continue
                plain = planes(conv_pass, dtype, (2, 4, 11, columns), 3, stride, residual=residual)
                tensors = plain.tensors(kind="normal")
                (before,) = plain.reference(tensors).values()
                expected = APPLY[activation](before)
                case = dataclasses.replace(plain, activation=activation)
                (result,) = case.run("planes", tensors).values()
                error = (result.double() - expected).abs()
                assert (error <= torch.finfo(dtype).eps * expected.abs() + 1e-5).all(), case


@pytest.mark.parametrize("elements", [0, 1])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_relu_keeps_nan_and_positive_infinity(dtype: torch.dtype, elements: int) -> None:
    """In whole chunks and in the ends of rows, which are stored element by element."""
    case = planes("fprop", dtype, (1, 3, 6, 10), 3, 1, activation="relu", bias=False)
    for value, expected in ((torch.nan, torch.nan), (torch.inf, torch.inf), (-torch.inf, 0.0)):
        for place in range(0, 60, 7):
            tensors = case.tensors()
            tensors["x"].zero_().view(3, 60)[1, place] = value
            tensors["w"].fill_(1.0)
            result = run_shifted(case, elements, tensors)
            near = F.conv2d((tensors["x"] != 0).double(), torch.ones(3, 1, 3, 3).double(), padding=1, groups=3) > 0
            assert torch.equal(
                result.double().nan_to_num(-1), near.double().mul(expected).where(near, 0.0).nan_to_num(-1)
            )
