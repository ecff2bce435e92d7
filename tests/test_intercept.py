"""intercept: unmodified code on fastconv's kernels, and everything as before afterwards."""

from __future__ import annotations

import threading

import pytest
import torch
import torch.nn.functional as F

import fastconv


@pytest.fixture
def x():
    return torch.randn(2, 3, 8, 8)


W = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
B = torch.randn(4, generator=torch.Generator().manual_seed(1))

CALLS = {
    "F.conv2d": (lambda x: F.conv2d(x, W, B, padding="same"), "conv2d_fprop"),
    "torch.conv2d": (lambda x: torch.conv2d(input=x, weight=W, bias=B, stride=(2, 1)), "conv2d_fprop"),
    "nn.Conv2d": (lambda x: torch.nn.Conv2d(3, 4, 3)(x).sum() * 0, "conv2d_fprop"),
    "F.conv_transpose2d": (lambda x: F.conv_transpose2d(x, W.transpose(0, 1), stride=2), "conv2d_dgrad"),
    "torch.conv_transpose2d": (lambda x: torch.conv_transpose2d(x, W.transpose(0, 1)), "conv2d_dgrad"),
    "F.max_pool2d": (lambda x: F.max_pool2d(x, 2), "max_pool2d_forward"),
    "F.max_pool2d with indices": (lambda x: F.max_pool2d(x, 3, 2, 1, return_indices=True)[1], "max_pool2d_forward"),
    "F.max_pool2d_with_indices": (lambda x: F.max_pool2d_with_indices(x, 2)[1], "max_pool2d_forward"),
    "torch.max_pool2d": (lambda x: torch.max_pool2d(x, 2, ceil_mode=True), "max_pool2d_forward"),
    "F.adaptive_max_pool2d": (lambda x: F.adaptive_max_pool2d(x, (4, None)), "max_pool2d_forward"),
    "nn.AdaptiveMaxPool2d": (lambda x: torch.nn.AdaptiveMaxPool2d(2, return_indices=True)(x)[1], "max_pool2d_forward"),
    "nn.MaxPool2d": (lambda x: torch.nn.MaxPool2d(2, padding=1, stride=3)(x), "max_pool2d_forward"),
}


@pytest.mark.parametrize("name", CALLS)
def test_pytorchs_function_becomes_fastconvs(name, x, backend):
    call, op = CALLS[name]
    expected = call(x)
    with fastconv.intercept(backend=backend):
        explanation = fastconv.explain(lambda: torch.testing.assert_close(call(x), expected))
    assert explanation.calls[0].problem.op == op
    assert explanation.calls[0].chosen.backend == backend
    assert len(fastconv.explain(call, x)) == 0


def test_innermost_context_decides(x):
    with fastconv.intercept(backend="cuda"):
        with fastconv.intercept(backend="aten"):
            (inner,) = fastconv.explain(F.conv2d, x, W)
        (outer,) = fastconv.explain(F.conv2d, x, W)
    assert (inner.asked, outer.asked) == ("aten", "cuda")


def test_everything_is_as_before_after_an_exception(x):
    with pytest.raises(RuntimeError, match="channels"), fastconv.intercept():
        F.conv2d(x, torch.randn(4, 5, 3, 3))
    assert len(fastconv.explain(F.conv2d, x, W)) == 0


def test_other_threads_are_left_alone(x):
    kinds = []

    def elsewhere():
        kinds.append(type(F.conv2d(x.clone().requires_grad_(), W).grad_fn).__name__)

    with fastconv.intercept():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        here = type(F.conv2d(x.clone().requires_grad_(), W).grad_fn).__name__
    assert kinds == ["ConvolutionBackward0"]
    assert here == "Conv2dFunctionBackward"


def test_gradients_flow(x):
    x.requires_grad_()
    expected = torch.autograd.grad(F.conv2d(x, W).sin().sum(), x)
    with fastconv.intercept():
        torch.testing.assert_close(torch.autograd.grad(F.conv2d(x, W).sin().sum(), x), expected)


def test_tensors_that_fastconv_has_no_kernels_for_stay_pytorchs(x):
    pixels = (x * 10).long()
    expected = F.max_pool2d(pixels, 2)
    with fastconv.intercept():
        assert torch.equal(F.max_pool2d(pixels, 2), expected)
        assert F.conv2d(x.cfloat(), W.cfloat()).is_complex()
    with pytest.raises(NotImplementedError, match="int64"), fastconv.intercept(backend="aten"):
        F.max_pool2d(pixels, 2)


class Logged(torch.Tensor):
    """A subclass with an opinion on every function."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        result = super().__torch_function__(function, types, args, kwargs)
        return result.as_subclass(Logged) if isinstance(result, torch.Tensor) else result


def test_tensor_subclasses_keep_their_say(x):
    with fastconv.intercept(backend="cuda"):
        y = F.conv2d(x.as_subclass(Logged), W)
    assert type(y) is Logged


def test_unknown_backend_is_refused_before_the_context_opens():
    with pytest.raises(ValueError, match="backend is 'foo'"):
        fastconv.intercept(backend="foo")


def test_compiled_code_is_routed_too(x):
    compiled = torch.compile(lambda x: F.max_pool2d(F.conv2d(x, W), 2), backend="aot_eager", fullgraph=True)
    expected = compiled(x)
    with fastconv.intercept():
        explanation = fastconv.explain(lambda: torch.testing.assert_close(compiled(x), expected))
    assert [call.problem.op for call in explanation] == ["conv2d_fprop", "max_pool2d_forward"]
