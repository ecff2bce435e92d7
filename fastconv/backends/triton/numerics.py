"""Arithmetic that kernels share: rounding, products, reductions, activations, and index helpers.

This is the one place that knows what Triton's interpreter gets wrong with bfloat16: arithmetic and `tl.dot` work on the raw
bits, conversion to bfloat16 truncates, and conversion from it garbles subnormal numbers. So kernels convert with `raised` and
`narrow` and multiply with `dot`, whose interpreted stand-ins are right. When compiled they cost nothing.
"""

import numpy
import triton.language as tl
from triton.language.extra import libdevice
from triton.runtime import interpreter

from fastconv.backends.triton.runtime import device_function


def _interpreted_raised(value, DTYPE):
    """A bfloat16 is the upper half of a float32."""
    if value.dtype == tl.bfloat16:
        bits = value.to(tl.uint16, bitcast=True).to(tl.uint32) << 16
        value = bits.to(tl.float32, bitcast=True)
    return value.to(DTYPE)


@device_function(interpreted=_interpreted_raised)
def raised(value, DTYPE: tl.constexpr):
    """Convert what was loaded to the type that is computed in, float32 or float64."""
    return value.to(DTYPE)


def _interpreted_narrow(value, DTYPE):
    """Round to nearest, ties to even: the interpreter truncates to bfloat16, so the rounding is added to the bits."""
    if tl.bfloat16 != DTYPE:
        return value.to(DTYPE)
    value = value.to(tl.float32)
    bits = value.to(tl.uint32, bitcast=True)
    rounded = bits + ((bits >> 16) & 1) + 0x7FFF
    rounded = tl.where(value == value, rounded, 0x7FC00000)  # a NaN must not round to infinity
    return (rounded >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)


@device_function(interpreted=_interpreted_narrow)
def narrow(value, DTYPE: tl.constexpr):
    """Convert accumulators to the type of the output, rounding to nearest even."""
    return value.to(DTYPE)


def _interpreted_dot(left, right, accumulator, PRECISION):
    if left.dtype == tl.bfloat16:
        left, right = _interpreted_raised(left, tl.float32), _interpreted_raised(right, tl.float32)
    return tl.dot(left, right, accumulator, input_precision="ieee" if PRECISION == "ieee" else "tf32")


@device_function(interpreted=_interpreted_dot)
def dot(left, right, accumulator, PRECISION: tl.constexpr):
    """accumulator + left @ right on tensor cores; PRECISION ("ieee", or "tf32" of some GPU) matters to float32 only."""
    return tl.dot(left, right, accumulator, input_precision="ieee" if PRECISION == "ieee" else "tf32")


def _interpreted_sum_over(value, AXIS):
    return tl.reduce(value, AXIS, tl.standard._sum_combine)


@device_function(interpreted=_interpreted_sum_over)
def sum_over(value, AXIS: tl.constexpr):
    """Sum over one axis, in an order that depends on the shape alone."""
    return tl.sum(value, AXIS)


def _interpreted_max_over(value, AXIS):
    return tl.reduce(value, AXIS, tl.standard._elementwise_max)


@device_function(interpreted=_interpreted_max_over)
def max_over(value, AXIS: tl.constexpr):
    """Maximum over one axis; there must be no NaN in it."""
    return tl.max(value, AXIS)


def _interpreted_turned(value, PRECISION):
    """Rounded as the instruction does, to nearest with ties away from zero; infinities and NaN stay what they are."""
    if PRECISION not in ("tf32_hopper", "tf32_blackwell"):
        return value
    bits = value.to(tl.uint32, bitcast=True)
    rounded = ((bits + 0x1000) & 0xFFFFE000).to(tl.float32, bitcast=True)
    return tl.where(value - value == 0.0, rounded, value)


@device_function(interpreted=_interpreted_turned)
def turned(value, PRECISION: tl.constexpr):
    """An operand that does not lie along the summed dimension, on its way to a product.

    Since Hopper, products take TF32 from shared memory only as rows along that dimension; left alone, the operand would be
    copied there element by element. Rounded in registers on its way it is loaded in whole vectors. On Hopper the rounding
    must not be moved ahead of the load's own layout, which Triton does to instructions without side effects.
    """
    if PRECISION == "tf32_hopper":
        value = tl.inline_asm_elementwise(
            "cvt.rna.tf32.f32 $0, $1;", "=r,r", [value], dtype=tl.float32, is_pure=False, pack=1
        )
    elif PRECISION == "tf32_blackwell":
        value = tl.inline_asm_elementwise(
            "cvt.rna.tf32.f32 $0, $1;", "=r,r", [value], dtype=tl.float32, is_pure=True, pack=1
        )
    return value


