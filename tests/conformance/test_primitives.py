"""The primitives `torch.ops.fastconv.*` as PyTorch sees them, and what the public ops cannot ask of them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.library import opcheck

import fastconv  # noqa: F401 - registers the primitives
from tests.conftest import BACKENDS
from tests.support.data import drawer, seeded

ops = torch.ops.fastconv


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


def integers(*shape, seed=0, dtype=torch.float32):
    return drawer("integers", seeded(seed), dtype)(shape)


def channels_last(tensor):
    return tensor.contiguous(memory_format=torch.channels_last)


# stride, padding, dilation, groups, padding mode and value
CONVOLUTION = ((2, 1), (1, 0, 2, 1), (1, 2), 2, "zeros", 0.0)
POOL = ((3, 2), (2, 2), (1, 1), (1, 1), True)  # kernel, stride, padding, dilation, ceil_mode
FUSED_POOL = ((3, 2), (2, 1), (1, 1))  # kernel, stride, padding


def primitive_calls(backend, requires_grad=False):
    """Arguments of one call of each primitive, by name."""
    x, w, b = integers(2, 4, 7, 6), integers(6, 2, 3, 2), integers(6)
    for tensor in (x, w, b):
        tensor.requires_grad_(requires_grad)
    with torch.no_grad():
        y = ops.conv2d_fprop(x, w, None, None, *CONVOLUTION, "identity", backend)
        pooled, offsets = ops.max_pool2d_forward(x, *POOL, backend)
    dy = integers(*y.shape, seed=2).requires_grad_(requires_grad)
    residual = integers(*y.shape, seed=3).requires_grad_(requires_grad)
    c = integers(4).requires_grad_(requires_grad)
    dpooled = integers(*pooled.shape, seed=4).requires_grad_(requires_grad)
    size = list(x.shape)
    places = torch.arange(y[0, 0].numel()).flip(0).view(1, 1, *y.shape[2:]).expand(*y.shape).contiguous()
    return {
        "conv2d_fprop": (x, w, b, residual, *CONVOLUTION, "relu", backend),
        "conv2d_dgrad": (dy, w, c, size, *CONVOLUTION, "identity", backend),
        "conv2d_wgrad": (dy, x, list(w.shape), *CONVOLUTION, True, backend),
        "conv2d_max_pool2d": (x, w, b, *CONVOLUTION, "relu", *FUSED_POOL, backend),
        "conv2d_global_max": (x, w, b, *CONVOLUTION, "relu", backend),
        "channel_sum": (x, backend),
        "activation_backward": (dy, residual, "sigmoid", backend),
        "max_pool2d_forward": (x, *POOL, backend),
        "max_pool2d_backward": (dpooled, offsets, size, *POOL, backend),
        "max_pool2d_gather": (x, offsets, *POOL, backend),
        "max_pool2d_indices": (offsets, size, *POOL, backend),
        "max_unpool2d_forward": (dy, places, size[2:], backend),
        "max_unpool2d_add": (dy, places, size[2:], backend),
        "max_unpool2d_gather": (x, places[:, :4].contiguous(), backend),
    }


NAMES = (
    "conv2d_fprop",
    "conv2d_dgrad",
    "conv2d_wgrad",
    "conv2d_max_pool2d",
    "conv2d_global_max",
    "channel_sum",
    "activation_backward",
    "max_pool2d_forward",
    "max_pool2d_backward",
    "max_pool2d_gather",
    "max_pool2d_indices",
    "max_unpool2d_forward",
    "max_unpool2d_add",
    "max_unpool2d_gather",
)


@pytest.mark.parametrize("requires_grad", [False, True], ids=["plain", "requires_grad"])
@pytest.mark.parametrize("name", NAMES)
def test_opcheck(name, requires_grad, backend):
    opcheck(getattr(ops, name).default, primitive_calls(backend, requires_grad)[name])


def test_every_primitive_is_checked():
    registered = {name for name in torch._C._dispatch_get_all_op_names() if name.startswith("fastconv::")}
    assert {name.removeprefix("fastconv::") for name in registered} == set(NAMES)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_fake_outputs_have_the_strides_of_real_ones(name, memory_format, backend):
    """A wrong stride in a fake implementation is wrong code under torch.compile."""
    arguments = [
        argument.contiguous(memory_format=memory_format)
        if isinstance(argument, torch.Tensor) and argument.dim() == 4
        else argument
        for argument in primitive_calls(backend)[name]
    ]
    real = getattr(ops, name)(*arguments)
    with torch._subclasses.FakeTensorMode() as mode:
        fake = getattr(ops, name)(
            *[mode.from_tensor(argument) if isinstance(argument, torch.Tensor) else argument for argument in arguments]
        )
    for one, other in zip(as_tuple(real), as_tuple(fake), strict=True):
        assert (one.shape, one.dtype, one.stride()) == (other.shape, other.dtype, other.stride())


def as_tuple(outputs):
    return outputs if isinstance(outputs, tuple) else (outputs,)


@pytest.mark.parametrize("padding", [(1, 0, 2, 1), (0, 3, 0, 0), (2, 2, 0, 1)])
def test_asymmetric_padding_of_all_three_passes(padding, backend):
    """The four paddings are the user's only through padding="same", which never has them far apart."""
    x, w, b = integers(2, 4, 7, 6, seed=1), integers(6, 2, 3, 2, seed=2), integers(6, seed=3)
    leaves = [x.clone().requires_grad_(), w.clone().requires_grad_(), b.clone().requires_grad_()]
    top, bottom, left, right = padding
    expected = F.conv2d(F.pad(leaves[0], (left, right, top, bottom)), *leaves[1:], (2, 1), 0, (1, 2), 2)
    dy = integers(*expected.shape, seed=4)
    grads = torch.autograd.grad(expected, leaves, dy)
    arguments = ((2, 1), padding, (1, 2), 2, "zeros", 0.0)
    assert torch.equal(ops.conv2d_fprop(x, w, b, None, *arguments, "identity", backend), expected)
    assert torch.equal(ops.conv2d_dgrad(dy, w, None, list(x.shape), *arguments, "identity", backend), grads[0])
    dw, db = ops.conv2d_wgrad(dy, x, list(w.shape), *arguments, True, backend)
    assert torch.equal(dw, grads[1])
    assert torch.equal(db, grads[2])
    assert torch.equal(ops.channel_sum(dy, backend), grads[2])


