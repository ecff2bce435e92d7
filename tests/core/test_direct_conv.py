"""direct_fprop and direct_dgrad against float64."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
import torch.nn.functional as F

from tests.core import raw
from tests.core.geometries import GEOMETRIES, Geometry

CONFIGS = ("k8p4", "k4p2", "k1p8")


def both_passes(
    core: ModuleType,
    geometry: Geometry,
    dtype: torch.dtype,
    config: str,
    layouts: tuple[str, str, str] = ("contiguous",) * 3,
    index_bits: int = 32,
) -> None:
    """fprop with bias and residual, and dgrad with bias, on small integers, which must be exact."""
    x = raw.laid_out(raw.integers(geometry.x_shape, 3, dtype), layouts[0])
    w = raw.laid_out(raw.integers(geometry.w_shape, 2, dtype), layouts[1])
    bias = raw.integers((geometry.filters,), 4, dtype)
    image = x.double().requires_grad_()
    plain = geometry.fprop(image, w)
    residual = raw.laid_out(raw.integers(tuple(plain.shape), 4, dtype), layouts[0])
    y = raw.unwritten(tuple(plain.shape), dtype, layouts[2])
    keywords = {**geometry.keywords, "config": config, "index_bits": index_bits}
    raw.convolve(core, "fprop", x, w, y, bias=bias, residual=residual, activation="relu", **keywords)
    expected = (plain + bias.double()[:, None, None] + residual.double()).relu()
    assert torch.equal(y, expected.to(dtype))

    dy = raw.laid_out(raw.integers(tuple(plain.shape), 3, dtype), layouts[0])
    (gradient,) = torch.autograd.grad(plain, image, dy.double())
    bias = raw.integers((geometry.channels,), 4, dtype)
    dx = raw.unwritten(geometry.x_shape, dtype, layouts[2])
    raw.convolve(core, "dgrad", dx, w, dy, bias=bias, **keywords)
    assert torch.equal(dx, (gradient + bias.double()[:, None, None]).to(dtype))


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_no_tap_is_missed_in_any_geometry(core: ModuleType, name: str, config: str) -> None:
    both_passes(core, GEOMETRIES[name], torch.float32, config)


@pytest.mark.parametrize("name", ["same", "depthwise", "stride and dilation share a factor"])
@pytest.mark.parametrize("config", CONFIGS)
def test_neighbouring_channels_go_to_the_right_place(core: ModuleType, name: str, config: str) -> None:
    both_passes(core, GEOMETRIES[name], torch.float32, config, ("channels_last",) * 3)


@pytest.mark.parametrize("dtype", raw.DTYPES, ids=str)
@pytest.mark.parametrize("index_bits", [32, 64])
@pytest.mark.parametrize("config", CONFIGS)
def test_every_type_and_index_width_is_exact(
    core: ModuleType, dtype: torch.dtype, index_bits: int, config: str
) -> None:
    both_passes(core, GEOMETRIES["groups"], dtype, config, index_bits=index_bits)


@pytest.mark.parametrize("layout", raw.LAYOUTS)
def test_operands_are_read_and_written_where_they_lie(core: ModuleType, layout: str) -> None:
    for layouts in ((layout, "contiguous", "contiguous"), ("contiguous", layout, "contiguous"), (layout,) * 3):
        both_passes(core, GEOMETRIES["uneven padding"], torch.float32, "k4p2", layouts)


def test_what_lies_between_the_elements_of_a_sliced_output_is_left_alone(fast_core: ModuleType) -> None:
    geometry = GEOMETRIES["same"]
    x, w = raw.integers(geometry.x_shape, 3, torch.float32), raw.integers(geometry.w_shape, 2, torch.float32)
    whole = torch.full([2 * size for size in geometry.y_shape()], 7.0)
    raw.convolve(fast_core, "fprop", x, w, whole[::2, ::2, ::2, ::2], config="k8p4", **geometry.keywords)
    assert torch.equal(whole[::2, ::2, ::2, ::2].double(), geometry.fprop(x, w))
    whole[::2, ::2, ::2, ::2] = 7
    assert torch.equal(whole, torch.full_like(whole, 7))


def test_expanded_operands_are_not_read_as_dense_ones(core: ModuleType) -> None:
    geometry = GEOMETRIES["same"]
    x = raw.integers((1, 1, *geometry.size), 3, torch.float32).expand(geometry.x_shape)
    w = raw.integers((geometry.filters, 1, 1, 1), 2, torch.float32).expand(geometry.w_shape)
    y = raw.unwritten(geometry.y_shape(), torch.float32)
    raw.convolve(core, "fprop", x, w, y, config="k8p4", **geometry.keywords)
    assert torch.equal(y.double(), geometry.fprop(x, w))


@pytest.mark.parametrize("dtype", raw.DTYPES, ids=str)
@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("relu", F.relu),
        ("leaky_relu", F.leaky_relu),
        ("silu", F.silu),
        ("gelu", F.gelu),
        ("sigmoid", torch.sigmoid),
        ("hardswish", F.hardswish),
        ("tanh", torch.tanh),
    ],
)
def test_activations_are_those_of_pytorch(fast_core: ModuleType, activation: str, function, dtype: torch.dtype) -> None:
    special = [float("nan"), float("inf"), -float("inf"), 0.0, 3.0, -3.0, 6.0, 1e-4, -1e-4, 88.0, -88.0]
    x = torch.cat([torch.tensor(special), 3 * torch.randn(501)]).reshape(1, 1, 16, 32).to(dtype)
    one = torch.ones(1, 1, 1, 1, dtype=dtype)
    for conv_pass in ("fprop", "dgrad"):
        result = raw.unwritten(x.shape, dtype)
        pair = (x, result) if conv_pass == "fprop" else (result, x)
        raw.convolve(fast_core, conv_pass, pair[0], one, pair[1], config="k1p8", activation=activation)
        expected = function(x.double())
        finite = expected.isfinite()
        torch.testing.assert_close(result[~finite].double(), expected[~finite], rtol=0, atol=0, equal_nan=True)
        # One rounding of the output, and a few of the accumulator's functions, which cancel where x is negative.
        output, accumulator = torch.finfo(dtype).eps, torch.finfo(raw.accumulator(dtype)).eps
        allowed = 0.51 * output * expected.abs() + 4 * accumulator * (expected.abs() + x.double().abs())
        error = (result.double() - expected).abs()
        assert (error <= allowed + torch.finfo(dtype).smallest_normal * output)[finite].all()


def test_real_numbers_are_summed_in_the_accumulators_precision(fast_core: ModuleType) -> None:
    geometry = Geometry(1, 512, 8, (6, 6), (3, 3), padding=(1, 1, 1, 1))
    for dtype in raw.DTYPES:
        x, w = torch.randn(geometry.x_shape).to(dtype), torch.randn(geometry.w_shape).to(dtype)
        y = raw.unwritten(geometry.y_shape(), dtype)
        raw.convolve(fast_core, "fprop", x, w, y, config="k8p4", **geometry.keywords)
        terms = geometry.fprop(x.abs(), w.abs())
        error = (y.double() - geometry.fprop(x, w)).abs()
        accumulator = torch.finfo(raw.accumulator(dtype)).eps
        allowed = 64 * accumulator * terms + torch.finfo(dtype).eps / 2 * y.double().abs() * 1.01
        assert (error <= allowed).all()


def test_transposed_convolution_takes_output_padding(core: ModuleType) -> None:
    for stride, dilation, output_padding in ((2, 1, 1), (3, 2, 2), (1, 2, 1)):
        dy, w = raw.integers((2, 6, 5, 4), 3, torch.float32), raw.integers((6, 2, 3, 3), 2, torch.float32)
        bias = raw.integers((4,), 3, torch.float32)
        keywords = {"stride": stride, "padding": 1, "output_padding": output_padding, "groups": 2}
        expected = F.conv_transpose2d(dy.double(), w.double(), bias.double(), dilation=dilation, **keywords)
        dx = raw.unwritten(tuple(expected.shape), torch.float32)
        raw.convolve(
            core,
            "dgrad",
            dx,
            w,
            dy,
            bias=bias,
            config="k4p2",
            stride=(stride, stride),
            padding=(1, 1, 1, 1),
            dilation=(dilation, dilation),
            groups=2,
        )
        assert torch.equal(dx.double(), expected)
