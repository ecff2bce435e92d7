"""The command line, run as people run it: its answers, its errors and its exit codes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
import typer
from typer.testing import CliRunner

import fastconv
from fastconv import backends, info
from fastconv.cli import app
from fastconv.cli.options import parse_pair, parse_size

TWO_LAYERS = """
import torch


def make():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2))


instance = make()
not_a_model = 3
"""


def run(*arguments: str, code: int = 0) -> str:
    """What the command prints, errors included, as one line without the frame that errors are drawn in."""
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == code, (result.output, result.exception)
    return " ".join(result.output.replace("│", " ").split())


def calls(*arguments: str) -> list[dict]:
    result = CliRunner().invoke(app, ["explain", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["calls"]


def test_python_m_fastconv_is_the_command_line():
    command = [sys.executable, "-m", "fastconv", "--version"]
    assert subprocess.run(command, capture_output=True, text=True).stdout == f"fastconv {fastconv.__version__}\n"


@pytest.mark.parametrize("command", ["info", "explain", "demo"])
def test_help_has_examples(command):
    assert f"fastconv {command}" in run(command, "--help").partition("Examples")[2]


def test_unknown_command_is_a_usage_error():
    assert "No such command" in run("train", code=2)


def test_info_json_has_every_section_and_the_truth_about_backends():
    found = json.loads(CliRunner().invoke(app, ["info", "--json"]).stdout)
    assert found["versions"]["fastconv"] == fastconv.__version__
    assert found["versions"]["torch"] == torch.__version__
    works = {(row["backend"], row["device"]): not row["unavailable"] for row in found["backends"]}
    assert set(works) == {(name, device) for name in backends.NAMES for device in ("cpu", "cuda")}
    assert works["aten", "cpu"]
    assert works["aten", "cuda"] == torch.cuda.is_available()
    for name, problem in found["modules"].items():
        assert bool(problem) == (not found["build"]["modules"][name]["built"])


def test_info_shows_what_was_not_built_and_why(monkeypatch):
    report = info.build()
    report["modules"]["_cuda"] = {"built": False, "reason": "no nvcc anywhere"}
    monkeypatch.setattr(info, "build", lambda: report)
    assert "not built: no nvcc anywhere" in run("info")


def test_info_shows_environment_variables_in_force(monkeypatch):
    monkeypatch.setenv("FASTCONV_SOMETHING", "on")
    monkeypatch.setenv("UNRELATED", "on")
    assert info.environment().get("FASTCONV_SOMETHING") == "on"
    assert "UNRELATED" not in info.environment()


@pytest.mark.parametrize(("text", "size"), [("8x64x56x56", (8, 64, 56, 56)), ("3", (3,))])
def test_size_is_numbers_with_x_between(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "3x", "x3", "3,5", "-1", "3xx5", "3x5.0"])
def test_other_sizes_are_errors_that_say_what_a_size_is(text):
    with pytest.raises(typer.BadParameter, match="8x64x56x56"):
        parse_size(text)


def test_pair_is_vertical_first():
    assert parse_pair("3") == (3, 3)
    assert parse_pair("3x5") == (3, 5)
    with pytest.raises(typer.BadParameter, match="two"):
        parse_pair("3x5x7")


def test_explain_describes_the_convolution_that_was_asked_for():
    [call] = calls(
        *("conv2d", "2x6x9x8", "--out-channels", "4", "--kernel", "3x2", "--stride", "2", "--padding", "1x0"),
        *("--groups", "2", "--dtype", "bfloat16", "--channels-last", "--no-bias", "--activation", "relu"),
    )
    problem = call["problem"]
    assert call["op"] == "conv2d_fprop"
    assert problem["dtype"] == "bfloat16"
    assert problem["x"]["sizes"] == [2, 6, 9, 8]
    assert problem["x"]["strides"][1] == 1
    assert problem["w"]["sizes"] == [4, 3, 3, 2]
    assert (problem["stride"], problem["padding"], problem["groups"]) == ([2, 2], [1, 1, 0, 0], 2)
    assert (problem["has_bias"], problem["activation"]) == (False, "relu")


@pytest.mark.parametrize(
    ("arguments", "op"),
    [
        (("conv2d", "1x2x5x5"), "conv2d_fprop"),
        (("conv_transpose2d", "1x2x3x3", "--stride", "2", "--output-padding", "1"), "conv2d_dgrad"),
        (("max_pool2d", "2x5x5", "--kernel", "2", "--ceil-mode"), "max_pool2d_forward"),
    ],
)
def test_explain_names_the_hand_written_kernel_of_each_op(arguments, op):
    [call] = calls(*arguments, "--backend", "cuda", "--device", "cpu")
    assert (call["op"], call["chosen"]["backend"]) == (op, "cuda")
    assert call["chosen"]["kernel"]


def test_explain_backward_shows_the_gradients_passes():
    ops = [call["op"] for call in calls("conv2d", "1x2x5x5", "--backward", "--backend", "cuda")]
    assert ops[0] == "conv2d_fprop"
    assert {"conv2d_dgrad", "conv2d_wgrad"} <= set(ops[1:])


@pytest.mark.parametrize("factory", ["make", "instance"])
def test_explain_runs_a_model_and_names_its_layers(tmp_path, monkeypatch, factory):
    (tmp_path / "two_layers.py").write_text(TWO_LAYERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    found = calls(f"two_layers:{factory}", "--input", "1x3x8x8", "--backend", "cuda", "--device", "cpu", "--backward")
    assert [(call["layer"], call["op"]) for call in found[:2]] == [("0", "conv2d_fprop"), ("2", "max_pool2d_forward")]
    assert any(call["is_backward"] for call in found[2:])


def test_explain_prints_a_table():
    printed = run("explain", "conv2d", "1x2x5x5")
    assert "conv2d_fprop" in printed
    assert "kernel" in printed


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (("conv3d", "1x2x3x3"), "conv2d, conv_transpose2d, max_pool2d", 2),
        (("conv2d",), "second argument", 2),
        (("conv2d", "1x2"), "NxCxHxW and CxHxW", 2),
        (("conv2d", "1x2x5x5", "--dtype", "int8"), "bfloat16", 2),
        (("conv2d", "1x2x5x5", "--backend", "cudnn"), "triton", 2),
        (("conv2d", "1x2x5x5", "--activation", "mish"), "hardswish", 2),
        (("conv2d", "1x2x3x3", "--kernel", "5"), "Kernel size can't be greater", 1),
        (("json:dumps",), "--input NxCxHxW", 2),
        (("no_such_module_here:make", "--input", "1x3x8x8"), "cannot be imported", 1),
        (("json:no_such_name", "--input", "1x3x8x8"), "has no 'no_such_name'", 1),
        (("json:JSONDecoder", "--input", "1x3x8x8"), "torch.nn.Module", 1),
        (("math:pi", "--input", "1x3x8x8"), "pi is a float. Accepted is a torch.nn.Module", 1),
        (("conv2d", "9999999999x9999x9x9"), "no room for a tensor of 9999999999x9999x9x9", 1),
    ],
)
def test_explain_errors_name_what_is_accepted(arguments, message, code):
    assert message in run("explain", *arguments, code=code)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_asking_for_a_gpu_that_is_not_there_is_an_error():
    assert "Accepted are cpu and auto" in run("explain", "conv2d", "1x2x5x5", "--device", "cuda", code=1)


def test_asking_for_a_backend_that_does_not_work_here_says_why(monkeypatch):
    monkeypatch.setattr(backends, "unavailable", lambda name, device: f"{name} is broken on {device}")
    printed = run("explain", "conv2d", "1x2x5x5", "--backend", "cuda", "--device", "cpu", code=1)
    assert "cuda is broken on cpu" in printed
