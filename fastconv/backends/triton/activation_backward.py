"""dz of dy through an activation, element by element in the order of dz's memory."""

from __future__ import annotations

import dataclasses

import triton.language as tl

from fastconv.backends.triton.family import Estimate, Workspaces, ceil_div
from fastconv.backends.triton.gemm import accumulator_of
from fastconv.backends.triton.hints import alignment, is_wide, magic_division
from fastconv.backends.triton.numerics import aligned, divide, narrow, raised, widen
from fastconv.backends.triton.runtime import Launch, device_function, kernel
from fastconv.backends.triton.target import memory_seconds
from fastconv.problem import ActivationBackwardProblem, Operand


@device_function
def through_activation(dy, saved, ACTIVATION: tl.constexpr):
    """By PyTorch's definitions: `saved` is the activation's output or its input. What is only passed on is not multiplied."""
    if ACTIVATION == "relu":
        result = tl.where(saved <= 0.0, 0.0, dy)
    elif ACTIVATION == "leaky_relu":
        result = tl.where(saved > 0.0, dy, dy * 0.01)
    elif ACTIVATION == "silu":
        s = 1.0 / (1.0 + tl.exp(-saved))
        result = dy * s * (1.0 + saved * (1.0 - s))
    elif ACTIVATION == "gelu":
        share = 0.5 * (1.0 + tl.erf(saved * 0.7071067811865476))
        result = dy * (share + saved * tl.exp(-0.5 * saved * saved) * 0.3989422804014327)
    elif ACTIVATION == "sigmoid":
        result = dy * (1.0 - saved) * saved
    elif ACTIVATION == "hardswish":
        inside = tl.where(saved < 3.0, dy * (saved / 3.0 + 0.5), dy)
        result = tl.where(saved <= -3.0, 0.0, inside)
    else:  # tanh
        result = dy * (1.0 - saved * saved)
    return result


@kernel
def activation_backward_kernel(
    dy_pointer, saved_pointer, dz_pointer,  # the same sizes; dimensions by falling stride of dz
    elements,
    third, third_magic, third_shift, second, second_magic, second_shift, first, first_magic, first_shift,
    dy_stride_0, dy_stride_1, dy_stride_2, dy_stride_3,
    saved_stride_0, saved_stride_1, saved_stride_2, saved_stride_3,
    dz_stride_0, dz_stride_1, dz_stride_2, dz_stride_3,
    ALIGNMENT: tl.constexpr, DENSE: tl.constexpr, ACTIVATION: tl.constexpr, ACCUMULATOR: tl.constexpr, WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    elements = aligned(elements, ALIGNMENT)  # the mask decides how wide loads and stores are
    element = widen(tl.program_id(0), WIDE) * BLOCK + tl.arange(0, BLOCK)
    valid = element < elements
    if DENSE:
        dy_offsets = element
        saved_offsets = element
        dz_offsets = element
    else:
        row = divide(element, third, third_magic, third_shift, WIDE)
        image = divide(row, second, second_magic, second_shift, WIDE)
        outer = divide(image, first, first_magic, first_shift, WIDE)
        i3 = widen(element - row * third, WIDE)
        i2 = widen(row - image * second, WIDE)
        i1 = widen(image - outer * first, WIDE)
        i0 = widen(outer, WIDE)
        dy_offsets = i0 * dy_stride_0 + i1 * dy_stride_1 + i2 * dy_stride_2 + i3 * dy_stride_3
        saved_offsets = i0 * saved_stride_0 + i1 * saved_stride_1 + i2 * saved_stride_2 + i3 * saved_stride_3
        dz_offsets = i0 * dz_stride_0 + i1 * dz_stride_1 + i2 * dz_stride_2 + i3 * dz_stride_3
    dy = raised(tl.load(dy_pointer + dy_offsets, mask=valid, other=0.0), ACCUMULATOR)
    saved = raised(tl.load(saved_pointer + saved_offsets, mask=valid, other=0.0), ACCUMULATOR)
    dz = through_activation(dy, saved, ACTIVATION)
    tl.store(dz_pointer + dz_offsets, narrow(dz, dz_pointer.dtype.element_ty), mask=valid)


@dataclasses.dataclass(frozen=True)
class Config:
    """Elements of a program."""

    block: int
    num_warps: int

    def __str__(self) -> str:
        return f"e{self.block}_w{self.num_warps}"


_CONFIGS = (Config(1024, 4), Config(2048, 4), Config(256, 2))


def _order(problem: ActivationBackwardProblem) -> list[int]:
    """Dimensions by falling stride of dz."""
    return sorted(range(4), key=lambda i: -problem.dz.strides[i])


def _is_dense(problem: ActivationBackwardProblem) -> bool:
    """True where all three are one piece of memory in the same order."""
    order = _order(problem)

    def strides_of(operand: Operand) -> list[int]:
        return [operand.strides[i] for i in order if operand.sizes[i] != 1]

    expected, count = [], 1
    for i in reversed(order):
        if problem.dz.sizes[i] != 1:
            expected.insert(0, count)
            count *= problem.dz.sizes[i]
    return all(strides_of(operand) == expected for operand in (problem.dy, problem.saved, problem.dz))


def _elements(problem: ActivationBackwardProblem) -> int:
    return problem.flops()  # one an element


class ActivationBackward:
    name = "activation_backward"
    ops = ("activation_backward",)

    def configs(self, problem: ActivationBackwardProblem) -> tuple[Config, ...]:
        return _CONFIGS

    def rejection(self, problem: ActivationBackwardProblem, config: Config) -> str:
        return ""

    def estimate(self, problem: ActivationBackwardProblem, config: Config) -> Estimate:
        programs = ceil_div(_elements(problem), config.block)
        return Estimate(
            seconds=memory_seconds(problem, programs * config.block, programs, problem.compulsory_bytes(), 1),
            programs=programs,
            steps=1,
            useful=_elements(problem) / max(programs * config.block, 1),
            registers=24 + 3 * config.block // (32 * config.num_warps),
        )

    def workspaces(self, problem: ActivationBackwardProblem, config: Config) -> Workspaces:
        return {}

    def launches(self, problem: ActivationBackwardProblem, config: Config) -> list[Launch]:
        order = _order(problem)
        sizes = [max(problem.dz.sizes[i], 1) for i in order]
        operands = {"dy": problem.dy, "saved": problem.saved, "dz": problem.dz}
        scalars = {
            "elements": _elements(problem),
            **magic_division("first", sizes[1]),
            **magic_division("second", sizes[2]),
            **magic_division("third", sizes[3]),
            **{
                f"{name}_stride_{place}": operand.strides[i]
                for name, operand in operands.items()
                for place, i in enumerate(order)
            },
        }
        constants = {
            "ALIGNMENT": alignment(_elements(problem)),
            "DENSE": _is_dense(problem),
            "ACTIVATION": problem.activation,
            "ACCUMULATOR": accumulator_of(problem.dtype),
            "WIDE": is_wide(problem, _elements(problem)),
            "BLOCK": config.block,
        }
        programs = ceil_div(_elements(problem), config.block)
        return [Launch(activation_backward_kernel, programs, scalars, constants, config.num_warps)]


FAMILIES = (ActivationBackward(),)
