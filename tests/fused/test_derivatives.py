"""Gradients of the fused ops: of any order, in both modes, under torch.func, and what is kept for them."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd.graph import saved_tensors_hooks
from torch.func import grad, jacfwd, jacrev, vmap

import fastconv
from fastconv.explain import describe
from tests.fused.support import Case
from tests.support.calls import PrimitiveCalls, shapes
from tests.support.data import normal

POOLED = (((2, 2), (2, 2), (0, 0)), ((3, 3), (2, 2), (1, 1)), None)
IDS = ["2x2s2", "3x3s2p1", "global"]


def leaves(dtype=torch.float64):
    return [
        normal(shape, seed, dtype).requires_grad_() for seed, shape in enumerate(((1, 2, 6, 5), (4, 1, 3, 2), (4,)))
    ]


def scores(pool, activation, backend):
    case = Case(padding=(1, 1), groups=2, activation=activation, pool=pool, x=(1, 2, 6, 5), w=(4, 1, 3, 2))
    return lambda x, w, b: case.call(x, w, b, backend=backend)[0]


@pytest.mark.parametrize("pool", POOLED, ids=IDS)
@pytest.mark.parametrize("activation", [None, "relu", "leaky_relu", "sigmoid", "tanh", "silu", "gelu", "hardswish"])
def test_gradients_of_first_and_second_order(activation, pool):
    function = scores(pool, activation, "aten")
    assert torch.autograd.gradcheck(function, leaves(), check_forward_ad=True)
    if activation not in ("hardswish", "gelu", "leaky_relu"):
        assert torch.autograd.gradgradcheck(function, leaves())


@pytest.mark.parametrize("pool", POOLED, ids=IDS)
@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_gradients_on_the_cuda_kernels(activation, pool):
    assert torch.autograd.gradcheck(scores(pool, activation, "cuda"), leaves(), check_forward_ad=True)


@pytest.mark.parametrize("pool", POOLED, ids=IDS)
def test_second_order_on_the_cuda_kernels(pool):
    assert torch.autograd.gradgradcheck(scores(pool, "tanh", "cuda"), leaves())


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2), (1, 2)])
@pytest.mark.parametrize("pool", POOLED, ids=IDS)
def test_each_gradient_alone(pool, wanted):
    tensors = [tensor.detach() for tensor in leaves()]
    for index in wanted:
        tensors[index].requires_grad_()
    case = Case(padding=(1, 1), groups=2, activation="tanh", pool=pool, x=(1, 2, 6, 5), w=(4, 1, 3, 2))
    ours, theirs = case.call(*tensors)[0], case.reference(*tensors)[0]
    chosen = [tensors[index] for index in wanted]
    dy = normal(ours.shape, 9, torch.float64)
    for one, other in zip(torch.autograd.grad(ours, chosen, dy), torch.autograd.grad(theirs, chosen, dy), strict=True):
        torch.testing.assert_close(one, other)


PADDING = {"zeros": {}, "reflect": {}, "replicate": {}, "circular": {}, "constant": {"value": 1.5}}


@pytest.mark.parametrize("backend", ["aten", "cuda"])
@pytest.mark.parametrize("mode", PADDING)
def test_filters_alone_learn_from_what_the_winners_saw(mode, backend):
    """Where x is data, no map is made in backward. Strides, dilation, groups and every kind of padding."""
    torch.manual_seed(0)
    x, w, b = torch.randn(2, 4, 9, 8).double(), torch.randn(6, 2, 2, 3).double(), torch.randn(6).double()
    w.requires_grad_(), b.requires_grad_()

    def ours(w, b):
        options = {"padding_mode": mode, "padding_value": PADDING[mode].get("value", 0.0), "backend": backend}
        return fastconv.conv2d_global_max(x, w, b, (2, 1), (2, 1, 1, 3), (1, 2), 2, activation="silu", **options)

    def theirs(w, b):
        padded = F.pad(x, (1, 3, 2, 1), "constant" if mode == "zeros" else mode, **PADDING[mode])
        return F.silu(F.conv2d(padded, w, b, (2, 1), 0, (1, 2), 2)).amax((2, 3))

    dy = torch.randn(2, 6).double()
    with PrimitiveCalls() as calls:
        gradients = torch.autograd.grad(ours(w, b), (w, b), dy)
    backward = ["conv2d_fprop", "activation_backward", "conv2d_wgrad", "channel_sum"]
    assert calls.names == ["conv2d_global_max", *backward]
    for arguments in calls.arguments[1:]:
        assert max(map(math.prod, shapes(arguments))) <= 2 * 6 * 2 * 2 * 3, "more than the patches"
    for one, other in zip(gradients, torch.autograd.grad(theirs(w, b), (w, b), dy), strict=True):
        torch.testing.assert_close(one, other)
    assert torch.autograd.gradcheck(ours, (w, b), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(ours, (w, b))


def test_gradients_of_each_sample_by_vmap_over_grad():
    x, w = normal((3, 2, 9, 9), 1, torch.float64), normal((4, 2, 3, 3), 2, torch.float64)

    def loss(best):
        return lambda w, x: (best(x[None], w) ** 2).sum()

    ours, theirs = (
        vmap(grad(loss(best)), in_dims=(None, 0))(w, x)
        for best in (fastconv.conv2d_global_max, lambda x, w: F.conv2d(x, w).amax((2, 3)))
    )
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("pool", POOLED, ids=IDS)
@pytest.mark.parametrize("transform", [jacrev, jacfwd, lambda f: jacrev(jacfwd(f))], ids=["jacrev", "jacfwd", "both"])
def test_torch_func(transform, pool):
    x, w, b = (tensor.detach() for tensor in leaves())
    case = Case(padding=(1, 1), groups=2, activation="tanh", pool=pool, x=(1, 2, 6, 5), w=(4, 1, 3, 2))
    ours = transform(lambda w: (case.call(x, w, b)[0] ** 2).sum())(w)
    torch.testing.assert_close(ours, transform(lambda w: (case.reference(x, w, b)[0] ** 2).sum())(w))


@pytest.mark.parametrize("dims", [(0, None, None), (None, 0, 0), (1, 0, 0), (0, None, 0)])
@pytest.mark.parametrize("pool", POOLED, ids=IDS)
def test_vmap(pool, dims):
    case = Case(padding=(1, 1), groups=2, activation="relu", pool=pool, x=(1, 2, 6, 5), w=(4, 1, 3, 2))
    tensors = []
    for seed, (tensor, dim) in enumerate(zip(leaves(), dims, strict=True)):
        size = list(tensor.shape)
        if dim is not None:
            size.insert(dim, 3)
        tensors.append(normal(tuple(size), 20 + seed, torch.float64))
    results = vmap(lambda x, w, b: case.call(x, w, b), in_dims=dims)(*tensors)
    for i in range(3):
        one = [t if dim is None else t.select(dim, i) for t, dim in zip(tensors, dims, strict=True)]
        for result, expected in zip(results, case.reference(*one), strict=True):
            torch.testing.assert_close(result[i], expected)


def bytes_kept(step, *excluded: torch.Tensor) -> int:
    """Bytes of the distinct storages that autograd keeps for a training step, without those of `excluded`."""
    kept = {}
    outside = {tensor.untyped_storage().data_ptr() for tensor in excluded}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in outside:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = step()
        total = sum(kept.values())
        loss.backward()
    return total


@pytest.mark.parametrize("backend", ["aten", "cuda"])
@pytest.mark.parametrize("window", [(2, 2, 0), (3, 2, 1)], ids=IDS[:2])
def test_a_training_step_keeps_less_than_half_of_what_torch_nn_keeps(window, backend):
    kernel, stride, padding = window
    torch.manual_seed(0)
    plain = torch.nn.Sequential(
        torch.nn.Conv2d(8, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(kernel, stride, padding)
    )
    fused = fastconv.nn.Conv2dMaxPool2d(
        8, 16, 3, padding=1, pool_kernel_size=kernel, pool_stride=stride, pool_padding=padding, backend=backend
    )
    fused.load_state_dict(plain[0].state_dict())
    x = torch.randn(2, 8, 32, 32)
    theirs = bytes_kept(lambda: plain(x).square().sum(), x, *plain.parameters())
    ours = bytes_kept(lambda: fused(x).square().sum(), x, *fused.parameters())
    assert ours <= 0.45 * theirs, f"{ours} bytes of {theirs}, {ours / theirs:.0%}"
    for one, other in zip(fused.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-3)


def test_the_modules_load_a_convolutions_state_dict_and_compute_the_same():
    x = torch.randn(2, 3, 9, 9)
    plain = torch.nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")
    block = fastconv.nn.Conv2dMaxPool2d(3, 4, 3, padding=1, padding_mode="reflect", activation="tanh")
    best = fastconv.nn.Conv2dGlobalMax(3, 4, 3, padding=1, padding_mode="reflect")
    for module in (block, best):
        assert list(module.state_dict()) == list(plain.state_dict())
        module.load_state_dict(plain.state_dict())
    torch.testing.assert_close(block(x), torch.nn.functional.max_pool2d(plain(x).tanh(), 2))
    torch.testing.assert_close(best(x), plain(x).amax((2, 3)))


def test_compile_without_graph_breaks():
    block = fastconv.nn.Conv2dMaxPool2d(3, 4, 3)
    x = torch.randn(2, 3, 8, 8)
    compiled = torch.compile(
        lambda x: block(x).sum() + fastconv.conv2d_global_max(x, block.weight).sum(),
        fullgraph=True,
        backend="aot_eager",
    )
    loss = compiled(x)
    loss.backward()
    compiled_grad, block.weight.grad = block.weight.grad, None
    (block(x).sum() + fastconv.conv2d_global_max(x, block.weight).sum()).backward()
    torch.testing.assert_close(compiled_grad, block.weight.grad)


def test_explain_says_that_it_fell_back_and_to_what():
    x, w = torch.randn(1, 2, 8, 8, dtype=torch.float64), torch.randn(4, 2, 3, 3, dtype=torch.float64)
    explanation = fastconv.explain(fastconv.conv2d_max_pool2d, x, w, backend="cuda")
    (call,) = explanation
    assert (call.chosen.backend, call.chosen.kernel) == ("cuda", "unfused")
    assert call.chosen.config == "direct_fprop k8p4 + max_pool_bands_forward 16k"
    assert describe(call.problem).endswith("then pool 2 stride 2")
    assert "unfused" in str(explanation)
    assert call.to_dict()["op"] == "conv2d_max_pool2d"
