"""The modules: PyTorch's in everything but the kernels, and what they add."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch

import fastconv.nn

PAIRS = {
    "conv2d": (fastconv.nn.Conv2d, torch.nn.Conv2d, {"groups": 2, "padding": "same", "padding_mode": "reflect"}),
    "conv_transpose2d": (fastconv.nn.ConvTranspose2d, torch.nn.ConvTranspose2d, {"stride": 2, "output_padding": 1}),
}


@pytest.fixture(params=PAIRS)
def layers(request):
    """The same layer by fastconv and by PyTorch, of the same weights."""
    ours, theirs, options = PAIRS[request.param]
    layer, expected = ours(4, 6, 3, **options), theirs(4, 6, 3, **options)
    layer.load_state_dict(expected.state_dict())
    return layer, expected


def test_layer_computes_what_pytorchs_does_from_its_state_dict(layers):
    x = torch.randn(2, 4, 7, 6)
    torch.testing.assert_close(layers[0](x), layers[1](x))
    torch.testing.assert_close(layers[0](x[0]), layers[1](x[0]))


@pytest.mark.parametrize("padding", [2, (1, 3), "same"], ids=str)
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_padding_modes_are_pytorchs_in_a_layer_and_in_a_converted_one(mode, padding):
    options = {"padding": padding, "padding_mode": mode, "dilation": (2, 1)}
    expected = torch.nn.Conv2d(3, 4, (2, 4), **options)
    layer = fastconv.nn.Conv2d(3, 4, (2, 4), **options, backend="cuda")
    layer.load_state_dict(expected.state_dict())
    converted = copy.deepcopy(expected)
    fastconv.convert(converted, backend="aten")
    assert converted.padding_mode == mode
    x = torch.randn(2, 3, 6, 7)
    for ours in (layer, converted):
        torch.testing.assert_close(ours(x), expected(x))
        gradients = [torch.autograd.grad(module(x).square().sum(), module.parameters()) for module in (ours, expected)]
        torch.testing.assert_close(*gradients)


def test_a_layer_without_what_it_pads_with_fails_as_pytorchs_does():
    x = torch.randn(1, 2, 3, 3)
    for module in (torch.nn, fastconv.nn):
        layer = module.Conv2d(2, 2, 3, padding=3, padding_mode="reflect")
        with pytest.raises(RuntimeError, match="Padding size should be less than the corresponding input dimension"):
            layer(x)


def test_state_dict_has_pytorchs_keys(layers):
    assert list(layers[0].state_dict()) == list(layers[1].state_dict())


def test_same_seed_gives_the_same_weights():
    torch.manual_seed(3)
    ours = fastconv.nn.Conv2d(2, 3, 3)
    torch.manual_seed(3)
    assert torch.equal(ours.weight, torch.nn.Conv2d(2, 3, 3).weight)


@pytest.mark.parametrize("copied", ["deepcopy", "pickle", "torch.save"])
def test_options_survive_copies(copied):
    layer = fastconv.nn.Conv2d(2, 3, 3, activation="relu", backend="aten")
    if copied == "deepcopy":
        again = copy.deepcopy(layer)
    elif copied == "pickle":
        again = pickle.loads(pickle.dumps(layer))
    else:
        file = io.BytesIO()
        torch.save(layer, file)
        file.seek(0)
        again = torch.load(file, weights_only=False)
    x = torch.randn(1, 2, 5, 5)
    assert torch.equal(again(x), layer(x))
    assert (again.activation, again.backend) == ("relu", "aten")


def test_options_are_shown_only_where_they_are_set():
    plain, theirs = fastconv.nn.MaxPool2d(2), torch.nn.MaxPool2d(2)
    assert repr(plain) == repr(theirs)
    assert repr(fastconv.nn.MaxPool2d(2, backend="aten")).endswith("backend=aten)")
    assert repr(fastconv.nn.ConvTranspose2d(1, 1, 1, activation="tanh")).endswith("activation=tanh)")


@pytest.mark.parametrize("layer", [fastconv.nn.Conv2d, fastconv.nn.ConvTranspose2d])
def test_unknown_options_are_refused_when_the_layer_is_built(layer):
    with pytest.raises(ValueError, match="activation is 'foo'"):
        layer(1, 1, 1, activation="foo")
    with pytest.raises(ValueError, match="backend is 'foo'"):
        layer(1, 1, 1, backend="foo")


def test_options_are_not_positional():
    """A positional one would take the place of an argument that PyTorch adds later."""
    with pytest.raises(TypeError):
        fastconv.nn.MaxPool2d(2, None, 0, 1, False, False, "aten")


def test_residual_is_added_before_the_activation():
    layer = fastconv.nn.Conv2d(2, 3, 3, activation="relu")
    x, residual = torch.randn(2, 2, 5, 5), torch.randn(2, 3, 3, 3)
    expected = torch.relu(torch.nn.functional.conv2d(x, layer.weight, layer.bias) + residual)
    torch.testing.assert_close(layer(x, residual=residual), expected)


def test_output_size_chooses_among_the_possible_ones():
    ours, theirs = fastconv.nn.ConvTranspose2d(2, 3, 3, stride=2), torch.nn.ConvTranspose2d(2, 3, 3, stride=2)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 2, 4, 4)
    for size in ((9, 10), (1, 3, 10, 9)):
        torch.testing.assert_close(ours(x, output_size=size), theirs(x, output_size=size))
    with pytest.raises(ValueError, match="output size"):
        ours(x, output_size=(20, 20))


def test_indices_unpool():
    x = torch.randn(1, 2, 6, 6)
    y, indices = fastconv.nn.MaxPool2d(2, return_indices=True)(x)
    expected = torch.nn.functional.max_unpool2d(*torch.nn.functional.max_pool2d(x, 2, return_indices=True), 2)
    assert torch.equal(torch.nn.MaxUnpool2d(2)(y, indices), expected)


def test_pool_reads_its_attributes_when_it_runs():
    layer, theirs = (
        fastconv.nn.MaxPool2d(3, 1, 1, dilation=2, ceil_mode=True),
        torch.nn.MaxPool2d(3, 1, 1, 2, False, True),
    )
    x = torch.randn(2, 2, 7, 8)
    assert torch.equal(layer(x), theirs(x))


def test_distributed_data_parallel_trains_it(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        layer = fastconv.nn.Conv2d(2, 3, 3)
        parallel = torch.nn.parallel.DistributedDataParallel(layer)
        parallel(torch.randn(2, 2, 5, 5)).sum().backward()
        assert layer.weight.grad is not None
        assert len(fastconv.convert(parallel)) == 0
    finally:
        torch.distributed.destroy_process_group()
