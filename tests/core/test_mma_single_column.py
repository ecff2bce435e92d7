"""Operands of one column, whose rows lie further apart than an element: gradients of a sum, and columns cut from an image."""

from __future__ import annotations

import pytest
import torch

from fastconv import emulator
from tests.core.mma_support import Case

TYPES = (torch.float16, torch.bfloat16, torch.float32)


def assert_all_configs_exact(case: Case, tensors: dict[str, torch.Tensor]) -> None:
    expected = case.reference(tensors)
    configs = case.configs()
    assert configs
    for config in configs[::4]:
        with emulator.check(seed=0):
            for name, result in case.run(config, tensors).items():
                assert torch.equal(result.double(), expected[name]), f"{name} of {config} for {case}"


@pytest.mark.parametrize("conv_pass", ["dgrad", "wgrad"])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_expanded_gradient_is_read_as_if_it_were_dense(conv_pass, dtype):
    case = Case(conv_pass, dtype, (2, 16, 12, 3), (16, 16, 3, 3), x_last=False, w_last=False, y_last=False)
    tensors = case.tensors()
    tensors["y"] = torch.ones((), dtype=dtype).expand(case.y)
    assert_all_configs_exact(case, tensors)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_column_cut_from_an_image_is_read_as_if_it_were_dense(dtype):
    case = Case("fprop", dtype, (2, 16, 24, 1), (16, 16, 3, 1), x_last=False, w_last=False, y_last=False)
    tensors = case.tensors()
    image = torch.full((2, 16, 24, 8), float("nan"), dtype=dtype)
    image[..., :1] = tensors["x"]
    tensors["x"] = image[..., ::8]
    assert_all_configs_exact(case, tensors)
