"""Wrong values of options: an error names the option, the value and what is accepted."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from fastconv import dispatch
from fastconv.cli import app
from tests.bench.synthetic import cases, predicted, write
from tests.test_cli import run


@pytest.mark.parametrize("command", ["tune", "bench"])
@pytest.mark.parametrize("budget", ["0", "-3", "nan"])
def test_a_time_budget_that_is_no_time_is_an_error(tmp_path, command, budget):
    printed = run(command, "--quick", "--time-budget", budget, code=2)
    assert f"Invalid value for '--time-budget': '{budget}'. Accepted are seconds, a number above 0." in printed


_NUMBERS = {
    ("explain", "conv2d", "1x2x5x5"): {"--groups": 1, "--out-channels": 1},
    ("bench", "--quick"): {"--batch": 1},
    ("bench", "compare", "a", "b"): {"--rows": 0},
    ("tune", "--quick"): {"--batch": 1},
    ("demo",): {"--epochs": 1, "--seed": None},
    ("profile", "pools/resnet_3x3_s2/fwd/float16/nchw/n64"): {"--calls": 1},
}


@pytest.mark.parametrize(
    ("command", "option", "least"),
    [(command, option, least) for command, options in _NUMBERS.items() for option, least in options.items()],
)
def test_a_wrong_number_is_named_with_its_option_and_what_is_accepted(command, option, least):
    for value in ("many", "1.5", "9" * 40, *([] if least is None else [str(least - 1)])):
        printed = run(*command, f"{option}={value}", code=2)
        accepted = "whole numbers" + ("" if least is None else f" of {least} or more")
        assert f"Invalid value for '{option}': '{value}'. Accepted are {accepted}" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("explain", "conv2d", "1x2x5x5", "--padding-value", "much"), "'--padding-value': 'much'. Accepted are numbers."),
        (("explain", "conv2d", "1x2x5x5", "--dtype", "int8"), "'--dtype': 'int8'. Accepted are float64, float32,"),
        (("explain", "conv2d", "1x2x5x5", "--backend", "cudnn"), "'--backend': 'cudnn'. Accepted are auto, cuda, triton,"),
        (("explain", "conv2d", "1x2x5x5", "--device", "tpu"), "'--device': 'tpu'. Accepted are auto, cuda, cpu."),
        (("explain", "conv2d", "1x2x5x5", "--activation", "mish"), "'--activation': 'mish'. Accepted are identity, relu,"),
        (("demo", "--device", "tpu"), "'--device': 'tpu'. Accepted are auto, cuda, cpu."),
        (("demo", "--backend", "cudnn"), "'--backend': 'cudnn'. Accepted are auto, cuda, triton,"),
        (("profile", "x", "--backend", "cudnn"), "'--backend': 'cudnn'. Accepted are auto, cuda, triton,"),
        (("explain", "conv2d", "1x2x5x5", "--kernel", "3x0"), "--kernel 3x0: accepted are numbers of 1 or more."),
        (("explain", "conv2d", "1x8x5x5", "--groups", "3"), "--groups 3: accepted are divisors of --out-channels, 8."),
        (
            ("explain", "conv_transpose2d", "1x8x5x5", "--groups", "3", "--out-channels", "6"),
            "--groups 3: accepted are divisors of the input's channels, 8.",
        ),
        (("explain", "json:dumps", "--input", "1x2,5"), "--input '1x2,5' is not a size. Accepted are whole numbers"),
        (("explain", "conv2d", "9" * 5000), "is too large. Accepted are numbers below 2**63."),
    ],
)  # fmt: skip
def test_a_wrong_word_is_named_with_its_option_and_what_is_accepted(arguments, message):
    assert message in run(*arguments, code=2)


@pytest.mark.parametrize(
    "arguments", [("explain", "conv2d", "1x3x9x7"), ("bench", "--quick"), ("tune", "--quick")], ids=lambda one: one[0]
)
def test_a_wrong_word_in_fastconv_tune_is_an_error(monkeypatch, arguments):
    monkeypatch.setenv("FASTCONV_TUNE", "always")
    dispatch.clear()
    assert "FASTCONV_TUNE must be 0, 1 or force, got 'always'" in run(*arguments, code=1)
    assert "no: the environment variable FASTCONV_TUNE must be 0, 1 or force" in run("info")
    assert json.loads(CliRunner().invoke(app, ["info", "--json"]).stdout)["problems"]


def test_an_option_of_tune_that_would_do_nothing_is_an_error():
    for option in (("--suite", "pools"), ("--filter", "x"), ("--pass", "fwd"), ("--batch", "2"), ("--quick",)):
        printed = run("tune", "package:model", "--input", "1x3x8x8", *option, code=2)
        assert f"{option[0]} is for the layers of suites" in printed
    assert "--input is for a model" in run("tune", "--input", "1x3x8x8", code=2)
    assert "suite: unknown 'resnet5'; did you mean resnet50" in run("tune", "--suite", "resnet5", code=1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--backend", "cudnn"), "unknown 'cudnn'; did you mean cuda? Known: auto, cuda, triton, aten, registered, none"),
        (("--backend", "none", "--backend", "cuda"), "backend is none, cuda, but none, PyTorch alone, goes with no other"),
        (("--baseline", "cudnn"), "pytorch-compile, none"),
        (("--baseline", "none", "--baseline", "pytorch"), "baseline is none, pytorch, but none goes with no other"),
        (("--suite", "pools", "--pass", "wgrad"), "pass is wgrad and dtype any, which none of the chosen layers has"),
        (("--suite", "pools", "--dtype", "tf32"), "and dtype tf32, which none of the chosen layers has"),
    ],
)  # fmt: skip
def test_what_a_benchmark_cannot_be_of_is_named_before_it_begins(tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(tmp_path)
    assert message in run("bench", "--quick", *given, code=1)
    assert not list(tmp_path.iterdir())


def test_a_run_is_not_written_over_and_an_output_that_is_no_folder_is_named(tmp_path):
    rows = [predicted(cases()[0], "fastconv-cuda", 1e-5)]
    path = write(tmp_path / "results.jsonl", rows, predicted_gpu="H200")
    before = path.read_bytes()
    printed = run("bench", "--quick", "--output", str(tmp_path), code=1)
    assert f"output is {tmp_path}, which holds a run; --resume goes on with it" in printed
    assert path.read_bytes() == before
    assert "must be a folder that is there or can be made: File exists" in run("bench", "--output", str(path), code=1)
    assert "can be made: Not a directory" in run("bench", "--output", str(path / "below"), code=1)


def test_comparing_what_has_nothing_in_common_says_what_each_side_has(tmp_path):
    sides = []
    for suite in ("pools", "unet"):
        rows = [predicted(case, "fastconv-cuda", 1e-5) for case in cases(suites=[suite])[:2]]
        sides.append(str(write(tmp_path / f"{suite}.jsonl", rows, predicted_gpu="H200")))
    printed = run("bench", "compare", *sides, code=1)
    assert f"{sides[0]} has 2 rows of pools, {sides[1]} 2 rows of unet" in printed
    nothing = str(write(tmp_path / "nothing.jsonl", [], predicted_gpu="H200"))
    assert f"{nothing} has no row, {sides[1]} 2 rows" in run("bench", "compare", nothing, sides[1], code=1)
    assert "both sides are predictions, which hold no warm times" in run(
        "bench", "compare", sides[0], sides[0], "--figure", "warm", code=1
    )
    assert "the folder has no results.jsonl in it" in run("bench", "compare", str(tmp_path), sides[0], code=1)


def test_a_picture_that_cannot_be_written_ends_the_demo_before_it_trains(tmp_path):
    assert "accepted is a file whose name ends in .png" in run(
        "demo", "--output", str(tmp_path / "picture.xyz"), code=1
    )
    (tmp_path / "file").write_text("in the way")
    printed = run("demo", "--output", str(tmp_path / "file" / "picture.png"), code=1)
    assert "its folder cannot be made" in printed
    assert "digits to learn from" not in printed


def test_an_error_inside_of_a_layers_description_is_printed_once():
    printed = run("explain", "conv2d", "1x8x9x9", "--out-channels", "99999999999999", code=1)
    assert printed.count("fastconv:") == 1
    assert "no room for a tensor of 99999999999999x8x3x3" in printed


def test_a_layer_without_channels_reaches_no_kernel_and_that_is_said():
    assert "or none that has channels" in run("explain", "conv2d", "1x0x9x9")
