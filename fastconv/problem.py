"""What is to be computed, without the data: sizes, strides, types and flags.

A problem is a frozen, hashable value. Everything that dispatch decides is a function of it, so a decision can be cached,
printed and tested on a machine without a GPU. Letters are cuDNN's: N batch, C input channels, H W input size, K output
channels, R S filter size, P Q output size, G groups, u v stride.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch

from fastconv.windows import Windows

ConvPass = Literal["fprop", "dgrad", "wgrad"]
PoolPass = Literal["forward", "backward", "gather", "indices"]
UnpoolPass = Literal["forward", "add", "gather"]

#: What stands beyond the borders of x: PyTorch's words, and "constant" for ConvProblem.padding_value.
PADDING_MODES = ("zeros", "reflect", "replicate", "circular", "constant")

#: What an epilogue can apply, with PyTorch's definitions (gelu is the erf form, leaky_relu has slope 0.01).
ACTIVATIONS = ("identity", "relu", "leaky_relu", "silu", "gelu", "sigmoid", "hardswish", "tanh")


@dataclasses.dataclass(frozen=True, slots=True)
class Operand:
    """Sizes and strides of one tensor, in elements."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Operand:
        return cls(tuple(tensor.shape), tuple(tensor.stride()))

    def last_offset(self) -> int:
        """Distance in elements from the first to the furthest element; -1 for an empty tensor."""
        if 0 in self.sizes:
            return -1
        return sum((size - 1) * stride for size, stride in zip(self.sizes, self.strides, strict=True))

    def is_channels_last(self) -> bool:
        """True where the channel dimension is the innermost one of a dense [N, C, H, W] tensor."""
        _, channels, height, width = self.sizes
        return self.strides == (height * width * channels, 1, width * channels, channels)


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """The device a plan is made for. On CPU tensors it is the device that the emulator plays."""

    device_type: Literal["cpu", "cuda"]
    capability: int  # 80, 90, ...
    multiprocessors: int
    name: str = ""
    l2_bytes: int = 0  # of the second-level cache; 0: as devices of that capability mostly have


@dataclasses.dataclass(frozen=True, slots=True)
class ConvProblem:
    """A convolution pass. x, w and y keep their roles in every pass: dgrad writes x from y, wgrad writes w from y and x.

    Transposed convolution is dgrad whose bias has C elements; in fprop the bias has K.
    """

    conv_pass: ConvPass
    dtype: torch.dtype
    x: Operand  # [N, C, H, W]
    w: Operand  # [K, C/G, R, S]
    y: Operand  # [N, K, P, Q]
    stride: tuple[int, int]  # (u, v)
    padding: tuple[int, int, int, int]  # (top, bottom, left, right)
    dilation: tuple[int, int]
    groups: int
    target: Target
    has_bias: bool = False  # wgrad: the bias gradient [K] is wanted too
    residual: Operand | None = None  # fprop only; sizes of y, added before the activation
    activation: str = "identity"  # of fprop's and dgrad's output
    index_bits: Literal[32, 64] = 32
    allow_tf32: bool = False
    deterministic: bool = True
    padding_mode: str = "zeros"  # one of PADDING_MODES; make_problem says "zeros" wherever that gives the same result
    padding_value: float = 0.0  # of mode "constant"

    @property
    def op(self) -> str:
        return f"conv2d_{self.conv_pass}"

    def flops(self) -> int:
        """Multiply-adds of the dense definition, counted as two operations each, padding taps included."""
        batch, filters, height, width = self.y.sizes
        _, channels_per_group, rows, columns = self.w.sizes
        return 2 * batch * filters * height * width * channels_per_group * rows * columns

    def compulsory_bytes(self) -> int:
        """Bytes that must cross device memory: each element once. What lies under no window is not read, but its gradient is
        written."""
        elements = _count(self.x.sizes) if self.conv_pass == "dgrad" else self.read_elements()
        elements += _count(self.w.sizes) + _count(self.y.sizes)
        if self.residual is not None:
            elements += _count(self.residual.sizes)
        return elements * self.dtype.itemsize

    def read_elements(self) -> int:
        """Elements of x under a window."""
        rows, columns = (
            Windows(
                self.x.sizes[2 + axis],
                self.y.sizes[2 + axis],
                self.w.sizes[2 + axis],
                self.stride[axis],
                self.dilation[axis],
                *self.padding[2 * axis : 2 * axis + 2],
                self.padding_mode,
            ).reached()
            for axis in (0, 1)
        )
        return self.x.sizes[0] * self.x.sizes[1] * rows * columns


