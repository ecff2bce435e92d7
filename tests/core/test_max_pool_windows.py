"""The pooling kernels for one window, 2x2 s2 and 3x3 s2 p1: PyTorch's winners and gradients, wherever rows begin and end."""

from __future__ import annotations

import random
from types import ModuleType

import pytest
import torch

from tests.core import raw
from tests.core.pool_support import Window, all_passes, forward

INF = float("inf")
PLANES, CHANNELS = "max_pool_planes", "max_pool_channels"
LAYOUT_OF = {PLANES: "contiguous", CHANNELS: "channels_last"}
CONFIGS = {PLANES: ("16k", "32k", "8k", "96k"), CHANNELS: ("rows8", "rows2", "rows28")}
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def window(kernel: int, shape: tuple[int, int, int, int], ceil_mode: bool = False) -> Window:
    padding = 1 if kernel == 3 else 0
    return Window(shape, (kernel, kernel), (2, 2), (padding, padding), (1, 1), ceil_mode)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("family", [PLANES, CHANNELS])
def test_every_configuration_is_pytorch(core: ModuleType, family: str, kernel: int, dtype: torch.dtype) -> None:
    """Several planes a tile, several bands a plane, several strips a band."""
    for config in CONFIGS[family]:
        for size in ((14, 14), (37, 150)) if config == "8k" else ((9, 14),):
            chosen = {"family": family, "config": config, "multiprocessors": 1}
            all_passes(core, window(kernel, (2, 8, *size)), dtype, LAYOUT_OF[family], **chosen)


@pytest.mark.parametrize("index_bits", [32, 64])
@pytest.mark.parametrize("family", [PLANES, CHANNELS])
def test_one_kernel_serves_both_index_widths(core: ModuleType, family: str, index_bits: int) -> None:
    chosen = {"family": family, "config": CONFIGS[family][0], "index_bits": index_bits}
    all_passes(core, window(3, (1, 8, 6, 7)), torch.float16, LAYOUT_OF[family], **chosen)


@pytest.mark.parametrize("family", [PLANES, CHANNELS])
def test_windows_at_every_border(core: ModuleType, family: str, seed: int) -> None:
    """Small odd and even sizes, with and without the windows that ceil_mode adds, bands and strips that end early."""
    draw = random.Random(seed)
    for _ in range(24):
        kernel, ceil_mode, dtype = draw.choice((2, 3)), draw.random() < 0.5, draw.choice(DTYPES)
        least = kernel if not ceil_mode else 1
        size = draw.randint(least, 11), draw.randint(least, 40 if family == PLANES else 11)
        channels = draw.randint(1, 9) if family == PLANES else draw.choice((8, 24))
        shape = (draw.randint(1, 3), channels, *size)
        config, multiprocessors = draw.choice(CONFIGS[family]), draw.choice((1, 132))
        line = (
            f"all_passes(core, window({kernel}, {shape}, {ceil_mode}), {dtype}, family={family!r}, config={config!r})"
        )
        try:
            all_passes(
                core,
                window(kernel, shape, ceil_mode),
                dtype,
                LAYOUT_OF[family],
                family=family,
                config=config,
                multiprocessors=multiprocessors,
            )
        except Exception as error:
            raise AssertionError(f"seed {seed}: {line}") from error


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("family", [PLANES, CHANNELS])
def test_ties_nan_and_infinities_are_won_as_in_pytorch(core: ModuleType, family: str, dtype: torch.dtype) -> None:
    values = torch.tensor([0.0, -0.0, 1.0, 1.0, INF, -INF, -INF, float("nan")])
    for kernel in (2, 3):
        geometry = window(kernel, (2, 8, 9, 16), ceil_mode=True)
        for weights in ([1.0] * 8, [0, 0, 0, 0, 0, 1.0, 1, 0], [1.0, 1, 1, 1, 0, 0, 0, 1]):
            picks = torch.multinomial(torch.tensor(weights), 2 * 8 * 9 * 16, replacement=True)
            x = raw.laid_out(values[picks].reshape(geometry.shape).to(dtype), LAYOUT_OF[family])
            expected, expected_indices = geometry.reference(x)
            y, indices, _ = forward(core, x, geometry, LAYOUT_OF[family], family=family, config=CONFIGS[family][0])
            assert torch.equal(indices, expected_indices)
            torch.testing.assert_close(y, expected, rtol=0, atol=0, equal_nan=True)
            assert torch.equal(torch.signbit(y[~y.isnan()]), torch.signbit(expected[~y.isnan()]))


