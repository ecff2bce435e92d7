"""Choice: measured, then the shipped table, then the cost model; ATen among the candidates; FASTCONV_TUNE."""

import dataclasses
import fnmatch
import importlib.resources
import json
import math
import re
from pathlib import Path

import pytest
import torch

import fastconv
from fastconv import analysis, backends, dispatch
from fastconv.backends import packed_weights
from fastconv.bench.cases import Selection, problems, select
from fastconv.bench.contestants import ours
from fastconv.bench.device import CpuDevice
from fastconv.bench.runner import make_inputs
from fastconv.bench.suite import scaled_down
from fastconv.plan import Candidate
from fastconv.problem import Operand
from fastconv.tuning import choice, tables
from fastconv.tuning.keys import candidate_key, problem_key, slug, split_batch
from fastconv.tuning.mode import Mode, mode
from fastconv.tuning.model import aten_seconds
from fastconv.tuning.store import Store, StoreWarning
from fastconv.tuning.tuner import make_tensors, shortlist, tune_problem
from tests.tuning.support import CPU, GPU, HERE, candidates, conv, pool

FAST, SLOW = 1e-9, 1.0  # predictions far below and above ATen's


@pytest.fixture
def store(tmp_path, monkeypatch):
    held = Store(HERE, tmp_path)
    monkeypatch.setattr(choice, "store_for", lambda gpu: held)
    monkeypatch.setattr(tables, "shipped", lambda gpu: {})
    monkeypatch.delenv("FASTCONV_TUNE", raising=False)
    return held


def chosen(problem, found):
    candidate, why = choice.choose(problem, found)
    return f"{candidate.backend}:{candidate.kernel}", why


def test_what_was_measured_fastest_is_taken_whatever_the_model_thinks(store):
    problem, found = conv(), candidates(FAST, SLOW)
    store.add(
        problem_key(problem), {candidate_key(one): time for one, time in zip(found, (3e-5, 4e-5, 1e-5), strict=False)}
    )
    name, why = chosen(problem, found)
    assert name == "cuda:kernel1"
    assert "measured" in why
    assert "30.0 us" in why


def test_aten_is_taken_where_it_measured_faster(store):
    problem, found = conv(), candidates(FAST)
    store.add(problem_key(problem), {candidate_key(found[0]): 1e-5, candidate_key(found[1]): 2e-5})
    assert chosen(problem, found)[0] == "aten:conv2d_fprop"


def test_a_candidate_that_was_wrong_or_cannot_run_is_not_taken(store):
    problem, found = conv(), candidates(FAST, FAST)
    times = {candidate_key(found[1]): math.inf, candidate_key(found[2]): 2e-5, "triton:refused:": 1e-9}
    store.add(problem_key(problem), times)
    assert chosen(problem, found)[0] == "cuda:kernel1"


def test_the_shipped_table_comes_before_the_model(store, monkeypatch):
    problem, found = conv(), candidates(FAST, SLOW)
    monkeypatch.setattr(tables, "shipped", lambda gpu: {problem_key(problem): candidate_key(found[2])})
    name, why = chosen(problem, found)
    assert name == "cuda:kernel1"
    assert "shipped table for made-up GPU" in why


def test_a_table_serves_other_batch_sizes_of_a_layer_but_not_far_ones(store):
    table = {problem_key(conv(batch=32)): "cuda:kernel0:config0"}
    assert tables.look_up(table, problem_key(conv(batch=64))) == ("cuda:kernel0:config0", "of batch 32")
    assert tables.look_up(table, problem_key(conv(batch=1))) == ("", "")
    assert tables.look_up(table, problem_key(conv(batch=32, channels=16))) == ("", "")


def test_a_table_entry_that_no_longer_exists_is_passed_over(store, monkeypatch):
    problem = conv()
    monkeypatch.setattr(tables, "shipped", lambda gpu: {problem_key(problem): "cuda:removed:config"})
    assert "cost model" in chosen(problem, candidates(FAST))[1]


