"""conv2d_max_pool2d and conv2d_global_max against PyTorch's own functions in float64, on every backend."""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch

import fastconv
from tests.fused.support import Case
from tests.support.layouts import LAYOUTS

POOLS = (((2, 2), (2, 2), (0, 0)), ((3, 3), (2, 2), (1, 1)), None)
BACKENDS = ("aten", "cuda", "triton")
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@pytest.fixture(params=BACKENDS)
def backend(request) -> str:
    return request.param


@pytest.mark.parametrize("pool", POOLS, ids=["2x2s2", "3x3s2p1", "global"])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
def test_values_and_winners(dtype, pool, backend):
    Case(dtype=dtype, pool=pool).assert_exact(backend)


@pytest.mark.parametrize("pool", POOLS, ids=["2x2s2", "3x3s2p1", "global"])
@pytest.mark.parametrize("activation", ["relu", None])
def test_nan_infinities_and_ties_as_pytorch_on_the_cpu(activation, pool, backend):
    """Half of the inputs are NaN or infinite, so whole windows are -inf or NaN; all others are equal by the dozen."""
    for x, w in (((2, 1, 12, 13), (3, 1, 1, 1)), ((1, 8, 9, 8), (8, 8, 1, 1))):
        case = Case(x=x, w=w, padding=(0, 0), activation=activation, pool=pool, data="special")
        case.assert_exact(backend)


@pytest.mark.parametrize("pool", POOLS, ids=["2x2s2", "3x3s2p1", "global"])
def test_a_map_of_minus_infinity_has_its_first_element_for_winner(pool, backend):
    x = torch.full((1, 8, 6, 6), float("-inf"))
    case = Case(x=(1, 8, 6, 6), w=(8, 1, 1, 1), padding=(0, 0), groups=8, activation=None, pool=pool)
    w = torch.ones(8, 1, 1, 1)
    y, indices = case.call(x, w, None, backend=backend)
    expected = case.reference(x, w, None)
    assert torch.equal(y, expected[0])
    assert torch.equal(indices, expected[1])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pool", POOLS, ids=["2x2s2", "3x3s2p1", "global"])
def test_inputs_of_any_strides(pool, layout):
    Case(pool=pool, x_layout=layout, dtype=torch.float16).assert_exact("cuda")
    Case(pool=pool, w_layout=layout).assert_exact("cuda")


def random_case(seed: int) -> Case:
    """Any geometry that PyTorch accepts; half of them such that the tensor-core kernels fit."""
    choose = random.Random(seed)
    while True:
        groups = choose.choice((1, 1, 1, 2))
        channels, filters = (choose.choice((8, 16, 3, 5)) * groups for _ in (0, 1))
        window = (choose.randint(1, 4), choose.randint(1, 4))
        any_pool = (
            window,
            (choose.randint(1, 3), choose.randint(1, 3)),
            tuple(choose.randint(0, n // 2) for n in window),
        )
        case = Case(
            x=(choose.randint(1, 3), channels, choose.randint(3, 20), choose.randint(3, 20)),
            w=(filters, channels // groups, choose.randint(1, 4), choose.randint(1, 4)),
            dtype=choose.choice((torch.float16, torch.bfloat16, torch.float32, torch.float64)),
            stride=(choose.randint(1, 2), choose.randint(1, 3)),
            padding=(choose.randint(0, 2), choose.randint(0, 2)),
            dilation=(choose.randint(1, 2), choose.randint(1, 2)),
            groups=groups,
            bias=choose.random() < 0.5,
            activation=choose.choice(("relu", "leaky_relu", None)) if choose.random() < 0.9 else None,
            pool=choose.choice((*POOLS, any_pool)),
            x_layout=choose.choice(("contiguous", "channels_last", "channels_last", "sliced", "offset")),
            w_layout=choose.choice(("contiguous", "channels_last")),
            seed=seed,
        )
        case = dataclasses.replace(case, activation="relu" if case.activation == "leaky_relu" else case.activation)
        kernel = (1, 1) if case.pool is None else case.pool[0]
        padding = (0, 0) if case.pool is None else case.pool[2]
        if all(size + 2 * pad >= taps for size, pad, taps in zip(case.map_size, padding, kernel, strict=True)) and (
            min(case.map_size) >= 1
        ):
            return case


@pytest.mark.parametrize("number", range(40))
def test_random_geometries_on_the_cuda_kernels(number, request):
    random_case(1000 * request.config.getoption("--seed") + number).assert_exact("cuda")


def test_unbatched_and_empty_batches(backend):
    x, w = torch.randn(8, 9, 9), torch.randn(16, 8, 3, 3)
    assert fastconv.conv2d_max_pool2d(x, w, backend=backend).shape == (16, 3, 3)
    y, indices = fastconv.conv2d_global_max(x, w, return_indices=True, backend=backend)
    assert y.shape == indices.shape == (16,)
    assert fastconv.conv2d_max_pool2d(x.new_empty(0, 8, 9, 9), w, backend=backend).shape == (0, 16, 3, 3)
    assert fastconv.conv2d_global_max(x.new_empty(0, 8, 9, 9), w, backend=backend).shape == (0, 16)


def test_outputs_are_channels_last_where_an_input_is(backend):
    x = torch.randn(2, 8, 8, 8).contiguous(memory_format=torch.channels_last)
    w = torch.randn(16, 8, 3, 3)
    y = fastconv.conv2d_max_pool2d(x, w, backend=backend)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert fastconv.conv2d_max_pool2d(x.contiguous(), w, backend=backend).is_contiguous()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"pool_kernel_size": 0}, RuntimeError, "pool_kernel_size is 0"),
        ({"pool_kernel_size": "2"}, TypeError, "pool_kernel_size"),
        ({"pool_stride": -1}, RuntimeError, "pool_stride is -1"),
        ({"pool_padding": 2}, RuntimeError, r"pool_padding is \(2, 2\); .*at most half of pool_kernel_size"),
        ({"pool_kernel_size": 99}, RuntimeError, "too small"),
        ({"activation": "softmax"}, ValueError, "activation is 'softmax'"),
        ({"groups": 3}, RuntimeError, "groups=3"),
        ({"bias": torch.zeros(3)}, RuntimeError, "bias"),
        ({"input": torch.zeros(2, 0, 8, 8), "weight": torch.zeros(4, 0, 3, 3)}, RuntimeError, "non-batch|no channels"),
        ({"input": torch.zeros(8, 8)}, RuntimeError, "3D .* or 4D"),
        ({"weight": torch.zeros(16, 8, 30, 3)}, RuntimeError, "Kernel size can't be greater"),
        ({"weight": torch.zeros(16, 8, 3, 3).double()}, RuntimeError, "should be the same"),
        ({"backend": "cudnn"}, ValueError, "backend is 'cudnn'"),
    ],
)
def test_bad_input_is_refused_with_the_argument_named(change, error, words):
    arguments = {"input": torch.zeros(2, 8, 8, 8), "weight": torch.zeros(16, 8, 3, 3)} | change
    with pytest.raises(error, match=words):
        fastconv.conv2d_max_pool2d(**arguments)
    if not any(name.startswith("pool") for name in change):
        with pytest.raises(error, match=words):
            fastconv.conv2d_global_max(**arguments)
