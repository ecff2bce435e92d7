"""explain on a whole network: one line a layer, a summary, and predictions that are marked as such."""

import json

import pytest
import torch

import fastconv
from fastconv import analysis
from fastconv.bench.hardware import gpu_named
from fastconv.bench.names import UnknownNameError
from fastconv.table import as_text
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
    for width in (60, 100, 160, 400):
        lines = as_text(explanation, width).splitlines()
        assert max(map(len, lines)) <= width
        names = [call.layer for call in explanation]
        assert [line.split()[0] for line in lines if line.split()[:1] and line.split()[0] in names] == names
        assert any(line.startswith(f"{LAYERS} calls, ") for line in lines)


def test_columns_that_do_not_fit_are_named_and_all_are_there_where_there_is_room(explanation, store):
    moved = explanation.on("H200")
    narrow, wide = as_text(moved, 90), as_text(moved, 500)
    assert "no room for" in narrow
    assert "occupancy" in " ".join(narrow.split("no room for")[1].split())
    assert "no room for" not in wide
    heading = next(line for line in wide.splitlines() if line.split()[:2] == ["layer", "op"])
    for word in (
        "roof us",
        "bound",
        "fusion saves us",
        "tile",
        "grid",
        "shared KB",
        "occupancy",
        "waves",
        "op/byte",
        "why",
    ):
        assert word in heading


def test_what_follows_a_convolution_and_could_be_part_of_its_kernel(explanation, store):
    first = explanation.on("H200").calls[0]
    assert first.followed_by == ("batch norm", "relu", "max pool")
    one = analysis.analyse(first.problem, first.chosen, first.followed_by)
    passes = 3 * 2 * 2 * 64 * 32 * 32 * 4  # each reads and writes [2, 64, 32, 32] in float32
    assert one.fusion_saves == pytest.approx(passes / 4.8e12)
    assert one.fusion_of == "batch norm + relu + max pool"
    last = explanation.calls[-1]
    assert last.followed_by == ("batch norm",), "the sum with the shortcut comes next"


@pytest.mark.parametrize("training", [False, True])
def test_only_modules_that_work_on_the_very_output_count_as_following(training):
    relu = torch.nn.ReLU(inplace=True)
    model = torch.nn.Sequential(
        fastconv.nn.Conv2d(2, 4, 3), torch.nn.BatchNorm2d(4), relu, torch.nn.MaxPool2d(2), torch.nn.ReLU(),
        fastconv.nn.Conv2d(4, 4, 1), torch.nn.GELU(approximate="tanh"), torch.nn.ReLU(), fastconv.nn.ConvTranspose2d(4, 2, 2),
        torch.nn.Tanh(),
    ).train(training)  # fmt: skip
    calls = fastconv.explain(model, torch.randn(1, 2, 9, 9)).calls
    batch_norm = () if training else ("batch norm", "relu", "max pool")
    assert [call.followed_by for call in calls] == [batch_norm, (), ("tanh",)]


def test_one_call_gets_its_candidates_with_times_and_the_rejected_with_reasons(store):
    layer = fastconv.nn.Conv2d(64, 64, 3, padding=1, activation="relu")
    explanation = fastconv.explain(layer, torch.randn(2, 64, 16, 16)).on("H200")
    text = " ".join(as_text(explanation, 120).split())
    for words in ("roofline", "operations a compulsory byte", "candidates that can run it", "not possible"):
        assert words in text
    assert "not measured" in text
    rival = next(
        one for one in analysis.candidates_on(explanation.calls[0].problem) if one.backend == "cuda" and one.legal
    )
    assert f"cuda {rival.kernel}" in text


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


def test_what_ran_in_tritons_interpreter_has_the_time_of_the_gpu_that_is_named():
    """Its candidates have the interpreter's time on CPU tensors: a tenth of a second, which was said to be a GPU's."""
    x, w = torch.randn(1, 16, 8, 8), torch.randn(16, 16, 3, 3)
    explanation = fastconv.explain(lambda: fastconv.conv2d(x, w, padding=1, backend="triton"))
    (call,) = explanation
    one = analysis.analyse(call.problem, call.chosen)
    assert call.chosen.predicted_seconds > 1e-3
    assert one.predicted_seconds is None or one.roof_seconds <= one.predicted_seconds < 1e-4
    (values,) = explanation.to_dict()["calls"]
    known = [found["predicted_seconds"] for found in values["candidates"] if found["backend"] == "triton"]
    assert sum(seconds is not None for seconds in known) > 1
    assert all(seconds is None or seconds < 1e-4 for seconds in known)
