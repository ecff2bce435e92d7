"""Rows of a machine without a GPU: our kernels in emulation are right there, weights that are kept packed included. And no
prediction is above the roofline of the GPU it is for."""

import pytest
import torch

from fastconv import dispatch
from fastconv.backends import packed_weights
from fastconv.backends.triton.target import architecture
from fastconv.bench.cases import Selection, case_of, select
from fastconv.bench.hardware import GPUS, gpu_named
from fastconv.bench.precision import PRECISIONS, switches
from fastconv.bench.prediction import predict, predict_case
from fastconv.bench.rows import make_row
from fastconv.problem import Target

#: Kernels that repack weights, and keep them packed from the second call on.
REPACKED = {
    "resnet50/conv1/dgrad/bfloat16/channels_last/n32": "mma_dgrad",
    "blocks/resnet_stem/fwd/bfloat16/channels_last/n32": "mma_conv_max_pool",
    "super_resolution/fsrcnn.deconv_x2/fwd/bfloat16/channels_last/n1": "mma_dgrad",
}


@pytest.mark.parametrize("key", REPACKED)
def test_a_kernel_that_keeps_packed_weights_is_right_when_they_change(monkeypatch, key):
    kept, get = [], packed_weights.get
    monkeypatch.setattr(packed_weights, "get", lambda *arguments: kept.append(get(*arguments)) or kept[-1])
    rows = []
    predict_case(case_of(key), (), (REPACKED[key],), gpu_named("H200"), rows.append, lambda name: None, set())
    (row,) = rows
    assert (row.status, row.reason) == ("ok", "")
    assert row.error <= 2 * row.pytorch_error
    assert row.counted["distinct_ratio"] >= 1
    assert kept, "no kernel asked for packed weights, so this case shows nothing"


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_a_row_is_checked_with_the_kernel_and_in_the_precision_that_it_names(precision):
    """Another kernel may be faster on the scaled-down layer, and emulated ones go by oneDNN's switch for TF32."""
    rows, case = [], case_of(f"resnet50/layer2.1.conv2/fwd/{precision}/channels_last/n32")
    predict_case(case, ("cuda", "triton"), (), gpu_named("H200"), rows.append, lambda name: None, set())
    assert [(row.status, row.reason) for row in rows] == [("ok", "")] * 2
    for row in rows:
        assert f"the check ran {row.kernel} " in row.notes[-1]
    assert rows[0].kernel == "cuda:mma_fprop"
    assert (rows[0].error > 1e-5) == (precision == "tf32")


def test_a_precision_sets_the_switch_of_cpu_tensors_too_and_puts_it_back():
    before = dispatch.allow_tf32("cpu", torch.float32)
    for name in ("tf32", "float32"):
        with switches(PRECISIONS[name]):
            assert dispatch.allow_tf32("cpu", torch.float32) == (name == "tf32")
    assert dispatch.allow_tf32("cpu", torch.float32) == before


@pytest.mark.parametrize("gpu", GPUS.values(), ids=lambda gpu: gpu.name)
def test_tritons_rates_are_not_above_the_datasheet_of_any_gpu_they_stand_for(gpu):
    rates = architecture(Target("cuda", gpu.capability, gpu.multiprocessors, gpu.name))
    assert rates.memory_bytes_per_second * gpu.multiprocessors <= gpu.gbytes_per_second * 1e9
    clocks = rates.clock * gpu.multiprocessors
    tensor, vector, double = rates.tensor_flops, rates.vector_flops, rates.double_flops
    for precision, flops in (("bfloat16", tensor), ("tf32", tensor / 2), ("float32", vector), ("float64", double)):
        assert flops * clocks <= gpu.peak_flops()[precision], precision


#: Large enough that no launch's latency hides a rate that is too high; memory-bound ones above all.
ROOMY = ("pools/unet_pool1", "stems/unet_1_channel", "resnet50/layer2.0.downsample", "vgg16/conv1_2")


@pytest.mark.parametrize("gpu", GPUS.values(), ids=lambda gpu: gpu.name)
def test_no_prediction_is_faster_than_the_roofline(gpu):
    shares = []
    for case in select(Selection(filters=ROOMY, directions=["fwd", "dgrad", "wgrad"], layouts=["channels_last"])):
        for name in ("cuda", "triton"):
            row = make_row(case, f"fastconv-{name}", "ours", "predicted")
            predict(row, case, name, gpu)
            if row.predicted_seconds is not None:
                shares.append((row.predicted_roof_seconds / row.predicted_seconds, row.id, row.kernel))
    assert len(shares) > 60
    assert max(shares)[0] <= 1, max(shares)
