"""The public functions: what they accept, and what they return for it. Wrong results are the business of tests/conformance."""

from __future__ import annotations

import numpy
import pytest
import torch
import torch.nn.functional as F

import fastconv
from fastconv.problem import ACTIVATIONS


@pytest.mark.parametrize("two", [2, (2,), [2, 2], torch.Size([2, 2]), numpy.int64(2), torch.tensor(2)], ids=repr)
def test_pairs_in_every_form_that_pytorch_takes(two):
    x, w = torch.randn(1, 2, 9, 9), torch.randn(3, 2, 2, 2)
    arguments = {"stride": two, "padding": two, "dilation": two}
    torch.testing.assert_close(fastconv.conv2d(x, w, **arguments), F.conv2d(x, w, **arguments))
    assert torch.equal(fastconv.max_pool2d(x, two, two), F.max_pool2d(x, two, two))


@pytest.mark.parametrize("two", [numpy.int64(2), torch.tensor(2)], ids=repr)
def test_groups_in_every_form_that_pytorch_takes(two):
    x, w = torch.randn(1, 4, 5, 5), torch.randn(4, 2, 2, 2)
    for op, reference in ((fastconv.conv2d, F.conv2d), (fastconv.conv_transpose2d, F.conv_transpose2d)):
        torch.testing.assert_close(op(x, w, groups=two), reference(x, w, groups=two))


@pytest.mark.parametrize("stride", [None, (), []], ids=repr)
def test_pool_without_stride_steps_by_its_kernel(stride):
    x = torch.randn(1, 2, 9, 9)
    assert torch.equal(fastconv.max_pool2d(x, (3, 2), stride), F.max_pool2d(x, (3, 2)))


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [(2, 1), "same", "valid"], ids=str)
@pytest.mark.parametrize("unbatched", [False, True])
def test_padding_modes_are_those_of_the_module(padding_mode, padding, unbatched):
    module = torch.nn.Conv2d(2, 3, (4, 3), padding=padding, padding_mode=padding_mode)
    x = torch.randn(2, 6, 7) if unbatched else torch.randn(2, 2, 6, 7)
    y = fastconv.conv2d(x, module.weight, module.bias, padding=padding, padding_mode=padding_mode)
    torch.testing.assert_close(y, module(x))


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("kernel", [(1, 1), (2, 3), (4, 5)], ids=str)
@pytest.mark.parametrize("dilation", [1, 3])
def test_same_padding_puts_the_odd_one_where_pytorch_does(kernel, dilation):
    x, w = torch.randn(2, 2, 9, 8), torch.randn(3, 2, *kernel)
    ours, theirs = (m.conv2d(x, w, padding="same", dilation=dilation) for m in (fastconv, F))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_have_pytorchs_definitions(activation, requires_grad):
    theirs = {"identity": lambda z: z, "tanh": torch.tanh, "sigmoid": torch.sigmoid}.get(activation) or getattr(
        F, activation
    )
    x, w, b = torch.randn(2, 2, 5, 5), torch.randn(3, 2, 3, 3).requires_grad_(requires_grad), torch.randn(3)
    residual = torch.randn(2, 3, 3, 3)
    y = fastconv.conv2d(x, w, b, activation=activation, residual=residual)
    torch.testing.assert_close(y, theirs(F.conv2d(x, w, b) + residual))
    y = fastconv.conv_transpose2d(x, w.transpose(0, 1), b, activation=activation)
    torch.testing.assert_close(y, theirs(F.conv_transpose2d(x, w.transpose(0, 1), b)))


@pytest.mark.parametrize("activation", ["silu", "gelu", "hardswish"])
def test_activations_that_backward_needs_the_input_of_are_fused_only_without_gradient(activation):
    """Fused, backward would have to run the convolution once more."""
    x, w = torch.randn(1, 2, 5, 5), torch.randn(3, 2, 3, 3, requires_grad=True)

    def fused():
        (call,) = fastconv.explain(fastconv.conv2d, x, w, activation=activation)
        return call.problem.activation

    assert fused() == "identity"
    with torch.no_grad():
        assert fused() == activation


def test_unbatched_residual_has_the_sizes_of_the_unbatched_output():
    x, w, residual = torch.randn(2, 5, 5), torch.randn(3, 2, 3, 3), torch.randn(3, 3, 3)
    torch.testing.assert_close(fastconv.conv2d(x, w, residual=residual), F.conv2d(x, w) + residual)
    with pytest.raises(RuntimeError, match="residual"):
        fastconv.conv2d(x, w, residual=residual[None])


