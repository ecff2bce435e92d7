"""Any strides in, PyTorch's strides out."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

import fastconv
from tests.support.cases import Case
from tests.support.check import assert_case
from tests.support.layouts import LAYOUTS, VECTOR_LAYOUTS

BASE = {
    "conv2d": Case.parse(
        "conv2d n=3 c=4 h=6 w=7 k=6 r=3 s=2 padding=1x1 groups=2 bias=1 activation=relu data=integers"
    ),
    "conv_transpose2d": Case.parse(
        "conv_transpose2d n=3 c=4 h=5 w=4 k=6 r=3 s=2 stride=2x1 padding=1x0 groups=2 bias=1 data=integers"
    ),
    "max_pool2d": Case.parse("max_pool2d n=3 c=4 h=7 w=6 r=3 s=2 stride=2x1 padding=1x1 data=integers"),
}


OPERANDS = [(op, operand) for op in BASE for operand in ("x_layout", "dy_layout")]
OPERANDS += [("conv2d", "w_layout"), ("conv_transpose2d", "w_layout"), ("conv2d", "residual")]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("op", "operand"), OPERANDS)
def test_operand_in_any_layout(op, operand, layout, device):
    for bits in (32, 64):
        assert_case(dataclasses.replace(BASE[op], **{operand: layout}, index_bits=bits, device=device))


@pytest.mark.parametrize("layout", VECTOR_LAYOUTS)
@pytest.mark.parametrize("op", ["conv2d", "conv_transpose2d"])
def test_bias_in_any_layout(op, layout, device):
    assert_case(dataclasses.replace(BASE[op], b_layout=layout, device=device))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("op", BASE)
@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_all_operands_in_the_same_odd_layout(op, layout, dtype, device):
    case = dataclasses.replace(BASE[op], x_layout=layout, w_layout=layout, dy_layout=layout, dtype=dtype, device=device)
    assert_case(case)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced", "transposed"])
@pytest.mark.parametrize("op", BASE)
def test_unbatched_operand_in_any_layout(op, layout, device):
    assert_case(dataclasses.replace(BASE[op], n=1, unbatched=True, x_layout=layout, dy_layout=layout, device=device))


FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("op", ["conv2d", "conv_transpose2d"])
def test_convolution_output_has_pytorchs_memory_format(op, format, weight_format, backend):
    x = torch.randn(2, 4, 6, 5).contiguous(memory_format=FORMATS[format])
    w = torch.randn(4, 4, 3, 2).contiguous(memory_format=FORMATS[weight_format])
    expected = getattr(F, op)(x, w)
    assert getattr(fastconv, op)(x, w, backend=backend).stride() == expected.stride()


@pytest.mark.parametrize("format", FORMATS)
def test_pool_output_and_indices_have_pytorchs_memory_format(format, backend):
    x = torch.randn(2, 4, 6, 5).contiguous(memory_format=FORMATS[format])
    expected = F.max_pool2d(x, 2, return_indices=True)
    result = fastconv.max_pool2d(x, 2, return_indices=True, backend=backend)
    assert [tensor.stride() for tensor in result] == [tensor.stride() for tensor in expected]


@pytest.mark.parametrize("format", FORMATS)
def test_gradients_have_the_memory_format_of_their_tensors(format, backend):
    """Otherwise every optimiser step pays a copy, and .grad of a channels_last model is not channels_last."""
    x = torch.randn(2, 4, 6, 5).contiguous(memory_format=FORMATS[format]).requires_grad_()
    w = torch.randn(4, 4, 3, 2).contiguous(memory_format=FORMATS[format]).requires_grad_()
    y = fastconv.max_pool2d(fastconv.conv2d(x, w, backend=backend), 2, backend=backend)
    for tensor, grad in zip((x, w), torch.autograd.grad(y, (x, w), torch.randn_like(y)), strict=True):
        assert grad.is_contiguous(memory_format=FORMATS[format])
        assert grad.stride() == tensor.stride()


def test_arguments_are_not_changed_nor_aliased(backend):
    x, w = torch.randn(1, 1, 3, 3), torch.ones(1, 1, 1, 1)
    copies = x.clone(), w.clone()
    y = fastconv.conv2d(x, w, backend=backend)
    y.zero_()
    pooled = fastconv.max_pool2d(x, 1, backend=backend)
    pooled.zero_()
    assert torch.equal(x, copies[0])
    assert torch.equal(w, copies[1])
