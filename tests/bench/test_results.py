"""Statistics, the file of results, ratios and comparisons."""

import csv
import math
import os
import re

import pytest

from fastconv.bench import comparison
from fastconv.bench.hardware import Gpu, gpu_named, occupancy
from fastconv.bench.names import UnknownNameError
from fastconv.bench.results import Writer, load, set_ratios, write_csv
from fastconv.bench.statistics import Sample, geometric_mean
from tests.bench.synthetic import CEILINGS, cases, measured, predicted, write

DEVICE = {"device": {"name": "made-up GPU"}}


def test_a_sample_is_median_and_deciles():
    one = Sample.of([float(n) for n in range(1, 12)])
    assert (one.median, one.p10, one.p90, one.count) == (6.0, 2.0, 10.0, 11)
    with pytest.raises(ValueError, match="empty"):
        Sample.of([])


def test_the_geometric_mean_of_a_ratio_and_its_inverse_is_one():
    mean = geometric_mean([4.0, 0.25, 2.0, 0.5])
    assert mean.value == pytest.approx(1)
    assert mean.low < 1 < mean.high


def test_the_bootstrap_interval_narrows_with_more_layers_and_is_a_point_for_equal_ratios():
    few, many = geometric_mean([1.0, 2.0] * 4), geometric_mean([1.0, 2.0] * 64)
    assert math.log(many.high / many.low) < math.log(few.high / few.low) / 2
    same = geometric_mean([1.5] * 5)
    assert same.low == pytest.approx(1.5) == pytest.approx(same.high)


def test_the_bootstrap_interval_covers_the_mean_about_as_often_as_it_says():
    import numpy

    generator = numpy.random.default_rng(1)
    covered = 0
    for trial in range(200):
        mean = geometric_mean(numpy.exp(generator.normal(0.3, 0.5, 40)), resamples=400, seed=trial)
        covered += mean.low <= math.exp(0.3) <= mean.high
    assert 180 <= covered <= 199


@pytest.mark.parametrize("ratios", [[], [1.0, 0.0], [1.0, float("nan")], [1.0, float("inf")]])
def test_a_mean_of_nothing_or_of_what_is_no_ratio_is_an_error(ratios):
    with pytest.raises(ValueError, match="ratios"):
        geometric_mean(ratios)


def test_a_row_survives_the_file(tmp_path):
    case = cases()[0]
    row = measured(case, "fastconv-cuda", 1e-5)
    row.notes, row.counted = ["a note"], {"sectors": 12}
    row.largest_error = float("inf")
    back = load(write(tmp_path / "r.jsonl", [row], **DEVICE)).rows[0]
    row.largest_error = 1e308
    assert back == row


def test_of_a_row_that_is_there_twice_the_last_counts(tmp_path):
    case = cases()[0]
    results = load(write(tmp_path / "r.jsonl", [measured(case, "pytorch", 1.0), measured(case, "pytorch", 2.0)]))
    assert [row.cold.median for row in results.rows] == [2.0]


def test_an_interrupted_file_loads_and_goes_on(tmp_path):
    one, two, *_ = cases()
    path = write(tmp_path / "r.jsonl", [measured(one, "pytorch", 1.0)])
    with path.open("a") as file:
        file.write('{"record": "row", "kind": "meas')
    assert len(load(path).rows) == 1
    writer = Writer(path, {}, resume=True)
    writer.write(measured(two, "pytorch", 1.0))
    writer.close()
    assert [row.key for row in load(path).rows] == [one.key, two.key]


HEAD = '{"record": "environment", "schema": 1}\n'
ROW = (
    '{"record": "row", "key": "a", "contestant": "b", "kind": "measured", "role": "ours", "status": "ok", '
    '"family": "dense", "direction": "fwd", %s}\n'
)


def test_a_row_of_what_must_be_there_and_nothing_else_loads(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text(HEAD + ROW % '"cold": {"median": 1, "p10": 1, "p90": 1, "count": 1}')
    assert load(path).rows[0].cold.median == 1


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("not json\n{}\n", 1, "not JSON"), ('{"record": "environment", "schema": 999}\n', 1, "schema 999"),
        ('{"record": "row"}\n', 1, "kind is missing"), (HEAD + "[]\n", 2, "[], not a record"),
        (HEAD + "null\n" + HEAD, 2, "null, not a record"), (HEAD + 100_000 * "[" + "\n" + HEAD, 2, "not JSON"),
        *((HEAD + ROW % f'"cold": {cold}', 2, f"cold is {cold}") for cold in ("[1]", '{"median": 1}', '"quick"')),
        *((HEAD + ROW % f'"cold": {{"median": {median}, "p10": 1, "p90": 1, "count": 1}}', 2, "cold") for median in
          ("0", "-1", "NaN", '"1"', "true")),
        (HEAD + ROW % '"direction": "sideways"', 2, "must be one of fwd, dgrad, wgrad, fwd+bwd"),
        (HEAD + ROW % '"family": "sparse"', 2, "must be one of dense"),
        (HEAD + ROW % '"kind": "guessed"', 2, "must be one of measured, predicted"),
        (HEAD + ROW % '"flops": "many"', 2, 'flops is "many", but must be a whole number'),
        (HEAD + ROW % '"notes": "one"', 2, "a list"), (HEAD + ROW % '"counted": {"sectors": "x"}', 2, "counted"),
        (HEAD + ROW % '"ratio": -1', 2, "ratio is -1, but must be above 0"),
        (HEAD + ROW % '"kind": "predicted", "predicted_gpu": "A100"', 2, "a prediction for A100"),
    ],
    ids=lambda one: str(one)[-60:].strip(),
)  # fmt: skip
def test_a_line_that_is_no_result_is_an_error_that_names_file_and_line(tmp_path, text, line, said):
    path = tmp_path / "r.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(f"{path}:{line} ")) as caught:
        load(path)
    assert said in str(caught.value)


