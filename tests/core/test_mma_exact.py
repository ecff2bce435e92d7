"""Every configuration of the tensor-core kernels against float64 on small integers, where sums are exact, with the
emulator's checks on and threads in random order."""

from __future__ import annotations

import pytest
import torch

from fastconv import emulator
from tests.core.mma_support import Case, assert_exact

TYPES = [
    pytest.param(torch.float16, False, id="float16"),
    pytest.param(torch.bfloat16, False, id="bfloat16"),
    pytest.param(torch.float32, True, id="tf32"),
    pytest.param(torch.float32, False, id="split_tf32"),
]


def small(conv_pass: str, dtype: torch.dtype, allow_tf32: bool) -> Case:
    """More rows, columns and depth than whole chunks, fewer than whole tiles; more slices than stages."""
    return Case(
        conv_pass,
        dtype,
        (2, 40, 9, 8),
        (72, 40, 3, 3),
        padding=(1, 2, 0, 1),
        bias=True,
        residual=conv_pass == "fprop",
        activation="relu" if conv_pass == "fprop" else "identity",
        allow_tf32=allow_tf32,
    )


@pytest.mark.parametrize(("dtype", "allow_tf32"), TYPES)
@pytest.mark.parametrize("conv_pass", ["fprop", "dgrad", "wgrad"])
def test_every_configuration_is_exact_and_free_of_races(conv_pass: str, dtype: torch.dtype, allow_tf32: bool) -> None:
    case = small(conv_pass, dtype, allow_tf32)
    configs = case.configs()
    assert len(configs) >= 4
    assert any("_k" in config for config in configs), "no configuration splits the sum"
    for config in configs:
        with emulator.check(seed=len(config)):
            assert_exact(case, config)


@pytest.mark.parametrize(("dtype", "allow_tf32"), TYPES)
@pytest.mark.parametrize("conv_pass", ["fprop", "dgrad", "wgrad"])
def test_every_configuration_for_unaligned_pixels(conv_pass: str, dtype: torch.dtype, allow_tf32: bool) -> None:
    """Channels and filters that are no whole chunks; more rows and columns than the largest of these tiles."""
    size = (2, 35, 9, 9) if conv_pass == "wgrad" else (2, 69, 9, 9)
    case = Case(conv_pass, dtype, size, (69, size[1], 3, 3), padding=(1, 1, 1, 1), bias=True, allow_tf32=allow_tf32)
    configs = case.configs()
    assert len({config.split("_")[0] for config in configs}) >= 2
    with emulator.check(seed=5):
        for config in configs:
            assert_exact(case, config)


