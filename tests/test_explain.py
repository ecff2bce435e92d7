"""explain: which kernel served which layer, and why."""

from __future__ import annotations

import json

import pytest
import torch

import fastconv
from fastconv.explain import describe


def network(backend=None):
    return torch.nn.Sequential(
        fastconv.nn.Conv2d(2, 4, 3, backend=backend), torch.nn.Sequential(fastconv.nn.MaxPool2d(2, backend=backend))
    )


def test_layers_have_their_names_in_the_model():
    explanation = fastconv.explain(network(), torch.randn(1, 2, 8, 8))
    assert [call.layer for call in explanation] == ["0", "1.0"]


def test_backward_is_told_apart():
    model = network()

    def step():
        model(torch.randn(1, 2, 8, 8)).sum().backward()

    calls = list(fastconv.explain(step))
    assert [(call.layer, call.is_backward) for call in calls[:2]] == [("Conv2d", False), ("MaxPool2d", False)]
    assert [call.problem.op for call in calls if call.is_backward] == ["max_pool2d_backward", "conv2d_wgrad"]


def test_kernel_of_a_backend_that_was_asked_for(backend):
    call = fastconv.explain(network(backend), torch.randn(1, 2, 8, 8)).calls[0]
    assert (call.asked, call.chosen.backend) == (backend, backend)
    assert f"backend={backend!r}" in call.why
    assert all(candidate.reason for candidate in call.rejected)


def test_rejected_candidates_say_why_in_print():
    """Tensor cores want whole vectors of channels in a group; the direct kernel does not mind."""
    explanation = fastconv.explain(fastconv.nn.Conv2d(4, 4, 3, groups=2, backend="cuda"), torch.randn(1, 4, 8, 8))
    rejected = explanation.calls[0].rejected
    text = " ".join(str(explanation).split())
    assert rejected
    assert "not possible" in text
    assert rejected[0].kernel in text


def test_values_for_json():
    explanation = fastconv.explain(network("cuda"), torch.randn(1, 2, 8, 8))
    calls = json.loads(json.dumps(explanation.to_dict()))["calls"]
    assert calls[0]["op"] == "conv2d_fprop"
    assert calls[0]["problem"]["x"]["sizes"] == [1, 2, 8, 8]
    assert calls[0]["problem"]["dtype"] == "float32"
    assert calls[0]["chosen"]["backend"] == "cuda"


def test_call_without_fastconv_in_it_is_an_empty_table():
    explanation = fastconv.explain(torch.relu, torch.randn(3))
    assert len(explanation) == 0
    assert "0 calls" in str(explanation)


def test_nothing_is_left_behind_by_a_call_that_fails():
    def fail():
        raise KeyError("no")

    model = network()
    with pytest.raises(KeyError):
        fastconv.explain(fail)
    assert not torch.nn.modules.module._global_forward_hooks
    assert not torch.nn.modules.module._global_forward_pre_hooks
    assert not fastconv.dispatch._listeners
    with pytest.raises(RuntimeError, match="channels"):
        fastconv.explain(model, torch.randn(1, 5, 8, 8))
    assert [call.layer for call in fastconv.explain(model, torch.randn(1, 2, 8, 8))] == ["0", "1.0"]


@pytest.mark.filterwarnings("ignore:Using `torch.compile:UserWarning")  # of PyTorch's, about hooks on all modules
def test_a_compiled_model_is_explained_in_its_first_call():
    torch.compiler.reset()
    calls = fastconv.explain(torch.compile(network(), backend="eager"), torch.randn(1, 2, 8, 8)).calls
    assert [call.problem.op for call in calls] == ["conv2d_fprop", "max_pool2d_forward"]


def test_one_call_is_counted_as_one():
    explanation = fastconv.explain(fastconv.nn.MaxPool2d(2), torch.randn(1, 2, 8, 8))
    assert explanation.to_dict()["summary"][0].startswith("1 call, ")


def test_something_that_cannot_be_called_is_refused():
    with pytest.raises(TypeError, match="fn_or_module is of type int"):
        fastconv.explain(3)


def test_description_of_a_problem_has_what_matters():
    x = torch.randn(1, 4, 8, 8).contiguous(memory_format=torch.channels_last)
    call = fastconv.explain(
        fastconv.conv2d, x, torch.randn(4, 2, 3, 2), torch.randn(4), padding="same", groups=2, activation="relu"
    ).calls[0]
    text = "float32 x 1x4x8x8 channels_last, w 4x2x3x2, stride 1, padding 1,1,0,1, groups 2, bias, relu"
    assert describe(call.problem) == text
    for mode, value, words in (("reflect", 0.0, "reflect"), ("constant", -2.5, "-2.5")):
        options = {"padding": (2, 1, 0, 3), "padding_mode": mode, "padding_value": value}
        call = fastconv.explain(fastconv.conv2d, x, torch.randn(4, 4, 3, 2), **options).calls[0]
        assert describe(call.problem).endswith(f"padding 2,1,0,3, padded by {words}")
    call = fastconv.explain(fastconv.max_pool2d, x.transpose(2, 3), (3, 2), 1, 1, 2).calls[0]
    assert describe(call.problem) == (
        "float32 x 1x4x8x8 strides (256, 1, 4, 32), kernel 3x2, stride 1, padding 1, dilation 2"
    )
