"""Max unpooling through the raw interface: the last of equal positions stands, their sum is exact, nothing else is touched."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from fastconv.emulator import KernelError
from tests.core import raw

CONFIGS = ("s1", "s4", "s16", "s64")


def repeated_indices(shape: tuple[int, ...], positions: int, layout: str) -> torch.Tensor:
    """Some positions many times, some never."""
    return raw.laid_out(torch.randint(0, positions, shape).square_().floor_divide_(positions), layout)


def expected_of(x: torch.Tensor, indices: torch.Tensor, size: tuple[int, int], adds: bool) -> torch.Tensor:
    """By the definition, one value after the other."""
    y = torch.zeros(*x.shape[:2], size[0] * size[1], dtype=torch.float64)
    for n, planes in enumerate(zip(x.flatten(2).double(), indices.flatten(2), strict=True)):
        for channel, (values, places) in enumerate(zip(*planes, strict=True)):
            for value, place in zip(values.tolist(), places.tolist(), strict=True):
                y[n, channel, place] = value + (y[n, channel, place] if adds else 0)
    return y.view(*x.shape[:2], *size).to(x.dtype)


@pytest.mark.parametrize("dtype", raw.DTYPES, ids=str)
@pytest.mark.parametrize("layout", raw.LAYOUTS)
def test_every_pass_and_configuration(core: ModuleType, layout: str, dtype: torch.dtype) -> None:
    shape, size = (2, 9, 5, 7), (9, 11)
    if layout == "channels_last":
        shape = (2, 40, 3, 4)  # a group of 32 channels, and a part of one
    x = raw.laid_out(raw.integers(shape, 3, dtype), layout)
    indices = repeated_indices(shape, size[0] * size[1], layout)
    for adds in (False, True):
        expected = expected_of(x, indices, size, adds)
        for config in CONFIGS:
            y = raw.unwritten((*shape[:2], *size), dtype, layout)
            raw.unpool(core, "add" if adds else "forward", x, indices, y, config)
            assert torch.equal(y, expected), config
    picked = raw.unwritten(shape, dtype, layout)
    raw.unpool(core, "gather", picked, indices, expected, "")
    assert torch.equal(picked, expected.flatten(2).gather(2, indices.flatten(2)).view(shape))


@pytest.mark.parametrize("dtype", raw.DTYPES, ids=str)
@pytest.mark.parametrize("skipped", [0, 1], ids=["from a boundary", "between boundaries"])
@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        ("contiguous", (2, 3, 15, 27)),  # planes begin everywhere between two boundaries of 16 bytes, steps do not
        ("contiguous", (1, 2, 16, 16)),
        ("channels_last", (2, 72, 3, 5)),  # two groups of 32 channels, and a part of one
        ("channels_last", (2, 35, 2, 4)),  # pixels begin everywhere
    ],
    ids=str,
)
def test_vectors_change_nothing(
    core: ModuleType, layout: str, shape: tuple[int, ...], skipped: int, dtype: torch.dtype
) -> None:
    size = (13, 11)
    x = raw.shifted(raw.laid_out(raw.integers(shape, 3, dtype), layout), skipped)
    indices = raw.shifted(repeated_indices(shape, size[0] * size[1], layout), skipped)
    for adds in (False, True):
        expected = expected_of(x, indices, size, adds)
        for config in ("s1", "s4"):
            y = raw.unwritten((*shape[:2], *size), dtype, layout)
            raw.unpool(core, "add" if adds else "forward", x, indices, y, config)
            assert torch.equal(y, expected), config
    picked = raw.shifted(raw.unwritten(shape, dtype, layout), skipped)
    raw.unpool(core, "gather", picked, indices, expected, "")
    assert torch.equal(picked, expected.flatten(2).gather(2, indices.flatten(2)).view(shape))


def test_vectors_need_operands_that_lie_alike(core: ModuleType) -> None:
    """Indices that begin elsewhere, planes apart from each other, and columns side by side in one operand only."""
    shape, size = (2, 2, 16, 18), (20, 20)
    x, indices = raw.integers(shape, 3, torch.float16), repeated_indices(shape, 400, "contiguous")
    expected = expected_of(x, indices, size, adds=False)
    apart = torch.empty(2, 2, 16 * 18 + 1, dtype=torch.int64)[..., :-1].copy_(indices.flatten(2)).unflatten(2, (16, 18))
    for given in (raw.shifted(indices, 1), apart, raw.laid_out(indices, "channels_last")):
        assert torch.equal(given, indices)
        y, picked = raw.unwritten((2, 2, *size), torch.float16), raw.unwritten(shape, torch.float16)
        raw.unpool(core, "forward", x, given, y, "s4")
        assert torch.equal(y, expected)
        raw.unpool(core, "gather", picked, given, y, "")
        assert torch.equal(picked, expected.flatten(2).gather(2, indices.flatten(2)).view(shape))


@pytest.mark.parametrize("place", [-1, 400, 2**40])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_a_position_outside_in_a_vector_ends_the_kernel(core: ModuleType, layout: str, place: int) -> None:
    x = raw.laid_out(torch.ones(1, 32, 16, 16), layout)
    indices = raw.laid_out(torch.zeros(1, 32, 16, 16, dtype=torch.int64), layout)
    indices[0, 31, 15, 15] = place
    y = raw.unwritten((1, 32, 20, 20), torch.float32, layout)
    for unpool_pass, config in (("forward", "s1"), ("gather", "")):
        with pytest.raises(KernelError, match="outside the output"):
            raw.unpool(core, unpool_pass, x, indices, y, config)


@pytest.mark.parametrize("index_bits", [32, 64])
def test_long_planes_keep_their_order(core: ModuleType, index_bits: int) -> None:
    """More rows of 32 indices than are under way at once, and all of them at two positions."""
    x = torch.arange(300.0).view(1, 1, 20, 15)
    indices = torch.arange(300).remainder(2).mul(5).view(1, 1, 20, 15)
    y = raw.unwritten((1, 1, 2, 3), torch.float32)
    raw.unpool(core, "forward", x, indices, y, "s1", index_bits=index_bits)
    assert y.flatten().tolist() == [298, 0, 0, 0, 0, 299]
    raw.unpool(core, "add", x, indices, y, "s1", index_bits=index_bits)
    assert y.flatten().tolist() == [sum(range(0, 300, 2)), 0, 0, 0, 0, sum(range(1, 300, 2))]


@pytest.mark.parametrize("place", [-1, 6, 2**40])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_a_position_outside_ends_the_kernel_and_writes_nothing(core: ModuleType, layout: str, place: int) -> None:
    x = raw.laid_out(torch.ones(1, 2, 1, 2), layout)
    indices = raw.laid_out(torch.tensor([[[[1, place]], [[0, 3]]]]), layout)
    y = raw.unwritten((1, 2, 2, 3), torch.float32, layout)
    for unpool_pass, config in (("forward", "s1"), ("gather", "")):
        with pytest.raises(KernelError, match="outside the output"):
            raw.unpool(core, unpool_pass, x, indices, y, config)


def test_problems_that_do_not_fit_together_are_refused(fast_core: ModuleType) -> None:
    x, indices, y = torch.ones(1, 2, 2, 2), torch.zeros(1, 2, 2, 2, dtype=torch.int64), torch.ones(1, 2, 4, 4)
    for changed, words in (
        ((x, indices[:, :, :1], y), "indices sizes"),
        ((x, indices, y[:, :1]), "channels of y"),
        ((x, indices, y.expand(1, 2, 4, 4)[:, :, :1].expand(1, 2, 4, 4)), "free of overlap"),
    ):
        with pytest.raises(ValueError, match=words):
            raw.unpool(fast_core, "forward", *changed, "s1")