def test_wgrad_without_bias_gradient_returns_an_empty_one(backend):
    arguments = list(primitive_calls(backend)["conv2d_wgrad"])
    arguments[-2] = False
    _, db = ops.conv2d_wgrad(*arguments)
    assert db.numel() == 0


def test_offsets_are_one_byte_up_to_256_places(backend):
    x = torch.randn(1, 1, 20, 20)
    geometry = ((1, 1), (0, 0), (1, 1), False)
    assert ops.max_pool2d_forward(x, (16, 16), *geometry, backend)[1].dtype == torch.uint8
    assert ops.max_pool2d_forward(x, (17, 16), *geometry, backend)[1].dtype == torch.int32


def test_gather_is_the_transpose_of_backward(backend):
    """<gather(x), dy> is <x, backward(dy)>, exactly in integers."""
    x = integers(2, 4, 7, 6, seed=5)
    pooled, offsets = ops.max_pool2d_forward(x, *POOL, backend)
    assert torch.equal(ops.max_pool2d_gather(x, offsets, *POOL, backend), pooled)
    other, dy = integers(2, 4, 7, 6, seed=6), integers(*pooled.shape, seed=7)
    gathered = ops.max_pool2d_gather(other, offsets, *POOL, backend)
    scattered = ops.max_pool2d_backward(dy, offsets, list(x.shape), *POOL, backend)
    assert (gathered * dy).sum() == (other * scattered).sum()


def test_impossible_sizes_are_refused_by_the_primitives_too(backend):
    """They are public through torch.ops, so they check by themselves."""
    calls = primitive_calls(backend)
    with pytest.raises((RuntimeError, ValueError)):
        ops.conv2d_dgrad(
            calls["conv2d_dgrad"][0], calls["conv2d_dgrad"][1], None, [2, 4, 50, 6], *CONVOLUTION, "identity", backend
        )
    with pytest.raises((RuntimeError, ValueError)):
        ops.conv2d_wgrad(calls["conv2d_wgrad"][0], calls["conv2d_wgrad"][1], [6, 2, 5, 2], *CONVOLUTION, True, backend)
    with pytest.raises((RuntimeError, ValueError)):
        ops.max_pool2d_backward(integers(2, 4, 9, 9), calls["max_pool2d_backward"][1], [2, 4, 7, 6], *POOL, backend)
    with pytest.raises(RuntimeError, match=r"dilation.*window 0 has no element"):
        ops.max_pool2d_forward(integers(2, 4, 7, 6), [2, 1], [1, 1], [1, 0], [8, 1], False, backend)
