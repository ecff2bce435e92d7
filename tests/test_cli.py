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
from fastconv.bench import supervisor
from fastconv.cli import app
from fastconv.cli.models import load_model
from fastconv.cli.options import parse_pair, parse_size
from tests.bench.synthetic import cases, predicted, write

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
    assert parse_size(text, "--input") == size


@pytest.mark.parametrize("text", ["", "3x", "x3", "3,5", "-1", "3xx5", "3x5.0"])
def test_other_sizes_are_errors_that_say_what_a_size_is(text):
    with pytest.raises(typer.BadParameter, match=rf"--input '{text}'.*8x64x56x56"):
        parse_size(text, "--input")


def test_pair_is_vertical_first():
    assert parse_pair("3", "--kernel") == (3, 3)
    assert parse_pair("3x5", "--kernel") == (3, 5)
    with pytest.raises(typer.BadParameter, match="two"):
        parse_pair("3x5x7", "--kernel")


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
        (("adaptive_max_pool2d", "1x2x6x6", "--output-size", "3x2"), "max_pool2d_forward"),
        (("adaptive_max_pool2d", "2x6x6"), "max_pool2d_forward"),
        (("max_unpool2d", "2x3x4", "--kernel", "2x3", "--stride", "2", "--padding", "1"), "max_unpool2d_forward"),
        (("max_unpool2d", "1x2x3x4", "--channels-last"), "max_unpool2d_forward"),
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


@pytest.mark.parametrize(
    ("padding", "sides"),
    [("1", [1, 1, 1, 1]), ("1x2", [1, 1, 2, 2]), ("0x1x2x3", [0, 1, 2, 3]), ("same", [1, 1, 1, 1]), ("valid", [0] * 4)],
)
def test_explain_takes_every_padding_of_a_convolution(padding, sides):
    [call] = calls("conv2d", "1x2x5x5", "--padding", padding, "--padding-mode", "constant", "--padding-value", "2")
    assert call["problem"]["padding"] == sides
    mode, value = call["problem"]["padding_mode"], call["problem"]["padding_value"]
    assert (mode, value) == (("constant", 2.0) if any(sides) else ("zeros", 0.0))


def test_explain_describes_a_convolution_with_a_pool():
    [call] = calls(
        *("conv2d_max_pool2d", "1x2x12x12", "--padding", "1x1x1x1", "--padding-mode", "reflect", "--pool-kernel", "3"),
        *("--pool-stride", "2x1", "--pool-padding", "1", "--backend", "cuda", "--activation", "silu"),
    )
    conv, pool = call["problem"]["conv"], call["problem"]["pool"]
    assert call["op"] == "conv2d_max_pool2d"
    assert (conv["padding"], conv["padding_mode"], conv["activation"]) == ([1, 1, 1, 1], "reflect", "silu")
    assert (pool["kernel"], pool["stride"], pool["padding"]) == ([3, 3], [2, 1], [1, 1])


@pytest.mark.parametrize(
    ("op", "activation"), [("conv2d", "identity"), ("conv2d_max_pool2d", "relu"), ("conv2d_global_max", "identity")]
)
def test_explain_leaves_the_activation_to_the_function_where_none_is_named(op, activation):
    [call] = calls(op, "1x2x6x6", "--backend", "cuda")
    assert (call["op"].removesuffix("_fprop"), call["problem"].get("conv", call["problem"])["activation"]) == (
        op,
        activation,
    )


