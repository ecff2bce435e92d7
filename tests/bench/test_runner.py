"""Cases on a device, here the CPU: every contestant of every pass, and errors that stay in their row."""

import dataclasses

import pytest
import torch

from fastconv.bench import measurement, runner
from fastconv.bench.cases import Case, Selection, select
from fastconv.bench.contestants import ours, pytorch
from fastconv.bench.device import CpuDevice
from fastconv.bench.errors import Accuracy, compare, complaint_about
from fastconv.bench.hardware import Ceilings
from fastconv.bench.measurement import Effort
from fastconv.bench.names import UnknownNameError
from fastconv.bench.precision import PRECISIONS, precision_named
from fastconv.bench.results import set_ratios
from fastconv.bench.runner import DeviceLostError, Field, make_checks, make_inputs, pytorch_accuracy, run_case
from fastconv.bench.statistics import Sample
from fastconv.bench.suite import load_suite, scaled_down, suite_names
from tests.bench.cheats import replace

UNREACHABLE = Ceilings("for tests", 1e18, dict.fromkeys(PRECISIONS, 1e21), measured=False)
EFFORT = Effort(seconds=1e-3, least=2, most=3, batch_seconds=1e-4)


@pytest.fixture(autouse=True)
def one_thread():
    """Layers here are tiny; waking threads for them takes longer than the work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def layer_of(suite, name):
    return scaled_down(next(layer for layer in load_suite(suite).layers if layer.name == name))


STEM = layer_of("resnet50", "conv1")


def run(case, ceilings=UNREACHABLE, device=None, skip=(), **field):
    rows, begun = [], []
    given = {"backends": ("aten",), "baselines": ("pytorch",), "peers": (), **field}
    run_case(case, Field(**given), device or CpuDevice(), ceilings, EFFORT, rows.append, begun.append, set(skip))
    return {row.contestant: row for row in rows}, begun


FORMS = (
    ("resnet50", "conv1"), ("unet", "up1.up"), ("mobilenet_v2", "block2.0.depthwise"), ("pools", "resnet_3x3_s2"),
    ("pools", "googlenet_3x3_s2_ceil"), ("blocks", "vgg_stage1"), ("super_resolution", "fsrcnn.deconv_x2"),
)  # fmt: skip
EVERY_PASS = [
    dataclasses.replace(case, layer=scaled_down(case.layer))
    for suite, layer in FORMS
    for case in select(Selection(filters=[f"{suite}/{layer}"], precisions=["float64"], batch=2))
    if case.layer.name == layer
]


@pytest.mark.parametrize("case", EVERY_PASS, ids=lambda case: case.key)
def test_our_call_of_every_pass_computes_what_the_reference_computes(case):
    (check,) = make_checks(case, torch.device("cpu"), count=1)
    call = ours(case, "aten")
    assert compare(call.run(*call.prepare(check.inputs)), check.expected).relative < 1e-14


@pytest.mark.parametrize("case", EVERY_PASS, ids=lambda case: case.key)
def test_no_guard_rejects_an_honest_call_of_any_pass(case):
    rows, _ = run(case)
    assert {name: (row.status, row.reason) for name, row in rows.items()} == {
        "pytorch": ("ok", ""),
        "fastconv-aten": ("ok", ""),
    }


def test_a_case_gives_a_row_for_every_contestant():
    rows, begun = run(Case(STEM, "fwd", "float32", "nchw", 2), peers=("tests.bench.peers:right",))
    assert list(rows) == ["pytorch", "tests.bench.peers:right", "fastconv-aten"]
    for row in rows.values():
        assert row.status == "ok", row.reason
        assert row.cold.median > 0
        assert row.tflops > 0
        assert row.error <= 2 * row.pytorch_error + 1e-6
    assert rows["fastconv-aten"].kernel == "aten:conv2d_fprop"
    assert begun[0] == rows["pytorch"].key
    set_ratios(rows.values())
    assert rows["fastconv-aten"].ratio > 0


@pytest.mark.parametrize(
    ("peer", "status", "reason"),
    [("wrong", "wrong", "relative error"), ("failing", "failed", "RuntimeError: no engine for this problem"),
     ("out_of_memory", "skipped", "out of memory"), ("elsewhere", "skipped", "does not compute this case")],
)  # fmt: skip
def test_a_baseline_that_fails_is_a_row_that_says_so_and_no_time(peer, status, reason):
    rows, _ = run(Case(STEM, "fwd", "float32", "nchw", 2), peers=(f"tests.bench.peers:{peer}",))
    row = rows[f"tests.bench.peers:{peer}"]
    assert (row.status, row.cold, row.tflops) == (status, None, None)
    assert reason in row.reason
    assert "\n" not in row.reason
    assert rows["fastconv-aten"].status == "ok", "the run went no further"


def test_a_rival_that_rounds_worse_is_not_thrown_out_and_we_are():
    """PyTorch in another layout may: without its row our ratio would stand beside a slower baseline."""
    rows, _ = run(Case(STEM, "fwd", "float32", "nchw", 2), peers=("tests.bench.peers:rounded_worse",))
    row = rows["tests.bench.peers:rounded_worse"]
    assert row.status == "ok"
    own = Accuracy(row.pytorch_error, row.pytorch_error)
    assert complaint_about(Accuracy(row.error, 0.0), own, PRECISIONS["float32"], runner.TIMES_PYTORCHS_ERROR["ours"])


def test_rows_that_are_done_are_skipped():
    case = Case(STEM, "fwd", "float32", "nchw", 2)
    rows, _ = run(case, skip=[f"{case.key} pytorch"])
    assert list(rows) == ["fastconv-aten"]
    assert run(case, skip=[f"{case.key} {name}" for name in ("pytorch", "fastconv-aten")]) == ({}, [])


def test_a_figure_above_the_roofline_is_rejected():
    slow = Ceilings("for tests", 1.0, {"float32": 1.0}, measured=True)
    rows, _ = run(Case(STEM, "fwd", "float32", "nchw", 2), ceilings=slow)
    assert rows["fastconv-aten"].status == "rejected"
    assert "above the roofline" in rows["fastconv-aten"].reason
    assert rows["fastconv-aten"].cold is None


def test_a_warm_figure_above_the_arithmetic_peak_is_rejected(monkeypatch):
    """A warm call may find its bytes in the cache, but it cannot find its arithmetic done."""
    honest = runner.measure

    def flattered(*arguments):
        result = honest(*arguments)
        return dataclasses.replace(result, warm=Sample(1e-12, 1e-12, 1e-12, 9))

    case = Case(STEM, "fwd", "float32", "nchw", 2)
    ceilings = Ceilings("for tests", 1e18, {"float32": case.flops() / 1e-9}, measured=False)
    assert run(case, ceilings)[0]["fastconv-aten"].status == "ok"
    replace(monkeypatch, runner, "measure", flattered)
    row = run(case, ceilings)[0]["fastconv-aten"]
    assert row.status == "rejected"
    assert "above the roofline: warm" in row.reason


@pytest.mark.parametrize("setting", ["deterministic", "benchmark_limit"])
def test_a_contestant_that_slows_its_rivals_is_rejected_and_the_setting_put_back(setting):
    before = getattr(torch.backends.cudnn, setting)
    peer = f"tests.bench.peers:leaves_{setting}"
    rows, _ = run(Case(STEM, "fwd", "float32", "nchw", 2), peers=(peer,))
    assert rows[peer].status == "rejected"
    assert f"cudnn.{setting}" in rows[peer].reason
    assert getattr(torch.backends.cudnn, setting) == before
    assert rows["fastconv-aten"].status == "ok"


def test_a_contestant_that_replaces_the_judge_is_rejected_and_the_next_meets_the_genuine_one():
    judge, peer = measurement.judge, "tests.bench.peers:replaces_the_judge"
    rows, _ = run(Case(STEM, "fwd", "float32", "nchw", 2), peers=(peer,))
    assert rows[peer].status == "rejected"
    assert "measurement.judge was replaced" in rows[peer].reason
    assert rows["fastconv-aten"].status == "ok", rows["fastconv-aten"].reason
    assert measurement.judge is judge


def test_a_case_whose_reference_fails_is_rows_that_say_so():
    broken = dataclasses.replace(STEM, kernel=(99, 99))
    rows, _ = run(Case(broken, "fwd", "float32", "nchw", 2))
    assert {row.status for row in rows.values()} == {"failed"}
    assert "no reference" in rows["pytorch"].reason


def test_a_lost_device_ends_the_process_not_the_row_quietly():
    class Lost(CpuDevice):
        def synchronize(self):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(DeviceLostError, match="illegal memory access"):
        run(Case(STEM, "fwd", "float32", "nchw", 2), device=Lost())


@pytest.mark.parametrize("field", [{"backends": ("cudnn",)}, {"baselines": ("tensorflow",)}, {"peers": ("no_colon",)}])
def test_an_unknown_contestant_is_an_error_that_names_the_known_ones(field):
    with pytest.raises(UnknownNameError):
        run(Case(STEM, "fwd", "float32", "nchw", 2), **field)


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16", "float64"])
def test_pytorchs_own_error_is_that_of_its_precision(name):
    """The limits by which a row in another precision is found hold for PyTorch itself, on every suite."""
    precision = precision_named(name)
    for suite in suite_names():
        layer = scaled_down(load_suite(suite).layers[0])
        if layer.op == "conv_block":
            continue
        case = Case(layer, "fwd", name, "nchw", 2)
        own = pytorch_accuracy(case, make_checks(case, torch.device("cpu"), count=2))
        assert own.relative <= precision.error_limit
        assert complaint_about(own, own, precision) == ""


def test_fresh_inputs_have_the_case_s_dtype_and_layout():
    case = Case(STEM, "fwd", "bfloat16", "channels_last", 2)
    x, w = make_inputs(case, torch.device("cpu"), "channels_last", 0)
    assert x.dtype == w.dtype == torch.bfloat16
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert float(pytorch(case).run(x, w)[0].float().std()) == pytest.approx(1, abs=0.3)


def test_float32_is_not_held_to_the_float32_units_where_tensor_cores_do_more():
    rates = {"float32": 50e12, "tf32": 300e12, "float16": 600e12}
    ceilings = Ceilings("for tests", 1e12, rates, measured=True)
    assert ceilings.flops_for("float32") == 100e12
    assert ceilings.flops_for("tf32") == 300e12
    assert Ceilings("for tests", 1e12, {"float32": 50e12, "tf32": 60e12}, measured=True).flops_for("float32") == 50e12
