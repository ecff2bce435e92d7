"""Every configuration in every list, not only the one that would be chosen, on small problems with exact integers.

A configuration that is wrong only with eight warps or only with a ragged edge is wrong all the same. The interpreter does not
run warps, so this catches wrong masks, shifts and indices; `test_compilation.py` compiles the same configurations.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch

from fastconv.backends.triton.backend import families
from fastconv.make_problem import make_conv_global_max_problem, make_conv_max_pool_problem
from fastconv.problem import ActivationBackwardProblem, Operand
from fastconv.shapes import dense_strides
from tests.triton.oracle import (
    CPU,
    conv_problem,
    dense,
    every_config,
    expected_conv,
    inputs_of,
    layouts,
    plan_of,
    pool_plan,
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


POINTWISE = {"x": (2, 40, 5, 9), "w": (40, 40, 1, 1)}


@pytest.mark.parametrize(
    ("problem", "config"),
    every_config(
        "pointwise_fprop",
        conv_problems("fprop", POINTWISE, {n: ARITHMETIC[n] for n in ("half", "tf32")}, residual=True),
    ),
)
def test_pointwise_fprop(problem, config, seed):
    family = families()["pointwise_fprop"]
    if problem.x.strides[1] != 1:
        assert "x is not a matrix" in family.rejection(problem, config)
    else:
        check_conv("pointwise_fprop", problem, config, seed)


def test_a_misaligned_operand_of_a_descriptor_is_copied(seed):
    problem = conv_problem("fprop", dtype=torch.float16, channels_last=True, **POINTWISE)
    family = families()["pointwise_fprop"]
    tensors = inputs_of(problem, seed)
    for role in ("x", "w"):
        tensor = tensors[role]
        shifted = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)[1:].as_strided(tensor.shape, tensor.stride(), 1)
        tensors[role] = shifted.copy_(tensor)
        assert shifted.data_ptr() % 16
    (y,) = run(plan_of(problem, family, family.configs(problem)[-1]), tensors)
    assert torch.equal(y.double(), expected_conv(problem, tensors)[0])


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


#: Padding that reaches as far as each mode may, on a map that is not square; two values that products must not spread.
PADDED = {"x": (2, 6, 5, 4), "w": (8, 3, 3, 2), "stride": (2, 1), "dilation": (1, 2), "groups": 2}
MODES = {
    "reflect": {"padding": (4, 0, 2, 3)},
    "replicate": {"padding": (1, 5, 0, 6)},
    "circular": {"padding": (5, 2, 1, 4)},
    "constant": {"padding": (1, 2, 3, 0), "padding_value": 3.0},
}
DEPTHWISE = PADDED | {"w": (6, 1, 3, 2), "groups": 6}
ONE_TAP = PADDED | {"x": (2, 32, 5, 4), "w": (6, 32, 3, 2), "groups": 1}
PASSES = {
    "fprop": (
        ("conv_fprop", PADDED),
        ("conv_fprop_rows", PADDED),
        ("grouped_fprop", PADDED),
        ("grouped_fprop", DEPTHWISE),
    ),
    "dgrad": (("conv_dgrad", PADDED), ("grouped_dgrad", PADDED), ("grouped_dgrad", DEPTHWISE)),
    "wgrad": (("conv_wgrad", PADDED), ("conv_wgrad", ONE_TAP), ("grouped_wgrad", PADDED), ("grouped_wgrad", DEPTHWISE)),
}


@pytest.mark.parametrize("channels_last", [False, True], ids=["nchw", "nhwc"])
@pytest.mark.parametrize(
    ("conv_pass", "mode"),
    # A constant has no gradient: such a dgrad says zeros.
    [(conv_pass, mode) for conv_pass in PASSES for mode in MODES if (conv_pass, mode) != ("dgrad", "constant")],
)
def test_padding_modes(conv_pass, mode, channels_last, seed):
    for kernel, sizes in PASSES[conv_pass]:
        family = families()[f"folded_{kernel}" if conv_pass == "dgrad" else kernel]
        options = {"padding_mode": mode, "channels_last": channels_last, "has_bias": True} | MODES[mode]
        dtype = torch.bfloat16 if channels_last else torch.float32
        problem = conv_problem(conv_pass, dtype=dtype, **sizes, **options)
        runnable = [config for config in family.configs(problem) if "depth" not in family.rejection(problem, config)]
        check_conv(family.name, problem, runnable[-1], seed)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 0.1])
@pytest.mark.parametrize("conv_pass", ["fprop", "wgrad"])
def test_padding_values_reach_what_they_touch_and_nothing_else(conv_pass, value, seed):
    """An infinite value times the zeros that fill up a tile would be NaN; 0.1 must not pass through float32."""
    options = {"padding": (1, 0, 0, 0), "padding_mode": "constant", "padding_value": value}
    for kernel, sizes in PASSES[conv_pass]:
        family = families()[kernel]
        problem = conv_problem(conv_pass, dtype=torch.float64, **sizes, **options)
        tensors = inputs_of(problem, seed)
        expected = expected_conv(problem, tensors)[0]
        for config in family.configs(problem)[-1:]:
            actual = run(plan_of(problem, family, config), tensors)[0]
            torch.testing.assert_close(actual, expected, rtol=1e-14, atol=1e-14, equal_nan=True)


SUMS = layouts(lambda channels_last: sum_problem((3, 9, 5, 7), torch.bfloat16, channels_last))


@pytest.mark.parametrize(("problem", "config"), every_config("channel_sum", SUMS))
def test_channel_sum(problem, config, seed):
    tensors = inputs_of(problem, seed)
    (sums,) = run(plan_of(problem, families()["channel_sum"], config), tensors)
    assert torch.equal(sums.double(), tensors["x"].double().sum((0, 2, 3)))


def activation_problem(dy_channels_last: bool):
    """dz lies as `saved` does, channels-last; dy may lie otherwise."""
    sizes = (2, 5, 17, 13)
    saved = dense(sizes, True)
    return ActivationBackwardProblem(torch.float32, dense(sizes, dy_channels_last), saved, saved, "leaky_relu", CPU)


@pytest.mark.parametrize(("problem", "config"), every_config("activation_backward", layouts(activation_problem)))
def test_activation_backward(problem, config, seed):
    tensors = inputs_of(problem, seed)
    (dz,) = run(plan_of(problem, families()["activation_backward"], config), tensors)
    assert torch.equal(dz, torch.where(tensors["saved"] > 0, tensors["dy"], tensors["dy"] * 0.01))


#: Overlapping windows over a padded convolution of two groups, on a map with ragged tiles.
FUSED = {
    "w": Operand((6, 2, 2, 2), dense_strides((6, 2, 2, 2), False)),
    "stride": (1, 1),
    "padding": (1, 0, 0, 1),
    "dilation": (1, 1),
    "groups": 2,
    "has_bias": True,
    "activation": "relu",
}
WINDOW = {"pool_kernel": (3, 2), "pool_stride": (2, 1), "pool_padding": (1, 0)}


def fused_problems(make, **options):
    """Every kind of arithmetic with channels innermost, and two of them with pixels innermost."""
    return {
        f"{name}-{'nhwc' if channels_last else 'nchw'}": make(
            ARITHMETIC[name][0], CPU, x=dense((2, 4, 5, 6), channels_last), **FUSED, **ARITHMETIC[name][1], **options
        )
        for channels_last, names in ((True, ARITHMETIC), (False, SOME))
        for name in names
    }


def check_fused(kernel: str, problem, config, seed: int):
    tensors = inputs_of(problem, seed)
    (scores,) = expected_conv(problem.conv, inputs_of(problem.conv, seed) | tensors)
    pool = problem.pool
    expected, indices = torch.nn.functional.max_pool2d(
        scores, pool.kernel, pool.stride, pool.padding, return_indices=True
    )
    y, places = run(plan_of(problem, families()[kernel], config), tensors)
    assert torch.equal(y.double(), expected.view(y.shape))
    if kernel == "conv_max_pool":
        places = pool_plan(dataclasses.replace(pool, pool_pass="indices"))(places)
    assert torch.equal(places, indices.view(y.shape))


@pytest.mark.parametrize(
    ("problem", "config"), every_config("conv_max_pool", fused_problems(make_conv_max_pool_problem, **WINDOW))
)
def test_conv_max_pool(problem, config, seed):
    check_fused("conv_max_pool", problem, config, seed)


@pytest.mark.parametrize(
    ("problem", "config"), every_config("conv_global_max", fused_problems(make_conv_global_max_problem))
)
def test_conv_global_max(problem, config, seed):
    check_fused("conv_global_max", problem, config, seed)
