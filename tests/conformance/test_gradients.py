"""Gradients against numerical ones in float64, of first and second order, and which primitives they are made of."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import fastconv
from tests.support import layouts
from tests.support.calls import PrimitiveCalls
from tests.support.data import drawer, seeded
from tests.support.references import ACTIVATIONS

FORMATS = ("contiguous", "channels_last")

CONVOLUTIONS = {
    "plain": ((2, 2, 4, 5), (3, 2, 3, 2), {}),
    "strided": ((1, 2, 6, 5), (2, 2, 3, 3), {"stride": (2, 3), "padding": (1, 2)}),
    "dilated": ((1, 2, 6, 5), (2, 2, 2, 2), {"dilation": (3, 2), "padding": 1}),
    "grouped": ((2, 4, 4, 4), (6, 2, 3, 3), {"groups": 2, "padding": 1}),
    "depthwise": ((1, 3, 5, 5), (3, 1, 3, 3), {"groups": 3, "stride": 2, "padding": 1}),
    "same": ((1, 2, 4, 5), (2, 2, 2, 4), {"padding": "same"}),
    "reflect": ((1, 2, 4, 5), (2, 2, 3, 3), {"padding": (1, 2), "padding_mode": "reflect"}),
    "unbatched": ((2, 4, 4), (2, 2, 3, 3), {}),
}

TRANSPOSED = {
    "plain": ((2, 2, 3, 3), (2, 3, 3, 2), {}),
    "strided": ((1, 2, 3, 2), (2, 2, 3, 3), {"stride": (2, 3), "padding": 1, "output_padding": (1, 2)}),
    "dilated": ((1, 2, 3, 3), (2, 2, 2, 2), {"dilation": (3, 2), "output_padding": (2, 1)}),
    "grouped": ((2, 4, 2, 3), (4, 2, 2, 2), {"groups": 2, "stride": 2}),
}

POOLS = {
    "plain": ((2, 2, 4, 4), {"kernel_size": 2}),
    "overlapping": ((1, 2, 5, 6), {"kernel_size": 3, "stride": (1, 2), "padding": 1}),
    "dilated": ((1, 2, 7, 6), {"kernel_size": (2, 3), "stride": 1, "dilation": (3, 2)}),
    "ceil": ((1, 2, 5, 6), {"kernel_size": 2, "stride": 2, "padding": 1, "ceil_mode": True}),
}


@pytest.fixture
def draw(seed):
    return drawer("normal", seeded(seed), torch.float64)


def leaf(shape, memory_format, draw):
    return layouts.build(shape, memory_format, draw).requires_grad_()


def distinct(shape, memory_format, seed):
    """Values far enough apart that a numerical gradient does not change a window's winner."""

    def draw(storage):
        return torch.randperm(torch.Size(storage).numel(), generator=seeded(seed)).double().view(storage) / 4

    return layouts.build(shape, memory_format, draw).requires_grad_()


def check_both_orders(function, inputs):
    """The whole Jacobian, then its products with random vectors, then the second order with random cotangents."""
    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs, gen_non_contig_grad_outputs=True, fast_mode=True)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_conv2d_gradients(name, memory_format, backend, draw):
    shape, weight_shape, options = CONVOLUTIONS[name]
    inputs = (
        leaf(shape, memory_format, draw),
        leaf(weight_shape, memory_format, draw),
        leaf(weight_shape[:1], "contiguous", draw),
    )
    check_both_orders(lambda x, w, b: fastconv.conv2d(x, w, b, **options, backend=backend), inputs)


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name != "identity"])
def test_conv2d_gradients_through_activation_and_residual(activation, backend, draw):
    inputs = (
        leaf((1, 2, 4, 4), "channels_last", draw),
        leaf((2, 2, 3, 3), "contiguous", draw),
        leaf((2,), "contiguous", draw),
        leaf((1, 2, 4, 4), "contiguous", draw),
    )

    def function(x, w, b, residual):
        return fastconv.conv2d(x, w, b, padding=1, activation=activation, residual=residual, backend=backend)

    check_both_orders(function, inputs)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("name", TRANSPOSED)
def test_conv_transpose2d_gradients(name, memory_format, backend, draw):
    shape, weight_shape, options = TRANSPOSED[name]
    filters = weight_shape[1] * options.get("groups", 1)
    inputs = (
        leaf(shape, memory_format, draw),
        leaf(weight_shape, memory_format, draw),
        leaf((filters,), "contiguous", draw),
    )
    check_both_orders(lambda x, w, b: fastconv.conv_transpose2d(x, w, b, **options, backend=backend), inputs)


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name != "identity"])
def test_conv_transpose2d_gradients_through_activation(activation, backend, draw):
    inputs = (
        leaf((1, 2, 3, 3), "contiguous", draw),
        leaf((2, 2, 2, 2), "contiguous", draw),
        leaf((2,), "contiguous", draw),
    )

    def function(x, w, b):
        return fastconv.conv_transpose2d(x, w, b, stride=2, activation=activation, backend=backend)

    check_both_orders(function, inputs)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("name", POOLS)
