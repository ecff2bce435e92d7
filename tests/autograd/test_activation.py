"""Gradients through a fused activation: what is kept, what runs, and derivatives of the derivative."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

import fastconv
from fastconv import activation, dispatch

ops = torch.ops.fastconv
DERIVATIVES = activation.FROM_OUTPUT | activation.FROM_INPUT


def kept_by(call: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, set[int]]:
    """What a call returns, and the addresses of the tensors that it keeps for backward."""
    kept: set[int] = set()

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.add(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        return call(), kept


@pytest.mark.parametrize("backend", ["aten", "cuda", "triton"])
def test_relu_keeps_nothing_but_the_output(backend: str) -> None:
    """Beside x and w, which the convolution's own gradients take."""
    x, w = torch.randn(2, 3, 6, 6, requires_grad=True), torch.randn(4, 3, 3, 3, requires_grad=True)
    b = torch.randn(4, requires_grad=True)
    y, kept = kept_by(lambda: fastconv.conv2d(x, w, b, padding=1, activation="relu", backend=backend))
    assert kept == {x.data_ptr(), w.data_ptr(), y.data_ptr()}
    y, kept = kept_by(lambda: fastconv.conv2d(x.detach(), w.detach(), b, activation="relu", backend=backend))
    assert kept == {y.data_ptr()}, "a bias alone needs the output alone"


@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_backward_undoes_the_activation_in_one_pass_of_the_backend(backend: str) -> None:
    x, w = torch.randn(1, 3, 5, 5, requires_grad=True), torch.randn(4, 3, 3, 3, requires_grad=True)
    y = fastconv.conv2d(x, w, activation="relu", backend=backend)
    ran = []
    with dispatch.listening(lambda choice, plan: ran.append((choice.problem.op, choice.chosen.backend))):
        y.sum().backward()
    ops_in_backward = ["activation_backward", "conv2d_dgrad", "conv2d_wgrad"]
    assert sorted(ran) == [(op, backend) for op in ops_in_backward]


@pytest.mark.parametrize("backend", ["aten", "cuda", "triton"])
@pytest.mark.parametrize("name", DERIVATIVES)
def test_values_are_pytorchs_and_lie_as_saved_does(name: str, backend: str) -> None:
    saved = torch.randn(2, 3, 5, 4)
    gradients = [torch.randn(2, 3, 5, 4), torch.ones(1, 1, 1, 1).expand(2, 3, 5, 4)]
    gradients.append(gradients[0].contiguous(memory_format=torch.channels_last))
    for memory_format in (torch.contiguous_format, torch.channels_last):
        for dy in gradients:
            dz = ops.activation_backward(dy, saved.contiguous(memory_format=memory_format), name, backend)
            wanted = DERIVATIVES[name](dy.contiguous(), saved)
            torch.testing.assert_close(dz, wanted, rtol=1e-5, atol=1e-6)
            assert dz.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("name", DERIVATIVES)
def test_derivatives_of_the_derivative(name: str) -> None:
    dy = torch.randn(1, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    saved = torch.rand(1, 2, 3, 2, dtype=torch.float64) * 1.6 - 0.8
    saved = (saved + saved.sign() * 0.1).requires_grad_()  # away from the corner at 0

    def call(dy: torch.Tensor, saved: torch.Tensor) -> torch.Tensor:
        return ops.activation_backward(dy, saved, name, "cuda")

    assert torch.autograd.gradcheck(call, (dy, saved), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(call, (dy, saved))


@pytest.mark.parametrize("name", DERIVATIVES)
def test_two_derivatives_of_a_convolution_are_pytorchs(name: str) -> None:
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    w = torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)

    def twice(output: torch.Tensor) -> tuple[torch.Tensor, ...]:
        (first,) = torch.autograd.grad(output.sin().sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), (x, w))

    geometry = (1, 1), (1, 1, 1, 1), (1, 1), 1, "zeros", 0.0
    found = twice(ops.conv2d_fprop(x, w, None, None, *geometry, name, "cuda"))
    wanted = twice(activation.APPLY[name](F.conv2d(x, w, padding=1)))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_other_activations_types_and_sizes_are_refused() -> None:
    dy = torch.randn(1, 2, 3, 3)
    with pytest.raises(RuntimeError, match="activation is 'identity'"):
        ops.activation_backward(dy, dy, "identity", "cuda")
    with pytest.raises(RuntimeError, match="sizes of saved"):
        ops.activation_backward(dy, dy[:, :1], "relu", "cuda")
    with pytest.raises(RuntimeError, match="of one type"):
        ops.activation_backward(dy, dy.double(), "relu", "cuda")