def test_an_empty_file_is_an_error(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text("")
    with pytest.raises(ValueError, match="no record of its environment"):
        load(path)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("device", "H200", "device is \"H200\", but must be an object"), ("device", {"name": 3}, "the name of device is 3"),
        ("device", None, "device is null"), ("versions", ["torch"], "versions is"), ("versions", {"torch": 2}, "versions is"),
        ("gpu_state", "hot", "gpu_state is"), ("environment", {"CXX": None}, "environment is"),
        ("predicted_gpu", 200, "predicted_gpu is 200"), ("incomplete", ["a"], "incomplete is"), ("driver", {}, "driver is"),
        ("ceilings", 5, "ceilings is 5, but must be an object of source, bytes_per_second"),
        ("ceilings", {**CEILINGS.__dict__, "measured": "yes"}, "ceilings is"),
        ("ceilings", {**CEILINGS.__dict__, "bytes_per_second": 0}, "bytes_per_second of ceilings is 0"),
        ("ceilings", {**CEILINGS.__dict__, "flops_per_second": {}}, "no float32"),
        ("ceilings", {**CEILINGS.__dict__, "flops_per_second": {"float32": -1.0}}, "float32 of ceilings is -1"),
        ("ceilings", {"source": "a datasheet"}, "ceilings is"),
    ],
)  # fmt: skip
def test_an_environment_that_nobody_wrote_is_an_error_that_names_file_and_line(tmp_path, name, value, said):
    path = write(tmp_path / "r.jsonl", [measured(cases()[0], "pytorch", 1.0)], **{name: value})
    with pytest.raises(ValueError, match=re.escape(f"{path}:1 is not an environment: ")) as caught:
        load(path)
    assert said in str(caught.value)


def test_a_file_that_does_not_name_its_device_is_not_taken_for_a_prediction(tmp_path):
    assert "predicted" not in load(write(tmp_path / "r.jsonl", [measured(cases()[0], "pytorch", 1.0)])).title


def test_a_ratio_of_a_time_that_is_not_there_is_dropped(tmp_path):
    row = measured(cases()[0], "fastconv-cuda", 1.0)
    row.ratio, row.cold = 2.0, None
    assert load(write(tmp_path / "r.jsonl", [row])).rows[0].ratio is None


def test_a_ratio_that_a_file_states_to_a_baseline_that_is_not_in_it_is_dropped(tmp_path):
    row = measured(cases()[0], "fastconv-cuda", 1e-5)
    row.ratio, row.ratio_any_layout, row.best_baseline = 9.0, 9.0, "pytorch"
    loaded = load(write(tmp_path / "r.jsonl", [row])).rows[0]
    assert (loaded.ratio, loaded.ratio_any_layout, loaded.best_baseline) == (None, None, "")


def test_the_ratio_is_to_the_best_baseline_on_the_same_tensors():
    case = cases()[0]
    rows = [measured(case, name, seconds) for name, seconds in (
        ("pytorch", 4e-5), ("pytorch-benchmark", 3e-5), ("pytorch-benchmark-nchw", 1e-5), ("fastconv-cuda", 2e-5))]  # fmt: skip
    broken = measured(case, "pytorch-compile", 1e-9)
    broken.status, broken.cold = "failed", None
    set_ratios([*rows, broken])
    assert rows[-1].ratio == pytest.approx(1.5)
    assert rows[-1].best_baseline == "pytorch-benchmark"
    assert rows[-1].ratio_any_layout == pytest.approx(0.5)
    assert rows[0].ratio is None


def test_csv_has_every_row_with_times_in_microseconds(tmp_path):
    results = load(write(tmp_path / "r.jsonl", [measured(one, "pytorch", 2e-5) for one in cases()[:3]]))
    write_csv(results, tmp_path / "r.csv")
    lines = list(csv.DictReader((tmp_path / "r.csv").open()))
    assert [float(line["cold_median_us"]) for line in lines] == pytest.approx([20.0] * 3)


