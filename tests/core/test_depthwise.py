"""The depthwise kernels against float64: exact on small integers, in every configuration, layout, type and index width."""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch

from fastconv import emulator
from tests.core.family_support import FamilyCase
from tests.core.mma_support import assert_exact

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def depthwise(
    conv_pass: str,
    dtype: torch.dtype,
    size: tuple[int, int, int, int],
    kernel: tuple[int, int],
    *,
    channels_last: bool = False,
    multiplier: int = 1,
    **options: object,
) -> FamilyCase:
    channels = size[1]
    return FamilyCase(
        conv_pass,
        dtype,
        size,
        (channels * multiplier, 1, *kernel),
        groups=channels,
        x_last=channels_last,
        y_last=channels_last,
        w_last=False,
        family="depthwise",
        **options,
    )


def same(kernel: tuple[int, int]) -> tuple[int, int, int, int]:
    return (kernel[0] // 2, kernel[0] // 2, kernel[1] // 2, kernel[1] // 2)


def random_case(draw: random.Random) -> FamilyCase:
    """Any depthwise convolution that is small: sizes, filters, strides, dilations and paddings of all kinds."""
    while True:
        kernel = draw.choice([(3, 3), (3, 3), (5, 5), (7, 7), (9, 9), (1, 1), (2, 5), (4, 3), (1, 7), (6, 1), (13, 13)])
        stride = draw.choice([(1, 1), (1, 1), (2, 2), (2, 1), (3, 2), (1, 4)])
        dilation = draw.choice([(1, 1), (1, 1), (2, 2), (1, 3), (2, 1)])
        padding = draw.choice([same(kernel), same(kernel), tuple(draw.randrange(5) for _ in range(4))])
        conv_pass = draw.choice(["fprop", "fprop", "dgrad", "dgrad", "wgrad"])
        channels_last = draw.random() < 0.5
        case = depthwise(
            conv_pass,
            draw.choice(DTYPES),
            (draw.randint(1, 3), draw.choice([1, 3, 8, 16, 20, 40]), draw.randint(1, 24), draw.randint(1, 40)),
            kernel,
            channels_last=channels_last,
            multiplier=draw.choice([1, 1, 1, 2]) if not channels_last and conv_pass != "dgrad" else 1,
            stride=stride,
            dilation=dilation,
            padding=padding,
            bias=draw.random() < 0.5,
            residual=conv_pass == "fprop" and draw.random() < 0.3,
            activation=draw.choice(["identity", "relu"]) if conv_pass != "wgrad" else "identity",
            index_bits=draw.choice([32, 64]),
            multiprocessors=draw.choice([1, 8, 108]),
            capability=90,
        )
        if min(case.y) >= 1:
            return case


@pytest.mark.parametrize("number", range(80))
def test_random_problems_are_exact(number: int) -> None:
    case = random_case(random.Random(number))
    configs = case.configs()
    assert configs, case
    for config in configs:
        assert_exact(case, config, seed=number)


@pytest.mark.parametrize("number", range(1000, 1015))
def test_random_problems_touch_nothing_they_should_not(number: int) -> None:
    case = random_case(random.Random(number))
    with emulator.check(number):
        for config in case.configs():
            assert_exact(case, config, seed=number)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("r", [3, 5, 7, 9, 13, 31])
def test_every_tuned_filter_is_exact_in_every_pass(r: int, channels_last: bool, dtype: torch.dtype) -> None:
    for conv_pass in ("fprop", "dgrad", "wgrad"):
        for stride in (1, 2):
            case = depthwise(
                conv_pass,
                dtype,
                (1, 8 if r <= 7 else 2, 14, 19),
                (r, r),
                channels_last=channels_last,
                padding=same((r, r)),
                stride=(stride, stride),
                bias=True,
                capability=90,
            )
            for config in case.configs():
                assert_exact(case, config)


@pytest.mark.parametrize("taps", range(1, 35))
def test_bands_of_every_width_are_exact(taps: int) -> None:
    for conv_pass in ("fprop", "dgrad"):
        size, padding = (1, 2, 19, 44), (1, 1, taps // 3, taps // 2)
        case = depthwise(conv_pass, torch.bfloat16, size, (3, taps), padding=padding, capability=90)
        assert ("band" in case.configs()) == (taps <= 33)
        if taps <= 33:
            assert_exact(case, "band")


@pytest.mark.parametrize(
    "kernel", [(1, 1), (3, 7), (13, 13), (16, 16), (17, 3), (3, 17), (31, 31), (32, 32), (33, 5), (5, 33), (40, 70)]
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_gradients_on_tensor_cores_are_exact_for_filters_of_every_size(
    kernel: tuple[int, int], dtype: torch.dtype
) -> None:
    for size, channels_last, multiprocessors in (((3, 3, 17, 35), False, 8), ((2, 8, 45, 16), True, 1)):
        case = depthwise(
            "wgrad",
            dtype,
            size,
            kernel,
            channels_last=channels_last,
            padding=(kernel[0] // 2, kernel[0] - 1, kernel[1] - 1, kernel[1] // 3),
            bias=True,
            capability=90,
            multiprocessors=multiprocessors,
        )
        with emulator.check(1):
            assert_exact(case, "band_turned" if channels_last else "band")


@pytest.mark.parametrize("conv_pass", ["fprop", "dgrad"])
def test_images_are_turned_in_parts_where_the_workspace_does_not_hold_them_all(conv_pass: str) -> None:
    image = 2 * 16 * 9 * 16 * 2
    case = depthwise(
        conv_pass,
        torch.float16,
        (5, 16, 9, 15),
        (13, 13),
        channels_last=True,
        padding=same((13, 13)),
        bias=True,
        activation="relu",
        most_workspace_bytes=2 * (2 * image + 512),
    )
    (turned,) = [one for one in case.candidates() if one.config == "band_turned"]
    assert turned.details["images_at_once"] == 2
    assert_exact(case, "band_turned")
    too_little = dataclasses.replace(case, most_workspace_bytes=image)
    (turned,) = [one for one in too_little.candidates() if one.config == "band_turned"]
    assert "workspace" in turned.reason


@pytest.mark.parametrize("conv_pass", ["fprop", "wgrad"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_channel_multipliers_of_channels_last_are_turned(dtype: torch.dtype, conv_pass: str) -> None:
    for kernel, stride, multiplier in (((3, 3), (1, 1), 2), ((5, 4), (2, 1), 3), ((13, 13), (1, 1), 2)):
        case = depthwise(
            conv_pass,
            dtype,
            (5, 8, 11, 14),
            kernel,
            channels_last=True,
            multiplier=multiplier,
            padding=same(kernel),
            stride=stride,
            bias=True,
            multiprocessors=4,
        )
        with emulator.check(1):
            assert_exact(case, "planes_turned")
        image = 8 * (1 + multiplier) * 11 * 16 * dtype.itemsize
        in_parts = dataclasses.replace(case, most_workspace_bytes=4 * image + 2048)
        legal = {one.config: one.details for one in in_parts.candidates() if not one.reason}
        assert ("planes_turned" in legal) == (conv_pass == "fprop")
        if conv_pass == "fprop":
            assert legal["planes_turned"]["images_at_once"] < 5
            assert_exact(in_parts, "planes_turned")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("conv_pass", "size", "kernel"),
    [
        ("fprop", (40, 8, 7, 7), (13, 13)),
        ("dgrad", (40, 8, 7, 7), (31, 31)),
        ("fprop", (500, 2, 2, 2), (5, 5)),
        ("wgrad", (300, 2, 2, 2), (3, 3)),
        ("wgrad", (900, 1, 1, 1), (13, 13)),
    ],
)
def test_many_images_smaller_than_the_filter_fit_into_shared_memory(
    conv_pass: str, size: tuple[int, int, int, int], kernel: tuple[int, int], dtype: torch.dtype
) -> None:
    case = depthwise(conv_pass, dtype, size, kernel, padding=same(kernel), capability=86, multiprocessors=1)
    for config in ("planes", "band") if dtype == torch.float16 else ("planes",):
        assert config in case.configs()
        assert_exact(case, config)


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
def test_sums_that_blocks_leave_to_each_other_stay_within_the_workspace(channels_last: bool) -> None:
    case = depthwise(
        "wgrad",
        torch.float16,
        (80, 8, 14, 14),
        (13, 13),
        channels_last=channels_last,
        padding=same((13, 13)),
        bias=True,
    )
    of_one = 8 * (13 * 13 + 1) * 4
    turned = 2 * 80 * 8 * 14 * 14 * 2
    for most in (0, of_one, 3 * of_one + 256, 2 * turned + 6 * of_one, 256 << 20):
        limited = dataclasses.replace(case, most_workspace_bytes=most)
        legal = {one.config: one.details for one in limited.candidates() if not one.reason}
        assert ("band_turned" in legal) == (channels_last and most >= 2 * turned)
        for config, details in legal.items():
            assert details["workspace_bytes"] <= most
            assert details["splits"] > 1 or most <= of_one
            assert_exact(limited, config)


def shifted(tensor: torch.Tensor) -> torch.Tensor:
    """The same values one element further in memory, with the same strides."""
    memory = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)[1:]
    return memory.as_strided(tensor.shape, tensor.stride()).copy_(tensor)


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("conv_pass", ["fprop", "dgrad", "wgrad"])
def test_operands_may_begin_at_any_element(conv_pass: str, channels_last: bool) -> None:
    case = depthwise(
        conv_pass,
        torch.float16,
        (2, 16, 15, 17),
        (5, 5),
        channels_last=channels_last,
        padding=(2, 2, 2, 2),
        residual=conv_pass == "fprop",
    )
    tensors = {name: shifted(tensor) for name, tensor in case.tensors().items()}
    expected = case.reference(tensors)
    for config in case.configs():
        with emulator.check(1):
            for name, result in case.run(config, tensors).items():
                assert torch.equal(result.double(), expected[name]), config


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize(
    ("kernel", "stride"), [((3, 3), 1), ((7, 7), 1), ((9, 9), 1), ((13, 13), 1), ((5, 5), 2), ((4, 3), 3)], ids=str
)
def test_infinities_and_nan_reach_the_outputs_that_see_them_and_no_other(
    kernel: tuple[int, int], stride: int, value: float, channels_last: bool
) -> None:
    """In every configuration. Padding is zeros, which are terms of fprop and wgrad; outside of dy are no terms."""
    for conv_pass, names in (("fprop", "xw"), ("dgrad", "yw"), ("wgrad", "xy")):
        case = depthwise(
            conv_pass,
            torch.float16,
            (2, 8, 15, 20),
            kernel,
            channels_last=channels_last,
            padding=same(kernel),
            stride=(stride, stride),
            multiprocessors=2,
        )
        for name in names:
            tensors = {one: tensor.abs() + 1 for one, tensor in case.tensors().items()}
            # Channels do not meet: in two corners, and beside one.
            for n, channel, row, column in ((0, 3, 0, 0), (1, 7, -1, -1), (0, 4, 1, 2)):
                place = (channel, 0, row, column) if name == "w" else (n, channel, row, column)
                tensors[name][place] = value
            expected = case.reference(tensors)
            for config in case.configs():
                for output, result in case.run(config, tensors).items():
                    where = f"{conv_pass} {config}: {value} in {name}"
                    assert torch.equal(result.isnan(), expected[output].isnan()), where
                    assert torch.equal(result.isposinf(), expected[output].isposinf()), where


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
def test_what_is_summed_again_for_infinities_touches_nothing_it_should_not(channels_last: bool) -> None:
    for conv_pass, name in (("dgrad", "w"), ("wgrad", "x"), ("wgrad", "y")):
        for kernel, stride in (((3, 3), 1), ((3, 3), 2), ((13, 13), 1), ((2, 5), 3)):
            case = depthwise(
                conv_pass,
                torch.float16,
                (2, 12, 13, 17),
                kernel,
                channels_last=channels_last,
                padding=same(kernel),
                stride=(stride, stride),
                bias=True,
                multiprocessors=2,
            )
            tensors = case.tensors()
            tensors[name][:, :, -1, 0] = torch.inf
            expected = case.reference(tensors)
            for config in case.configs():
                with emulator.check(1):
                    for output, result in case.run(config, tensors).items():
                        assert torch.equal(result.isnan(), expected[output].isnan()), (conv_pass, config, name)
                        finite = expected[output].isfinite()
                        assert torch.equal(result.double()[finite], expected[output][finite])


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_real_numbers_are_summed_in_float32_and_gradients_repeat_bit_by_bit(
    dtype: torch.dtype, channels_last: bool
) -> None:
    for conv_pass in ("fprop", "dgrad", "wgrad"):
        case = depthwise(
            conv_pass,
            dtype,
            (4, 8, 14, 14),
            (5, 5),
            channels_last=channels_last,
            padding=(2, 2, 2, 2),
            bias=True,
            multiprocessors=132,
        )
        tensors = case.tensors(kind="normal")
        expected = case.reference(tensors)
        terms = case.reference({name: tensor.abs() for name, tensor in tensors.items()})
        for config in case.configs():
            results = case.run(config, tensors)
            again = case.run(config, tensors)
            for name, result in results.items():
                assert torch.equal(result, again[name])
                allowed = 64 * torch.finfo(torch.float32).eps * terms[name] + torch.finfo(dtype).eps * result.abs()
                assert ((result.double() - expected[name]).abs() <= allowed).all(), (config, name)


def test_reasons_name_what_is_not_taken() -> None:
    def reasons(case: FamilyCase) -> dict[str, str]:
        return {candidate.config: candidate.reason for candidate in case.candidates()}

    half = depthwise("fprop", torch.float16, (1, 8, 9, 9), (3, 3))
    assert reasons(half)["planes"] == ""
    assert "channels_last" in reasons(half)["slab8"]
    grouped = dataclasses.replace(half, w=(8, 2, 3, 3), groups=4)
    assert all("groups of 2 input channels" in reason for reason in reasons(grouped).values())
    multiplied = depthwise("dgrad", torch.float16, (1, 8, 9, 9), (3, 3), multiplier=2)
    assert "channel multiplier of 2" in reasons(multiplied)["planes"]
    assert "float32" in reasons(dataclasses.replace(half, dtype=torch.float32))["band"]
    assert "stride" in reasons(dataclasses.replace(half, stride=(2, 2)))["band"]
    assert "channels_last" in reasons(half)["band_turned"]
    turned = depthwise("fprop", torch.float16, (1, 12, 9, 9), (3, 3), channels_last=True)
    assert "12 channels" in reasons(turned)["band_turned"]
    assert "one filter a channel" in reasons(turned)["planes_turned"]
    three = depthwise("fprop", torch.float32, (1, 6, 9, 9), (3, 3), channels_last=True, multiplier=3)
    assert "18 channels, which is not a multiple of 4" in reasons(three)["planes_turned"]
    assert (
        "residual"
        in reasons(dataclasses.replace(turned, x=(1, 16, 9, 9), w=(16, 1, 3, 3), groups=16, residual=True))[
            "band_turned"
        ]
    )
    last = depthwise("wgrad", torch.float32, (1, 8, 9, 9), (3, 3), channels_last=True)
    assert reasons(last)["slab4"] == ""
    assert "gaps" in reasons(last)["planes"]