@pytest.mark.parametrize(("predicted", "name"), [(FAST, "cuda:kernel0"), (SLOW, "aten:conv2d_fprop")])
def test_without_measurements_the_model_chooses_and_says_that_it_did(store, predicted, name):
    got, why = chosen(conv(), candidates(predicted))
    assert got == name
    assert "cost model, not measured" in why


def test_the_model_does_not_leave_aten_for_a_narrow_guess(store):
    problem = conv()
    assert chosen(problem, candidates(aten_seconds(problem) / 1.2))[0] == "aten:conv2d_fprop"
    assert chosen(problem, candidates(aten_seconds(problem) / 1.4))[0] == "cuda:kernel0"


def test_where_aten_cannot_run_ours_is_taken(store):
    assert chosen(conv(), candidates(SLOW, reason="no"))[0] == "cuda:kernel0"


def test_cpu_tensors_are_left_to_the_order_of_backends(store):
    assert choice.choose(conv(target=CPU), candidates(FAST)) is None


def test_no_legal_candidate_is_no_choice(store):
    assert choice.choose(conv(), [Candidate("cuda", "k", "", "no")]) is None


# --- FASTCONV_TUNE


def test_zero_ignores_what_was_measured(store, monkeypatch):
    problem, found = conv(), candidates(SLOW)
    store.add(problem_key(problem), {candidate_key(found[1]): 1e-9})
    assert chosen(problem, found)[0] == "cuda:kernel0"
    monkeypatch.setenv("FASTCONV_TUNE", "0")
    assert chosen(problem, found)[0] == "aten:conv2d_fprop"


@pytest.mark.parametrize(("value", "measurements"), [("", 0), ("1", 1), ("force", 2)])
def test_one_measures_once_and_force_once_more_in_each_process(store, monkeypatch, value, measurements):
    monkeypatch.setenv("FASTCONV_TUNE", value)
    monkeypatch.setattr(choice, "_may_measure", lambda: True)
    monkeypatch.setattr(choice, "_measured_by_force", set())
    calls = []

    def measure(problem, legal, held, again):
        if again or not held.times(problem_key(problem)):
            calls.append(again)
        held.add(problem_key(problem), {candidate_key(legal[1]): 1e-6})

    monkeypatch.setattr("fastconv.tuning.tuner.tune_problem", measure)
    for _ in range(3):
        chosen(conv(), candidates(SLOW))
    if value == "force":
        assert calls == [True]
    else:
        assert len(calls) == measurements


def test_another_value_is_an_error_that_names_the_accepted_ones(monkeypatch):
    monkeypatch.setenv("FASTCONV_TUNE", "yes")
    with pytest.raises(ValueError, match="0, 1 or force"):
        mode()
    monkeypatch.setenv("FASTCONV_TUNE", "force")
    assert mode() is Mode.force


# --- keys


def test_times_of_padding_modes_are_kept_apart_and_those_of_zeros_under_their_old_names():
    """Stores were written before problems had modes; a key without one is that of zeros."""
    modes = [("reflect", 0.0), ("replicate", 0.0), ("circular", 0.0), ("constant", 1.0), ("constant", float("nan"))]
    keys = {problem_key(conv(padding_mode=mode, padding_value=value)) for mode, value in modes}
    zeros = problem_key(conv())
    assert len({*keys, zeros}) == 6
    assert "pad:" not in zeros
    assert problem_key(conv(padding_mode="constant", padding_value=0.0)) == zeros
    assert problem_key(conv(conv_pass="dgrad", padding_mode="constant", padding_value=1.0)) == problem_key(
        conv(conv_pass="dgrad")
    )


def test_different_problems_have_different_keys_and_the_batch_can_be_taken_out():
    problems = [
        conv(), conv(batch=4), conv(conv_pass="dgrad"), conv(conv_pass="wgrad"), conv(dtype=torch.float16), conv(channels=16),
        conv(filters=8), conv(groups=2), conv(has_bias=True), conv(activation="relu"), conv(allow_tf32=True),
        conv(deterministic=False), pool(), pool("backward"), pool(dtype=torch.float16),
        dataclasses.replace(conv(), index_bits=64), dataclasses.replace(conv(), padding=(1, 1, 1, 0)),
    ]  # fmt: skip
    keys = [problem_key(problem) for problem in problems]
    assert len(set(keys)) == len(keys)
    assert split_batch(problem_key(conv(batch=4)))[1] == 4
    assert split_batch(problem_key(conv(batch=4)))[0] == split_batch(problem_key(conv(batch=2)))[0]