# --- comparison


def two_files(tmp_path, make=measured):
    chosen, facts = cases(), DEVICE if make is measured else {"predicted_gpu": "H200"}
    before = write(tmp_path / "a.jsonl", [make(one, "fastconv-cuda", 2e-5) for one in chosen], **facts)
    after = write(tmp_path / "b.jsonl", [make(one, "fastconv-cuda", 1e-5) for one in chosen[1:]], **facts, driver="2")
    return str(before), str(after)


def test_two_files_compare_row_by_row(tmp_path):
    found = comparison.compare(*two_files(tmp_path))
    assert found.mean().value == pytest.approx(2.0)
    assert found.unmatched == (1, 0)
    assert found.differences == ["driver: None and 2"]
    assert set(found.by("suite")) == {("resnet50",), ("pools",)}


def test_two_contestants_of_one_file_compare(tmp_path):
    rows = [
        measured(one, name, 1e-5 * factor) for one in cases() for name, factor in (("fastconv-cuda", 1), ("pytorch", 3))
    ]
    path = write(tmp_path / "a.jsonl", rows, **DEVICE)
    assert comparison.compare(f"{path}:pytorch", f"{path}:fastconv-cuda").mean().value == pytest.approx(3.0)
    with pytest.raises(UnknownNameError, match="fastconv-cuda"):
        comparison.compare(f"{path}:pytorhc", f"{path}:fastconv-cuda")


def test_a_measurement_and_a_prediction_do_not_compare(tmp_path):
    one = cases()[0]
    a = write(tmp_path / "a.jsonl", [measured(one, "fastconv-cuda", 1e-5)])
    b = write(tmp_path / "b.jsonl", [predicted(one, "fastconv-cuda", 1e-5)], predicted_gpu="H200")
    with pytest.raises(ValueError, match="predicted"):
        comparison.compare(str(a), str(b))


def test_predictions_compare_and_say_so(tmp_path):
    assert comparison.compare(*two_files(tmp_path, predicted)).predicted


def test_two_commits_compare_by_their_newest_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, (place, commit, seconds) in enumerate(
        [
            ("fastconv-bench/one", "aaaa1111+", 9e-5),
            ("fastconv-bench/two", "aaaa1111", 3e-5),
            ("benchmarks/results/h200", "bbbb2222", 1e-5),
        ]
    ):
        path = tmp_path / place / "results.jsonl"
        path.parent.mkdir(parents=True)
        write(path, [measured(one, "fastconv-cuda", seconds) for one in cases()], **DEVICE, commit=commit)
        os.utime(path, (number, number))
    assert comparison.compare("aaaa", "bbbb2222").mean().value == pytest.approx(3.0)
    assert comparison.compare("aaaa1111:fastconv-cuda", "bbbb:fastconv-cuda").mean().value == pytest.approx(3.0)
    with pytest.raises(FileNotFoundError, match="no results here of a commit"):
        comparison.compare("aaaa", "cccc3333")


def test_a_missing_file_or_nothing_in_common_is_an_error(tmp_path):
    a, _ = two_files(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        comparison.compare(a, "nowhere.jsonl")
    empty = write(tmp_path / "c.jsonl", [])
    with pytest.raises(ValueError, match="no row in common"):
        comparison.compare(a, str(empty))


# --- hardware


def test_occupancy_is_limited_by_what_runs_out_first():
    gpu = gpu_named("H100")
    plain = occupancy(gpu, grid_blocks=132 * 8, threads=256, shared_bytes=0, registers=32)
    assert (plain.blocks_per_multiprocessor, plain.threads_share, plain.waves) == (8, 1.0, 1.0)
    assert occupancy(gpu, grid_blocks=1, threads=256, shared_bytes=100 * 1024, registers=32).limit == "shared memory"
    fat = occupancy(gpu, grid_blocks=1, threads=256, shared_bytes=0, registers=255)
    assert (fat.limit, fat.blocks_per_multiprocessor) == ("registers", 1)
    assert occupancy(gpu, grid_blocks=1, threads=256, shared_bytes=228 * 1024, registers=32) is None
    assert (
        occupancy(gpu, grid_blocks=133, threads=1024, shared_bytes=200 * 1024, registers=32).last_wave_share == 1 / 132
    )


def test_the_roof_is_the_slower_of_memory_and_arithmetic():
    ceilings = Gpu("toy", 80, 1, {"float32": 1.0}, 1.0, 1, 100, 99).ceilings()
    assert ceilings.roof(flops=1e12, bytes_moved=1e9, precision="float32").seconds == 1.0
    assert ceilings.roof(flops=1e9, bytes_moved=2e9, precision="float32").bound == "memory"
    assert ceilings.roof(flops=2e12, bytes_moved=1e9, precision="float32").bound == "compute"
