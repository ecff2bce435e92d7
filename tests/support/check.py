"""Runs a case through fastconv, forward and backward, and compares everything it returns with PyTorch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

import fastconv
from tests.support import data, layouts
from tests.support.cases import Case
from tests.support.references import Tensors, expected_results, gradients_of
from tests.support.tolerance import find_inaccuracy


def make_tensors(case: Case) -> tuple[Tensors, torch.Tensor]:
    """The inputs of a case and the gradient of its output, drawn from its seed."""
    draw = data.drawer(case.data, data.seeded(case.seed), case.torch_dtype, case.device)
    height, width = case.output_size()
    channels = case.c if case.op == "max_pool2d" else case.k
    output_shape = (case.n, channels, height, width)[int(case.unbatched) :]
    x = layouts.build(case.input_shape, case.x_layout, draw).requires_grad_()
    if case.op == "max_pool2d":
        tensors = Tensors(x)
    else:
        weight = layouts.build(case.weight_shape, case.w_layout, draw).requires_grad_()
        bias = layouts.build((case.k,), case.b_layout, draw).requires_grad_() if case.bias else None
        residual = layouts.build(output_shape, case.residual, draw).requires_grad_() if case.residual else None
        tensors = Tensors(x, weight, bias, residual)
    kind = "normal" if case.data == "special" else "integers" if case.data == "ties" else case.data
    draw_gradient = data.drawer(kind, data.seeded(case.seed + 1), case.torch_dtype, case.device)
    return tensors, layouts.build(output_shape, case.dy_layout, draw_gradient)


def call(case: Case, tensors: Tensors) -> dict[str, torch.Tensor]:
    """The outputs of the case's public op."""
    if case.op == "conv2d":
        output = fastconv.conv2d(
            tensors.x,
            tensors.weight,
            tensors.bias,
            case.stride,
            case.padding,
            case.dilation,
            case.groups,
            padding_mode=case.padding_mode,
            padding_value=case.padding_value,
            activation=None if case.activation == "identity" else case.activation,
            residual=tensors.residual,
            backend=case.backend,
        )
        return {"output": output}
    if case.op == "conv_transpose2d":
        output = fastconv.conv_transpose2d(
            tensors.x,
            tensors.weight,
            tensors.bias,
            case.stride,
            case.padding,
            case.output_padding,
            case.groups,
            case.dilation,
            activation=None if case.activation == "identity" else case.activation,
            backend=case.backend,
        )
        return {"output": output}
    output, indices = fastconv.max_pool2d(
        tensors.x,
        (case.r, case.s),
        case.stride,
        case.padding,
        case.dilation,
        case.ceil_mode,
        return_indices=True,
        backend=case.backend,
    )
    return {"output": output, "indices": indices}


@contextlib.contextmanager
def index_width(bits: int) -> Iterator[None]:
    """Has every plan made inside use offsets of that width; 32 leaves the choice to dispatch."""
    if bits == 32:
        yield
    else:
        with fastconv.dispatch.force_index_bits(bits):
            yield


def run(case: Case, tensors: Tensors, dy: torch.Tensor) -> dict[str, torch.Tensor]:
    """The outputs and the gradient of every input."""
    with index_width(case.index_bits):
        results = call(case, tensors)
        return results | gradients_of(results["output"], dy, tensors)


def find_failure(case: Case) -> str:
    """Empty where fastconv does the case right, else what is wrong. Exceptions pass through."""
    tensors, dy = make_tensors(case)
    before = {name: tensor.detach().clone() for name, tensor in tensors.named().items()}
    results = run(case, tensors, dy)
    for name, tensor in tensors.named().items():
        if not torch.equal(tensor.detach().nan_to_num(nan=7.0), before[name].nan_to_num(nan=7.0)):
            return f"the call changed its argument {name}"
    expected = expected_results(case, tensors, dy)
    return "\n".join(filter(None, (find_inaccuracy(results[name], expected[name], name) for name in expected)))


def assert_case(case: Case) -> None:
    """AssertionError, with the line that repeats it, unless fastconv does the case right."""
    __tracebackhide__ = True
    try:
        failure = find_failure(case)
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {error}\n{repeat_line(case)}") from error
    if failure:
        raise AssertionError(f"{failure}\n{repeat_line(case)}")


def repeat_line(case: Case) -> str:
    return f'repeat with: pytest tests/fuzz --problem "{case}"'
