"""PyTorch's own samples of valid and invalid calls, which its tests use for these three ops."""

from __future__ import annotations

import functools
import itertools

import pytest
import torch
from torch.testing._internal.common_methods_invocations import op_db

import fastconv
from tests.support.tolerance import Expected, assert_accurate

OPS = {
    "nn.functional.conv2d": fastconv.conv2d,
    "nn.functional.conv_transpose2d": fastconv.conv_transpose2d,
    "nn.functional.max_pool2d": fastconv.max_pool2d,
}
INFOS = [info for info in op_db if info.name in OPS]
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)

#: PyTorch has 1,440 samples of pooling. Every fifth combines all values of all arguments still.
STEP = {"nn.functional.max_pool2d": 5}


@functools.cache
def samples_of(name):
    info = next(info for info in INFOS if info.name == name)
    samples = info.sample_inputs("cpu", torch.float32, requires_grad=False)
    return list(itertools.islice(samples, 0, None, STEP.get(name, 1)))


def test_pytorch_still_has_samples_of_every_op():
    assert {info.name for info in INFOS} == set(OPS)
    assert all(len(samples_of(name)) > 10 for name in OPS)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("info", INFOS, ids=lambda info: info.name)
def test_samples_have_pytorchs_results(info, dtype, backend, device):
    for number, sample in enumerate(samples_of(info.name)):
        rounded = [_cast(argument, dtype) for argument in (sample.input, *sample.args)]
        exact = [_cast(argument, torch.float64) for argument in rounded]
        single = [_cast(argument, torch.promote_types(dtype, torch.float32)) for argument in rounded]
        results = OPS[info.name](*(_cast(argument, device) for argument in rounded), **sample.kwargs, backend=backend)
        values = info.op(*exact, **sample.kwargs)
        magnitudes = info.op(*map(_absolute, exact), **sample.kwargs)
        own = info.op(*single, **sample.kwargs)
        quadruples = zip(*map(_as_tuple, (results, values, magnitudes, own)), strict=True)
        for place, (result, value, magnitude, other) in enumerate(quadruples):
            expected = Expected(
                value,
                dtype if value.is_floating_point() else value.dtype,
                exact=info.name.endswith("max_pool2d"),
                torch_results=[other.to(dtype)],
                magnitude=magnitude,
            )
            assert_accurate(result, expected, f"output {place}", f"sample {number}: {sample.summary()}")


def _cast(argument, to):
    return argument.to(to) if isinstance(argument, torch.Tensor) else argument


def _absolute(argument):
    return argument.abs() if isinstance(argument, torch.Tensor) else argument


def _as_tuple(outputs):
    return outputs if isinstance(outputs, tuple) else (outputs,)


@pytest.mark.parametrize("info", [info for info in INFOS if info.error_inputs_func], ids=lambda info: info.name)
def test_error_inputs_raise_what_pytorch_expects(info, backend):
    for error_input in info.error_inputs("cpu"):
        sample = error_input.sample_input
        with pytest.raises(error_input.error_type):
            OPS[info.name](sample.input, *sample.args, **sample.kwargs, backend=backend)
