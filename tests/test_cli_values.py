"""Wrong values of options: an error names the option, the value and what is accepted."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from fastconv import dispatch
from fastconv.cli import app
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
