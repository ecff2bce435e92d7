"""Random problems, small enough that hundreds of them run on the emulator in a minute or two."""

from __future__ import annotations

import dataclasses
import random

from tests.support.cases import DTYPES, OPS, Case
from tests.support.layouts import LAYOUTS, VECTOR_LAYOUTS
from tests.support.references import ACTIVATIONS

#: Multiply-adds of one pass.
WORK_LIMIT = 150_000
#: Elements of the largest tensor.
ELEMENT_LIMIT = 12_000


def sample(seed: int, index: int, backends: tuple[str, ...] = ("cuda",), device: str = "cpu") -> Case:
    """The index-th problem of a seed; the same on every machine and whatever came before it."""
    dice = random.Random(f"{seed}-{index}")
    while True:
        op = dice.choices(OPS, weights=(5, 3, 2))[0]
        draft = _sample_pool(dice) if op == "max_pool2d" else _sample_convolution(dice, op)
        if _fits(draft):
            break
    case = dataclasses.replace(
        draft,
        dtype=dice.choices(tuple(DTYPES), weights=(2, 4, 2, 2))[0],
        x_layout=_layout(dice),
        dy_layout=_layout(dice),
        index_bits=dice.choices((32, 64), weights=(4, 1))[0],
        backend=dice.choice(backends),
        device=device,
        seed=dice.randrange(1_000_000),
    )
    return _as_pytorch_can(_away_from_corners(case))


def _away_from_corners(case: Case) -> Case:
    """Slopes of 16-bit activations jump where rounding, unlike exact sums, lands: integers land there alike."""
    corners = case.activation == "hardswish" or (case.residual and case.activation in ("relu", "leaky_relu"))
    return dataclasses.replace(case, data="integers") if corners and case.torch_dtype.itemsize == 2 else case


def _as_pytorch_can(case: Case) -> Case:
    """Without what PyTorch 2.13 itself refuses or gets wrong on the CPU, where it computes a part of the case."""
    if case.activation == "gelu":
        case = dataclasses.replace(case, dy_layout=case.dy_layout.replace("overlapping", "sliced"))
    if case.backend != "aten":
        return case
    layouts = {
        name: getattr(case, name).replace("overlapping", "sliced")
        for name in ("x_layout", "w_layout", "dy_layout", "residual")
    }
    # oneDNN does not serve float64.
    return dataclasses.replace(case, dtype="float64", unbatched=False, **layouts)


def _fits(case: Case) -> bool:
    height, width = case.output_size()
    if min(height, width) < 1:
        return False
    if case.op == "max_pool2d" and not case.windows_hold_elements():
        return False  # PyTorch's backward writes out of bounds there
    elements = max(case.n * case.c * case.h * case.w, case.n * max(case.k, case.c) * height * width)
    return case.multiply_adds() <= WORK_LIMIT and elements <= ELEMENT_LIMIT


def _layout(dice: random.Random) -> str:
    if dice.random() < 0.6:
        return dice.choice(("contiguous", "channels_last"))
    return dice.choice(tuple(LAYOUTS))


def _length(dice: random.Random) -> int:
    """Of an image's side: mostly small, sometimes longer than a warp."""
    return dice.choice((1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 16, 17, 33, 40))


def _kernel(dice: random.Random) -> int:
    return dice.choices((1, 2, 3, 4, 5, 7), weights=(4, 3, 6, 2, 2, 1))[0]


def _pair(dice: random.Random, choices: tuple[int, ...]) -> tuple[int, int]:
    first = dice.choice(choices)
    return (first, first) if dice.random() < 0.5 else (first, dice.choice(choices))


def _sample_convolution(dice: random.Random, op: str) -> Case:
    groups = dice.choice((1, 1, 1, 2, 3, 4, 8))
    c = groups * dice.choice((1, 1, 2, 3, 4, 5, 8, 17))
    k = groups * dice.choice((1, 1, 2, 3, 4, 7, 8, 16, 33))
    r, s = _kernel(dice), _kernel(dice)
    if dice.random() < 0.5:
        s = r
    stride, dilation = _pair(dice, (1, 1, 1, 2, 2, 3)), _pair(dice, (1, 1, 1, 2, 3))
    case = Case(
        op,
        n=dice.choices((0, 1, 2, 3, 5), weights=(1, 20, 20, 10, 5))[0],
        c=c,
        h=_length(dice),
        w=_length(dice),
        k=k,
        r=r,
        s=s,
        stride=stride,
        dilation=dilation,
        padding=(dice.randint(0, r), dice.randint(0, s)),
        groups=groups,
        bias=dice.random() < 0.5,
        w_layout=_layout(dice),
        activation=dice.choice(tuple(ACTIVATIONS)) if dice.random() < 0.4 else "identity",
        data=dice.choice(("normal", "integers")),
    )
    if case.bias and dice.random() < 0.3:
        case = dataclasses.replace(case, b_layout=dice.choice(tuple(VECTOR_LAYOUTS)))
    if case.n == 1 and dice.random() < 0.2:
        case = dataclasses.replace(case, unbatched=True)
    if op == "conv_transpose2d":
        limits = [max(pair) for pair in zip(stride, dilation, strict=True)]
        return dataclasses.replace(case, output_padding=tuple(dice.randrange(limit) for limit in limits))
    if dice.random() < 0.2:
        case = dataclasses.replace(case, residual=_layout(dice))
    special = dice.random()
    if special < 0.1:
        case = dataclasses.replace(case, padding="same", stride=(1, 1))
    elif special < 0.13:
        case = dataclasses.replace(case, padding="valid")
    elif special < 0.3:
        sides = tuple(dice.randint(0, kernel) for kernel in (r, r, s, s))
        case = dataclasses.replace(case, padding=sides)
    if dice.random() < 0.25 and case.n:
        mode = dice.choice(("reflect", "replicate", "circular", "constant"))
        padded = dataclasses.replace(case, padding_mode=mode, padding_value=2 if mode == "constant" else 0)
        if padded.has_what_it_pads_with():
            return padded
    return case


def _sample_pool(dice: random.Random) -> Case:
    r, s = _kernel(dice), _kernel(dice)
    if dice.random() < 0.05:
        r, s = 17, 16  # more places than a byte can name
    dilation = _pair(dice, (1, 1, 1, 2, 3))
    case = Case(
        "max_pool2d",
        n=dice.choices((0, 1, 2, 3), weights=(1, 20, 20, 10))[0],
        c=dice.choice((1, 2, 3, 4, 8, 17, 32)),
        h=_length(dice),
        w=_length(dice),
        r=r,
        s=s,
        stride=_pair(dice, (1, 1, 2, 2, 3, 4)),
        padding=(dice.randint(0, r // 2), dice.randint(0, s // 2)),
        dilation=dilation,
        ceil_mode=dice.random() < 0.4,
        data=dice.choice(("normal", "integers", "ties", "special")),
    )
    return dataclasses.replace(case, unbatched=True) if case.n == 1 and dice.random() < 0.2 else case
