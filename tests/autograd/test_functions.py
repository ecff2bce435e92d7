"""The Functions and the primitives' derivatives where torch.autograd alone does not reach: forward mode and torch.func."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap

import fastconv
from fastconv import autograd

X = torch.randn(1, 2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
W = torch.randn(2, 2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
GEOMETRY = ([1, 1], [1, 0, 0, 1], [1, 1], 1, "zeros", 0.0)
WINDOW = ([2, 2], [1, 1], [1, 1], [1, 1], False)


def conv(x, w=W, activation="tanh"):
    return autograd.Conv2dFunction.apply(x, w, None, None, *GEOMETRY, activation, "auto")


def pool(x):
    return autograd.MaxPool2dFunction.apply(x, *WINDOW, "auto")[0]


def reference(x, w=W):
    return torch.tanh(torch.nn.functional.conv2d(torch.nn.functional.pad(x, (0, 1, 1, 0)), w))


def scalar(function):
    return lambda x: (pool(function(x)) ** 3).sum()


def reference_scalar(x):
    return (torch.nn.functional.max_pool2d(reference(x), 2, 1, 1) ** 3).sum()


def test_apply_is_the_primitive():
    assert torch.equal(conv(X), torch.ops.fastconv.conv2d_fprop(X, W, None, None, *GEOMETRY, "tanh", "auto"))
    assert type(conv(X.clone().requires_grad_()).grad_fn).__name__ == "Conv2dFunctionBackward"


@pytest.mark.parametrize(
    "transform",
    [
        grad,
        jacrev,
        jacfwd,
        hessian,
        lambda f: jacrev(jacrev(f)),
        lambda f: jacfwd(jacfwd(f)),
        lambda f: jacrev(jacfwd(f)),
    ],
    ids=["grad", "jacrev", "jacfwd", "hessian", "jacrev-jacrev", "jacfwd-jacfwd", "jacrev-jacfwd"],
)
def test_nested_transforms(transform):
    """An op registered by torch.library alone raises in most of these, and in jvp returns zeros."""
    torch.testing.assert_close(transform(scalar(conv))(X), transform(reference_scalar)(X))


def test_third_derivative():
    def third(f):
        return grad(lambda x: grad(lambda x: grad(f)(x).sin().sum())(x).sin().sum())(X)

    torch.testing.assert_close(third(scalar(conv)), third(reference_scalar))


def test_autograd_over_torch_func():
    x = X.clone().requires_grad_()
    ours, theirs = (torch.autograd.grad(grad(f)(x).sin().sum(), x) for f in (scalar(conv), reference_scalar))
    torch.testing.assert_close(ours, theirs)


def test_no_grad_inside_a_transform_is_obeyed():
    def half(f):
        def both(x):
            with torch.no_grad():
                fixed = f(x)
            return (fixed * f(x)).sum()

        return grad(both)(X)

    torch.testing.assert_close(half(conv), half(reference))


def test_tangent_of_every_primitive():
    """gradcheck compares forward mode with finite differences."""
    x = X.clone().requires_grad_()
    w, dy = W.clone().requires_grad_(), torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    b, residual = torch.randn(2, dtype=torch.float64, requires_grad=True), torch.randn_like(dy, requires_grad=True)
    _, offsets = torch.ops.fastconv.max_pool2d_forward(X, *WINDOW, "auto")
    dpool = torch.randn(offsets.shape, dtype=torch.float64, requires_grad=True)
    ops, size = torch.ops.fastconv, list(X.shape)
    count = offsets[0, 0].numel()
    repeated = torch.randint(0, 20, offsets.shape)
    unique = torch.stack([torch.randperm(20)[:count] for _ in range(offsets.shape[1])]).view(offsets.shape)
    checked = [
        (lambda x, w, b, r: ops.conv2d_fprop(x, w, b, r, *GEOMETRY, "tanh", "auto"), (x, w, b, residual)),
        (lambda x, w, b, r: ops.conv2d_fprop(x, w, b, r, *GEOMETRY, "gelu", "auto"), (x, w, b, residual)),
        (lambda dy, w, b: ops.conv2d_dgrad(dy, w, b, size, *GEOMETRY, "silu", "auto"), (dy, w, b)),
        (lambda dy, x: ops.conv2d_wgrad(dy, x, [2, 2, 2, 2], *GEOMETRY, True, "auto"), (dy, x)),
        (lambda x: ops.channel_sum(x, "auto"), (x,)),
        (lambda x: ops.max_pool2d_forward(x, *WINDOW, "auto")[0], (x,)),
        (lambda dy: ops.max_pool2d_backward(dy, offsets, size, *WINDOW, "auto"), (dpool,)),
        (lambda x: ops.max_pool2d_gather(x, offsets, *WINDOW, "auto"), (x,)),
        (lambda dy: ops.max_unpool2d_add(dy, repeated, [5, 4], "auto"), (dpool,)),
        (lambda x: ops.max_unpool2d_gather(x, repeated.clamp_max(X[0, 0].numel() - 1), "auto"), (x,)),
        (lambda dy: ops.max_unpool2d_forward(dy, unique, [5, 4], "auto"), (dpool,)),
    ]
    for function, inputs in checked:
        assert torch.autograd.gradcheck(
            function,
            inputs,
            check_forward_ad=True,
            check_batched_grad=True,
            check_batched_forward_grad=True,
            fast_mode=True,
        )


def test_bias_alone_has_a_tangent():
    b = torch.randn(2, dtype=torch.float64)
    direction = torch.ones(2, dtype=torch.float64)

    def ours(b):
        return fastconv.conv2d(X, W, b, padding=1, activation="sigmoid")

    def theirs(b):
        return torch.sigmoid(torch.nn.functional.conv2d(X, W, b, padding=1))

    torch.testing.assert_close(jvp(ours, (b,), (direction,)), jvp(theirs, (b,), (direction,)))


def test_forward_over_reverse():
    with forward_ad.dual_level():
        x = forward_ad.make_dual(X.clone().requires_grad_(), torch.ones_like(X))
        ours = forward_ad.unpack_dual(torch.autograd.grad(scalar(conv)(x), x)[0]).tangent
        x = forward_ad.make_dual(X.clone().requires_grad_(), torch.ones_like(X))
        theirs = forward_ad.unpack_dual(torch.autograd.grad(reference_scalar(x), x)[0]).tangent
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("activation", ["silu", "gelu", "hardswish"])
def test_fused_activation_of_its_input_has_the_right_second_derivative(activation):
    """The primitive computes what went into the activation once more, and that must be differentiated too."""
    apply = {"silu": torch.nn.functional.silu, "gelu": torch.nn.functional.gelu}.get(
        activation, torch.nn.functional.hardswish
    )

    def theirs(x):
        z = torch.nn.functional.conv2d(torch.nn.functional.pad(x, (0, 1, 1, 0)), W)
        return (apply(z) ** 2).sum()

    ours = hessian(lambda x: (conv(x, activation=activation) ** 2).sum())(X)
    torch.testing.assert_close(ours, hessian(theirs)(X))


def test_per_sample_gradients_of_a_module_with_all_layers():
    """What Opacus and influence functions do."""
    model = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, groups=2),
        torch.nn.MaxPool2d(2),
        torch.nn.ConvTranspose2d(4, 3, 2, stride=2),
    ).double()
    images = torch.randn(3, 2, 6, 6, dtype=torch.float64)

    def per_sample():
        def loss(parameters, image):
            return functional_call(model, parameters, (image[None],)).sin().sum()

        return vmap(grad(loss), (None, 0))(dict(model.named_parameters()), images)

    expected = per_sample()
    fastconv.convert(model)
    torch.testing.assert_close(per_sample(), expected)


def test_ensemble_of_models_is_one_grouped_convolution():
    weights = torch.randn(5, 3, 2, 3, 3)
    x = torch.randn(2, 2, 6, 6)
    ours = vmap(lambda w: fastconv.conv2d(x, w))(weights)
    torch.testing.assert_close(ours, torch.stack([torch.nn.functional.conv2d(x, w) for w in weights]))
    (call,) = fastconv.explain(lambda: vmap(lambda w: fastconv.conv2d(x, w))(weights))
    assert call.problem.w.sizes == (15, 2, 3, 3)
    (call,) = fastconv.explain(lambda: vmap(fastconv.conv2d)(x.expand(5, *x.shape), weights))
    assert call.problem.groups == 5
