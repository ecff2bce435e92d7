"""The public API with backend="triton" on the problems and by the rules that every backend is tested with."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import fastconv
from tests.conformance.test_gradients import CONVOLUTIONS, POOLS, TRANSPOSED, distinct, leaf
from tests.conformance.test_padding import MODES, padded_leaves
from tests.conformance.test_padding import case as padded_case
from tests.fused.support import Case
from tests.support.check import assert_case
from tests.support.curated import CURATED, with_options
from tests.support.data import drawer, seeded
from tests.support.layouts import LAYOUTS


def triton_case(name: str, seed: int, **options):
    return with_options(CURATED[name], backend="triton", seed=seed % 1000, **options)


@pytest.mark.parametrize("name", CURATED)
def test_curated_problems_in_float32(name, seed):
    assert_case(triton_case(name, seed))


#: Windows of 256 elements take the interpreter many seconds; float32 has them.
SMALLER = [name for name in CURATED if name not in ("p_byte_offsets_full", "p_int32_offsets")]


@pytest.mark.parametrize("name", SMALLER)
def test_curated_problems_in_bfloat16_with_exact_integers_and_channels_last(name, seed):
    layouts = {"x_layout": "channels_last", "w_layout": "channels_last", "dy_layout": "channels_last"}
    assert_case(triton_case(name, seed, dtype="bfloat16", data="integers", **layouts))


SOME = ("all_at_once", "depthwise_multiplier", "resnet_3x3", "t_dilated", "p_ceil", "residual_and_relu")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("name", SOME)
def test_other_types(name, dtype, seed):
    assert_case(triton_case(name, seed, dtype=dtype))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["odd_stride", "depthwise", "t_grouped", "p_resnet"])
def test_inputs_and_gradients_in_every_layout(name, layout, seed):
    options = {"x_layout": layout, "dy_layout": layout, "data": "integers"}
    if not name.startswith("p_"):
        options["w_layout"] = layout
    assert_case(triton_case(name, seed, **options))


@pytest.mark.parametrize("name", ["all_at_once", "t_dilated", "p_dilated", "depthwise"])
def test_64_bit_indices(name, seed):
    assert_case(triton_case(name, seed, index_bits=64))


@pytest.fixture
def draw(seed):
    return drawer("normal", seeded(seed), torch.float64)


def check_both_orders(function, inputs):
    assert gradcheck(function, inputs, fast_mode=True)
    assert gradgradcheck(function, inputs, gen_non_contig_grad_outputs=True, fast_mode=True)


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "zeros"])
@pytest.mark.parametrize("name", ["one_sided", "strided", "depthwise"])
def test_padding_modes(name, mode):
    assert_case(padded_case(name, mode, data="integers", backend="triton"))


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "zeros"])
def test_gradients_of_padding_modes(mode, seed):
    """A constant leaves conv2d affine: its second gradients must not contain the constant."""
    value = 1.5 if mode == "constant" else 0.0
    options = {"groups": 2, "padding": (3, 0, 1, 2), "padding_mode": mode, "padding_value": value, "backend": "triton"}
    check_both_orders(lambda x, w, b: fastconv.conv2d(x, w, b, (2, 1), **options), padded_leaves(seed))


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_conv2d_gradients(name, draw):
    shape, weight_shape, options = CONVOLUTIONS[name]
    inputs = (
        leaf(shape, "channels_last", draw),
        leaf(weight_shape, "contiguous", draw),
        leaf(weight_shape[:1], "contiguous", draw),
    )
    check_both_orders(lambda x, w, b: fastconv.conv2d(x, w, b, **options, activation="tanh", backend="triton"), inputs)


def test_conv2d_gradients_element_by_element(draw):
    inputs = leaf((1, 2, 3, 3), "contiguous", draw), leaf((2, 1, 2, 2), "contiguous", draw)
    assert gradcheck(lambda x, w: fastconv.conv2d(x, w, groups=2, stride=(1, 2), backend="triton"), inputs)


@pytest.mark.parametrize("name", TRANSPOSED)
def test_conv_transpose2d_gradients(name, draw):
    shape, weight_shape, options = TRANSPOSED[name]
    filters = weight_shape[1] * options.get("groups", 1)
    inputs = (
        leaf(shape, "contiguous", draw),
        leaf(weight_shape, "channels_last", draw),
        leaf((filters,), "contiguous", draw),
    )
    check_both_orders(lambda x, w, b: fastconv.conv_transpose2d(x, w, b, **options, backend="triton"), inputs)


@pytest.mark.parametrize("name", POOLS)
def test_max_pool2d_gradients(name, seed):
    shape, options = POOLS[name]
    x = distinct(shape, "channels_last", seed)
    check_both_orders(lambda x: fastconv.max_pool2d(x, **options, backend="triton"), (x,))


FUSED = {
    "2x2": Case(),
    "3x3_channels_last": Case(pool=((3, 3), (2, 2), (1, 1)), x_layout="channels_last", dtype=torch.bfloat16),
    "global": Case(pool=None, x_layout="sliced"),
    "special": Case(x=(2, 1, 12, 13), w=(3, 1, 1, 1), padding=(0, 0), activation=None, data="special"),
    "special_global": Case(x=(1, 8, 9, 8), w=(8, 8, 1, 1), padding=(0, 0), activation=None, pool=None, data="special"),
}


@pytest.mark.parametrize("name", FUSED)
def test_fused_pools_run_in_one_kernel_and_are_pytorchs(name):
    chosen = []
    fastconv.dispatch.clear()
    with fastconv.dispatch.listening(lambda choice, plan: chosen.append(choice.chosen.kernel)):
        FUSED[name].assert_exact("triton")
    assert chosen[0] in ("conv_max_pool", "conv_global_max")