@device_function
def multiply_accumulate(left, right, accumulator, PRECISION: tl.constexpr, DEPTH: tl.constexpr):
    """accumulator [M, N] + left [M, DEPTH] @ right [DEPTH, N].

    PRECISION "fma" multiplies and adds in the accumulator's own type, without `dot`: float64 is exact to its last bit or two.
    """
    if PRECISION == "fma":
        left = raised(left, accumulator.dtype)
        right = raised(right, accumulator.dtype)
        result = accumulator + (left * right if DEPTH == 1 else sum_over(left[:, :, None] * right[None, :, :], 1))
    else:
        result = dot(left, right, accumulator, PRECISION)
    return result


def _interpreted_tanh(value):
    """libdevice is device code, so the values go through numpy."""
    return tl.tensor(interpreter.TensorHandle(numpy.tanh(value.handle.data), value.handle.dtype), value.type)


@device_function(interpreted=_interpreted_tanh)
def tanh(value):
    return libdevice.tanh(value)


@device_function
def activate(value, ACTIVATION: tl.constexpr):
    """What an epilogue applies, by PyTorch's definitions. NaN stays NaN."""
    if ACTIVATION == "relu":
        result = tl.where(value < 0.0, 0.0, value)
    elif ACTIVATION == "leaky_relu":
        result = tl.where(value < 0.0, value * 0.01, value)
    elif ACTIVATION == "silu":
        result = value / (1.0 + tl.exp(-value))
    elif ACTIVATION == "gelu":
        result = 0.5 * value * (1.0 + tl.erf(value * 0.7071067811865476))
    elif ACTIVATION == "sigmoid":
        result = 1.0 / (1.0 + tl.exp(-value))
    elif ACTIVATION == "hardswish":
        gate = tl.where(value > 3.0, 6.0, tl.where(value < -3.0, 0.0, value + 3.0))
        result = value * gate / 6.0
    elif ACTIVATION == "tanh":
        result = tanh(value)
    else:
        result = value
    return result


def _interpreted_widen(index, WIDE):
    """Loop counters are plain integers here, which have no width."""
    return index.to(tl.int64) if WIDE and isinstance(index, tl.tensor) else index


@device_function(interpreted=_interpreted_widen)
def widen(index, WIDE: tl.constexpr):
    """An index that is about to be multiplied by strides, in 64 bits where the tensors need it."""
    return index.to(tl.int64) if WIDE else index


@device_function
def aligned(value, ALIGNMENT: tl.constexpr):
    """The same value, which the host knows to be a multiple of ALIGNMENT, so that the compiler knows too."""
    return value // ALIGNMENT * ALIGNMENT if ALIGNMENT > 1 else value


@device_function
def stride_of(stride, DIMENSION: tl.constexpr, UNIT: tl.constexpr, ALIGNMENT: tl.constexpr):
    """A stride with what the host knows of it: it is one in dimension UNIT, and a multiple of ALIGNMENT in the others."""
    return 1 if DIMENSION == UNIT else aligned(stride, ALIGNMENT)


@device_function
def offsets_at(
    n, c, h, w, stride_n, stride_c, stride_h, stride_w, UNIT: tl.constexpr, ALIGNMENT: tl.constexpr
):  # fmt: skip
    """Offsets of the elements at four indices, which are wide enough to be multiplied."""
    return (
        n * stride_of(stride_n, 0, UNIT, ALIGNMENT)
        + c * stride_of(stride_c, 1, UNIT, ALIGNMENT)
        + h * stride_of(stride_h, 2, UNIT, ALIGNMENT)
        + w * stride_of(stride_w, 3, UNIT, ALIGNMENT)
    )


@device_function
def divide(value, divisor, magic, shift, PLAIN: tl.constexpr):
    """value // divisor for 0 <= value < 2**31 by multiply-high (Granlund and Montgomery 1994); see `hints.magic_division`.

    PLAIN divides: for 64-bit values, and where the compiler must see that neighbouring quotients are equal.
    """
    if PLAIN:
        quotient = value // divisor
    else:
        high = tl.umulhi(value.to(tl.uint32), magic.to(tl.uint32))
        quotient = ((high + value.to(tl.uint32)) >> shift.to(tl.uint32)).to(tl.int32)
    return quotient