# What is odd about each, and the problem.
SHAPES = {
    "stride": Case("fprop", torch.float16, (2, 16, 11, 9), (24, 16, 3, 3), stride=(2, 3), padding=(1, 1, 2, 0)),
    "dilation": Case("fprop", torch.float16, (1, 16, 12, 13), (8, 16, 3, 2), dilation=(2, 3), padding=(2, 2, 1, 1)),
    "groups": Case("fprop", torch.float16, (2, 48, 6, 5), (30, 16, 3, 3), groups=3, padding=(1, 1, 1, 1)),
    "one channel": Case("fprop", torch.float16, (2, 1, 9, 9), (8, 1, 5, 5), padding=(2, 2, 2, 2)),
    "three channels": Case("fprop", torch.bfloat16, (2, 3, 9, 10), (16, 3, 7, 7), stride=(2, 2), padding=(3, 3, 3, 3)),
    "channels of 4 bytes": Case("fprop", torch.float16, (2, 6, 5, 5), (8, 6, 3, 3)),
    "channels of 8 bytes": Case("fprop", torch.float16, (2, 12, 5, 5), (8, 12, 3, 3)),
    "odd filters": Case("fprop", torch.float16, (2, 8, 5, 5), (7, 8, 3, 3), bias=True, residual=True),
    "x is NCHW": Case("fprop", torch.float16, (2, 20, 7, 9), (16, 20, 3, 3), x_last=False),
    "y is NCHW": Case("fprop", torch.float16, (2, 16, 7, 9), (20, 16, 3, 3), y_last=False, residual=True),
    "w is KCRS": Case("fprop", torch.float16, (2, 16, 7, 9), (16, 16, 3, 3), w_last=False),
    "all NCHW, groups": Case(
        "fprop", torch.float32, (2, 24, 5, 6), (12, 12, 3, 2), groups=2, x_last=False, w_last=False, y_last=False
    ),
    "31 taps": Case("fprop", torch.float16, (1, 8, 31, 4), (8, 8, 31, 1), padding=(15, 15, 0, 0)),
    "dgrad stride 2": Case("dgrad", torch.float16, (2, 16, 8, 7), (24, 16, 3, 3), stride=(2, 2), padding=(1, 1, 1, 1)),
    "dgrad phases without taps": Case("dgrad", torch.float16, (2, 16, 9, 11), (16, 16, 1, 2), stride=(2, 3), bias=True),
    "dgrad stride and dilation": Case(
        "dgrad", torch.float16, (1, 16, 13, 14), (8, 16, 3, 3), stride=(2, 3), dilation=(2, 2), padding=(2, 2, 2, 2)
    ),
    "dgrad rows that nothing reaches": Case("dgrad", torch.float16, (1, 8, 10, 10), (8, 8, 2, 2), stride=(4, 4)),
    "dgrad groups": Case("dgrad", torch.float16, (2, 20, 6, 6), (16, 10, 4, 4), stride=(2, 2), groups=2, bias=True),
    "dgrad three filters": Case("dgrad", torch.float16, (2, 8, 6, 6), (3, 8, 3, 3), padding=(1, 1, 1, 1)),
    "dgrad NCHW": Case(
        "dgrad", torch.bfloat16, (2, 8, 6, 7), (10, 8, 3, 3), stride=(2, 1), x_last=False, w_last=False, y_last=False
    ),
    "dgrad stride 16": Case("dgrad", torch.float16, (1, 8, 32, 32), (8, 8, 16, 16), stride=(16, 16)),
    "wgrad stride and dilation": Case(
        "wgrad", torch.float16, (2, 16, 11, 12), (24, 16, 3, 2), stride=(2, 1), dilation=(1, 3), padding=(1, 0, 2, 1)
    ),
    "wgrad groups": Case("wgrad", torch.float16, (2, 24, 6, 6), (48, 8, 3, 3), groups=3, bias=True),
    "wgrad three channels": Case("wgrad", torch.float16, (2, 3, 9, 9), (16, 3, 5, 5), bias=True),
    "wgrad five filters": Case("wgrad", torch.float32, (2, 8, 5, 5), (5, 8, 3, 3), bias=True, allow_tf32=True),
    "wgrad NCHW": Case(
        "wgrad", torch.bfloat16, (3, 12, 6, 5), (20, 12, 3, 3), x_last=False, w_last=False, y_last=False, bias=True
    ),
    "wgrad float32 groups": Case("wgrad", torch.float32, (2, 16, 5, 5), (24, 8, 2, 2), groups=2, bias=True),
}


@pytest.mark.parametrize("name", SHAPES)
def test_odd_shapes_and_layouts(name: str) -> None:
    case = SHAPES[name]
    configs = case.configs()
    chosen = {configs[0], configs[-1], *[config for config in configs if "_k" in config][:1]}
    with emulator.check(seed=len(name)):
        for config in sorted(chosen):
            assert_exact(case, config)


@pytest.mark.parametrize("conv_pass", ["fprop", "dgrad", "wgrad"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("misaligned", ["x", "w", "y", "residual"])
def test_tensors_at_odd_addresses(conv_pass: str, dtype: torch.dtype, misaligned: str) -> None:
    case = Case(conv_pass, dtype, (2, 16, 5, 6), (24, 16, 3, 3), residual=conv_pass == "fprop")
    tensors = case.tensors()
    if misaligned not in tensors:
        pytest.skip("only fprop adds a residual")
    tensor = tensors[misaligned]
    moved = torch.empty(tensor.numel() + 1, dtype=dtype)[1:].as_strided(tensor.shape, tensor.stride(), 1)
    moved.copy_(tensor)
    tensors[misaligned] = moved
    expected = case.reference(tensors)
    with emulator.check(seed=1):
        # An output is replaced by a fresh tensor in `run`, so it is moved there.
        for name, result in case.run(case.configs()[0], tensors).items():
            assert torch.equal(result.double(), expected[name])


def test_splits_are_added_in_the_same_order_every_time() -> None:
    case = Case("wgrad", torch.float16, (2, 16, 12, 12), (24, 16, 3, 3), bias=True)
    config = next(config for config in case.configs() if "_k" in config)
    tensors = case.tensors(kind="normal")
    first = case.run(config, tensors)
    for seed in range(3):
        with emulator.check(seed=seed):
            again = case.run(config, tensors)
        assert all(torch.equal(first[name], again[name]) for name in first)
