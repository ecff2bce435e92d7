"""benchmarks/one_layer.py: it runs a case, and names what it cannot."""

import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "one_layer.py"
CASE = "pools/resnet_3x3_s2/fwd/float32/nchw/n1"


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")


@pytest.mark.parametrize("who", [("--pytorch",), ("--backend", "aten")])
def test_it_runs_a_case(monkeypatch, who):
    run(monkeypatch, CASE, *who, "--calls", "2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nonsense",), "'nonsense' is no case; a case is SUITE/LAYER/PASS/DTYPE/LAYOUT/nBATCH"),
        (("pools/resnet_3x3_s2/wgrad/float32/nchw/n1",), "max_pool2d has no wgrad"),
        ((CASE, "--backend", "cudnn"), "backend: unknown 'cudnn'; did you mean cuda? Known: auto,"),
        ((CASE, "--kernel", "gemm"), "kernel: unknown 'gemm'. Known:"),
        ((CASE, "--calls", "0"), "argument --calls: 0, but must be at least 1"),
    ],
)
def test_what_it_cannot_run_is_named_in_one_line(monkeypatch, capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, *arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
