"""explain on a whole network: one line a layer, a summary, and predictions that are marked as such."""

import json

import pytest
import torch

import fastconv
from fastconv import analysis
from fastconv.bench.hardware import gpu_named
from fastconv.bench.names import UnknownNameError
from fastconv.tuning import choice
from fastconv.tuning.keys import candidate_key, problem_key
from fastconv.tuning.store import Store
from tests.support.resnet50 import resnet50
from tests.tuning.support import HERE, conv

LAYERS = 53 + 1  # convolutions and the pool


@pytest.fixture(scope="module")
def explanation():
    with fastconv.intercept(), torch.no_grad():
        return fastconv.explain(resnet50().eval(), torch.randn(2, 3, 64, 64))


@pytest.fixture
def store(tmp_path, monkeypatch):
    held = Store(HERE, tmp_path)
    monkeypatch.setattr(choice, "store_for", lambda gpu: held)
    monkeypatch.delenv("FASTCONV_TUNE", raising=False)
    return held


def test_resnet50_gets_one_line_a_layer_and_a_summary(explanation):
    assert len(explanation) == LAYERS
    assert explanation.calls[0].layer == "0"
    lines = str(explanation).splitlines()
    assert sum("conv2d_fprop" in line and "float32" in line for line in lines) == LAYERS - 1
    assert any(line.startswith(f"{LAYERS} calls, ") for line in lines)


def test_resnet50_on_a_named_gpu_gets_a_line_a_layer_of_predictions_marked_as_such(explanation, store):
    moved = explanation.on("H200")
    assert len(moved) == LAYERS
    assert {call.problem.target.name for call in moved} == {"H200"}
    text = str(moved)
    assert "not measured" in text
    assert "0 calls measured, 54 predicted" in text
    values = moved.to_dict()
    assert json.loads(json.dumps(values)) == values
    for call in values["calls"]:
        assert call["analysis"]["roof_seconds"] > 0
        assert call["analysis"]["bound"] in ("memory", "compute")
        assert {"aten"} <= {candidate["backend"] for candidate in call["candidates"]}
        assert all(one["reason"] or one["predicted_seconds"] > 0 for one in call["candidates"])


def test_a_measured_time_is_shown_instead_of_the_prediction(explanation, store):
    first = explanation.on("H200").calls[0]
    store.add(problem_key(first.problem), {candidate_key(first.chosen): 12.5e-6})
    again = explanation.on("H200")
    assert "measured" in again.calls[0].why
    assert "1 calls measured" in str(again)
    assert again.to_dict()["calls"][0]["analysis"]["measured_seconds"] == 12.5e-6


def test_an_unknown_gpu_names_the_known_ones(explanation):
    with pytest.raises(UnknownNameError, match="A100, H100, H200"):
        explanation.on("V100")


def test_channels_last_saves_nothing_where_the_tensors_are_channels_last(store):
    problem = analysis.on_gpu(conv(batch=32, channels=64, filters=64, dtype=torch.bfloat16), gpu_named("H200"))
    for one in (problem, analysis.in_channels_last(problem)):
        best = next(candidate for candidate in analysis.candidates_on(one) if candidate.legal)
        saves = analysis.analyse(one, best).channels_last_saves
        assert (saves is None) == one.x.is_channels_last()


def test_a_tile_a_grid_and_waves_are_those_of_the_candidate(store):
    from fastconv.plan import Candidate

    details = {"grid": 264, "block": 256, "shared_bytes": 0, "registers": 64, "tile_rows": 128, "tile_columns": 64}
    problem = analysis.on_gpu(conv(), gpu_named("H100"))
    one = analysis.analyse(problem, Candidate("cuda", "k", "", "", 1e-6, {**details, "tile_depth": 32}))
    assert (one.tile, one.grid, one.threads, one.registers) == ("128x64x32", 264, 256, 64)
    assert (one.blocks_per_multiprocessor, one.occupancy_limit) == (4, "registers")
    assert one.waves == pytest.approx(264 / (4 * 132))
    triton = analysis.analyse(problem, Candidate("triton", "k", "64x64x32_s3_w8", "", 1e-6, {"programs": 10}))
    assert (triton.grid, triton.threads) == (10, 256)