@pytest.mark.parametrize("family", [PLANES, CHANNELS])
def test_places_that_no_window_has_give_nothing_to_any_element(core: ModuleType, family: str) -> None:
    geometry, layout = window(3, (1, 8, 6, 6)), LAYOUT_OF[family]
    dy = raw.laid_out(torch.ones(1, 8, 3, 3, dtype=torch.float16), layout)
    offsets = raw.laid_out(torch.full((1, 8, 3, 3), 255, dtype=torch.uint8), layout)
    dx = raw.unwritten(geometry.shape, torch.float16, layout)
    chosen = {"family": family, "config": CONFIGS[family][0]}
    raw.pool(core, "backward", torch.float16, dx, dy, offsets, **chosen, **geometry.keywords)
    assert torch.equal(dx, torch.zeros_like(dx))


@pytest.mark.parametrize("family", [PLANES, CHANNELS])
def test_tensors_that_begin_anywhere_are_the_general_kernels(core: ModuleType, family: str) -> None:
    """A slice of a batch need not begin on a boundary of 16 bytes; the plan does not know."""
    geometry, layout = window(2, (1, 8, 4, 4)), LAYOUT_OF[family]
    x = raw.integers(geometry.shape, 3, torch.float32)
    larger = torch.zeros(1 + x.numel())
    strides = raw.laid_out(x, layout).stride()
    odd = larger[1:].as_strided(x.shape, strides).copy_(x)
    assert odd.data_ptr() % 16 == 4
    y, indices, _ = forward(core, odd, geometry, layout, family=family, config=CONFIGS[family][0])
    expected, expected_indices = geometry.reference(x)
    assert torch.equal(y, expected)
    assert torch.equal(indices, expected_indices)


def reasons(
    core: ModuleType, geometry: Window, dtype: torch.dtype = torch.float16, **changes: object
) -> dict[str, str]:
    """Why each family cannot run forward; empty where it can."""
    layout = str(changes.pop("layout", "contiguous"))
    offsets_dtype = changes.pop("offsets_dtype", torch.uint8)
    x = raw.laid_out(torch.empty(geometry.shape, dtype=dtype, device="meta"), layout)
    y = geometry.reference(x)[0]
    offsets = raw.laid_out(y.to(offsets_dtype), layout)
    problem = core.PoolProblem(
        pool_pass="forward",
        dtype=raw.NAMES[dtype],
        x=raw.operand(x),
        y=raw.operand(y),
        offsets=raw.operand(offsets),
        offsets_dtype=raw.NAMES[offsets_dtype],
        **geometry.keywords,
    )
    found: dict[str, str] = {}
    for candidate in core.candidates(problem):
        family = candidate.kernel.removesuffix("_forward")
        found[family] = found[family] and candidate.reason if family in found else candidate.reason
    return found


NETWORKS = {
    "resnet": (3, 64, 112),
    "vgg 224": (2, 64, 224),
    "vgg 112": (2, 128, 112),
    "vgg 56": (2, 256, 56),
    "vgg 28": (2, 512, 28),
    "vgg 14": (2, 512, 14),
    "unet 568": (2, 64, 568),
    "unet 280": (2, 128, 280),
    "unet 136": (2, 256, 136),
    "unet 64": (2, 512, 64),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_layers_of_known_networks_have_a_kernel_of_their_own(
    fast_core: ModuleType, name: str, dtype: torch.dtype
) -> None:
    kernel, channels, size = NETWORKS[name]
    geometry = window(kernel, (2, channels, size, size))
    for layout, family in (("contiguous", PLANES), ("channels_last", CHANNELS)):
        assert reasons(fast_core, geometry, dtype, layout=layout)[family] == ""


def test_what_the_kernels_are_not_for_is_said(fast_core: ModuleType) -> None:
    plain = window(2, (1, 8, 6, 6))
    cases = [
        (plain, {"layout": "channels_last"}, PLANES, "not dense NCHW"),
        (plain, {}, CHANNELS, "36 elements apart"),
        (plain, {"dtype": torch.float64}, PLANES, "float64"),
        (plain, {"offsets_dtype": torch.int32}, PLANES, "int32"),
        (window(2, (1, 12, 6, 6)), {"layout": "channels_last"}, CHANNELS, "12 channels are not a multiple of 8"),
        (Window((1, 8, 6, 6), (3, 3), (2, 2)), {}, PLANES, "window 3x3, stride 2x2, padding 0x0"),
        (Window((1, 8, 6, 6), (2, 2), (2, 2), (0, 0), (2, 1)), {}, PLANES, "dilation 2x1"),
        (window(3, (1, 1, 4, 40000)), {}, PLANES, "bytes of shared memory"),
        (window(2, (0, 8, 6, 6)), {}, PLANES, "empty"),
    ]
    for geometry, changes, family, words in cases:
        found = reasons(fast_core, geometry, **changes)
        assert words in found[family], found[family]
        assert found["max_pool"] == ""
