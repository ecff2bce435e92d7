"""Predicted times: before anything is measured, the depthwise kernels come first for every depthwise layer of real networks.

What is predicted is not measured: the order is what the bytes and the disassembled loops of the kernels say."""

from __future__ import annotations

import itertools

import pytest
import torch

from fastconv import emulator
from fastconv.bench.suite import Layer, load_suite
from tests.core.family_support import FamilyCase
from tests.core.test_depthwise import DTYPES, depthwise, same

SUITES = ("mobilenet_v2", "efficientnet_b0", "convnext_t", "replknet31b")
GPUS = {"A100": (80, 108), "H100, H200": (90, 132)}  # capability, multiprocessors


def assert_comes_first(case: FamilyCase) -> None:
    compiled = emulator.module()
    legal = [one for one in compiled.candidates(case.problem(compiled)) if not one.reason]
    first = min(legal, key=lambda one: one.details["predicted_seconds"])
    assert first.kernel == case.kernel, (case, first.kernel, first.config)


def case_of(layer: Layer, batch: int, conv_pass: str, dtype: torch.dtype, **options: object) -> FamilyCase:
    assert layer.filters == layer.channels == layer.groups
    top, left = layer.padding
    return depthwise(
        conv_pass,
        dtype,
        (batch, layer.channels, *layer.size),
        layer.kernel,
        stride=layer.stride,
        padding=(top, top, left, left),
        dilation=layer.dilation,
        **options,
    )


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("suite", SUITES)
def test_every_depthwise_layer_of_a_suite(suite: str, channels_last: bool, gpu: str) -> None:
    capability, multiprocessors = GPUS[gpu]
    loaded = load_suite(suite)
    layers = [layer for layer in loaded.layers if layer.family == "depthwise"]
    assert layers
    for layer in layers:
        for conv_pass, dtype in itertools.product(("fprop", "dgrad", "wgrad"), DTYPES):
            case = case_of(
                layer,
                loaded.batch,
                conv_pass,
                dtype,
                channels_last=channels_last,
                allow_tf32=dtype == torch.float32,
                capability=capability,
                multiprocessors=multiprocessors,
            )
            assert_comes_first(case)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("conv_pass", ["fprop", "dgrad", "wgrad"])
def test_tuned_filters(conv_pass: str, channels_last: bool, dtype: torch.dtype) -> None:
    for stride, sizes in ((1, (3, 5, 7, 9, 13, 31)), (2, (3, 5))):
        for r in sizes:
            case = depthwise(
                conv_pass,
                dtype,
                (32, 96, 56, 56),
                (r, r),
                channels_last=channels_last,
                padding=same((r, r)),
                stride=(stride, stride),
                capability=90,
                multiprocessors=132,
            )
            assert_comes_first(case)


@pytest.mark.parametrize("conv_pass", ["fprop", "wgrad"])
def test_products_on_tensor_cores_take_as_long_as_each_gpu_takes(conv_pass: str) -> None:
    """2 clocks on sm_80, 1.6 on sm_90, 4 on sm_89, with the same number of multiprocessors."""
    seconds = {}
    for capability in (80, 89, 90):
        case = depthwise(
            conv_pass,
            torch.float16,
            (32, 128, 28, 28),
            (31, 31),
            padding=same((31, 31)),
            capability=capability,
            multiprocessors=108,
        )
        (band,) = [one for one in case.candidates() if one.config == "band"]
        assert not band.reason
        seconds[capability] = band.details["predicted_seconds"]
    # The rest, instructions and shared memory, takes twice as long on sm_80 or the same.
    assert 1.1 < seconds[80] / seconds[90] < 1.7
    assert 1.2 < seconds[89] / seconds[80] < 2
