"""Registers of CUDA C++ kernels: read from what nvcc made, found by the emulator's names, and told by explain."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fastconv
from build_support import nvcc
from build_support.settings import Settings
from fastconv import analysis, machine_code
from fastconv.backends import cuda
from fastconv.bench.hardware import gpu_named
from fastconv.explain import Explanation
from fastconv.machine_code import Resources, UnknownResourcesError
from fastconv.plan import Candidate
from fastconv.problem import ChannelSumProblem, Operand, Problem, Target
from fastconv.table import as_text
from tests.tuning.support import conv

ROOT = Path(__file__).resolve().parents[1]

PRINTED = """
Fatbin elf code:
================
arch = sm_80
code version = [1,8]

Resource usage:
 Common:
  GLOBAL:0
 Function _Z1aPf:
  REG:32 STACK:8 SHARED:1024 LOCAL:16 CONSTANT[0]:360 TEXTURE:0 SURFACE:0 SAMPLER:0
 Function _Z1bPf:
  REG:40 STACK:0 SHARED:0 LOCAL:0 CONSTANT[0]:360 TEXTURE:0 SURFACE:0 SAMPLER:0

Fatbin elf code:
================
arch = sm_90a

Resource usage:
 Common:
  GLOBAL:0
 Function _Z1aPf:
  REG:30 STACK:0 SHARED:1024 LOCAL:0 CONSTANT[0]:528 TEXTURE:0 SURFACE:0 SAMPLER:0
"""


def test_what_cuobjdump_prints() -> None:
    assert machine_code.parse(PRINTED) == {
        ("sm_80", "_Z1aPf"): Resources(32, 8, 16),
        ("sm_80", "_Z1bPf"): Resources(40),
        ("sm_90a", "_Z1aPf"): Resources(30),
    }


@pytest.mark.parametrize(
    ("capability", "expected"),
    [(80, "sm_80"), (86, "sm_80"), (89, "sm_89"), (90, "sm_90a"), (100, "sm_90"), (75, None)],
)
def test_whose_code_a_device_runs(capability: int, expected: str | None) -> None:
    assert machine_code.architecture_for(capability, {"sm_80", "sm_89", "sm_90", "sm_90a"}) == expected


def test_of_code_that_nvcc_compiled_the_emulators_name_finds_the_registers(tmp_path: Path) -> None:
    found_nvcc = nvcc.find_installed(Settings.read(os.environ), os.environ) or nvcc.find_in_wheels(sys.path)
    if found_nvcc is None:
        pytest.skip("no nvcc in CUDA_HOME, on PATH or among the wheels")
    cuobjdump = machine_code.find_disassembler()
    if cuobjdump is None:
        pytest.skip("no cuobjdump with nvdisasm beside it")
    file = tmp_path / "channel_sum.fatbin"
    options = ["-std=c++17", "-Icsrc", "-gencode=arch=compute_80,code=sm_80", "-fatbin", "-o", str(file)]
    subprocess.run([str(found_nvcc.executable), *options, "csrc/launch/channel_sum.cu"], cwd=ROOT, check=True)
    found = machine_code.resources(cuobjdump, file)
    target = Target("cuda", 80, 108, "A100")
    problem = ChannelSumProblem(torch.float32, Operand((2, 3, 4, 4), (48, 16, 4, 1)), target)
    (launch,) = cuda.dry_run(problem, legal(problem)[0])
    used = found["sm_80", launch["symbol"]]
    assert 0 < used.registers <= 255
    assert "channel_sum_kernelIf" in launch["symbol"]


def legal(problem: Problem) -> list[Candidate]:
    return [one for one in analysis.candidates_on(problem) if one.backend == "cuda" and one.legal]


@pytest.fixture
def problem() -> Problem:
    """A convolution on an H100."""
    large = conv(batch=64, channels=64, filters=64, dtype=torch.bfloat16)
    return analysis.in_channels_last(analysis.on_gpu(large, gpu_named("H100")))


def symbol_of(problem: Problem, candidate: Candidate) -> str:
    return next(one["symbol"] for one in cuda.dry_run(problem, candidate) if one["kernel"] == candidate.kernel)


def test_registers_are_those_of_the_devices_architecture_and_can_limit_the_occupancy(problem, monkeypatch) -> None:
    candidate = next(one for one in legal(problem) if one.kernel == "direct_fprop")
    symbol = symbol_of(problem, candidate)
    table = {("sm_80", symbol): Resources(40), ("sm_90a", symbol): Resources(255)}
    monkeypatch.setattr(machine_code, "built", lambda: table)
    one = analysis.analyse(problem, candidate)
    assert (one.registers, one.registers_unknown) == (255, "")
    assert one.occupancy_limit == "registers"
    warps = candidate.details["block"] // 32
    assert one.blocks_per_multiprocessor == 65536 // (256 * 32 * warps)
    on_a100 = analysis.on_gpu(problem, gpu_named("A100"))
    assert analysis.analyse(on_a100, candidate).registers == 40


def test_explain_tells_registers_where_they_are_known_and_once_why_not(monkeypatch) -> None:
    x = torch.randn(1, 8, 8, 8)
    explanation = fastconv.explain(fastconv.nn.Conv2d(8, 8, 3), x).on("H100")
    (call,) = explanation.calls
    candidate = next(one for one in legal(call.problem) if one.kernel == "direct_fprop")
    call = dataclasses.replace(call, chosen=candidate)
    explanation = Explanation((call,))
    monkeypatch.setattr(machine_code, "built", lambda: {("sm_90a", symbol_of(call.problem, candidate)): Resources(123)})
    assert explanation.to_dict()["calls"][0]["analysis"]["registers"] == 123
    text = " ".join(as_text(explanation, 160).split())
    assert "123 registers a thread" in text
    assert "registers not known" not in text
    monkeypatch.undo()
    monkeypatch.setattr(machine_code, "find_module", lambda: None)
    two = Explanation((call, call))
    for found in two.to_dict()["calls"]:
        assert found["analysis"]["registers"] is None
        assert "fastconv._cuda" in found["analysis"]["registers_unknown"]
    text = " ".join(as_text(two, 160).split())
    assert "registers a thread" not in text
    assert text.count("registers not known: fastconv._cuda, whose code tells, was not built") == 1


def test_each_reason_why_nothing_is_known(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(machine_code, "built", lambda: {("sm_90a", "_Z1av"): Resources(10)})
    for symbol, capability, reason in (
        ("", 90, "stripped"),
        ("_Z1bv", 90, "other sources"),
        ("_Z1av", 80, "without code for compute capability 8.0"),
    ):
        with pytest.raises(UnknownResourcesError, match=reason):
            machine_code.of_kernel(symbol, capability)
    monkeypatch.undo()
    module = tmp_path / "_cuda.so"
    module.write_text("no module")
    monkeypatch.setattr(machine_code, "find_module", lambda: module)
    monkeypatch.setattr(machine_code, "find_disassembler", lambda: None)
    with pytest.raises(UnknownResourcesError, match="no cuobjdump"):
        machine_code.of_kernel("_Z1av", 90)
    monkeypatch.setattr(machine_code, "find_disassembler", lambda: "/bin/false")
    with pytest.raises(UnknownResourcesError, match="cannot read"):
        machine_code.of_kernel("_Z1av", 90)
