"""Kernels that are registered: candidates like the built-in ones, held to the same promises."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck
from typer.testing import CliRunner

import fastconv
from fastconv import backends, dispatch
from fastconv.backends import aten, registered
from fastconv.cli import app
from fastconv.problem import ConvProblem
from fastconv.tuning.keys import candidate_key


@pytest.fixture(autouse=True)
def nothing_stays_registered():
    before = dict(registered.backend.kernels)
    yield
    registered.backend.kernels.clear()
    registered.backend.kernels.update(before)
    dispatch.clear()


def plain(problem: ConvProblem) -> str:
    """What im2col below was written for."""
    if problem.padding_mode != "zeros" or problem.activation != "identity" or problem.residual is not None:
        return "padding of zeros and no epilogue, please"
    if problem.padding[0::2] != problem.padding[1::2] or problem.groups != 1:
        return "even padding and one group, please"
    return ""


def im2col(problem, config, x, w, bias, residual):
    columns = F.unfold(x, w.shape[2:], problem.dilation, problem.padding[0::2], problem.stride)
    y = (w.flatten(1) @ columns).reshape(problem.y.sizes)
    return y if bias is None else y + bias[:, None, None]


def register(**options):
    calls = []

    def counted(problem, config, *tensors):
        calls.append((problem.op, config))
        return im2col(problem, config, *tensors)

    options = {"can_implement": plain} | options
    fastconv.register_kernel("conv2d_fprop", "im2col", **options)(counted)
    return calls


def operands(dtype=torch.float64):
    return torch.randn(2, 3, 8, 7, dtype=dtype), torch.randn(4, 3, 3, 3, dtype=dtype), torch.randn(4, dtype=dtype)


def test_insisting_on_it():
    calls = register()
    x, w, bias = operands()
    for layout in (torch.contiguous_format, torch.channels_last):
        ours = fastconv.conv2d(x.to(memory_format=layout), w, bias, 2, 1, backend="registered")
        theirs = F.conv2d(x.to(memory_format=layout), w, bias, 2, 1)
        torch.testing.assert_close(ours, theirs)
        assert ours.stride() == theirs.stride()
    assert calls == [("conv2d_fprop", "")] * 2


def test_what_it_cannot_do_is_an_error_with_its_words():
    register()
    x, w, _ = operands()
    with pytest.raises(RuntimeError, match=r"no epilogue, please.*what can run it: 'auto' or 'cuda'"):
        fastconv.conv2d(x, w, activation="relu", backend="registered")


def test_nothing_registered_is_an_error_that_names_the_way():
    x, w, _ = operands()
    with pytest.raises(RuntimeError, match=r"no kernel is registered \(fastconv.register_kernel"):
        fastconv.conv2d(x, w, backend="registered")


def test_auto_leaves_it_on_a_cpu_unless_it_is_preferred():
    calls = register()
    x, w, bias = operands()
    fastconv.conv2d(x, w, bias)
    assert calls == []
    fastconv.unregister_kernel("conv2d_fprop", "im2col")
    calls = register(preferred=True)
    fastconv.conv2d(x, w, bias)
    assert calls == [("conv2d_fprop", "")]
    fastconv.conv2d(x, w, bias, activation="relu")  # what it cannot do, the others do
    assert len(calls) == 1


def test_registering_and_unregistering_forget_plans():
    x, w, bias = operands()
    fastconv.conv2d(x, w, bias)
    calls = register(preferred=True)
    fastconv.conv2d(x, w, bias)
    fastconv.unregister_kernel("conv2d_fprop", "im2col")
    fastconv.conv2d(x, w, bias)
    assert len(calls) == 1


def test_gradients_go_through_a_preferred_kernel():
    calls = register(preferred=True)
    inputs = [tensor.requires_grad_() for tensor in operands()]
    assert gradcheck(lambda x, w, bias: fastconv.conv2d(x, w, bias, 1, 1), inputs)
    assert calls


def test_a_model_runs_on_a_preferred_kernel():
    calls = register(preferred=True)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 3))
    x = torch.randn(1, 3, 9, 9)
    expected = model(x)
    fastconv.convert(model)
    torch.testing.assert_close(model(x), expected)
    assert len(calls) == 2


def test_configs_are_candidates_of_their_own():
    calls = register(configs=("small", "large"), predict=lambda problem, config: 1e-6 if config == "large" else 2e-6)
    x, w, _ = operands()
    fastconv.conv2d(x, w, backend="registered")
    assert calls == [("conv2d_fprop", "small")]  # the first is the best guess
    problems = []
    with dispatch.listening(lambda choice, plan: problems.append(choice.problem)):
        fastconv.conv2d(x, w, backend="registered")
    found = dispatch.candidates(problems[0], "registered")
    assert [(one.kernel, one.config, one.predicted_seconds) for one in found] == [
        ("im2col", "small", 2e-6),
        ("im2col", "large", 1e-6),
    ]
    backends.get("registered").plan(problems[0], found[1])(x, w, None, None)
    assert calls[-1] == ("conv2d_fprop", "large")


def test_explain_lists_it():
    register()
    x, w, _ = operands()
    text = str(fastconv.explain(lambda x: fastconv.conv2d(x, w, backend="registered"), x))
    assert "im2col" in text


@pytest.mark.parametrize(
    ("results", "words"),
    [
        (lambda y: y[:, :, 1:], r"must return torch.float64 \[2, 4, 6, 5\]"),
        (lambda y: y.float(), r"returned torch.float32"),
        (lambda y: (y, y), r"returned 2 tensors"),
        (lambda y: None, r"returned NoneType"),
    ],
)
def test_wrong_results_are_errors(results, words):
    def wrong(problem, config, x, w, bias, residual):
        return results(F.conv2d(x, w))

    fastconv.register_kernel("conv2d_fprop", can_implement=plain)(wrong)
    x, w, _ = operands()
    with pytest.raises((RuntimeError, TypeError), match=words):
        fastconv.conv2d(x, w, backend="registered")


def test_a_result_that_is_an_input_is_copied():
    fastconv.register_kernel("conv2d_fprop", "identity", can_implement=lambda problem: "")(lambda *call: call[2])
    x = torch.randn(1, 1, 4, 4)
    y = fastconv.conv2d(x, torch.ones(1, 1, 1, 1), backend="registered")
    assert y.data_ptr() != x.data_ptr()
    torch.testing.assert_close(y, x)


def test_every_op_of_a_plan_can_be_registered():
    assert set(registered.RESULTS) == set(aten._PASSES)


def test_results_expected_are_those_of_the_built_in_kernels():
    """One call of each op through ATen, registered: sizes, strides and types are what its plan returns."""
    for op in registered.RESULTS:

        def by_aten(problem, config, *tensors):
            plan = aten.backend.plan(problem, aten.backend.candidates(problem)[0])
            return plan(*tensors)

        fastconv.register_kernel(op, "by_aten", can_implement=lambda problem: "")(by_aten)
    leaves = [tensor.requires_grad_() for tensor in operands()]
    x, w, bias = leaves
    y = fastconv.conv2d(x, w, bias, padding=1, activation="relu", backend="registered")
    y, indices = fastconv.max_pool2d(y, 2, return_indices=True, backend="registered")
    y = fastconv.max_unpool2d(y, indices, 2, output_size=x.shape[2:], backend="registered")
    fused = fastconv.conv2d_max_pool2d(x, w, bias, padding=1, backend="registered")
    best = fastconv.conv2d_global_max(x, w, bias, backend="registered")
    first = torch.autograd.grad(y.sum() + fused.sum() + best.sum(), leaves, create_graph=True)
    sum(one.square().sum() for one in first).backward()
    assert all(leaf.grad is not None for leaf in leaves)


def test_names_are_unique_but_a_kernel_replaces_itself():
    calls = register()
    again = register()
    x, w, _ = operands()
    fastconv.conv2d(x, w, backend="registered")
    assert (len(calls), len(again)) == (0, 1)
    with pytest.raises(ValueError, match=r"name is 'im2col', which .*counted has for conv2d_fprop"):
        fastconv.register_kernel("conv2d_fprop", "im2col", can_implement=plain)(im2col)


@pytest.mark.parametrize(
    ("error", "words", "arguments"),
    [
        (ValueError, "op is 'conv3d', but must be one of 'conv2d_fprop'", {"op": "conv3d"}),
        (TypeError, "can_implement is True", {"can_implement": True}),
        (TypeError, "configs is 'small'", {"configs": "small"}),
        (TypeError, "predict is 1.0", {"predict": 1.0}),
    ],
)
def test_bad_arguments(error, words, arguments):
    with pytest.raises(error, match=words):
        fastconv.register_kernel(**({"op": "conv2d_fprop", "can_implement": plain} | arguments))


def test_can_implement_must_give_words():
    fastconv.register_kernel("conv2d_fprop", can_implement=lambda problem: True)(im2col)
    x, w, _ = operands()
    with pytest.raises(TypeError, match="can_implement of im2col returned True"):
        fastconv.conv2d(x, w, backend="registered")


def test_times_of_another_version_of_the_source_have_another_key():
    digests = []
    for function in (im2col, F.conv2d):
        kernel = registered.RegisteredKernel("conv2d_fprop", "k", function, plain, lambda problem: ("",), None, False)
        digests.append(kernel.digest)
    assert len(set(digests)) == 2
    register()
    x, w, _ = operands()
    seen = []
    with dispatch.listening(lambda choice, plan: seen.append(choice.chosen)):
        fastconv.conv2d(x, w, backend="registered")
    assert candidate_key(seen[0]).startswith("registered:im2col:@")


def test_the_command_line_imports_modules_that_register(tmp_path, monkeypatch):
    (tmp_path / "kernels_of_mine.py").write_text(
        "import torch, fastconv\n"
        "@fastconv.register_kernel('conv2d_fprop', can_implement=lambda problem: '')\n"
        "def mine(problem, config, x, w, bias, residual):\n"
        "    return torch.conv2d(x, w, bias)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    command = ["explain", "conv2d", "1x3x8x8", "--backend", "registered", "--device", "cpu"]
    result = CliRunner().invoke(app, ["--import", "kernels_of_mine", *command])
    assert result.exit_code == 0, result.output
    assert "mine" in result.output
    result = CliRunner().invoke(app, ["--import", "no_such_module", *command])
    assert result.exit_code == 1
    assert "--import: no_such_module cannot be imported: ModuleNotFoundError" in result.output
    assert "python -m no_such_module shows where" in result.output