#: Depthwise and 1x1 weights, and images of one pixel, are of both layouts, and PyTorch gives them strides of either.
CALLED = (
    "convnext_t/stage2.dwconv",
    "resnet50/layer4.0.conv1",
    "efficientnet_b0/*squeeze",
    "dcgan/generator.up2",
    "unet/up1*",
)


@pytest.mark.parametrize("direction", ["fwd", "dgrad", "wgrad", "fwd+bwd"])
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_what_is_tuned_for_a_suite_is_found_by_the_calls_of_its_layers(layout, direction):
    """The times of a suite's problems were kept under names that no call of a user has."""
    wanted = Selection(filters=CALLED, directions=[direction], precisions=["bfloat16"], layouts=[layout], batch=2)
    cases = [dataclasses.replace(case, layer=scaled_down(case.layer)) for case in select(wanted)]
    assert len(cases) >= 8
    for case in cases:
        called = set()
        call = ours(case, "aten")
        with dispatch.listening(lambda choice, plan, called=called: called.add(problem_key(choice.problem))):
            call.run(*call.prepare(make_inputs(case, torch.device("cpu"), layout, seed=0)))
        assert {problem_key(problem) for problem in problems(case, GPU)} <= called, case.key


def test_strides_that_say_nothing_do_not_make_another_key():
    for sizes, strides in (((4, 8, 1, 1), ((8, 1, 8, 8), (8, 1, 1, 1))), ((4, 1, 3, 3), ((9, 1, 3, 1), (9, 9, 3, 1)))):
        keys = {problem_key(dataclasses.replace(conv(), w=Operand(sizes, one))) for one in strides}
        assert len(keys) == 1
        assert ":nchw" in keys.pop()
    several = {
        problem_key(dataclasses.replace(conv(), w=Operand((4, 8, 3, 3), one)))
        for one in ((72, 9, 3, 1), (72, 1, 24, 8), (72, 9, 1, 3))
    }
    assert len(several) == 3


def test_the_device_is_no_part_of_a_problems_key():
    assert problem_key(conv(target=GPU)) == problem_key(conv(target=CPU))
    assert slug("NVIDIA H200") == "nvidia-h200"


# --- measuring, on the CPU


class Counting:
    """Plans that count how often they are made; some are wrong or fail."""

    def __init__(self):
        self.made = []

    def __call__(self, problem, candidate):
        self.made.append(candidate_key(candidate))
        aten = backends.get("aten")
        plan = aten.plan(problem, aten.candidates(problem)[0])
        if candidate.kernel == "kernel1":
            return lambda *tensors: plan(*tensors) * 1.01
        if candidate.kernel == "kernel2":
            raise RuntimeError("no resources\nat all")
        return plan


def tune(problem, found, store, make_plan, **options):
    return tune_problem(problem, found, store, device=CpuDevice(), make_plan=make_plan, **options)


