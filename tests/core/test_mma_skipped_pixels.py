"""1x1 convolutions with a stride, x not channels-last: pixels that the stride skips are neither converted nor read."""

from __future__ import annotations

import pytest
import torch

from fastconv import emulator
from tests.core.mma_support import Case

TYPES = (torch.float16, torch.bfloat16, torch.float32)


@pytest.mark.parametrize("conv_pass", ["fprop", "dgrad", "wgrad"])
@pytest.mark.parametrize("stride", [(2, 2), (1, 3), (3, 1)])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_results_are_exact(conv_pass: str, stride: tuple[int, int], dtype: torch.dtype) -> None:
    planes = {"x_last": False, "w_last": False, "y_last": False}
    for groups, padding in ((1, (0, 0, 0, 0)), (2, (0, 0, 0, 0)), (1, (1, 0, 2, 1))):
        w = (32, 16 // groups, 1, 1)
        case = Case(conv_pass, dtype, (2, 16, 9, 12), w, stride, padding, groups=groups, bias=True, **planes)
        tensors = case.tensors()
        expected = case.reference(tensors)
        configs = case.configs()
        assert configs
        for config in configs[::5]:
            with emulator.check(seed=0):
                for name, result in case.run(config, tensors).items():
                    assert torch.equal(result.double(), expected[name]), f"{name} of {config} for {case}"


@pytest.mark.parametrize("conv_pass", ["fprop", "wgrad"])
def test_parts_of_images_are_exact(conv_pass: str) -> None:
    case = Case(
        conv_pass,
        torch.float16,
        (5, 64, 16, 16),
        (64, 64, 1, 1),
        (2, 2),
        x_last=False,
        most_workspace_bytes=64 << 10,
    )
    tensors = case.tensors()
    config = case.configs()[0]
    compiled = emulator.module()
    assert compiled.Plan(case.problem(compiled, tensors), case.kernel, config).details["parts"] > 1
    for name, result in case.run(config, tensors).items():
        assert torch.equal(result.double(), case.reference(tensors)[name])


@pytest.mark.parametrize("conv_pass", ["fprop", "wgrad"])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_only_pixels_that_are_read_are_converted(conv_pass: str, dtype: torch.dtype) -> None:
    case = Case(conv_pass, dtype, (2, 64, 32, 32), (64, 64, 1, 1), (2, 2), x_last=False)
    config = next(config for config in case.configs() if "_k" not in config)
    with emulator.count() as counters:
        case.run(config, case.tensors())
    (turned,) = (launch for launch in counters.launches if launch.kernel == "to_channels_last")
    read = 2 * 64 * 16 * 16 * dtype.itemsize
    assert turned.total("channels_last", "store").bytes == read
    # Every other element of the rows that are read, by whole sectors.
    assert turned.total("source", "load").bytes == turned.total("source", "load").sector_bytes == 2 * read
    assert turned.widths("source", "load").keys() == {16}
    assert turned.total("tile", "store").bank_conflicts == turned.total("tile", "load").bank_conflicts == 0
