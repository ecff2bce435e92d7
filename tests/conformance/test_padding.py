"""Padding modes and four-sided padding of conv2d, against PyTorch's convolution of a padded copy, on every backend."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck
from torch.library import opcheck

import fastconv
from fastconv import emulator
from tests.support.calls import PrimitiveCalls
from tests.support.cases import DTYPES, Case
from tests.support.check import assert_case
from tests.support.data import drawer, seeded
from tests.support.layouts import LAYOUTS

MODES = ("zeros", "reflect", "replicate", "circular", "constant")

#: Each with as many images of an element as a mode can have, or none on one side.
LINES = {
    "same": "conv2d n=2 c=5 h=6 w=7 k=8 r=3 s=4 padding=same bias=1",
    "one_sided": "conv2d n=2 c=4 h=5 w=4 k=6 r=2 s=3 padding=0x3x2x0 groups=2",
    "strided": "conv2d n=1 c=3 h=7 w=9 k=5 r=3 s=3 padding=2x1x3x1 stride=2x3 bias=1 activation=relu",
    "dilated": "conv2d n=2 c=2 h=8 w=6 k=4 r=3 s=2 padding=4x3x2x5 dilation=3x2 stride=1x2",
    "depthwise": "conv2d n=2 c=9 h=6 w=5 k=9 r=5 s=3 padding=2x1 groups=9 bias=1",
    "residual": "conv2d n=1 c=4 h=4 w=4 k=4 r=3 s=3 padding=1x1 residual=channels_last activation=relu",
    "unbatched": "conv2d n=1 c=3 h=4 w=5 k=2 r=2 s=2 padding=3x0x0x4 unbatched=1",
}


def case(name: str, mode: str, **options: object) -> Case:
    value = -3 if mode == "constant" else 0
    return dataclasses.replace(Case.parse(LINES[name]), padding_mode=mode, padding_value=value, seed=7, **options)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", LINES)
def test_forward_and_gradients_are_pytorchs(name: str, mode: str, backend: str) -> None:
    assert_case(case(name, mode, data="integers", backend=backend))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", MODES)
def test_every_type_is_as_accurate_as_pytorch(mode: str, dtype: str) -> None:
    for name in ("strided", "depthwise"):
        assert_case(case(name, mode, dtype=dtype))
        assert_case(case(name, mode, dtype=dtype, index_bits=64, x_layout="channels_last", dy_layout="channels_last"))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mode", MODES)
def test_operands_are_read_where_they_lie(mode: str, layout: str) -> None:
    assert_case(case("dilated", mode, data="integers", x_layout=layout, w_layout=layout, dy_layout=layout))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["one_sided", "strided", "depthwise"])
def test_no_mode_breaks_a_rule_of_cuda(name: str, mode: str, seed: int) -> None:
    with emulator.check(seed=seed):
        assert_case(case(name, mode, data="integers"))


def padded_leaves(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = drawer("normal", seeded(seed), torch.float64)
    return tuple(draw(shape).requires_grad_() for shape in ((1, 2, 4, 5), (2, 1, 3, 2), (2,)))


@pytest.mark.parametrize("mode", MODES)
def test_gradients_of_both_orders_and_forward_mode(mode: str, backend: str, seed: int) -> None:
    """A constant leaves conv2d affine: its tangents and second gradients must not contain the constant."""

    def function(x, w, b):
        return fastconv.conv2d(
            x, w, b, (2, 1), (3, 0, 1, 2), 1, 2,
            padding_mode=mode, padding_value=1.5 if mode == "constant" else 0.0, backend=backend,
        )  # fmt: skip

    leaves = padded_leaves(seed)
    assert gradcheck(function, leaves, check_forward_ad=True)
    assert gradgradcheck(function, leaves, gen_non_contig_grad_outputs=True, check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.parametrize("mode", MODES)
def test_primitives_are_each_others_derivatives(mode: str, backend: str, seed: int) -> None:
    """dgrad and wgrad called by themselves, as torch.ops has them."""
    ops = torch.ops.fastconv
    geometry = ([1, 2], [1, 2, 0, 3], [1, 1], 2, mode, 2.5 if mode == "constant" else 0.0)
    x, w, _ = padded_leaves(seed)
    with torch.no_grad():
        y = ops.conv2d_fprop(x, w, None, None, *geometry, "identity", backend)
    dy = torch.randn_like(y).requires_grad_()

    def dgrad(dy, w):
        return ops.conv2d_dgrad(dy, w, None, list(x.shape), *geometry, "identity", backend)

    def wgrad(dy, x):
        return ops.conv2d_wgrad(dy, x, list(w.shape), *geometry, True, backend)

    for function, leaves in ((dgrad, (dy, w)), (wgrad, (dy, x))):
        assert gradcheck(function, leaves, check_forward_ad=True)
        assert gradgradcheck(function, leaves, fast_mode=True)


@pytest.mark.parametrize("mode", MODES)
def test_opcheck(mode: str, backend: str) -> None:
    ops = torch.ops.fastconv
    geometry = ((2, 1), (1, 0, 2, 1), (1, 2), 2, mode, 0.5 if mode == "constant" else 0.0)
    x, w = torch.randn(2, 4, 7, 6, requires_grad=True), torch.randn(6, 2, 3, 2, requires_grad=True)
    y = ops.conv2d_fprop(x, w, None, None, *geometry, "identity", backend).detach().requires_grad_()
    opcheck(ops.conv2d_fprop.default, (x, w, None, None, *geometry, "relu", backend))
    opcheck(ops.conv2d_dgrad.default, (y, w, None, list(x.shape), *geometry, "identity", backend))
    opcheck(ops.conv2d_wgrad.default, (y, x, list(w.shape), *geometry, True, backend))


@pytest.mark.parametrize("in_dims", [(0, None), (1, 0), (None, 0)], ids=str)
@pytest.mark.parametrize("mode", ["reflect", "constant"])
def test_vmap(mode: str, in_dims: tuple, backend: str) -> None:
    value = 0.25 if mode == "constant" else 0.0
    xs = torch.randn(3, 3, 2, 4, 5) if in_dims[0] is not None else torch.randn(3, 2, 4, 5)
    ws = torch.randn(3, 4, 2, 2, 3) if in_dims[1] is not None else torch.randn(4, 2, 2, 3)

    def ours(x, w):
        options = {"padding_mode": mode, "padding_value": value, "backend": backend}
        return fastconv.conv2d(x, w, padding=(1, 2, 3, 0), **options)

    def theirs(x, w):
        return F.conv2d(F.pad(x, (3, 0, 1, 2), mode, value or None), w)

    torch.testing.assert_close(torch.vmap(ours, in_dims)(xs, ws), torch.vmap(theirs, in_dims)(xs, ws))


@pytest.mark.parametrize("mode", MODES)
def test_no_padded_copy_is_made(mode: str) -> None:
    """Above the primitives nothing is computed: one op forward, and two backward."""
    x, w = torch.randn(1, 2, 5, 5, requires_grad=True), torch.randn(3, 2, 3, 3, requires_grad=True)
    with PrimitiveCalls() as calls, torch.autograd.profiler.profile() as profile:
        fastconv.conv2d(x, w, padding=(1, 2, 0, 3), padding_mode=mode, backend="cuda").sum().backward()
    assert calls.names == ["conv2d_fprop", "conv2d_dgrad", "conv2d_wgrad"]
    assert not [event.name for event in profile.function_events if "pad" in event.name]


def test_a_constant_may_be_infinite_or_nan(backend: str) -> None:
    x, w = torch.ones(1, 1, 3, 3), torch.ones(1, 1, 2, 2)
    for value in (float("inf"), float("nan")):
        expected = F.conv2d(F.pad(x, (1, 0, 0, 1), value=value), w)
        for _ in range(2):
            y = fastconv.conv2d(
                x, w, padding=(0, 1, 1, 0), padding_mode="constant", padding_value=value, backend=backend
            )
            torch.testing.assert_close(y, expected, equal_nan=True)


def test_plans_of_a_nan_are_kept_as_others_are() -> None:
    """NaN is not equal to itself: a key that holds one must be found all the same."""
    x, w = torch.ones(1, 1, 3, 3), torch.ones(1, 1, 2, 2)
    fastconv.dispatch.clear()
    for _ in range(3):
        fastconv.conv2d(x, w, padding=1, padding_mode="constant", padding_value=float("nan"))
    assert len(fastconv.dispatch._plans) == 1


# --- bad input --------------------------------------------------------------------------------------------------------

X, W = torch.ones(2, 3, 4, 5), torch.ones(2, 3, 1, 1)

#: (padding, mode, what the message must say); sides are (top, bottom, left, right).
REFUSED = [
    ((4, 0, 0, 0), "reflect", "Padding size should be less than the corresponding input dimension"),
    ((0, 4, 0, 0), "reflect", "at most 3"),
    ((0, 0, 5, 0), "reflect", r"dimension 3 of input \[2, 3, 4, 5\]"),
    ((0, 0, 0, 9), "reflect", "at most 4"),
    ((5, 0, 0, 0), "circular", "wrapping around more than once"),
    ((0, 0, 0, 6), "circular", "at most 5"),
]


@pytest.mark.parametrize(("padding", "mode", "words"), REFUSED)
def test_padding_that_the_input_cannot_give_is_refused_as_pytorch_refuses_it(padding, mode, words, backend):
    top, bottom, left, right = padding
    with pytest.raises(Exception) as theirs:  # noqa: PT011 - the type is the question
        F.pad(X, (left, right, top, bottom), mode)
    with pytest.raises(theirs.type, match=words):
        fastconv.conv2d(X, W, padding=padding, padding_mode=mode, backend=backend)
    geometry = ([1, 1], list(padding), [1, 1], 1, mode, 0.0)
    with pytest.raises(RuntimeError, match="padding is"):  # the primitives are public too
        torch.ops.fastconv.conv2d_fprop(X, W, None, None, *geometry, "identity", backend)


def test_the_largest_padding_that_pytorch_takes_is_taken(backend):
    for mode, sides in (("reflect", (3, 3, 4, 4)), ("circular", (4, 4, 5, 5))):
        expected = F.conv2d(F.pad(X, (sides[2], sides[3], sides[0], sides[1]), mode), W)
        assert torch.equal(fastconv.conv2d(X, W, padding=sides, padding_mode=mode, backend=backend), expected)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"padding_mode": "mirror"}, ValueError, "padding_mode is 'mirror'.*'constant'$"),
        ({"padding_mode": None}, TypeError, "padding_mode is None.*'constant'$"),
        (
            {"padding_mode": "reflect", "padding_value": 1.0},
            RuntimeError,
            'Padding mode "reflect" doesn\'t take in value',
        ),
        ({"padding_value": 1.0}, RuntimeError, "padding_value is 1.0.*must be 0"),
        ({"padding_mode": "constant", "padding_value": "1"}, TypeError, "padding_value is '1'.*must be a float"),
        ({"padding_mode": "constant", "padding_value": 10**400}, RuntimeError, "padding_value is 10{400}; .*overflow"),
        ({"padding": (1, 2, 3)}, RuntimeError, r"padding is \(1, 2, 3\).*or 4 values"),
        ({"padding_mode": "constant", "padding_value": None}, TypeError, "padding_value is None.*must be a float"),
        ({"padding": (1, 2, -3, 0)}, RuntimeError, r"padding is \(1, 2, -3, 0\).*negative"),
        ({"padding": (1, 2, 0.5, 0)}, TypeError, r"padding is \(1, 2, 0.5, 0\).*ints"),
    ],
)
def test_what_is_no_padding_is_refused(options, error, words, backend):
    with pytest.raises(error, match=words):
        fastconv.conv2d(X, W, **({"padding": 1} | options), backend=backend)


def test_a_constant_beyond_the_type_is_refused_as_pytorch_refuses_it(backend):
    x, w = X.half(), W.half()
    with pytest.raises(RuntimeError, match="overflow"):
        F.pad(x, (1, 1), value=1e6)
    with pytest.raises(RuntimeError, match="without overflow"):
        fastconv.conv2d(x, w, padding=1, padding_mode="constant", padding_value=1e6, backend=backend)


def test_a_kernel_of_zeros_only_says_so():
    reasons = []
    x = X.clone().requires_grad_()
    fastconv.dispatch.clear()
    with fastconv.dispatch.listening(lambda choice, plan: reasons.extend(one.reason for one in choice.rejected)):
        fastconv.conv2d(x, W, padding=1, padding_mode="circular", backend="triton").sum().backward()
    assert any(reason.startswith("padding mode circular: this kernel knows zeros only") for reason in reasons)
