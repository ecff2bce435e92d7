"""adaptive_max_pool2d and max_unpool2d: PyTorch's results, layouts, derivatives and errors."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import fastconv
from fastconv import dispatch, emulator
from tests.core import raw

BACKENDS = ("cuda", "triton", "aten")
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
LAYOUTS = ("contiguous", "channels_last", "sliced")


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


def same(ours, theirs):
    assert torch.equal(ours, theirs)
    assert ours.stride() == theirs.stride()
    assert ours.dtype == theirs.dtype


# --- adaptive_max_pool2d ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [1, (2, 3), (None, 1), (6, 9)], ids=str)
def test_adaptive_pooling_is_pytorchs(size, dtype, layout, backend):
    x = raw.laid_out(torch.randn(2, 8, 6, 9).to(dtype), layout).requires_grad_()
    ours, indices = fastconv.adaptive_max_pool2d(x, size, True, backend=backend)
    theirs, expected_indices = F.adaptive_max_pool2d(x, size, True)
    assert torch.equal(ours, theirs)
    assert torch.equal(indices, expected_indices)
    assert torch.equal(fastconv.adaptive_max_pool2d(x[0], size, backend=backend), theirs[0])
    dy = torch.randn_like(theirs)
    assert torch.equal(torch.autograd.grad(ours, x, dy)[0], torch.autograd.grad(theirs, x, dy)[0])


def test_global_pooling_has_a_kernel_of_its_own():
    for layout in ("contiguous", "channels_last"):
        x = raw.laid_out(torch.randn(2, 8, 7, 7, dtype=torch.float16), layout).requires_grad_()

        def pooled_and_back(x):
            fastconv.adaptive_max_pool2d(x, 1, backend="cuda").sum().backward()

        kernels = [call.chosen.kernel for call in fastconv.explain(pooled_and_back, x)]
        assert kernels == ["max_pool_large_forward", "max_pool_large_backward"]


def test_windows_that_differ_are_atens():
    x = torch.randn(2, 3, 7, 5, dtype=torch.float64, requires_grad=True)
    ours, theirs = fastconv.adaptive_max_pool2d(x, (3, 2), True), F.adaptive_max_pool2d(x, (3, 2), True)
    for one, other in zip(ours, theirs, strict=True):
        same(one, other)
    assert fastconv.adaptive_max_pool2d(x, (0, 2)).shape == (2, 3, 0, 2)
    for backend in ("cuda", "triton"):
        with pytest.raises(RuntimeError, match=r"output_size is \(3, 2\).*divisors of the input's size \(7, 5\)"):
            fastconv.adaptive_max_pool2d(x, (3, 2), backend=backend)


def test_explain_tells_of_windows_that_differ_in_both_passes_and_why_they_are_atens():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.AdaptiveMaxPool2d((3, 2)))
    fastconv.convert(model)
    x = torch.randn(2, 3, 7, 5)
    assert [call.layer for call in fastconv.explain(model, x)] == ["0", "1"]
    calls = fastconv.explain(lambda: model(x).sum().backward()).calls[1:3]
    assert [(call.problem.op, call.is_backward) for call in calls] == [
        ("adaptive_max_pool2d_forward", False),
        ("adaptive_max_pool2d_backward", True),
    ]
    for call in calls:
        assert (call.chosen.backend, call.asked, call.why) == ("aten", "auto", "no other backend has a kernel for it")
        assert (call.problem.x.sizes, call.problem.y.sizes) == ((2, 4, 7, 5), (2, 4, 3, 2))


def test_explain_on_a_gpu_says_why_no_kernel_pools_windows_that_differ():
    explanation = fastconv.explain(fastconv.nn.AdaptiveMaxPool2d((3, 2), backend="aten"), torch.randn(3, 7, 5))
    assert explanation.calls[0].why == "backend='aten' was asked for"
    (call,) = explanation.on("H200")
    assert (call.chosen.backend, call.why) == ("aten", "no other candidate can run it")
    assert {one.backend for one in call.rejected} == {"cuda", "triton"}
    assert all("those of 7x5 to 3x2 differ" in one.reason for one in call.rejected)
    assert "adaptive_max_pool2d_forward" in str(explanation.on("H200"))
    assert explanation.to_dict()["calls"][0]["problem"]["y"]["sizes"] == [1, 3, 3, 2]


def test_a_compiled_pool_of_windows_that_differ_is_not_compiled_again_to_be_explained():
    compiled = torch.compile(lambda x: fastconv.adaptive_max_pool2d(x, (3, 2)), backend="aot_eager", fullgraph=True)
    x = torch.randn(2, 3, 7, 5)
    same(compiled(x), F.adaptive_max_pool2d(x, (3, 2)))
    with torch.compiler.set_stance("fail_on_recompile"):
        assert len(fastconv.explain(compiled, x)) == 0


@pytest.mark.parametrize("size", [(3, 2), (9, 5), (1, 4)], ids=str)
def test_atens_plan_for_windows_that_differ_is_its_function_and_their_elements_are_counted(size):
    x = torch.randn(2, 3, 7, 5, dtype=torch.float64, requires_grad=True)
    heard = []
    with dispatch.listening(lambda choice, plan: heard.append((choice.problem, plan))):
        fastconv.adaptive_max_pool2d(x, size).sum().backward()
    (forward, run_forward), (backward, run_backward) = heard
    expected = F.adaptive_max_pool2d(x, size, True)
    for ours, theirs in zip(run_forward(x.detach()), expected, strict=True):
        same(ours, theirs)
    same(run_backward(torch.ones_like(expected[0]), expected[1]), x.grad)
    under_a_window = torch.autograd.functional.jacobian(lambda one: F.adaptive_avg_pool2d(one, size), x[:1, :1])
    assert forward.flops() == backward.flops() == 2 * 3 * under_a_window.count_nonzero()
    assert forward.compulsory_bytes() == 2 * 3 * (7 * 5 * 8 + size[0] * size[1] * (8 + 8))


@pytest.mark.parametrize(
    ("x", "size"),
    [
        (torch.randn(2, 3, 4, 4), -1),
        (torch.randn(2, 3, 4, 4), (1, 2, 3)),
        (torch.randn(2, 3, 4, 4), (1.5, 2)),
        (torch.randn(4, 4), 1),
        (torch.randn(2, 0, 4, 4), 1),
        (torch.randn(2, 3, 4, 0), 1),
        (torch.ones(2, 3, 4, 4, dtype=torch.int64), 1),
    ],
)
def test_adaptive_pooling_refuses_what_pytorch_refuses(x, size):
    with pytest.raises(Exception) as theirs:  # noqa: PT011 - whatever PyTorch raises
        F.adaptive_max_pool2d(x, size)
    with pytest.raises(theirs.type, match=r"adaptive_max_pool2d\(\)"):
        fastconv.adaptive_max_pool2d(x, size)


# --- max_unpool2d -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_unpooling_puts_back_what_pooling_took(dtype, layout, backend):
    x = raw.laid_out(torch.randn(2, 8, 9, 12).to(dtype), layout)
    y, indices = fastconv.max_pool2d(x, 3, 3, return_indices=True, backend=backend)
    with emulator.check():
        same(fastconv.max_unpool2d(y, indices, 3, backend=backend), F.max_unpool2d(y, indices, 3))
    assert torch.equal(fastconv.max_unpool2d(y[0], indices[0], 3, backend=backend), F.max_unpool2d(y[0], indices[0], 3))


@pytest.mark.parametrize(
    "window", [(2, None, 0, None), (3, 2, 1, None), (3, 2, 1, (9, 10)), ((2, 3), 2, 0, (2, 3, 9, 11))]
)
def test_sizes_are_pytorchs(window, backend):
    kernel, stride, padding, size = window
    x, indices = torch.randn(2, 3, 5, 5), torch.randint(0, 60, (2, 3, 5, 5))
    arguments = (x, indices, kernel, stride, padding, size)
    same(fastconv.max_unpool2d(*arguments, backend=backend), F.max_unpool2d(*arguments))


def test_the_last_of_equal_indices_stands(backend):
    for layout in LAYOUTS:
        x = raw.laid_out(torch.randn(2, 40, 8, 9), layout)
        indices = raw.laid_out(torch.randint(0, 20, (2, 40, 8, 9)), layout)
        ours = fastconv.max_unpool2d(x, indices, 2, backend=backend)
        assert torch.equal(ours, F.max_unpool2d(x, indices, 2))


def test_derivatives_of_any_order(backend):
    x = torch.randn(1, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    indices = torch.stack([torch.randperm(24)[:6] for _ in range(2)]).view(1, 2, 3, 2)

    def unpooled(x):
        return fastconv.max_unpool2d(x, indices, 2, backend=backend).sin()

    assert torch.autograd.gradcheck(unpooled, x, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(unpooled, x, check_fwd_over_rev=True)


def test_gradient_with_equal_indices_is_pytorchs(backend):
    x, indices = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randint(0, 5, (2, 3, 4, 4))
    dy = torch.randn(2, 3, 8, 8)
    (ours,) = torch.autograd.grad(fastconv.max_unpool2d(x, indices, 2, backend=backend), x, dy)
    (theirs,) = torch.autograd.grad(F.max_unpool2d(x, indices, 2), x, dy)
    assert torch.equal(ours, theirs)


def test_an_encoder_and_decoder_train_as_pytorchs(backend):
    def run(pool, unpool):
        torch.manual_seed(0)
        x = torch.randn(2, 4, 8, 8, requires_grad=True)
        w = torch.randn(4, 4, 3, 3, requires_grad=True)
        y, indices = pool(F.conv2d(x, w, padding=1))
        z = unpool(y.relu(), indices, output_size=(8, 8))
        return torch.autograd.grad(F.conv2d(z, w, padding=1).square().mean(), (x, w))

    ours = run(
        fastconv.nn.MaxPool2d(2, return_indices=True, backend=backend), fastconv.nn.MaxUnpool2d(2, backend=backend)
    )
    torch.testing.assert_close(ours, run(torch.nn.MaxPool2d(2, return_indices=True), torch.nn.MaxUnpool2d(2)))


X, PLACES = torch.randn(1, 2, 2, 2), torch.tensor([0, 3, 8, 11]).view(1, 1, 2, 2).expand(1, 2, 2, 2)


@pytest.mark.parametrize(
    "arguments",
    [
        (X, PLACES + 8, 2),
        (X, PLACES - 1, 2),
        (X, PLACES.int(), 2),
        (X, PLACES[..., :1], 2),
        (X, PLACES, 2, None, 0, (9, 9)),
        (X, PLACES, 2, None, 0, (4,)),
        (X, PLACES, 2, 2, 9),
        (X, PLACES, 2, -3),
        (X[0, 0], PLACES[0, 0], 2),
        (X[:, :0], PLACES[:, :0], 2),
        (X.long(), PLACES, 2),
    ],
)
def test_unpooling_refuses_what_pytorch_refuses(arguments, backend):
    with pytest.raises(Exception) as theirs:  # noqa: PT011 - whatever PyTorch raises
        F.max_unpool2d(*arguments)
    with pytest.raises(theirs.type, match="max_unpool2d"):
        fastconv.max_unpool2d(*arguments, backend=backend)


def test_an_empty_batch_is_unpooled(backend):
    assert fastconv.max_unpool2d(X[:0], PLACES[:0], 2, backend=backend).shape == (0, 2, 4, 4)


# --- where people meet them ---------------------------------------------------------------------------------------------


def test_intercepted_unpooling_is_ours(backend):
    for call in (
        lambda: F.max_unpool2d(X, PLACES, 2),
        lambda: torch.nn.MaxUnpool2d(2)(X, PLACES, output_size=(5, 4)),
        lambda: torch._C._nn.max_unpool2d(X, PLACES, (4, 4)),
    ):
        expected = call()
        with fastconv.intercept(backend=backend):
            explanation = fastconv.explain(lambda call=call, expected=expected: torch.equal(call(), expected))
        assert [one.problem.op for one in explanation] == ["max_unpool2d_forward"]
        with fastconv.intercept():
            assert len(fastconv.explain(call)) == 1


def test_converted_pooling_layers_compute_the_same():
    model = torch.nn.ModuleList([torch.nn.AdaptiveMaxPool2d(2, return_indices=True), torch.nn.MaxUnpool2d(2)])
    x = torch.randn(1, 2, 4, 4)
    expected = model[1](*model[0](x))
    report = fastconv.convert(model)
    assert [layer.now for layer in report] == ["fastconv.nn.AdaptiveMaxPool2d", "fastconv.nn.MaxUnpool2d"]
    assert torch.equal(model[1](*model[0](x)), expected)
    assert len(fastconv.revert(model)) == 2
    assert [type(layer) for layer in model] == [torch.nn.AdaptiveMaxPool2d, torch.nn.MaxUnpool2d]


def test_modules_show_their_backend():
    assert repr(fastconv.nn.AdaptiveMaxPool2d(1, backend="aten")).endswith("backend=aten)")
    assert repr(fastconv.nn.MaxUnpool2d(2)) == repr(torch.nn.MaxUnpool2d(2))
    with pytest.raises(ValueError, match="backend is 'foo'"):
        fastconv.nn.MaxUnpool2d(2, backend="foo")
