"""`fastconv inspect` and `fastconv profile`: what a kernel was compiled to, and what it does."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from fastconv import machine_code
from fastconv.cli import app
from fastconv.cli.inspect import _name, _telling
from fastconv.cli.profile import measured
from fastconv.machine_code import Resources, UnknownResourcesError

SUM = "_ZN8fastconv18channel_sum_kernelINS_4HalfEiEEvNS_20ChannelSumParametersIT0_EE"
FLOAT_SUM = "_ZN8fastconv18channel_sum_kernelIflEEvNS_20ChannelSumParametersIT0_EE"
BUILT = {
    ("sm_80", SUM): Resources(31),
    ("sm_90a", SUM): Resources(32, 8, 16),
    ("sm_90a", FLOAT_SUM): Resources(40),
}
CODE = f"""
arch = sm_90a
\t\tFunction : {SUM}
        /*0000*/                   LDG.E.128 R4, [R2] ;
        /*0010*/              @!P0 STG.E.128 [R2], R4 ;
        /*0020*/              @UP1 LDGSTS.E.BYPASS.128 [R2], [R4] ;
        /*0030*/                   IMAD R1, R2, R3, RZ ;
\t\tFunction : {FLOAT_SUM}
        /*0000*/                   EXIT ;
"""


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "160", "TERM": "dumb"})
    assert result.exit_code == code, (result.output, result.exception)
    return " ".join(result.output.replace("│", " ").split())


@pytest.fixture
def built(monkeypatch):
    monkeypatch.setattr(machine_code, "built", lambda: BUILT)
    monkeypatch.setattr(machine_code, "disassemble", lambda tool, module, *words, architecture: CODE)


@pytest.mark.parametrize("command", ["inspect", "profile"])
def test_help_has_examples(command):
    assert f"fastconv {command}" in run(command, "--help").partition("Examples")[2]


def kernels(*arguments: str) -> list[dict]:
    result = CliRunner().invoke(app, ["inspect", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_every_kernel_is_listed_with_its_resources(built):
    found = {(row["architecture"], row["symbol"]): row for row in kernels()}
    assert set(found) == set(BUILT)
    row = found["sm_90a", SUM]
    assert (row["registers"], row["stack"], row["local"]) == (32, 8, 16)
    assert "sm_90a" in run("inspect")


@pytest.mark.parametrize(
    ("arguments", "chosen"),
    [
        (("channel_sum", "--architecture", "sm_80"), [("sm_80", SUM)]),
        (("channel_sum", "nonesuch"), None),
        (("KERNELIFL",), None),
    ],
)
def test_kernels_are_chosen_by_words_of_their_names_and_by_architecture(built, monkeypatch, arguments, chosen):
    if chosen is None:
        monkeypatch.setattr("shutil.which", lambda name: None)
        if arguments == ("KERNELIFL",):  # without c++filt the mangled name is the name
            assert [row["symbol"] for row in kernels(*arguments)] == [FLOAT_SUM]
        else:
            assert "no kernel has channel_sum and nonesuch in its name" in run("inspect", *arguments, code=1)
    else:
        assert [(row["architecture"], row["symbol"]) for row in kernels(*arguments)] == chosen


def test_an_architecture_that_was_not_built_names_those_that_were(built):
    assert "has code for sm_80, sm_90a" in run("inspect", "--architecture", "sm_70", code=1)


def test_machine_code_is_printed_with_what_stands_out_in_it(built):
    rows = kernels("--architecture", "sm_90a", "--sass")
    assert [row["instructions"] for row in rows if row["symbol"] == SUM] == [{"LDGSTS": 1, "LDG": 1, "STG": 1}]
    printed = run("inspect", "--architecture", "sm_90a", "--sass")
    assert "1 LDGSTS (asynchronous copies)" in printed
    assert "0030 IMAD R1, R2, R3, RZ" in printed
    assert "none of the telling instructions 0000 EXIT" in printed


def test_local_memory_stands_out():
    assert _telling(["0000  STL.64 [R1], R2", "0010  @P2 LDL R3, [R1]", "0020  LDGDEPBAR"]) == {"LDL": 1, "STL": 1}


@pytest.mark.parametrize(
    ("signature", "name"),
    [
        ("void fastconv::kernel<fastconv::Half, int>(fastconv::Parameters<int>)", "kernel<Half, int>"),
        ("void fastconv::mma::gemm<fastconv::Tile<(int)64, 8> >(int)", "mma::gemm<Tile<(int)64, 8> >"),
        ("plain", "plain"),
    ],
)
def test_a_name_is_short(signature, name):
    assert _name(signature) == name


def test_without_a_module_to_read_the_reason_is_told(monkeypatch):
    def absent():
        raise UnknownResourcesError("fastconv._cuda, whose code tells, was not built")

    monkeypatch.setattr(machine_code, "built", absent)
    assert "was not built" in run("inspect", code=1)


# --- profile


CASE = "resnet50/layer1.0.conv2/fwd/bfloat16/channels_last/n32"
cpu_only = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")


@cpu_only
def test_on_a_cpu_memory_is_counted_by_launch_and_by_line():
    printed = run("profile", CASE, "--by-line")
    assert "32->32 3x3 s1 p1 @7x7, batch 2, fwd, bfloat16, channels_last: counted in the emulator, not timed" in printed
    assert "mma_fprop" in printed
    assert "1.00 times as many distinct ones" in printed
    assert "csrc/kernels/mma_conv/" in printed
    result = CliRunner().invoke(app, ["profile", CASE, "--json"])
    found = json.loads(result.stdout)
    assert found["totals"]["launches"] == len(found["launches"]) == 1
    assert found["totals"]["sector_bytes"] > found["totals"]["distinct_bytes"] > 0


@cpu_only
def test_on_a_cpu_one_kernel_can_be_asked_for():
    assert "direct_fprop" in run("profile", CASE, "--kernel", "direct_fprop")


@cpu_only
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet50",), "a case is SUITE/LAYER/PASS/DTYPE/LAYOUT/nBATCH"),
        ((CASE.replace("n32", "n0"),), "a case is SUITE/LAYER/PASS/DTYPE/LAYOUT/nBATCH"),
        ((CASE.replace("resnet50", "resnet"),), "did you mean resnet50"),
        ((CASE.replace("conv2", "conv9"),), "did you mean layer1.0.conv"),
        ((CASE.replace("channels_last", "nhwc"),), "layout: unknown 'nhwc'"),
        (("pools/resnet_3x3_s2/wgrad/bfloat16/nchw/n64",), "max_pool2d has no wgrad in bfloat16"),
        ((CASE, "--kernel", "mma_frop"), "did you mean mma_fprop"),
        ((CASE, "--kernel", "stem_fprop"), "stem_fprop does not compute 32->32 3x3"),
        ((CASE, "--backend", "triton"), "without a GPU the emulator counts, and it runs cuda alone"),
    ],
)
def test_errors_of_profile_name_what_is_accepted(arguments, message):
    assert message in run("profile", *arguments, code=1)


@pytest.mark.gpu
def test_on_a_gpu_the_kernels_of_a_call_are_timed():
    x = torch.randn(1 << 22, device="cuda")
    rows = measured(lambda: x.mul(2).add(1), calls=5)
    assert sum(row["launches"] for row in rows) == 2
    assert all(0 < row["seconds"] < 1 for row in rows)