def test_weights_that_are_kept_packed_are_forgotten_before_every_call_that_is_timed(store, monkeypatch):
    """In training they change with every step, and the choice must not rest on a call that found them packed."""
    events, make = [], Counting()

    def make_plan(problem, candidate):
        plan = make(problem, candidate)
        return lambda *tensors: events.append("call") or plan(*tensors)

    monkeypatch.setattr(packed_weights, "clear", lambda: events.append("clear"))
    assert not tune(conv(target=CPU), candidates(1e-6)[:1], store, make_plan).failures
    timed = events[events.index("clear") :]
    assert len(timed) >= 18
    assert timed == ["clear", "call"] * (len(timed) // 2)


def test_candidates_are_measured_and_wrong_and_failing_ones_never_chosen(store):
    problem, make = conv(target=CPU), Counting()
    result = tune(problem, candidates(1e-6, 1e-6, 1e-6), store, make)
    assert len(make.made) == 4
    assert math.isfinite(result.times["cuda:kernel0:config0"])
    assert result.times["cuda:kernel1:config1"] == result.times["cuda:kernel2:config2"] == math.inf
    assert "relative error" in result.failures["cuda:kernel1:config1"]
    assert result.failures["cuda:kernel2:config2"] == "RuntimeError: no resources"
    assert Store(HERE, store.path.parent).times(problem_key(problem)) == result.times


def test_adding_one_config_measures_only_that_config(store):
    problem, make = conv(target=CPU), Counting()
    tune(problem, candidates(1e-6), store, make)
    make.made.clear()
    new = [*candidates(1e-6), Candidate("cuda", "kernel0", "a new one", "", 1e-6)]
    result = tune(problem, new, store, make)
    assert make.made == result.measured == ["cuda:kernel0:a new one"]
    assert tune(problem, new, store, make).measured == []
    assert len(tune(problem, new, store, make, again=True).measured) == 3


def test_out_of_memory_is_no_verdict_on_a_candidate(store):
    def make(problem, candidate):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    result = tune(conv(target=CPU), candidates(1e-6), store, make)
    assert result.times == {}
    assert "out of memory" in next(iter(result.failures.values()))


@pytest.mark.parametrize(
    "problem",
    [
        conv(target=CPU), conv(target=CPU, conv_pass="dgrad"), conv(target=CPU, conv_pass="wgrad", has_bias=True),
        conv(target=CPU, has_bias=True, activation="relu", dtype=torch.bfloat16), pool(target=CPU),
        pool("backward", target=CPU), pool("gather", target=CPU), pool("indices", target=CPU),
        conv(target=CPU, groups=4, conv_pass="dgrad", has_bias=True),
    ],
    ids=lambda problem: problem_key(problem),
)  # fmt: skip
def test_tensors_made_for_a_problem_fit_its_plan(store, problem):
    result = tune(problem, [Candidate("aten", problem.op, "")], store, None)
    assert result.failures == {}
    assert len(result.times) == 1
    first = make_tensors(problem, torch.device("cpu"))[0]
    assert first.numel() > 0


def test_the_shortlist_keeps_each_familys_best_beside_the_models_favourites():
    found = [Candidate("cuda", "a", str(n), "", 1e-6 * (n + 1)) for n in range(9)] + [
        Candidate("cuda", "b", "", "", 1.0)
    ]
    kept = shortlist([*found, Candidate("aten", "conv", ""), Candidate("cuda", "c", "", "no")], most=3)
    assert [(one.kernel, one.config) for one in kept] == [("a", "0"), ("a", "1"), ("a", "2"), ("b", ""), ("conv", "")]


def test_an_exported_table_holds_the_fastest_of_each_problem():
    text = tables.export({"p n1 x": {"a": 2.0, "b": 1.0, "c": math.inf}, "q n1 x": {"a": math.inf}}, {"gpu": "G"})
    assert json.loads(text)["winners"] == {"p n1 x": "b"}


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A folder in place of the package's, for tables that were not measured on any GPU."""
    monkeypatch.setattr(tables, "folder", lambda: tmp_path)
    tables.shipped.cache_clear()
    yield tmp_path
    tables.shipped.cache_clear()


def test_a_table_made_by_export_is_found_by_the_gpus_name_and_chosen_from(shipped, tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "store_for", lambda gpu: Store(HERE, tmp_path / "no times"))
    problem, found = conv(batch=32), candidates(FAST, SLOW)
    times = {problem_key(problem): {candidate_key(found[0]): 2e-5, candidate_key(found[2]): 1e-5}}
    (shipped / f"{slug(GPU.name)}.json").write_text(tables.export(times, dataclasses.asdict(HERE)))
    assert chosen(problem, found) == ("cuda:kernel1", "the shipped table for made-up GPU has it")
    name, why = chosen(conv(batch=64), found)
    assert name == "cuda:kernel1"
    assert "of batch 32" in why
    elsewhere = dataclasses.replace(GPU, name="another GPU")
    assert "cost model" in chosen(conv(batch=32, target=elsewhere), found)[1]
    monkeypatch.setenv("FASTCONV_TUNE", "0")
    assert "cost model" in chosen(problem, found)[1]


def table_text(winners, gpu=HERE.gpu, **fields):
    return json.dumps(
        {"schema": 1, "environment": dataclasses.asdict(HERE) | {"gpu": gpu}, "winners": winners} | fields
    )


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "\x00", "[" * 100000, '{"winners": {}}', table_text([]), table_text({"p n1 x": 1}),
        table_text({"p": "cuda:kernel0:config0"}), table_text({"p 1 x": "cuda:kernel0:config0"}), table_text({}, schema=2),
        table_text({}, environment=None), table_text({}, gpu="another GPU"),
    ],
    ids=lambda text: text[:60],
)  # fmt: skip
def test_a_broken_table_is_a_warning_and_the_model_chooses(shipped, tmp_path, monkeypatch, text):
    monkeypatch.setattr(choice, "store_for", lambda gpu: Store(HERE, tmp_path / "no times"))
    (shipped / f"{slug(GPU.name)}.json").write_text(text)
    with pytest.warns(StoreWarning, match="made-up-gpu.json is not used"):
        assert "cost model" in chosen(conv(), candidates(FAST))[1]