@dataclasses.dataclass(frozen=True, slots=True)
class PoolProblem:
    """A max-pooling pass over x [N, C, H, W] and y [N, C, P, Q]; ceil_mode is already in P and Q.

    forward: x -> y, offsets. backward: y (gradient), offsets -> x (gradient). gather: x, offsets -> y, the linear map whose
    transpose is backward. indices: offsets -> int64 flat positions in H*W, with y's sizes and strides.
    """

    pool_pass: PoolPass
    dtype: torch.dtype
    x: Operand
    y: Operand
    offsets: Operand  # y's sizes; the winner's place inside its window, r * S + s
    offsets_dtype: torch.dtype  # uint8 where R*S <= 256, else int32
    kernel: tuple[int, int]  # (R, S)
    stride: tuple[int, int]
    padding: tuple[int, int]  # (vertical, horizontal), both sides
    dilation: tuple[int, int]
    target: Target
    index_bits: Literal[32, 64] = 32

    @property
    def op(self) -> str:
        return f"max_pool2d_{self.pool_pass}"

    def flops(self) -> int:
        return _count(self.y.sizes) * self.kernel[0] * self.kernel[1]

    def compulsory_bytes(self) -> int:
        """Bytes that must cross device memory: each element once. What lies under no window is not read, but its gradient is
        written."""
        outputs = _count(self.y.sizes)
        if self.pool_pass == "indices":
            return outputs * (self.offsets_dtype.itemsize + 8)
        elements = _count(self.x.sizes) if self.pool_pass == "backward" else self._read_elements()
        return elements * self.dtype.itemsize + outputs * (self.dtype.itemsize + self.offsets_dtype.itemsize)

    def _read_elements(self) -> int:
        rows, columns = (
            Windows(
                self.x.sizes[2 + axis],
                self.y.sizes[2 + axis],
                self.kernel[axis],
                self.stride[axis],
                self.dilation[axis],
                self.padding[axis],
            ).reached()
            for axis in (0, 1)
        )
        return self.x.sizes[0] * self.x.sizes[1] * rows * columns


