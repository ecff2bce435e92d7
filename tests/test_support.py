"""The helpers of the tests themselves: a rule that lets a wrong result pass is worse than none."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.support import data, layouts
from tests.support.cases import DTYPES, Case
from tests.support.check import make_tensors
from tests.support.layouts import LAYOUTS
from tests.support.references import expected_results, preactivation
from tests.support.sampler import sample
from tests.support.tolerance import Expected, find_inaccuracy

CASE = Case("conv2d", n=2, c=16, h=9, w=10, k=12, r=3, s=3, padding=(1, 1), bias=True)


def expected_output(dtype: str) -> tuple[Case, torch.Tensor, Expected]:
    case = Case.parse(f"{CASE} dtype={dtype}")
    tensors, dy = make_tensors(case)
    expected = expected_results(case, tensors, dy)["output"]
    return case, preactivation(case, tensors).detach(), expected


@pytest.mark.parametrize("dtype", DTYPES)
def test_pytorch_passes_its_own_rule(dtype):
    _, output, expected = expected_output(dtype)
    assert find_inaccuracy(output, expected, "output") == ""


def test_tf32_does_not_pass_as_float32():
    case, _, expected = expected_output("float32")
    tensors, _ = make_tensors(case)

    def as_tf32(tensor):
        return (tensor.detach().view(torch.int32) + 0x1000 & ~0x1FFF).view(torch.float32)

    output = preactivation(case, tensors.map(as_tf32))
    assert "elements are wrong" in find_inaccuracy(output, expected, "output")


def test_float32_does_not_pass_as_float64():
    case, _, expected = expected_output("float64")
    tensors, _ = make_tensors(case)
    output = preactivation(case, tensors.map(torch.Tensor.float)).double()
    assert "elements are wrong" in find_inaccuracy(output, expected, "output")


def test_bfloat16_sums_do_not_pass_as_float32_sums():
    case, _, expected = expected_output("bfloat16")
    tensors, _ = make_tensors(case)
    columns = F.unfold(tensors.x.float(), 3, padding=1).bfloat16()  # [N, C*R*S, P*Q]
    total = torch.zeros(2, 12, 90, dtype=torch.bfloat16)
    for term in range(columns.shape[1]):
        total += tensors.weight.flatten(1)[:, term, None] * columns[:, None, term]
    total += tensors.bias[:, None]
    assert find_inaccuracy(total.unflatten(2, (9, 10)), expected, "output")


def test_truncation_does_not_pass_as_rounding():
    _, _, expected = expected_output("bfloat16")
    truncated = (expected.values.float().view(torch.int32) & ~0xFFFF).view(torch.float32).bfloat16()
    assert "biased" in find_inaccuracy(truncated, expected, "output")


def test_small_error_everywhere_does_not_hide_behind_one_large_error_of_pytorch():
    values = 1 + data.normal((1000,)).double().abs()
    own = values.float()
    own[3] += 2e-6
    expected = Expected(values, torch.float32, torch_results=[own], magnitude=4 * values)
    assert find_inaccuracy(own, expected, "x") == ""
    signs = data.normal((1000,), seed=1).sign()
    assert "norm" in find_inaccuracy((values + 2e-6 * signs).float(), expected, "x")


def test_report_names_the_border_and_the_channels():
    _, output, expected = expected_output("float32")
    output[:, 7, 0, :] += 1.0
    report = find_inaccuracy(output, expected, "output")
    assert "20 of 2160 elements are wrong" in report
    assert "20 of them on the border" in report
    assert "along the second dimension: at 7 of 12" in report


def test_unwritten_elements_are_reported():
    _, output, expected = expected_output("float32")
    output[1, 5, 4, 4] = float("nan")
    assert "1 elements are NaN" in find_inaccuracy(output, expected, "output")


def test_integers_are_compared_exactly():
    case = Case.parse(f"{CASE} data=integers dtype=float16")
    tensors, dy = make_tensors(case)
    for name, expected in expected_results(case, tensors, dy).items():
        assert expected.exact, name
        result = expected.values.half()
        assert find_inaccuracy(result, expected, name) == ""
        result.view(-1)[0] += 0.25
        assert "1 of" in find_inaccuracy(result, expected, name)


def test_garbage_from_pytorch_does_not_widen_the_tolerance():
    _, output, expected = expected_output("float32")
    expected.torch_results.append(torch.full_like(output, 1e30))
    output[0, 0, 0, 0] += 1.0
    assert find_inaccuracy(output, expected, "output")


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (3, 4, 5), (0, 3, 4, 5), (1, 1, 1, 1)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_have_the_shape_and_the_drawn_values(layout, shape):
    draw = data.drawer("normal", data.seeded(1), torch.float32)
    tensor = layouts.build(shape, layout, draw)
    assert tensor.shape == shape
    assert tensor.isfinite().all()


def test_layouts_differ_in_their_strides():
    draw = data.drawer("normal", data.seeded(1), torch.float32)
    tensors = {layout: layouts.build((2, 3, 4, 5), layout, draw) for layout in LAYOUTS}
    strides = {layout: tensor.stride() for layout, tensor in tensors.items() if layout != "offset"}
    assert len(set(strides.values())) == len(strides)
    assert tensors["offset"].data_ptr() % 16 == 4


def test_the_same_seed_and_index_give_the_same_problem_and_the_same_tensors():
    for index in range(30):
        case = sample(5, index)
        assert case == sample(5, index) == Case.parse(str(case))
        (first, first_dy), (second, second_dy) = make_tensors(case), make_tensors(case)
        for one, two in zip([*first.named().values(), first_dy], [*second.named().values(), second_dy], strict=True):
            assert torch.equal(one.detach().nan_to_num(), two.detach().nan_to_num())
    assert len({sample(5, index) for index in range(100)}) == 100


def test_output_sizes_are_pytorchs():
    for index in range(150):
        case = sample(11, index)
        tensors, dy = make_tensors(case)
        assert expected_results(case, tensors, dy)["output"].values.shape == dy.shape, case


def test_fresh_memory_is_nan():
    tensors = [torch.empty(3), torch.empty_strided((2, 3), (1, 2)), torch.empty_like(torch.ones(2, 3))]
    tensors += [torch.ones(1).new_empty(3), torch.ones(1).new_empty_strided((3,), (2,))]
    assert all(tensor.isnan().all() for tensor in tensors)
    assert (torch.empty(3, dtype=torch.uint8) == 255).all()


@pytest.mark.plain_memory
def test_plain_memory_runs_outside_of_the_deterministic_mode():
    assert not torch.are_deterministic_algorithms_enabled()
