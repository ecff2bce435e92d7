"""activation_backward against PyTorch's own derivatives: every activation, type, layout and index width; whole accesses."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from fastconv import activation, emulator
from tests.core import raw

DERIVATIVES = activation.FROM_OUTPUT | activation.FROM_INPUT
SHAPE = (2, 24, 5, 8)


def run(core: ModuleType, dy: torch.Tensor, saved: torch.Tensor, dz: torch.Tensor, name: str, **target: int) -> dict:
    problem = core.ActivationBackwardProblem(
        dtype=raw.NAMES[dy.dtype],
        dy=raw.operand(dy),
        saved=raw.operand(saved),
        dz=raw.operand(dz),
        activation=name,
        **target,
    )
    return raw.launch(core, problem, "activation_backward", "", (dy, saved, dz))


def expected(name: str, dy: torch.Tensor, saved: torch.Tensor) -> torch.Tensor:
    """In float64, of the values as they are stored."""
    return DERIVATIVES[name](dy.double().contiguous(), saved.double().contiguous())


INFINITY, NAN = float("inf"), float("nan")
#: Where derivatives jump, and what must not be multiplied.
CORNERS = [0.0, -0.0, 3.0, -3.0, 2.5, -2.5, 1.0, -1.0, INFINITY, -INFINITY, NAN, 1e-30]


@pytest.mark.parametrize("dtype", raw.DTYPES, ids=str)
@pytest.mark.parametrize("name", DERIVATIVES)
def test_values_are_pytorchs(fast_core: ModuleType, name: str, dtype: torch.dtype) -> None:
    dy, saved = torch.randn(SHAPE).to(dtype), (2 * torch.randn(SHAPE)).to(dtype)
    for layout in ("contiguous", "channels_last"):
        dz = raw.unwritten(SHAPE, dtype, layout)
        run(fast_core, raw.laid_out(dy, layout), raw.laid_out(saved, layout), dz, name)
        wanted = expected(name, dy, saved)
        roundings = 8 * torch.finfo(raw.accumulator(dtype)).eps * (dy.double().abs() * (1 + saved.double() ** 2))
        error = (dz.double() - wanted).abs()
        rounding = wanted.abs().clamp(min=torch.finfo(dtype).smallest_normal) * torch.finfo(dtype).eps / 2
        assert (error <= roundings + rounding).all()


@pytest.mark.parametrize("name", DERIVATIVES)
def test_corners_infinities_and_nan_are_pytorchs(fast_core: ModuleType, name: str) -> None:
    saved = torch.tensor(CORNERS).view(1, 1, 3, 4)
    for scale in (1.0, INFINITY, NAN):
        dy = torch.full_like(saved, scale)
        dz = raw.unwritten((1, 1, 3, 4), torch.float32)
        run(fast_core, dy, saved, dz, name)
        # One by one: PyTorch's vectors of eight treat NaN otherwise in hardswish.
        pairs = zip(dy.flatten().split(1), saved.flatten().split(1), strict=True)
        wanted = torch.cat([DERIVATIVES[name](one, other) for one, other in pairs])
        torch.testing.assert_close(dz.flatten(), wanted, rtol=1e-5, atol=1e-30, equal_nan=True)


@pytest.mark.parametrize("index_bits", [32, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_layout_is_exact(core: ModuleType, dtype: torch.dtype, index_bits: int) -> None:
    shape = (2, 5, 3, 4)
    dy, saved = raw.integers(shape, 8, dtype), raw.integers(shape, 3, dtype)
    gradients = {layout: raw.laid_out(dy, layout) for layout in raw.LAYOUTS} | {"expanded": dy[:1, :1].expand(shape)}
    for gradient in gradients.values():
        wanted = expected("relu", gradient, saved)
        for saved_layout in raw.LAYOUTS:
            for layout in ("contiguous", "channels_last"):
                dz = raw.unwritten(shape, dtype, layout)
                run(core, gradient, raw.laid_out(saved, saved_layout), dz, "relu", index_bits=index_bits)
                assert torch.equal(dz.double(), wanted)


def test_odd_addresses_and_sizes_that_are_no_whole_pieces(core: ModuleType) -> None:
    for shape in ((1, 1, 1, 1), (1, 1, 1, 13), (3, 7, 1, 1), (2, 3, 5, 7)):
        dy, saved = raw.integers(shape, 8, torch.float16), raw.integers(shape, 3, torch.float16)
        wanted = expected("relu", dy, saved)
        for moved in ("none", "dy", "saved", "dz"):
            tensors = {"dy": dy, "saved": saved, "dz": raw.unwritten(shape, torch.float16)}
            if moved != "none":
                larger = torch.empty(dy.numel() + 1, dtype=torch.float16)
                tensors[moved] = larger[1:].view(shape).copy_(tensors[moved])
            run(core, tensors["dy"], tensors["saved"], tensors["dz"], "relu")
            assert torch.equal(tensors["dz"].double(), wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_accesses_are_16_bytes_and_every_byte_moves_once(dtype: torch.dtype, layout: str) -> None:
    dy, saved = raw.laid_out(torch.randn(SHAPE).to(dtype), layout), raw.laid_out(torch.randn(SHAPE).to(dtype), layout)
    dz = raw.unwritten(SHAPE, dtype, layout)
    with emulator.count() as counters:
        details = run(emulator.module(), dy, saved, dz, "relu")
    (launch,) = counters.launches
    for name, kind in (("dy", "load"), ("saved", "load"), ("dz", "store")):
        assert set(launch.widths(name, kind)) == {16}
        moved = launch.total(name, kind)
        assert moved.sector_bytes == moved.bytes == dy.numel() * dy.element_size()
    assert details["elements_at_once"] == 16 // dy.element_size()


def test_sizes_that_differ_and_outputs_that_overlap_are_refused(fast_core: ModuleType) -> None:
    dense, other = ((2, 3, 4, 5), (60, 20, 5, 1)), ((2, 3, 4, 4), (48, 16, 4, 1))
    good = {"dtype": "float32", "dy": dense, "saved": dense, "dz": dense, "activation": "relu"}
    for wrong in ("dy", "saved"):
        with pytest.raises(ValueError, match=f"{wrong} sizes"):
            fast_core.ActivationBackwardProblem(**(good | {wrong: other}))
    with pytest.raises(ValueError, match="free of overlap"):
        fast_core.ActivationBackwardProblem(**(good | {"dz": ((2, 3, 4, 5), (0, 0, 0, 0))}))
