"""What PyTorch does to functions: torch.func, autocast, torch.compile, and the modes of autograd."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import fastconv


@pytest.fixture
def x():
    return torch.randn(3, 2, 6, 7, dtype=torch.float64)


@pytest.fixture
def w():
    return torch.randn(4, 2, 3, 3, dtype=torch.float64)


def close(one, other):
    torch.testing.assert_close(one, other, check_stride=False)


OPS = {
    "conv2d": lambda module, x, w, **options: module.conv2d(x, w, padding=1, stride=2, **options),
    "conv_transpose2d": lambda module, x, w, **options: module.conv_transpose2d(
        x, w.transpose(0, 1), stride=2, **options
    ),
    "max_pool2d": lambda module, x, w, **options: module.max_pool2d(x, 3, stride=2, padding=1, **options),
}


@pytest.fixture(params=OPS)
def pair(request, backend):
    """One of the ops by fastconv and by PyTorch, as functions of x and w."""
    op = OPS[request.param]
    return (lambda x, w: op(fastconv, x, w, backend=backend)), (lambda x, w: op(F, x, w))


@pytest.mark.parametrize("in_dims", [(0, None), (1, None), (0, 0), (None, 0)], ids=str)
def test_vmap(pair, in_dims, x, w):
    ours, theirs = pair
    xs = torch.stack([x, x.flip(0), -x], in_dims[0]) if in_dims[0] is not None else x
    ws = torch.stack([w, w.flip(0), -w], in_dims[1]) if in_dims[1] is not None else w
    close(torch.vmap(ours, in_dims)(xs, ws), torch.vmap(theirs, in_dims)(xs, ws))


@pytest.mark.parametrize("in_dims", [(0, None), (1, None), (0, 0)], ids=str)
def test_vmap_over_nothing(pair, in_dims, x, w):
    """PyTorch has no answer where its groups come to zero; the op's own shape is ours."""
    ours, theirs = pair
    xs = torch.stack([x, x], in_dims[0])
    ws = torch.stack([w, w]) if in_dims[1] is not None else w
    y = torch.vmap(ours, in_dims)(xs.narrow(in_dims[0], 0, 0), ws if in_dims[1] is None else ws[:0])
    assert y.shape == (0, *theirs(x, w).shape)
    assert y.dtype == x.dtype


def test_per_sample_gradients(pair, x, w):
    """vmap over grad: the reason people reach for torch.func."""
    ours, theirs = pair

    def per_sample(function):
        return torch.vmap(torch.func.grad(lambda w, x: function(x[None], w).sin().sum()), (None, 0))(w, x)

    close(per_sample(ours), per_sample(theirs))


def test_func_grad_of_grad(pair, x, w):
    ours, theirs = pair

    def second(function):
        inner = torch.func.grad(lambda x: function(x, w).sin().sum())
        return torch.func.grad(lambda x: (inner(x) ** 2).sum())(x)

    close(second(ours), second(theirs))


def test_vjp(pair, x, w):
    ours, theirs = pair
    expected, pull_back = torch.func.vjp(theirs, x, w)
    dy = torch.randn_like(expected)
    output, our_pull_back = torch.func.vjp(ours, x, w)
    close(output, expected)
    close(our_pull_back(dy), pull_back(dy))


def test_jacobian(pair, w):
    ours, theirs = pair
    x = torch.randn(1, 2, 3, 3, dtype=torch.float64)
    close(torch.func.jacrev(ours)(x, w), torch.func.jacrev(theirs)(x, w))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_casts_as_it_does_for_pytorch(pair, dtype, x, w):
    ours, theirs = pair
    x, w = x.float().requires_grad_(), w.float().requires_grad_()
    with torch.autocast("cpu", dtype):
        output, expected = ours(x, w), theirs(x, w)
    assert output.dtype == expected.dtype
    torch.testing.assert_close(output, expected, rtol=2e-2, atol=2e-1)
    dy = torch.randn_like(expected)
    inputs = [
        tensor for tensor in (x, w) if torch.autograd.grad(expected, tensor, dy, True, allow_unused=True)[0] is not None
    ]
    for one, other in zip(
        torch.autograd.grad(output, inputs, dy), torch.autograd.grad(expected, inputs, dy), strict=True
    ):
        assert one.dtype == other.dtype == torch.float32


def test_autocast_disabled_inside_leaves_float32(w, backend):
    x = torch.randn(1, 2, 5, 5)
    with torch.autocast("cpu", torch.bfloat16), torch.autocast("cpu", enabled=False):
        assert fastconv.conv2d(x, w.float(), backend=backend).dtype == torch.float32


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_compile_without_graph_breaks(pair, dynamic, x, w):
    ours, _ = pair

    def loss(x, w):
        return ours(x, w).sin().sum()

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for batch in (3, 2):
        leaf = x[:batch].clone().requires_grad_()
        weight = w.clone().requires_grad_()
        close(compiled(leaf, weight), loss(leaf, weight))
        inputs = [leaf, weight]
        results = torch.autograd.grad(compiled(leaf, weight), inputs, allow_unused=True)
        close(results, torch.autograd.grad(loss(leaf, weight), inputs, allow_unused=True))


def test_compile_of_a_network_with_everything_fused(backend):
    def network(x, w, b):
        y = fastconv.conv2d(x, w, b, padding=1, activation="relu", residual=x, backend=backend)
        pooled, indices = fastconv.max_pool2d(y, 2, return_indices=True, backend=backend)
        return fastconv.conv_transpose2d(pooled, w, b, stride=2, backend=backend), indices

    torch._dynamo.reset()
    arguments = torch.randn(2, 3, 6, 6), torch.randn(3, 3, 3, 3), torch.randn(3)
    for one, other in zip(
        torch.compile(network, fullgraph=True, backend="aot_eager")(*arguments), network(*arguments), strict=True
    ):
        close(one, other)


def test_export(w, backend):
    class Network(torch.nn.Module):
        def forward(self, x):
            return fastconv.conv2d(x, w, backend=backend)

    x = torch.randn(1, 2, 5, 5, dtype=torch.float64)
    close(torch.export.export(Network(), (x,)).module()(x), Network()(x))


def test_no_grad_and_inference_mode(pair, x, w):
    ours, theirs = pair
    w.requires_grad_()
    with torch.no_grad():
        assert not ours(x, w).requires_grad
    with torch.inference_mode():
        output = ours(x, w)
        assert output.is_inference()
        close(output, theirs(x, w))


def test_checkpoint_recomputes_the_same(pair, x, w):
    ours, _ = pair
    x.requires_grad_()

    def gradient(function):
        return torch.autograd.grad(function(x, w), x, torch.ones_like(function(x, w)))[0]

    def checkpointed(x, w):
        return torch.utils.checkpoint.checkpoint(ours, x, w, use_reentrant=False)

    assert torch.equal(gradient(ours), gradient(checkpointed))


def test_backward_twice_without_retain_graph_is_an_error(pair, x, w):
    """Saved tensors are freed after a backward pass, as everywhere in PyTorch."""
    ours, _ = pair
    x.requires_grad_()
    y = ours(x, w)
    y.sum().backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.sum().backward()


def test_changing_a_saved_input_in_place_is_noticed(backend, x, w):
    w.requires_grad_()
    x.requires_grad_()
    inner = x * 1
    y = fastconv.conv2d(inner, w, backend=backend)
    inner.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