def key_and_candidate(explanation):
    """What a table says to take for the only call: the last candidate that can run, which no other way of choosing picks."""
    (call,) = explanation
    wanted = [one for one in analysis.candidates_on(call.problem) if one.legal][-1]
    assert wanted != call.chosen
    return problem_key(call.problem), candidate_key(wanted)


@pytest.fixture
def explained(shipped, tmp_path, monkeypatch):
    """A layer explained on an H200 that nobody has measured anything on."""
    monkeypatch.setenv("FASTCONV_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FASTCONV_TUNE", raising=False)
    x, w = torch.randn(1, 16, 8, 8, dtype=torch.bfloat16), torch.randn(16, 16, 3, 3, dtype=torch.bfloat16)
    return fastconv.explain(lambda: fastconv.conv2d(x, w, padding=1))


def test_explain_on_a_gpu_finds_the_table_that_ships_for_it(explained, shipped):
    key, wanted = key_and_candidate(explained.on("H200"))
    tables.shipped.cache_clear()
    (shipped / "nvidia-h200.json").write_text(table_text({key: wanted}, gpu="NVIDIA H200"))
    (call,) = explained.on("H200")
    assert candidate_key(call.chosen) == wanted
    assert "shipped table for H200" in call.why
    (elsewhere,) = explained.on("H100")
    assert "cost model" in elsewhere.why


def test_explain_on_a_gpu_that_is_here_finds_what_was_measured_on_it(explained, monkeypatch):
    key, wanted = key_and_candidate(explained.on("H200"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", ["NVIDIA A100-SXM4-80GB", "NVIDIA H200"].__getitem__)
    choice.store_for("NVIDIA H200").add(key, {wanted: 1e-5})
    (call,) = explained.on("H200")
    assert candidate_key(call.chosen) == wanted
    assert "measured fastest" in call.why
    assert analysis.analyse(call.problem, call.chosen).measured_seconds == 1e-5
    assert "cost model" in explained.on("H100").calls[0].why


def test_every_shipped_table_was_measured_on_the_gpu_it_is_named_for():
    for entry in tables.folder().iterdir():
        if entry.name.endswith(".json"):
            assert tables.shipped(entry.name.removesuffix(".json")), entry.name
            content = json.loads(entry.read_text())
            assert slug(content["environment"]["gpu"]) == entry.name.removesuffix(".json")
            assert content["environment"]["driver"], "no driver, no measurement"
            for problem, winner in content["winners"].items():
                assert split_batch(problem)[1] > 0
                assert winner.count(":") >= 2


def test_tables_are_data_of_the_package(tmp_path):
    """What setuptools would put into a wheel: the pattern of pyproject.toml covers the folder that is read."""
    text = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text()
    patterns = re.search(r"^fastconv = \[(.*)\]", text, re.MULTILINE).group(1)
    root = Path(str(importlib.resources.files("fastconv")))
    place = Path(str(tables.folder())).relative_to(root) / "nvidia-h200.json"
    assert any(fnmatch.fnmatch(str(place), pattern.strip(' "')) for pattern in patterns.split(","))
