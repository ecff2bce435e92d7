"""Problems, choices and the plans that are kept."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import fastconv
from fastconv import backends, dispatch
from fastconv.plan import Candidate
from fastconv.problem import Operand, Target
from fastconv.shapes import dense_strides
from fastconv.validity import validate

TARGET = Target("cpu", 90, 132, "a device for tests")


def operand(*sizes, channels_last=False):
    return Operand(sizes, dense_strides(sizes, channels_last))


def problem(**changes):
    arguments = {
        "x": operand(2, 4, 8, 9),
        "w": operand(6, 4, 3, 3),
        "stride": [1, 1],
        "padding": [1, 1, 1, 1],
        "dilation": [1, 1],
        "groups": 1,
    }
    return dispatch.make_conv_problem("fprop", torch.float32, TARGET, **(arguments | changes))


@pytest.fixture
def fresh_plans():
    dispatch.clear()
    yield
    dispatch.clear()


def test_problem_is_a_value_that_can_be_a_key():
    assert problem() == problem()
    assert hash(problem()) == hash(problem())
    assert problem() != problem(stride=[2, 1])


def test_output_is_channels_last_where_an_input_is():
    assert not problem().y.is_channels_last()
    assert problem(x=operand(2, 4, 8, 9, channels_last=True)).y.is_channels_last()
    assert problem(w=operand(6, 4, 3, 3, channels_last=True)).y.is_channels_last()


@pytest.mark.parametrize(
    ("changes", "bits"),
    [
        ({}, 32),
        ({"x": operand(1, 1, 2**16, 2**15), "w": operand(1, 1, 1, 1)}, 64),
        ({"x": Operand((2, 4, 8, 9), (2**31, 72, 9, 1))}, 64),  # a slice of something large
        ({"x": Operand((2**16, 4, 2**8, 2**8), (0, 0, 0, 0))}, 64),  # one element, expanded: counters overflow
        ({"w": operand(2**16, 2**13, 2, 2), "x": operand(1, 2**13, 2, 2)}, 64),
        ({"padding": [2**30, 2**30, 0, 0]}, 64),  # positions, not elements
    ],
)
def test_index_width_is_64_only_where_something_needs_it(changes, bits):
    assert problem(**changes).index_bits == bits


def test_index_width_can_be_forced_and_is_restored():
    with dispatch.force_index_bits(64):
        assert problem().index_bits == 64
        with pytest.raises(RuntimeError, match="stop"), dispatch.force_index_bits(32):
            raise RuntimeError("stop")
        assert problem().index_bits == 64
    assert problem().index_bits == 32
    with pytest.raises(ValueError, match="bits is 16"), dispatch.force_index_bits(16):
        pass


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"groups": 4}, "groups"),
        ({"groups": 2}, "channels of x"),
        ({"stride": [0, 1]}, "stride"),
        ({"padding": [0, 0, 0, -1]}, "padding"),
        ({"dilation": [1]}, "dilation"),
        ({"x": Operand((4, 8, 9), (72, 9, 1))}, "sizes of x"),
        ({"w": operand(6, 4, 11, 3)}, "height of y"),
        ({"residual": operand(2, 6, 8, 8)}, "residual"),
        ({"activation": "foo"}, "activation"),
    ],
)
def test_parts_that_do_not_fit_are_named(changes, part):
    validate(problem())
    with pytest.raises(RuntimeError, match=f"conv2d_fprop: .*{part}"):
        validate(problem(**changes))


def test_unknown_backend_of_a_primitive_is_an_error():
    x, w = torch.randn(1, 1, 3, 3), torch.randn(1, 1, 1, 1)
    with pytest.raises(RuntimeError, match=r"backend is 'foo'.*'triton'"):
        torch.ops.fastconv.conv2d_fprop(x, w, None, None, [1, 1], [0] * 4, [1, 1], 1, "zeros", 0.0, "identity", "foo")


def test_plan_is_made_once_for_calls_that_differ_only_in_values(monkeypatch, fresh_plans):
    made = []
    aten = backends.get("aten")
    plan = aten.plan
    monkeypatch.setattr(aten, "plan", lambda problem, candidate: made.append(problem) or plan(problem, candidate))
    for _ in range(3):
        fastconv.conv2d(torch.randn(1, 2, 5, 5), torch.randn(3, 2, 3, 3))
    assert len(made) == 1
    fastconv.conv2d(torch.randn(1, 2, 5, 6), torch.randn(3, 2, 3, 3))
    fastconv.conv2d(torch.randn(1, 2, 6, 5).transpose(2, 3), torch.randn(3, 2, 3, 3))
    fastconv.conv2d(torch.randn(1, 2, 5, 5).double(), torch.randn(3, 2, 3, 3).double())
    fastconv.conv2d(torch.randn(1, 2, 5, 5), torch.randn(3, 2, 3, 3), torch.randn(3))
    fastconv.conv2d(torch.randn(1, 2, 5, 5), torch.randn(3, 2, 3, 3), residual=torch.randn(1, 3, 3, 3))
    assert len(made) == 6


def test_plans_are_told_apart_by_what_surrounds_the_call(fresh_plans):
    x, w = torch.randn(1, 2, 5, 5), torch.randn(3, 2, 3, 3)

    def seen():
        (call,) = fastconv.explain(fastconv.conv2d, x, w, backend="aten")
        return call.problem

    first = seen()
    with dispatch.force_index_bits(64):
        assert seen().index_bits == 64
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(not before, warn_only=True)
    assert seen().deterministic is not first.deterministic
    torch.use_deterministic_algorithms(before, warn_only=True)
    flag = torch.backends.mkldnn.conv
    before = flag.fp32_precision
    flag.fp32_precision = "tf32"
    try:
        assert seen().allow_tf32
    finally:
        flag.fp32_precision = before
    assert seen() == first


def test_tf32_is_a_matter_of_float32_alone():
    flag = torch.backends.mkldnn.conv
    before = flag.fp32_precision
    flag.fp32_precision = "tf32"
    try:
        assert dispatch.allow_tf32("cpu", torch.float32)
        assert not dispatch.allow_tf32("cpu", torch.float16)
        assert not dispatch.allow_tf32("cpu", torch.float64)
    finally:
        flag.fp32_precision = before


def test_kept_plans_do_not_grow_without_end(monkeypatch, fresh_plans):
    monkeypatch.setattr(dispatch, "CACHE_LIMIT", 4)
    for size in range(3, 20):
        fastconv.max_pool2d(torch.randn(1, 1, size, 3), 1)
    assert len(dispatch._plans) <= 4


class Refusing:
    """A backend that is there and can do nothing."""

    name = "aten"

    def unavailable(self, device_type):
        return ""

    def candidates(self, problem):
        return [Candidate("aten", "one", "small", "too small"), Candidate("aten", "other", "", "too large")]


def test_no_candidate_is_an_error_with_every_reason(monkeypatch):
    monkeypatch.setattr(backends, "get", lambda name: Refusing())
    with pytest.raises(RuntimeError, match=r"(?s)backend is 'aten'.*one.*too small.*other.*too large"):
        dispatch.choose(problem(), "aten")


def test_auto_passes_over_what_is_not_here(monkeypatch):
    monkeypatch.setitem(dispatch.AUTO_ORDER, "cpu", {"*": ("triton", "aten")})
    monkeypatch.setattr(backends, "unavailable", lambda name, device_type: "gone" if name == "triton" else "")
    choice = dispatch.choose(problem(), "auto")
    assert choice.chosen.backend == "aten"
    assert [candidate.reason for candidate in choice.rejected] == ["gone"]
    assert "triton, aten" in choice.why


def test_backend_that_cannot_be_imported_says_so_and_offers_another(monkeypatch):
    monkeypatch.setitem(backends.MODULES, "triton", "fastconv.backends.no_such_module")
    backends.get.cache_clear()
    try:
        with pytest.raises(RuntimeError, match=r"(?s)no_such_module.*'auto' or .*'aten'"):
            dispatch.choose(problem(), "triton")
    finally:
        backends.get.cache_clear()


def test_listeners_hear_every_call_and_only_while_they_listen():
    heard = []
    x = torch.randn(1, 1, 4, 4)
    with dispatch.listening(lambda choice, plan: heard.append(choice.problem.op)):
        fastconv.max_pool2d(x, 2)
        fastconv.max_pool2d(x, 2)
    fastconv.max_pool2d(x, 2)
    assert heard == ["max_pool2d_forward"] * 2


def test_problem_survives_replacement():
    """Tuning and tests move problems to other devices this way."""
    moved = dataclasses.replace(problem(), target=Target("cuda", 80, 108))
    assert moved.target.capability == 80
    assert moved.x == problem().x