def test_max_pool2d_gradients(name, memory_format, backend, seed):
    shape, options = POOLS[name]
    x = distinct(shape, memory_format, seed)
    check_both_orders(lambda x: fastconv.max_pool2d(x, **options, backend=backend), (x,))


def test_third_order_of_conv2d(backend, draw):
    """Each pass is the others' derivative, so the chain does not end."""
    x, w = leaf((1, 2, 3, 3), "contiguous", draw), leaf((2, 2, 2, 2), "contiguous", draw)

    def gradient(x, w):
        y = fastconv.conv2d(x, w, activation="tanh", backend=backend)
        return torch.autograd.grad(y.sin().sum(), (x, w), create_graph=True)

    assert gradgradcheck(gradient, (x, w), fast_mode=True)


# What the backward pass of each op must call when only some inputs require a gradient, and nothing beyond it.
NEEDED = {
    (): set(),
    ("x",): {"conv2d_dgrad"},
    ("w",): {"conv2d_wgrad"},
    ("b",): {"channel_sum"},
    ("x", "w"): {"conv2d_dgrad", "conv2d_wgrad"},
    ("x", "b"): {"conv2d_dgrad", "channel_sum"},
    ("w", "b"): {"conv2d_wgrad"},
    ("x", "w", "b"): {"conv2d_dgrad", "conv2d_wgrad"},
}


@pytest.mark.parametrize("needed", NEEDED, ids=lambda needed: "".join(needed) or "none")
def test_conv2d_computes_only_the_gradients_that_are_needed(needed, backend):
    tensors = {"x": torch.randn(2, 3, 6, 6), "w": torch.randn(4, 3, 3, 3), "b": torch.randn(4)}
    for name in needed:
        tensors[name].requires_grad_()
    with PrimitiveCalls() as forward:
        y = fastconv.conv2d(*tensors.values(), backend=backend)
    assert forward.names == ["conv2d_fprop"]
    assert backward_calls(y, [tensors[name] for name in needed]) == sorted(NEEDED[needed])


@pytest.mark.parametrize("needed", NEEDED, ids=lambda needed: "".join(needed) or "none")
def test_conv_transpose2d_computes_only_the_gradients_that_are_needed(needed, backend):
    tensors = {"x": torch.randn(2, 3, 6, 6), "w": torch.randn(3, 4, 3, 3), "b": torch.randn(4)}
    for name in needed:
        tensors[name].requires_grad_()
    with PrimitiveCalls() as forward:
        y = fastconv.conv_transpose2d(*tensors.values(), backend=backend)
    assert forward.names == ["conv2d_dgrad"]
    # Its bias has C elements, which wgrad does not sum over.
    expected = {"x": "conv2d_fprop", "w": "conv2d_wgrad", "b": "channel_sum"}
    calls = backward_calls(y, [tensors[name] for name in needed])
    assert calls == sorted(expected[name] for name in needed)


def test_max_pool2d_without_gradient_calls_one_primitive(backend):
    x = torch.randn(2, 3, 6, 6)
    with PrimitiveCalls() as calls:
        fastconv.max_pool2d(x, 2, backend=backend)
    assert calls.names == ["max_pool2d_forward"]
    x.requires_grad_()
    with PrimitiveCalls() as calls:
        y = fastconv.max_pool2d(x, 2, backend=backend)
    assert calls.names == ["max_pool2d_forward"]
    assert backward_calls(y, [x]) == ["max_pool2d_backward"]


def test_flat_indices_are_made_only_when_asked_for(backend):
    with PrimitiveCalls() as calls:
        fastconv.max_pool2d(torch.randn(2, 3, 6, 6), 2, return_indices=True, backend=backend)
    assert sorted(calls.names) == ["max_pool2d_forward", "max_pool2d_indices"]


def backward_calls(y, inputs):
    """The primitives of one backward pass with a random cotangent, sorted; none where nothing requires a gradient."""
    assert y.requires_grad == bool(inputs)
    if not inputs:
        return []
    with PrimitiveCalls() as calls:
        grads = torch.autograd.grad(y, inputs, torch.randn_like(y))
    assert [grad.shape for grad in grads] == [tensor.shape for tensor in inputs]
    return sorted(calls.names)


def test_frozen_weight_of_a_trained_input_and_the_reverse_have_the_same_gradients(backend):
    """Skipping one gradient must not change another."""
    values = [torch.randn(2, 3, 6, 6), torch.randn(4, 3, 3, 3), torch.randn(4)]
    dy = torch.randn(2, 4, 4, 4)

    def gradients(needed):
        leaves = [value.clone().requires_grad_(needs) for value, needs in zip(values, needed, strict=True)]
        y = fastconv.conv2d(*leaves, activation="relu", backend=backend)
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        results = iter(torch.autograd.grad(y, wanted, dy))
        return [next(results) if needs else None for needs in needed]

    everything = gradients((True, True, True))
    for needed in itertools.product((True, False), repeat=3):
        if any(needed):
            for one, other in zip(gradients(needed), everything, strict=True):
                torch.testing.assert_close(one if one is not None else other, other)
