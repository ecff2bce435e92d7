"""Rows of a machine without a GPU: our kernels in emulation are right there, weights that are kept packed included."""

import pytest

from fastconv.backends import packed_weights
from fastconv.bench.cases import case_of
from fastconv.bench.hardware import gpu_named
from fastconv.bench.prediction import predict_case

#: Their scaled-down layers run on kernels that repack weights, and keep them packed from the second call on.
REPACKED = (
    "resnet50/conv1/dgrad/bfloat16/channels_last/n32",
    "blocks/resnet_stem/fwd/bfloat16/channels_last/n32",
    "super_resolution/fsrcnn.deconv_x2/fwd/bfloat16/channels_last/n1",
)


@pytest.mark.parametrize("key", REPACKED)
def test_a_kernel_that_keeps_packed_weights_is_right_when_they_change(monkeypatch, key):
    kept, get = [], packed_weights.get
    monkeypatch.setattr(packed_weights, "get", lambda *arguments: kept.append(get(*arguments)) or kept[-1])
    rows = []
    predict_case(case_of(key), ("cuda",), (), gpu_named("H200"), rows.append, lambda name: None, set())
    (row,) = rows
    assert (row.status, row.reason) == ("ok", "")
    assert row.error <= 2 * row.pytorch_error
    assert row.counted["distinct_ratio"] >= 1
    assert kept, "no kernel asked for packed weights, so this case shows nothing"