@dataclasses.dataclass(frozen=True, slots=True)
class AdaptivePoolProblem:
    """Max pooling by windows that differ in size: row p of y is of rows floor(p H / P) to ceil((p + 1) H / P) of x.

    forward: x -> y, int64 flat positions in H*W. backward: y (gradient), these -> x (gradient). Only ATen computes it.
    """

    pool_pass: Literal["forward", "backward"]
    dtype: torch.dtype
    x: Operand  # [N, C, H, W]
    y: Operand  # [N, C, P, Q]
    target: Target
    index_bits: Literal[32, 64] = 32

    @property
    def op(self) -> str:
        return f"adaptive_max_pool2d_{self.pool_pass}"

    def flops(self) -> int:
        """Elements in all windows, which overlap."""
        rows, columns = (
            sum(-(-(place + 1) * size // places) - place * size // places for place in range(places))
            for size, places in zip(self.x.sizes[2:], self.y.sizes[2:], strict=True)
        )
        return self.x.sizes[0] * self.x.sizes[1] * rows * columns

    def compulsory_bytes(self) -> int:
        outputs = _count(self.y.sizes)
        return (_count(self.x.sizes) + outputs) * self.dtype.itemsize + outputs * 8


@dataclasses.dataclass(frozen=True, slots=True)
class UnpoolProblem:
    """Values at flat positions in H*W. forward: x, indices -> y, zeros but for x at its indices; the last of equal ones stands.

    add: the same with the sum of equal ones, in their order. gather: y, indices -> x, what is there: the transpose of add, and
    of forward where indices are unique.
    """

    unpool_pass: UnpoolPass
    dtype: torch.dtype
    x: Operand  # [N, C, P, Q]
    indices: Operand  # x's sizes, int64
    y: Operand  # [N, C, H, W]
    target: Target
    index_bits: Literal[32, 64] = 32

    @property
    def op(self) -> str:
        return f"max_unpool2d_{self.unpool_pass}"

    def flops(self) -> int:
        return _count(self.x.sizes)

    def compulsory_bytes(self) -> int:
        values = _count(self.x.sizes)
        others = values if self.unpool_pass == "gather" else _count(self.y.sizes)
        return values * (self.dtype.itemsize + 8) + others * self.dtype.itemsize


@dataclasses.dataclass(frozen=True, slots=True)
class ChannelSumProblem:
    """Sum of x [N, C, H, W] over N, H and W, in a fixed order: the gradient of a bias."""

    dtype: torch.dtype
    x: Operand
    target: Target
    index_bits: Literal[32, 64] = 32

    @property
    def op(self) -> str:
        return "channel_sum"

    def flops(self) -> int:
        return _count(self.x.sizes)

    def compulsory_bytes(self) -> int:
        return (_count(self.x.sizes) + self.x.sizes[1]) * self.dtype.itemsize


@dataclasses.dataclass(frozen=True, slots=True)
class _FusedProblem:
    """A convolution whose output y [N, K, P, Q] is the input of a pool, and is not a result."""

    conv: ConvProblem  # fprop, without a residual
    pool: PoolProblem  # forward, over the convolution's output

    @property
    def dtype(self) -> torch.dtype:
        return self.conv.dtype

    @property
    def x(self) -> Operand:
        return self.conv.x

    @property
    def w(self) -> Operand:
        return self.conv.w

    @property
    def target(self) -> Target:
        return self.conv.target

    @property
    def index_bits(self) -> Literal[32, 64]:
        return self.conv.index_bits

    @property
    def activation(self) -> str:
        return self.conv.activation

    @property
    def allow_tf32(self) -> bool:
        return self.conv.allow_tf32

    def flops(self) -> int:
        """Of the convolution; comparisons are not counted."""
        return self.conv.flops()

    def _compulsory_bytes(self, bytes_of_output: int) -> int:
        inputs = self.conv.read_elements() + _count(self.w.sizes)
        return inputs * self.dtype.itemsize + _count(self.pool.y.sizes) * bytes_of_output


@dataclasses.dataclass(frozen=True, slots=True)
class ConvMaxPoolProblem(_FusedProblem):
    """Max pooling of activation(convolution + bias): x, w -> pool.y and pool.offsets, [N, K, P', Q'] both."""

    @property
    def op(self) -> str:
        return "conv2d_max_pool2d"

    def compulsory_bytes(self) -> int:
        """Bytes that must cross device memory: x and w once, the pooled output and its offsets once."""
        return self._compulsory_bytes(self.dtype.itemsize + self.pool.offsets_dtype.itemsize)


@dataclasses.dataclass(frozen=True, slots=True)
class ConvGlobalMaxProblem(_FusedProblem):
    """The largest of activation(convolution + bias) in each image and filter: x, w -> y [N, K], int64 indices [N, K].

    `pool` has one window that is the whole map, so its offsets are the indices p * Q + q.
    """

    @property
    def op(self) -> str:
        return "conv2d_global_max"

    def compulsory_bytes(self) -> int:
        return self._compulsory_bytes(self.dtype.itemsize + 8)


FusedProblem = ConvMaxPoolProblem | ConvGlobalMaxProblem


@dataclasses.dataclass(frozen=True, slots=True)
class ActivationBackwardProblem:
    """dz of dy [N, C, H, W] through an activation. `saved` is the activation's output for those in
    fastconv.activation.FROM_OUTPUT and its input for the others; all three have the same sizes."""

    dtype: torch.dtype
    dy: Operand
    saved: Operand
    dz: Operand
    activation: str
    target: Target
    index_bits: Literal[32, 64] = 32

    @property
    def op(self) -> str:
        return "activation_backward"

    @property
    def x(self) -> Operand:
        """What the problem's sizes are told from, as of other problems."""
        return self.dz

    def flops(self) -> int:
        return _count(self.dz.sizes)

    def compulsory_bytes(self) -> int:
        return 3 * _count(self.dz.sizes) * self.dtype.itemsize


Problem = (
    ConvProblem
    | PoolProblem
    | AdaptivePoolProblem
    | UnpoolProblem
    | ChannelSumProblem
    | ActivationBackwardProblem
    | FusedProblem
)


def changed(problem: Problem, **fields: Any) -> Problem:
    """The problem with other values for `dtype`, `target` or `allow_tf32`, where it has them: in both parts of a fused one."""
    if isinstance(problem, FusedProblem):
        return dataclasses.replace(problem, conv=changed(problem.conv, **fields), pool=changed(problem.pool, **fields))
    names = {field.name for field in dataclasses.fields(problem)}
    return dataclasses.replace(problem, **{name: value for name, value in fields.items() if name in names})


def _count(sizes: tuple[int, ...]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product
