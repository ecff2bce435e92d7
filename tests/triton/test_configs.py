"""Every configuration in every list, not only the one that would be chosen, on small problems with exact integers.

A configuration that is wrong only with eight warps or only with a ragged edge is wrong all the same. The interpreter does not
run warps, so this catches wrong masks, shifts and indices; `test_compilation.py` compiles the same configurations.
"""

from __future__ import annotations

import pytest
import torch

from fastconv.backends.triton.backend import families
from tests.triton.oracle import (
    conv_problem,
    expected_conv,
    inputs_of,
    plan_of,
    pool_problem,
    run,
    sum_problem,
)

#: Kind of arithmetic -> type and flags that choose its list of configurations.
ARITHMETIC = {
    "half": (torch.bfloat16, {}),
    "tf32": (torch.float32, {"allow_tf32": True}),
    "float": (torch.float32, {}),
    "double": (torch.float64, {}),
}
#: Everything at once: two groups, ragged tiles, all four paddings different, stride, dilation.
CONVOLUTION = {
    "x": (2, 6, 7, 6),
    "w": (8, 3, 3, 2),
    "stride": (2, 1),
    "padding": (1, 0, 2, 1),
    "dilation": (1, 2),
    "groups": 2,
}
#: Two channels a group for three filters.
GROUPED = CONVOLUTION | {"x": (1, 8, 7, 6), "w": (12, 2, 3, 2), "groups": 4}


def every_config(kernel: str, problems: dict[str, object]):
    """(id of the problem, problem, configuration) of a family."""
    family = families()[kernel]
    return [
        pytest.param(problem, config, id=f"{kernel}-{name}-{config}")
        for name, problem in problems.items()
        for config in family.configs(problem)
    ]


def conv_problems(conv_pass: str, sizes: dict, arithmetic=ARITHMETIC, **options):
    return {
        f"{name}-{'nhwc' if channels_last else 'nchw'}": conv_problem(
            conv_pass, dtype=dtype, channels_last=channels_last, has_bias=True, **sizes, **flags, **options
        )
        for name, (dtype, flags) in arithmetic.items()
        for channels_last in (False, True)
    }


def check_conv(kernel: str, problem, config, seed: int):
    family = families()[kernel]
    tensors = inputs_of(problem, seed)
    outputs = run(plan_of(problem, family, config), tensors)
    for actual, expected in zip(outputs, expected_conv(problem, tensors), strict=True):
        assert torch.equal(actual.double(), expected)


FPROP = conv_problems("fprop", CONVOLUTION, residual=True, activation="relu")
SOME = {name: ARITHMETIC[name] for name in ("half", "double")}


@pytest.mark.parametrize(("problem", "config"), every_config("conv_fprop", FPROP))
def test_conv_fprop(problem, config, seed):
    check_conv("conv_fprop", problem, config, seed)


def wide_filter(width: int):
    return CONVOLUTION | {"x": (1, 6, 5, 19), "w": (8, 3, 3, width), "dilation": (1, 1)}


def fits_rows(parameters):
    """Filter rows that are deeper than the tile cannot run at all; the others may be wasteful, but must be right."""
    family = families()["conv_fprop_rows"]
    return [p for p in parameters if "depth" not in family.rejection(*p.values)]


@pytest.mark.parametrize(
    ("problem", "config"),
    [
        parameter
        for width in (2, 7, 16)
        for parameter in fits_rows(
            every_config(
                "conv_fprop_rows",
                conv_problems("fprop", CONVOLUTION | {"x": (1, 6, 5, 19), "w": (8, 3, 3, width), "dilation": (1, 1)}),
            )
        )
    ],
)
def test_conv_fprop_rows(problem, config, seed):
    check_conv("conv_fprop_rows", problem, config, seed)


@pytest.mark.parametrize(("problem", "config"), every_config("conv_dgrad", conv_problems("dgrad", CONVOLUTION)))
def test_conv_dgrad(problem, config, seed):
    check_conv("conv_dgrad", problem, config, seed)


@pytest.mark.parametrize(("problem", "config"), every_config("conv_wgrad", conv_problems("wgrad", CONVOLUTION)))
def test_conv_wgrad(problem, config, seed):
    check_conv("conv_wgrad", problem, config, seed)


