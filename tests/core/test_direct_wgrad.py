"""direct_wgrad and channel_sum against float64: exact on small integers, accurate over long sums, the same every time."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from tests.core import raw
from tests.core.geometries import GEOMETRIES, Geometry

CONFIGS = ("f4c8", "f1c9")


def gradient(geometry: Geometry, x: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
    w = torch.zeros(geometry.w_shape, dtype=torch.float64, requires_grad=True)
    return torch.autograd.grad(geometry.fprop(x, w), w, dy.double())[0]


def exact(
    core: ModuleType,
    geometry: Geometry,
    dtype: torch.dtype,
    config: str,
    layouts: tuple[str, str, str] = ("contiguous",) * 3,
    **target: int,
) -> dict:
    x = raw.laid_out(raw.integers(geometry.x_shape, 1, dtype), layouts[0])
    dy = raw.laid_out(raw.integers(geometry.y_shape(), 1, dtype), layouts[1])
    dw, db = raw.unwritten(geometry.w_shape, dtype, layouts[2]), raw.unwritten((geometry.filters,), dtype)
    details = raw.convolve(core, "wgrad", x, dw, dy, bias=db, config=config, **geometry.keywords, **target)
    assert torch.equal(dw, gradient(geometry, x, dy).to(dtype))
    assert torch.equal(db, dy.double().sum((0, 2, 3)).to(dtype))
    return details


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_no_weight_or_pixel_is_missed_in_any_geometry(core: ModuleType, name: str, config: str) -> None:
    exact(core, GEOMETRIES[name], torch.float32, config)


@pytest.mark.parametrize("dtype", raw.DTYPES, ids=str)
@pytest.mark.parametrize("index_bits", [32, 64])
@pytest.mark.parametrize("config", CONFIGS)
def test_every_type_and_index_width_is_exact(
    core: ModuleType, dtype: torch.dtype, index_bits: int, config: str
) -> None:
    exact(core, GEOMETRIES["groups"], dtype, config, index_bits=index_bits)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("layout", raw.LAYOUTS)
def test_operands_are_read_and_written_where_they_lie(core: ModuleType, layout: str, config: str) -> None:
    for name in ("same", "depthwise"):
        exact(core, GEOMETRIES[name], torch.float32, config, (layout,) * 3)
        exact(core, GEOMETRIES[name], torch.float32, config, (layout, "contiguous", "channels_last"))


LONG = Geometry(4, 8, 8, (40, 40), (3, 3), padding=(1, 1, 1, 1))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("config", CONFIGS)
def test_sums_that_blocks_share_are_complete(core: ModuleType, layout: str, config: str) -> None:
    few = exact(core, LONG, torch.float32, config, (layout,) * 3, multiprocessors=1)
    many = exact(core, LONG, torch.float32, config, (layout,) * 3, multiprocessors=132)
    assert many["splits"] > few["splits"]
    assert many["workspace_bytes"] > 0


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_a_gradient_repeats_bit_for_bit(fast_core: ModuleType, layout: str) -> None:
    x, dy = (raw.laid_out(torch.randn(shape), layout) for shape in (LONG.x_shape, LONG.y_shape()))
    results = []
    for _ in range(3):
        dw, db = raw.unwritten(LONG.w_shape, torch.float32), raw.unwritten((LONG.filters,), torch.float32)
        raw.convolve(fast_core, "wgrad", x, dw, dy, bias=db, config="f4c8", multiprocessors=132, **LONG.keywords)
        results.append(torch.cat([dw.flatten(), db]))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_long_sums_of_one_sign_do_not_drift(fast_core: ModuleType, layout: str) -> None:
    """Naive float32 sums of 100,000 numbers near 1 are off by some thousand roundings."""
    x = raw.laid_out(0.9 + 0.2 * torch.rand(1, 2, 256, 400), layout)
    sums, _ = raw.channel_sums(fast_core, x)
    exact_sums = x.double().sum((0, 2, 3))
    assert ((sums.double() - exact_sums).abs() <= 4 * torch.finfo(torch.float32).eps * exact_sums).all()
    dw = raw.unwritten((1, 2, 1, 1), torch.float32)
    dy = torch.ones(1, 1, 256, 400)
    raw.convolve(fast_core, "wgrad", x, dw, dy, config="f4c8")
    error = (dw.flatten().double() - exact_sums).abs()
    assert (error <= 64 * torch.finfo(torch.float32).eps * exact_sums).all()


@pytest.mark.parametrize("dtype", raw.DTYPES, ids=str)
@pytest.mark.parametrize("index_bits", [32, 64])
def test_channel_sums_are_exact_in_every_layout(core: ModuleType, dtype: torch.dtype, index_bits: int) -> None:
    for shape in ((3, 5, 7, 9), (40, 70, 3, 4), (2, 1, 30, 30), (0, 4, 3, 3), (1, 300, 1, 1)):
        for layout in raw.LAYOUTS:
            for multiprocessors in (1, 132):
                x = raw.laid_out(raw.integers(shape, 2, dtype), layout)
                sums, _ = raw.channel_sums(core, x, index_bits=index_bits, multiprocessors=multiprocessors)
                assert torch.equal(sums, x.double().sum((0, 2, 3)).to(dtype)), (shape, layout)


def test_an_expanded_gradient_is_summed_as_often_as_it_is_repeated(core: ModuleType) -> None:
    x = torch.tensor([2.0, -3.0]).reshape(1, 2, 1, 1).expand(5, 2, 6, 7)
    sums, _ = raw.channel_sums(core, x)
    assert sums.tolist() == [420.0, -630.0]


def test_infinities_stay_infinite_in_a_sum(core: ModuleType) -> None:
    x = torch.ones(2, 3, 40, 40)
    x[0, 0, 3, 3] = float("inf")
    x[1, 1, 5, 5] = float("nan")
    sums, _ = raw.channel_sums(core, x)
    assert sums[0].item() == float("inf")
    assert sums[1].isnan()
    assert sums[2].item() == 3200
