"""The direct kernels under every padding mode, against PyTorch's padded copy in float64."""

from __future__ import annotations

import dataclasses
from types import ModuleType

import pytest
import torch

from tests.core import raw, test_direct_conv, test_direct_wgrad
from tests.core.geometries import BEYOND, GEOMETRIES, MODES, PADDED, Geometry

CONV_CONFIGS, WGRAD_CONFIGS = ("k4p2", "k1p8"), ("f4c8", "f1c9")


def padded(geometry: Geometry, mode: str) -> Geometry:
    return dataclasses.replace(geometry, padding_mode=mode, padding_value=3.0 if mode == "constant" else 0.0)


def cases() -> list[tuple[str, str]]:
    return [(mode, name) for mode in MODES for name in PADDED] + [
        (mode, name) for mode in ("replicate", "constant") for name in BEYOND
    ]


@pytest.mark.parametrize(("mode", "name"), cases())
def test_padding_is_what_pytorch_pads_with_in_every_pass(core: ModuleType, mode: str, name: str) -> None:
    geometry = padded((PADDED | BEYOND)[name], mode)
    for config in CONV_CONFIGS:
        test_direct_conv.both_passes(core, geometry, torch.float32, config)
    for config in WGRAD_CONFIGS:
        test_direct_wgrad.exact(core, geometry, torch.float32, config)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout", raw.LAYOUTS)
def test_padded_operands_are_read_and_written_where_they_lie(core: ModuleType, layout: str, mode: str) -> None:
    for name in ("strided", "depthwise"):
        geometry = padded(PADDED[name], mode)
        test_direct_conv.both_passes(core, geometry, torch.float32, "k4p2", (layout,) * 3)
        test_direct_wgrad.exact(core, geometry, torch.float32, "f1c9", (layout, "contiguous", layout))


@pytest.mark.parametrize("dtype", raw.DTYPES, ids=str)
@pytest.mark.parametrize("index_bits", [32, 64])
@pytest.mark.parametrize("mode", MODES)
def test_every_type_and_index_width_is_padded(
    fast_core: ModuleType, dtype: torch.dtype, index_bits: int, mode: str
) -> None:
    geometry = padded(PADDED["strided"], mode)
    for config in CONV_CONFIGS:
        test_direct_conv.both_passes(fast_core, geometry, dtype, config, index_bits=index_bits)
    for config in WGRAD_CONFIGS:
        test_direct_wgrad.exact(fast_core, geometry, dtype, config, index_bits=index_bits)


@pytest.mark.parametrize("mode", MODES)
def test_a_sum_over_images_repeats_bit_for_bit(fast_core: ModuleType, mode: str) -> None:
    geometry = padded(PADDED["grouped"], mode)
    dy, w = torch.randn(geometry.y_shape()), torch.randn(geometry.w_shape)
    gradients = []
    for _ in range(2):
        gradients.append(raw.unwritten(geometry.x_shape, torch.float32))
        raw.convolve(fast_core, "dgrad", gradients[-1], w, dy, config="k4p2", **geometry.keywords)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("config", CONV_CONFIGS)
def test_replicate_reaches_farther_than_any_padded_copy(fast_core: ModuleType, config: str) -> None:
    """2**31 - 1 columns on both sides of four: three outputs, which read column 0, column 0 and column 3."""
    most = 2**31 - 1
    geometry = Geometry(2, 3, 2, (2, 4), (1, 1), stride=(1, most), padding=(0, 0, most, most), padding_mode="replicate")
    w = torch.randint(-3, 4, geometry.w_shape).float()
    dy = torch.randint(-3, 4, (2, 2, 2, 3)).float()
    expected = torch.einsum("nkhq,kc->nchq", dy, w[:, :, 0, 0]) @ torch.eye(4)[[0, 0, 3]]
    dx = raw.unwritten(geometry.x_shape, torch.float32)
    raw.convolve(fast_core, "dgrad", dx, w, dy, config=config, index_bits=64, **geometry.keywords)
    assert torch.equal(dx, expected)


def candidates(core: ModuleType, conv_pass: str, geometry: Geometry) -> dict[tuple[str, str], str]:
    x, w, y = (
        raw.operand(torch.empty(shape, device="meta"))
        for shape in (geometry.x_shape, geometry.w_shape, geometry.y_shape())
    )
    problem = core.ConvProblem(conv_pass=conv_pass, dtype="float32", x=x, w=w, y=y, **geometry.keywords)
    return {(one.kernel, one.config): one.reason for one in core.candidates(problem)}


@pytest.mark.parametrize("conv_pass", ["fprop", "dgrad", "wgrad"])
@pytest.mark.parametrize("mode", MODES)
def test_a_kernel_runs_or_says_that_it_knows_zeros_only(fast_core: ModuleType, mode: str, conv_pass: str) -> None:
    found = candidates(fast_core, conv_pass, padded(PADDED["same"], mode))
    if mode == "constant" and conv_pass == "dgrad":  # whose gradient by x does not depend on the constant
        assert found[f"direct_{conv_pass}", "k8p4"] == ""
        return
    assert any(not reason for (kernel, _), reason in found.items() if kernel == f"direct_{conv_pass}")
    reason = f"padding mode {mode}: this kernel knows zeros only"
    assert {kernel for (kernel, _), said in found.items() if said == reason} != set()


@pytest.mark.parametrize("mode", MODES)
def test_without_padding_every_kernel_knows_every_mode(fast_core: ModuleType, mode: str) -> None:
    found = candidates(fast_core, "fprop", padded(GEOMETRIES["filter of several stages"], mode))
    assert not any("zeros only" in reason for reason in found.values())


def test_a_constant_is_rounded_to_the_type_of_its_operands(fast_core: ModuleType) -> None:
    """As PyTorch's copy is: 1 + 2**-10 is 1 in bfloat16."""
    geometry = Geometry(
        1, 1, 1, (1, 1), (3, 3), padding=(1, 1, 1, 1), padding_mode="constant", padding_value=1 + 2**-10
    )
    x, w = torch.zeros(geometry.x_shape, dtype=torch.bfloat16), torch.ones(geometry.w_shape, dtype=torch.bfloat16)
    y, dw = raw.unwritten((1, 1, 1, 1), torch.bfloat16), raw.unwritten((1, 1, 3, 3), torch.bfloat16)
    raw.convolve(fast_core, "fprop", x, w, y, config="k4p2", **geometry.keywords)
    assert y.item() == 8
    raw.convolve(fast_core, "wgrad", x, dw, 512 * torch.ones_like(y), config="f1c9", **geometry.keywords)
    assert dw.flatten().tolist() == [512.0] * 4 + [0.0] + [512.0] * 4