@pytest.mark.parametrize("conv_pass", ["fprop", "dgrad", "wgrad"])
@pytest.mark.parametrize("arithmetic", ["half", "float"])
def test_packed(conv_pass, arithmetic, seed):
    """Every operand that is read is turned; the configurations are those of the family that it is turned for."""
    dtype, flags = ARITHMETIC[arithmetic]
    problem = conv_problem(conv_pass, dtype=dtype, has_bias=True, **CONVOLUTION, **flags)
    family = families()[f"packed_conv_{conv_pass}"]
    config = family.configs(problem)[-1]
    assert sum("packed" in role for role in family.workspaces(problem, config)) == 2
    check_conv(family.name, problem, config, seed)


@pytest.mark.parametrize(("problem", "config"), every_config("grouped_fprop", conv_problems("fprop", GROUPED, SOME)))
def test_grouped_fprop(problem, config, seed):
    check_conv("grouped_fprop", problem, config, seed)


@pytest.mark.parametrize(("problem", "config"), every_config("grouped_dgrad", conv_problems("dgrad", GROUPED, SOME)))
def test_grouped_dgrad(problem, config, seed):
    check_conv("grouped_dgrad", problem, config, seed)


@pytest.mark.parametrize(("problem", "config"), every_config("grouped_wgrad", conv_problems("wgrad", GROUPED, SOME)))
def test_grouped_wgrad(problem, config, seed):
    check_conv("grouped_wgrad", problem, config, seed)


def layouts(make):
    return {name: make(channels_last) for name, channels_last in (("nchw", False), ("nhwc", True))}


SUMS = layouts(lambda channels_last: sum_problem((3, 9, 5, 7), torch.bfloat16, channels_last))


@pytest.mark.parametrize(("problem", "config"), every_config("channel_sum", SUMS))
def test_channel_sum(problem, config, seed):
    tensors = inputs_of(problem, seed)
    (sums,) = run(plan_of(problem, families()["channel_sum"], config), tensors)
    assert torch.equal(sums.double(), tensors["x"].double().sum((0, 2, 3)))


def pools(pool_pass: str):
    return layouts(
        lambda channels_last: pool_problem(
            pool_pass, (2, 5, 9, 11), torch.float16, (3, 2), (2, 3), (1, 1), (1, 2), channels_last=channels_last
        )
    )


def winners(problem, tensors):
    """PyTorch's maxima and their flat indices."""
    return torch.nn.functional.max_pool2d(
        tensors["x"].float(), problem.kernel, problem.stride, problem.padding, problem.dilation, return_indices=True
    )


def chosen(pool_pass: str, problem):
    """A plan of another pass of the same pooling, for what a test needs besides."""
    family = families()["max_pool_forward" if pool_pass == "forward" else "max_pool_lookup"]
    return plan_of(problem, family, family.configs(problem)[-1])


@pytest.mark.parametrize(("problem", "config"), every_config("max_pool_forward", pools("forward")))
def test_max_pool_forward(problem, config, seed):
    tensors = inputs_of(problem, seed)
    y, offsets = run(plan_of(problem, families()["max_pool_forward"], config), tensors)
    expected, indices = winners(problem, tensors)
    assert torch.equal(y.float(), expected)
    lookup = pools("indices")["nhwc" if problem.x.strides[1] == 1 else "nchw"]
    assert torch.equal(chosen("indices", lookup)(offsets), indices)


@pytest.mark.parametrize(("problem", "config"), every_config("max_pool_backward", pools("backward")))
def test_max_pool_backward(problem, config, seed):
    layout = "nhwc" if problem.x.strides[1] == 1 else "nchw"
    tensors = inputs_of(problem, seed)
    _, indices = winners(problem, tensors)
    _, offsets = run(chosen("forward", pools("forward")[layout]), tensors)
    (dx,) = run(plan_of(problem, families()["max_pool_backward"], config), tensors | {"offsets": offsets})
    expected = torch.zeros(dx.shape, dtype=torch.float64).flatten(2)
    expected.scatter_add_(2, indices.flatten(2), tensors["y"].double().flatten(2))
    assert torch.equal(dx.double(), expected.view(dx.shape))


@pytest.mark.parametrize(("problem", "config"), every_config("max_pool_lookup", pools("gather")))
def test_max_pool_gather(problem, config, seed):
    layout = "nhwc" if problem.x.strides[1] == 1 else "nchw"
    tensors = inputs_of(problem, seed)
    y, offsets = run(chosen("forward", pools("forward")[layout]), tensors)
    (gathered,) = run(plan_of(problem, families()["max_pool_lookup"], config), tensors | {"offsets": offsets})
    assert torch.equal(gathered, y)