def test_explain_prints_a_table():
    printed = run("explain", "conv2d", "1x2x5x5")
    assert "conv2d_fprop" in printed
    assert "kernel" in printed


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (("conv3d", "1x2x3x3"), "conv2d, conv_transpose2d, max_pool2d, conv2d_max_pool2d, conv2d_global_max, adap", 2),
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
        (("conv2d", "1x2x5x5", "--padding-mode", "mirror"), "padding_mode is 'mirror', but must be one of 'zeros'", 1),
        (("conv2d", "1x2x5x5", "--padding", "9", "--padding-mode", "reflect"), "it must be at most 4", 1),
        (("conv2d", "1x2x5x5", "--padding", "1", "--padding-value", "3"), "must be 0 unless padding_mode is", 1),
        (("conv2d", "1x2x5x5", "--padding", "1x2x3"), "or 4 values (top, bottom, left, right)", 1),
        (("conv2d", "1x2x5x5", "--padding", "0x-1x0x0"), "negative padding is not supported", 1),
        (("conv2d", "1x2x5x5", "--padding", "smae"), "padding must be 'same', 'valid'", 1),
        (("max_pool2d", "1x2x5x5", "--padding", "1x1x1x1"), "padding", 1),
        (
            ("max_pool2d", "1x2x5x5", "--padding-mode", "reflect"),
            "--padding-mode is not for max_pool2d. It is for conv2d,",
            2,
        ),
        (("conv2d", "1x2x5x5", "--ceil-mode"), "--ceil-mode is not for conv2d. It is for max_pool2d", 2),
        (
            ("conv2d", "1x2x5x5", "--pool-kernel", "2"),
            "--pool-kernel is not for conv2d. It is for conv2d_max_pool2d",
            2,
        ),
        (("max_unpool2d", "1x2x5x5", "--dilation", "2"), "--dilation is not for max_unpool2d", 2),
        (("max_unpool2d", "1x2x1x1", "--padding", "2"), "max_unpool2d()", 1),
        (
            ("adaptive_max_pool2d", "1x2x5x5", "--output-size", "2", "--backend", "cuda"),
            "divisors of the input's size",
            1,
        ),
        (("json:dumps", "--input", "1x2x5x5", "--groups", "2"), "--groups is for a single op, not for a model", 2),
        (("conv2d", "1x2x5x5", "--input", "1x2x5x5"), "--input is for a model", 2),
        (("conv2d", "99999999999999999999x1x1x1"), "Accepted are numbers below 2**63", 2),
        (("conv2d", "1x2x5x5", "--stride", "1.5"), "--stride 1.5: accepted are one whole number, or two", 2),
        (("conv2d", "1x2x5x5", "--dilation", "1x2x3"), "--dilation 1x2x3: accepted are one", 2),
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


# --- other people's code


BROKEN_MODELS = """
import torch


def raises():
    raise KeyError("no such checkpoint")


def leaves():
    raise SystemExit("usage: train.py")


class Failing(torch.nn.Module):
    def forward(self, x):
        raise AssertionError("the input is no spectrogram")


def failing():
    return Failing()


def scripted():
    return torch.jit.script(torch.nn.Conv2d(3, 3, 3))
"""


@pytest.fixture
def broken_models(tmp_path, monkeypatch):
    (tmp_path / "broken_models.py").write_text(BROKEN_MODELS)
    (tmp_path / "broken_import.py").write_text("import torch\nraise RuntimeError('no licence')\n")
    (tmp_path / "no_python.py").write_text("def make(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in ("broken_models", "broken_import", "no_python"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("broken_models:raises", "broken_models:raises: raises() failed: KeyError: 'no such checkpoint'"),
        ("broken_models:leaves", "leaves() failed: SystemExit: usage: train.py"),
        ("broken_models:failing", "the model failed: AssertionError: the input is no spectrogram"),
        ("broken_import:make", "broken_import cannot be imported: RuntimeError: no licence"),
        ("no_python:make", "no_python cannot be imported: SyntaxError"),
        (":make", "cannot be imported: ValueError"),
    ],
)
def test_an_error_of_a_model_is_one_line_that_names_it_and_debug_raises_it(broken_models, target, message):
    printed = run("explain", target, "--input", "1x3x8x8", code=1)
    assert message in printed
    assert "--debug shows where" in printed
    assert "Traceback" not in printed
    result = CliRunner().invoke(app, ["explain", target, "--input", "1x3x8x8", "--debug"])
    assert not isinstance(result.exception, SystemExit) or target == "broken_models:leaves"
    assert result.exit_code != 0


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*is deprecated:DeprecationWarning")
@pytest.mark.parametrize("options", [(), ("--backward",)])
def test_a_scripted_model_whose_calls_cannot_be_seen_is_refused(broken_models, options):
    printed = run("explain", "broken_models:scripted", "--input", "1x3x8x8", *options, code=1)
    assert "the model is a TorchScript module" in printed


def test_load_model_says_the_same_to_tune(broken_models, capsys):
    with pytest.raises(typer.Exit):
        load_model("broken_models:raises")
    assert "raises() failed: KeyError" in capsys.readouterr().err


