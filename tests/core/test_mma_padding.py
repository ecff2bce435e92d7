"""Padding modes in the tensor-core kernels of every pass, against float64 of a padded copy."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

import fastconv
from fastconv import emulator
from tests.core.geometries import BEYOND, MODES, PADDED, Geometry
from tests.core.mma_support import Case, assert_exact

PASSES = ("fprop", "dgrad", "wgrad")
TYPES = [
    pytest.param(torch.float16, False, id="float16"),
    pytest.param(torch.bfloat16, False, id="bfloat16"),
    pytest.param(torch.float32, True, id="tf32"),
    pytest.param(torch.float32, False, id="split_tf32"),
]
#: Zeros are here too: the same geometries go the way that has no maps.
CASES = [(mode, name) for mode in ("zeros", *MODES) for name in PADDED] + [
    (mode, name) for mode in ("zeros", "replicate", "constant") for name in BEYOND
]


def case_of(conv_pass: str, mode: str, geometry: Geometry, dtype: torch.dtype = torch.float16, **rest: object) -> Case:
    """The geometry with as many channels a group as tensor cores take, which are not whole chunks without groups."""
    unit = 8 if geometry.groups > 1 else 5
    groups = min(geometry.groups, 3)
    return Case(
        conv_pass,
        dtype,
        (geometry.batch, groups * unit, *geometry.size),
        (groups * unit, unit, *geometry.kernel),
        stride=geometry.stride,
        padding=geometry.padding,
        dilation=geometry.dilation,
        groups=groups,
        padding_mode=mode,
        padding_value=-3.0 if mode == "constant" else 0.0,
        **({"bias": True} | rest),
    )


@pytest.mark.parametrize("conv_pass", PASSES)
@pytest.mark.parametrize(("mode", "name"), CASES)
def test_padding_is_what_pytorch_pads_with(mode: str, name: str, conv_pass: str) -> None:
    geometry = (PADDED | BEYOND)[name]
    case = case_of(conv_pass, mode, geometry)
    configs = case.configs()
    with emulator.check(seed=len(name)):
        for config in {configs[0], *[config for config in configs if "_k" in config][:1]}:
            assert_exact(case, config)


@pytest.mark.parametrize(("dtype", "allow_tf32"), TYPES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("conv_pass", PASSES)
def test_every_type_and_layout(conv_pass: str, mode: str, dtype: torch.dtype, allow_tf32: bool) -> None:
    """Whole chunks, channels-last; then pixels of unaligned pieces; then NCHW, which is turned."""
    whole = Case(
        conv_pass,
        dtype,
        (2, 16, 7, 9),
        (24, 16, 3, 3),
        stride=(1, 2),
        padding=(1, 2, 0, 3),
        bias=True,
        residual=conv_pass == "fprop",
        activation="identity" if conv_pass == "wgrad" else "relu",
        allow_tf32=allow_tf32,
        padding_mode=mode,
        padding_value=2.0 if mode == "constant" else 0.0,
    )
    unaligned = dataclasses.replace(whole, x=(2, 3, 7, 9), w=(5, 3, 3, 3))
    turned = dataclasses.replace(unaligned, x_last=False, w_last=False, y_last=False)
    for case in (whole, unaligned, turned):
        assert_exact(case, case.configs()[0])


@pytest.mark.parametrize(("dtype", "allow_tf32"), TYPES)
@pytest.mark.parametrize("conv_pass", PASSES)
def test_every_configuration_takes_padding(conv_pass: str, dtype: torch.dtype, allow_tf32: bool) -> None:
    """More rows, columns and terms than the smallest tiles; a repeated edge and corner in every image."""
    case = Case(
        conv_pass,
        dtype,
        (1, 40, 9, 8),
        (72, 40, 3, 3),
        padding=(1, 2, 0, 1),
        allow_tf32=allow_tf32,
        padding_mode="reflect",
    )
    for config in case.configs():
        assert_exact(case, config)


@pytest.mark.parametrize("mode", ["zeros", *MODES])
def test_a_layer_of_many_channels_is_given_to_tensor_cores_in_every_pass(mode: str) -> None:
    x, w = (
        torch.ones(size, dtype=torch.float16).contiguous(memory_format=torch.channels_last).requires_grad_()
        for size in ((8, 64, 28, 28), (64, 64, 3, 3))
    )
    options = {"padding_mode": mode, "padding_value": 1.0 if mode == "constant" else 0.0, "backend": "cuda"}
    calls = fastconv.explain(lambda: fastconv.conv2d(x, w, padding=1, **options).sum().backward())
    assert [call.chosen.kernel for call in calls] == ["mma_fprop", "mma_dgrad", "mma_wgrad"]


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_a_folded_gradient_is_rounded_once_and_repeats_bit_for_bit(mode: str) -> None:
    case = Case("dgrad", torch.bfloat16, (1, 16, 5, 5), (24, 16, 3, 3), padding=(2, 2, 2, 2), padding_mode=mode)
    tensors = case.tensors(kind="normal")
    (expected,) = case.reference(tensors).values()
    for config in case.configs():
        (first,) = case.run(config, tensors).values()
        with emulator.check(seed=3):
            (second,) = case.run(config, tensors).values()
        assert torch.equal(first, second)
        # Half a step of bfloat16, and float32's error of the sum: a second rounding to bfloat16 would show.
        half_a_step = 2.0 ** (expected.abs().log2().floor() - 8)
        assert ((first.double() - expected).abs() <= half_a_step + 2.0**-16).all()


def test_gradients_that_do_not_fit_the_workspace_are_folded_in_parts_of_whole_images() -> None:
    whole = Case("dgrad", torch.float16, (5, 16, 9, 9), (8, 16, 3, 3), padding=(1, 1, 1, 1), padding_mode="circular")
    of_image = 11 * 11 * 16 * 4
    case = dataclasses.replace(whole, most_workspace_bytes=5 * of_image)
    (config, *_) = case.configs()
    compiled = emulator.module()
    plan = compiled.Plan(case.problem(compiled), case.kernel, config)
    assert plan.details["parts"] == 3
    assert plan.workspace_bytes <= case.most_workspace_bytes
    assert_exact(case, config)
    refused = dataclasses.replace(whole, most_workspace_bytes=of_image)
    assert {one.reason for one in refused.candidates()} == {
        "an image's gradient by the padded x, and turning it to channels-last would take more than the "
        f"{of_image} bytes of workspace that there may be"
    }


@pytest.mark.parametrize("value", [math.inf, math.nan])
@pytest.mark.parametrize(("dtype", "allow_tf32"), TYPES)
@pytest.mark.parametrize("conv_pass", ["fprop", "wgrad"])
def test_a_constant_that_is_not_finite_stays_where_it_stands(
    conv_pass: str, dtype: torch.dtype, allow_tf32: bool, value: float
) -> None:
    """Channels that fill a chunk up, and terms that fill a slice up, have no constant."""
    case = Case(
        conv_pass,
        dtype,
        (1, 5, 4, 4),
        (3, 5, 2, 2),
        padding=(1, 0, 0, 1),
        allow_tf32=allow_tf32,
        padding_mode="constant",
        padding_value=value,
    )
    for one in (case, dataclasses.replace(case, x_last=False)):
        tensors = one.tensors()
        for name in ("w", "y"):
            tensors[name] = tensors[name].abs() + 1  # no zero that an infinity may meet
        ((name, expected),) = one.reference(tensors).items()
        result = one.run(one.configs()[0], tensors)[name]
        assert torch.equal(result.isfinite(), expected.isfinite())
        torch.testing.assert_close(result, expected.to(dtype), rtol=0, atol=0, equal_nan=True)


def test_the_copies_of_a_padded_slice_have_no_bank_conflicts() -> None:
    for conv_pass in ("fprop", "wgrad"):
        case = Case(
            conv_pass, torch.float16, (1, 64, 8, 16), (64, 64, 3, 3), padding=(1, 1, 1, 1), padding_mode="replicate"
        )
        for config in [config for config in case.configs() if "_k" not in config]:
            with emulator.count() as counters:
                case.run(config, case.tensors())
            launch = next(launch for launch in counters.launches if launch.kernel == case.kernel)
            copies = [access for access in launch.by_line() if "loaders.cuh" in access.line or "border" in access.line]
            assert {access.kind for access in copies if access.target == "dynamic shared memory"} >= {"load"}
            assert not [access for access in copies if access.bank_conflicts], config