def test_output_padding_past_the_stride():
    """A transposed convolution may leave more rows than a stride at its end, so its gradient sees fewer windows than fit."""
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    w = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    arguments = {"stride": (1, 2), "dilation": (3, 5), "output_padding": (2, 4), "padding": 1}
    ours, theirs = (m.conv_transpose2d(x, w, **arguments) for m in (fastconv, F))
    torch.testing.assert_close(ours, theirs)
    dy = torch.randn_like(ours)
    torch.testing.assert_close(torch.autograd.grad(ours, (x, w), dy), torch.autograd.grad(theirs, (x, w), dy))
    assert torch.autograd.gradgradcheck(lambda x, w: fastconv.conv_transpose2d(x, w, **arguments), (x, w))


def test_input_without_channels_gives_an_output_without_channels_as_pytorchs_does():
    x, w = torch.randn(2, 0, 5, 5, requires_grad=True), torch.randn(3, 0, 3, 3, requires_grad=True)
    b = torch.randn(3, requires_grad=True)
    y, expected = fastconv.conv2d(x, w, b), F.conv2d(x, w, b)
    assert (y.shape, y.stride()) == (expected.shape, expected.stride())
    y.sum().backward()
    assert x.grad.shape == x.shape
    assert w.grad.shape == w.shape
    assert torch.equal(b.grad, torch.autograd.grad(expected.sum(), b)[0])


def test_residual_of_an_input_without_channels_must_fit():
    x, w = torch.randn(2, 0, 5, 5), torch.randn(3, 0, 3, 3)
    residual = torch.randn(2, 0, 3, 3, requires_grad=True)
    y = fastconv.conv2d(x, w, residual=residual)
    assert y.shape == (2, 0, 3, 3)
    y.sum().backward()
    assert residual.grad.shape == residual.shape
    with pytest.raises(RuntimeError, match=r"residual has the sizes \[2, 3, 3, 3\].*\[2, 0, 3, 3\]"):
        fastconv.conv2d(x, w, residual=torch.randn(2, 3, 3, 3))


@pytest.mark.parametrize("sizes", [(0, 4, 5, 5), (0, 4, 0, 7)], ids=str)
@pytest.mark.parametrize("op", ["conv2d", "conv_transpose2d"])
def test_empty_batch_has_gradients_of_zero(op, sizes, backend):
    x, w = torch.randn(sizes, requires_grad=True), torch.randn(4, 4, 3, 3, requires_grad=True)
    y = getattr(fastconv, op)(x, w, padding=2 if op == "conv2d" else 0, backend=backend)
    assert y.shape == getattr(F, op)(x, w, padding=2 if op == "conv2d" else 0).shape
    y.sum().backward()
    assert x.grad.shape == x.shape
    assert torch.equal(w.grad, torch.zeros_like(w))


def test_gradients_are_asked_of_the_kernels_only_where_they_are_wanted():
    x, w = torch.randn(1, 2, 5, 5), torch.randn(3, 2, 3, 3, requires_grad=True)

    def ops(*leaves):
        y = fastconv.conv2d(x, w, leaves[1] if len(leaves) > 1 else None)
        return [c.problem.op for c in fastconv.explain(lambda: torch.autograd.grad(y.sum(), leaves))]

    assert ops(w) == ["conv2d_wgrad"]
    bias = torch.randn(3, requires_grad=True)
    assert ops(w, bias) == ["conv2d_wgrad"]
    frozen = w.detach()
    y = fastconv.conv2d(x, frozen, bias)
    assert [c.problem.op for c in fastconv.explain(lambda: y.sum().backward())] == ["channel_sum"]


def test_pool_keeps_one_byte_an_output_for_backward():
    """Not the input, and not eight bytes of index."""
    kept = []

    def pack(tensor):
        kept.append((tensor.dtype, tuple(tensor.shape)))
        return tensor

    x = torch.randn(1, 2, 8, 8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        fastconv.max_pool2d(x, 2)
    assert kept == [(torch.uint8, (1, 2, 4, 4))]


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "sigmoid", "tanh"])
def test_fused_activation_keeps_its_output_and_not_its_input(activation):
    kept = []

    def pack(tensor):
        kept.append(tensor.data_ptr())
        return tensor

    x, w = torch.randn(1, 2, 5, 5, requires_grad=True), torch.randn(3, 2, 3, 3, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = fastconv.conv2d(x, w, activation=activation)
    assert sorted(kept) == sorted([x.data_ptr(), w.data_ptr(), y.data_ptr()])


@pytest.mark.parametrize("word", ["activation", "backend", "padding_mode"])
def test_an_unknown_word_is_answered_with_the_known_ones(word):
    known = {"activation": "leaky_relu", "backend": "triton", "padding_mode": "circular"}[word]
    with pytest.raises(ValueError, match=rf"{word} is 'foo'.*{known}"):
        fastconv.conv2d(torch.randn(1, 1, 3, 3), torch.randn(1, 1, 1, 1), **{word: "foo"})