# --- bench


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_an_interrupted_run_ends_as_an_interrupted_process_does(tmp_path, monkeypatch):
    from fastconv.bench import session

    case = cases()[0]

    def interrupted(job, writer, log, done, on_row, on_begin):
        writer.write(predicted(case, "fastconv-cuda", 1e-5))
        return supervisor.Outcome([predicted(case, "fastconv-cuda", 1e-5)], complete=False, reason="interrupted")

    monkeypatch.setattr(session, "supervise", interrupted)
    printed = run("bench", "--suite", "pools", "--quick", "--backend", "cuda", "--output", str(tmp_path), code=130)
    assert "Not complete: interrupted" in printed
    assert "--resume adds them" in printed


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_run_interrupted_while_its_report_is_drawn_says_how_to_draw_it(tmp_path, monkeypatch):
    from fastconv.bench import session

    def interrupt(results, folder):
        raise KeyboardInterrupt

    def measured(job, writer, log, done, on_row, on_begin):
        writer.write(predicted(cases()[0], "fastconv-cuda", 1e-5))
        return supervisor.Outcome([], complete=True)

    monkeypatch.setattr(session, "supervise", measured)
    monkeypatch.setattr(session.report, "write_all", interrupt)
    printed = run("bench", "--suite", "pools", "--quick", "--backend", "cuda", "--output", str(tmp_path), code=130)
    assert f"all rows are kept, and `fastconv bench report {tmp_path}` draws them" in printed
    monkeypatch.undo()
    assert str(tmp_path / "report.html") in run("bench", "report", str(tmp_path))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_resume_alone_goes_on_with_what_the_run_was_asked_for(tmp_path, monkeypatch):
    """Else the rest of a run of one suite would be that of all of them."""
    from fastconv.bench import session

    jobs = []

    def interrupted(job, writer, log, done, on_row, on_begin):
        jobs.append(job)
        row = predicted(job.cases[len(jobs) - 1], "fastconv-cuda", 1e-5)
        row.predicted_gpu = job.gpu
        writer.write(row)
        return supervisor.Outcome([row], complete=False, reason="interrupted")

    monkeypatch.setattr(session, "supervise", interrupted)
    monkeypatch.chdir(tmp_path)
    asked = ("--suite", "pools", "--pass", "fwd", "--dtype", "float16", "--backend", "cuda", "--gpu", "A100")
    run("bench", *asked, code=130)
    printed = run("bench", "--resume", code=130)
    assert "asked for: suites ['pools']" in printed
    assert [case.key for case in jobs[0].cases] == [case.key for case in jobs[1].cases]
    assert len(jobs[0].cases) > 4
    assert jobs[0].field == jobs[1].field
    assert jobs[0].gpu == jobs[1].gpu == "A100"
    run("bench", "--resume", "--suite", "dcgan", "--pass", "dgrad", "--backend", "cuda", code=130)
    assert {case.layer.suite for case in jobs[2].cases} == {"dcgan"}
    assert jobs[2].gpu == "A100"


@pytest.mark.parametrize(("count", "shown"), [("0", 0), ("1", 2), ("2", 4), ("50", 5)])
def test_compare_shows_as_many_rows_as_were_asked_for(tmp_path, count, shown):
    rows = [predicted(case, "fastconv-cuda", 1e-5) for case in cases()[:5]]
    path = str(write(tmp_path / "results.jsonl", rows, predicted_gpu="H200"))
    assert run("bench", "compare", path, path, "--rows", count).count("/channels_last/") == shown


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_backends_that_are_left_out_without_a_gpu_are_named(tmp_path):
    options = ("--filter", "pools/resnet_3x3_s2", "--pass", "fwd", "--quick", "--output", str(tmp_path))
    assert "Left out: aten" in run("bench", "--backend", "cuda", "--backend", "aten", *options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_run_in_which_no_row_has_a_figure_is_a_failure(tmp_path, monkeypatch):
    from fastconv.bench import session

    def fruitless(job, writer, log, done, on_row, on_begin):
        row = predicted(cases()[0], "fastconv-cuda", 1e-5)
        row.status, row.reason = "failed", "ImportError: not built"
        writer.write(row)
        return supervisor.Outcome([row], complete=True)

    monkeypatch.setattr(session, "supervise", fruitless)
    run("bench", "--suite", "pools", "--quick", "--backend", "cuda", "--output", str(tmp_path), code=1)
