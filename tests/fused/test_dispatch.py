"""What is decided about a fused problem: its key, its tuning, its plans, on which device."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import fastconv
from fastconv import backends, dispatch
from fastconv.problem import Target, changed
from fastconv.tuning.keys import problem_key, split_batch
from fastconv.tuning.tuner import Workload
from tests.core.geometries import MODES
from tests.core.test_mma_fused import WHOLE, fused_candidates, problem_of


def test_keys_tell_apart_what_differs():
    cases = [
        WHOLE,
        dataclasses.replace(WHOLE, pool=((3, 3), (2, 2), (1, 1))),
        dataclasses.replace(WHOLE, pool=((3, 3), (2, 2), (0, 0))),
        dataclasses.replace(WHOLE, pool=None),
        dataclasses.replace(WHOLE, activation=None),
        dataclasses.replace(WHOLE, bias=False),
        dataclasses.replace(WHOLE, x_layout="contiguous"),
    ]
    keys = {problem_key(problem_of(case)) for case in cases}
    assert len(keys) == len(cases)
    smaller = dataclasses.replace(WHOLE, x=(1, *WHOLE.x[1:]))
    assert split_batch(problem_key(problem_of(smaller)))[0] == split_batch(problem_key(problem_of(WHOLE)))[0]


def test_changed_reaches_both_parts():
    gpu = Target("cuda", 90, 132, "H100")
    problem = changed(problem_of(WHOLE), target=gpu, dtype=torch.float64, allow_tf32=True)
    assert problem.conv.target == problem.pool.target == problem.target == gpu
    assert problem.conv.dtype == problem.pool.dtype == problem.dtype == torch.float64
    assert problem.allow_tf32


@pytest.mark.parametrize("pool", [WHOLE.pool, None], ids=["2x2s2", "global"])
def test_tuning_checks_values_and_leaves_near_ties_alone(pool):
    """Which of two sums that are all but equal wins is a matter of rounding, so offsets are not compared with float64's."""
    from fastconv.bench.errors import compare, complaint_about

    problem = problem_of(dataclasses.replace(WHOLE, dtype=torch.bfloat16, pool=pool))
    workload = Workload.of(problem, torch.device("cpu"))
    assert len(workload.expected) == 1
    for candidate in (next(one for one in fused_candidates(problem) if one.legal), None):
        if candidate is None:
            candidate = next(one for one in backends.get("cuda").candidates(problem) if one.kernel == "unfused")
        y = backends.get("cuda").plan(problem, candidate)(*workload.tensors)[0]
        assert not complaint_about(compare([y], workload.expected), workload.own, workload.precision)
        wrong = y + y.abs().max()
        assert complaint_about(compare([wrong], workload.expected), workload.own, workload.precision)


def test_a_stale_unfused_candidate_is_refused():
    problem = problem_of(WHOLE)
    candidate = next(one for one in backends.get("cuda").candidates(problem) if one.kernel == "unfused")
    with pytest.raises(ValueError, match="config 'other' of unfused"):
        backends.get("cuda").plan(problem, dataclasses.replace(candidate, config="other"))


@pytest.mark.parametrize("mode", ["zeros", *MODES])
@pytest.mark.parametrize("pool", [WHOLE.pool, ((3, 3), (2, 2), (1, 1)), None], ids=["2x2s2", "3x3s2p1", "global"])
def test_wide_offsets_and_padding_of_every_mode_on_four_sides(pool, mode):
    """On the fused kernel; the index width is the host's affair."""
    x, w, bias = dataclasses.replace(WHOLE, dtype=torch.float16).tensors()
    sides = (2, 0, 1, 3)
    value = 2.0 if mode == "constant" else 0.0
    padded = torch.nn.functional.pad(
        x.double(), (1, 3, 2, 0), "constant" if mode == "zeros" else mode, value if mode == "constant" else None
    )
    case = dataclasses.replace(WHOLE, padding=(0, 0), pool=pool)
    expected = case.reference(padded, w.double(), bias.double())[0]

    def call():
        options = {"padding": sides, "padding_mode": mode, "padding_value": value, "backend": "cuda"}
        if pool is None:
            return fastconv.conv2d_global_max(x, w, bias, activation="relu", **options)
        kernel, stride, padding = pool
        window = {"pool_kernel_size": kernel, "pool_stride": stride, "pool_padding": padding}
        return fastconv.conv2d_max_pool2d(x, w, bias, **options, **window)

    for bits in (32, 64):
        with dispatch.force_index_bits(bits):
            (explained, *_) = fastconv.explain(call)
            assert explained.chosen.kernel.startswith("mma_conv_")
            assert torch.equal(call().double(), expected)


def test_convert_takes_fused_blocks_for_layers_built_as_fastconvs():
    """They are subclasses of torch.nn.Conv2d, and no business of convert's."""
    model = torch.nn.Sequential(fastconv.nn.Conv2dMaxPool2d(3, 4, 3), fastconv.nn.Conv2dGlobalMax(4, 2, 3))
    assert len(fastconv.convert(model)) == 0
    for layer in fastconv.convert(model, backend="cuda"):
        assert "built as fastconv's" in layer.reason
    assert [type(module).__name__ for module in model] == ["Conv2dMaxPool2d", "Conv2dGlobalMax"]
