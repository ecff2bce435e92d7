"""Triton's kernels are chosen, kept and explained by the same tuning as all others."""

from __future__ import annotations

import math

import pytest
import torch

import fastconv
from fastconv.backends.triton import backend
from fastconv.backends.triton.backend import families
from fastconv.backends.triton.gemm import TileConfig
from fastconv.bench.device import CpuDevice
from fastconv.tuning import choice, tables
from fastconv.tuning.keys import candidate_key, problem_key
from fastconv.tuning.store import Store
from fastconv.tuning.tuner import tune_problem
from tests.tuning.support import CPU, HERE, conv

NEW = TileConfig(16, 32, 16, 2, 2)


@pytest.fixture
def store(tmp_path, monkeypatch):
    held = Store(HERE, tmp_path)
    monkeypatch.setattr(choice, "store_for", lambda gpu: held)
    monkeypatch.setattr(tables, "shipped", lambda gpu: {})
    monkeypatch.delenv("FASTCONV_TUNE", raising=False)
    return held


def with_one_more_config(monkeypatch):
    family = families()["conv_fprop"]
    monkeypatch.setattr(family, "tiles", family.tiles | {"float": (*family.tiles["float"], NEW)}, raising=False)


def of_fprop(problem):
    return [
        candidate for candidate in backend.candidates(problem) if candidate.legal and candidate.kernel == "conv_fprop"
    ]


def test_adding_one_config_measures_that_config_alone(store, monkeypatch):
    problem = conv(target=CPU)
    first = tune_problem(problem, of_fprop(problem)[:1], store, device=CpuDevice())
    assert len(first.measured) == 1
    assert all(math.isfinite(seconds) for seconds in first.times.values()), first.failures
    with_one_more_config(monkeypatch)
    known = of_fprop(problem)
    wanted = [one for one in known if candidate_key(one) in first.times or one.config == str(NEW)]
    second = tune_problem(problem, wanted, store, device=CpuDevice())
    assert second.measured == [f"triton:conv_fprop:{NEW}"]
    assert {name: second.times[name] for name in first.times} == first.times
    assert Store(HERE, store.path.parent).times(problem_key(problem)) == second.times


def test_the_measured_fastest_is_taken_and_the_reason_given(store):
    problem = conv()
    candidates = backend.candidates(problem)
    legal = [candidate for candidate in candidates if candidate.legal]
    slow, fast = legal[0], legal[-1]
    store.add(problem_key(problem), {candidate_key(slow): 3e-5, candidate_key(fast): 2e-5})
    chosen, why = choice.choose(problem, candidates, "triton")
    assert chosen == fast
    assert "measured fastest of 2" in why


def test_explain_names_the_kernel_its_config_and_why():
    x, w = torch.randn(1, 8, 6, 6), torch.randn(8, 8, 3, 3)
    text = str(fastconv.explain(lambda: fastconv.conv2d(x, w, backend="triton")))
    assert "triton" in text
    assert "conv_fprop" in text
    assert "was asked for" in text
    pooled = str(fastconv.explain(lambda: fastconv.conv2d_global_max(x, w, backend="triton")))
    assert "conv_global_max" in pooled
