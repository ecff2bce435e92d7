"""Random problems of the tensor-core kernels in every type, layout and pass against float64, random configurations included.

`pytest tests/core/test_mma_fuzz.py --fuzz-problems 4000 --fuzz-seed 7` tries more; a failure prints the line that repeats it.
"""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch

from fastconv import emulator
from tests.core.mma_support import Case, assert_accurate, assert_exact

PASSES = ("fprop", "dgrad", "wgrad")
MODES = ("reflect", "replicate", "circular", "constant")
TYPES = ((torch.float16, False), (torch.bfloat16, False), (torch.float32, True), (torch.float32, False))
#: Multiply-adds of a problem, and elements of its largest tensor.
MOST_WORK, MOST_ELEMENTS = 1_500_000, 40_000
CHECKED_EVERY = 12


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    option = metafunc.config.getoption
    count = -(-option("--fuzz-problems") // (len(PASSES) * len(TYPES)))
    metafunc.parametrize(
        "numbers", [range(option("--fuzz-seed") * 1_000_000, option("--fuzz-seed") * 1_000_000 + count)]
    )


def draw(dice: random.Random, conv_pass: str, dtype: torch.dtype, allow_tf32: bool) -> Case | None:
    """None where the numbers make no problem, or too large a one."""
    chunk = 16 // dtype.itemsize
    groups = dice.choice((1, 1, 1, 1, 2, 3))
    unit = chunk if groups > 1 else 1
    channels, filters = (
        groups * unit * dice.choice((1, 2, 3) if groups > 1 else (1, 3, 5, 8, 16, 24, 33, 64)) for _ in range(2)
    )

    def pair(*choices: int) -> tuple[int, int]:
        first = dice.choice(choices)
        return first, first if dice.random() < 0.6 else dice.choice(choices)

    kernel, stride, dilation = pair(1, 2, 3, 3, 4, 5), pair(1, 1, 1, 2, 3), pair(1, 1, 1, 2, 3)
    image = pair(1, 4, 7, 8, 9, 13, 16, 30)
    case = Case(
        conv_pass,
        dtype,
        (dice.choice((1, 1, 2, 3, 5)), channels, *image),
        (filters, channels // groups, *kernel),
        stride=stride,
        padding=tuple(dice.randint(0, kernel[i // 2]) for i in range(4)),
        dilation=dilation,
        groups=groups,
        bias=dice.random() < 0.5,
        residual=conv_pass == "fprop" and dice.random() < 0.3,
        activation=dice.choice(("identity", "relu")) if conv_pass != "wgrad" else "identity",
        x_last=dice.random() < 0.6,
        w_last=dice.random() < 0.6,
        y_last=dice.random() < 0.6,
        allow_tf32=allow_tf32,
        capability=dice.choice((80, 90)),
        most_workspace_bytes=dice.choice((256 << 20, 256 << 20, 200_000)),
    )
    n, k, p, q = case.y
    if min(p, q) < 1 or max(n * k * p * q, n * channels * image[0] * image[1]) > MOST_ELEMENTS:
        return None
    if n * k * p * q * channels // groups * kernel[0] * kernel[1] > MOST_WORK:
        return None
    mode = dice.choice(("zeros", "zeros", *(mode for mode in MODES if pads(mode, case.padding, image))))
    return dataclasses.replace(case, padding_mode=mode, padding_value=-1.5 if mode == "constant" else 0.0)


def pads(mode: str, padding: tuple[int, ...], image: tuple[int, int]) -> bool:
    """Whether an image has as much to pad with as the mode wants."""
    least = {"reflect": 1, "circular": 0}
    return mode not in least or all(padding[i] + least[mode] <= image[i // 2] for i in range(4))


def try_problem(conv_pass: str, dtype: torch.dtype, allow_tf32: bool, number: int) -> None:
    dice = random.Random(f"{conv_pass} {dtype} {allow_tf32} {number}")
    while True:
        case = draw(dice, conv_pass, dtype, allow_tf32)
        if case is not None and (configs := case.configs()):
            break
    config = dice.choice(configs)
    compare = assert_exact if dice.random() < 0.7 else assert_accurate
    if number % CHECKED_EVERY:
        compare(case, config, number)
    else:
        with emulator.check(seed=number):
            compare(case, config, number)


@pytest.mark.parametrize(("dtype", "allow_tf32"), TYPES, ids=["float16", "bfloat16", "tf32", "float32"])
@pytest.mark.parametrize("conv_pass", PASSES)
def test_random_problems(conv_pass: str, dtype: torch.dtype, allow_tf32: bool, numbers: range) -> None:
    for number in numbers:
        try_problem(conv_pass, dtype, allow_tf32, number)
