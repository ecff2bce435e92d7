"""Tensor-core kernels by name and configuration, on tensors, through the compiled emulator."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from fastconv import emulator

NAMES = {torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float32: "float32"}
Pair = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Case:
    """One convolution pass with its data layout. Prints the line that repeats it."""

    conv_pass: str
    dtype: torch.dtype
    x: tuple[int, int, int, int]
    w: tuple[int, int, int, int]
    stride: Pair = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = False
    residual: bool = False
    activation: str = "identity"
    x_last: bool = True  # channels-last
    w_last: bool = True
    y_last: bool = True
    allow_tf32: bool = False
    capability: int = 80
    multiprocessors: int = 108
    l2_bytes: int = 0
    index_bits: int = 32
    most_workspace_bytes: int = 256 << 20
    padding_mode: str = "zeros"
    padding_value: float = 0.0

    @property
    def y(self) -> tuple[int, int, int, int]:
        spans = [
            self.x[2 + i] + self.padding[2 * i] + self.padding[2 * i + 1] - self.dilation[i] * (self.w[2 + i] - 1) - 1
            for i in (0, 1)
        ]
        return (self.x[0], self.w[0], spans[0] // self.stride[0] + 1, spans[1] // self.stride[1] + 1)

    @property
    def kernel(self) -> str:
        return f"mma_{self.conv_pass}"

    def problem(self, compiled: Any, tensors: dict[str, torch.Tensor] | None = None) -> Any:
        def operand(name: str, size: tuple[int, ...], last: bool) -> Any:
            if tensors is not None:
                return list(size), list(tensors[name].stride())
            _, c, h, w = size
            return list(size), [c * h * w, 1, w * c, c] if last else [c * h * w, h * w, w, 1]

        return compiled.ConvProblem(
            conv_pass=self.conv_pass,
            dtype=NAMES[self.dtype],
            x=operand("x", self.x, self.x_last),
            w=operand("w", self.w, self.w_last),
            y=operand("y", self.y, self.y_last),
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            has_bias=self.bias,
            residual=operand("residual", self.y, self.y_last) if self.residual else None,
            activation=self.activation,
            allow_tf32=self.allow_tf32,
            capability=self.capability,
            multiprocessors=self.multiprocessors,
            l2_bytes=self.l2_bytes,
            index_bits=self.index_bits,
            most_workspace_bytes=self.most_workspace_bytes,
            padding_mode=self.padding_mode,
            padding_value=self.padding_value,
        )

    def candidates(self) -> list[Any]:
        """Of the tensor-core kernel, legal or not."""
        compiled = emulator.module()
        return [one for one in compiled.candidates(self.problem(compiled)) if one.kernel == self.kernel]

    def configs(self) -> list[str]:
        return [one.config for one in self.candidates() if not one.reason]

    def tensors(self, seed: int = 0, kind: str = "integers") -> dict[str, torch.Tensor]:
        """x, w, y, bias and residual; the pass's outputs are among them and get overwritten."""
        generator = torch.Generator().manual_seed(seed)

        def draw(size: tuple[int, ...], last: bool = False) -> torch.Tensor:
            if kind == "integers":
                values = torch.randint(-2, 3, size, generator=generator).double()
                values *= torch.randint(0, 2, size, generator=generator)
            else:
                values = torch.randn(size, generator=generator, dtype=torch.float64)
            values = values.to(self.dtype)
            return values.contiguous(memory_format=torch.channels_last) if last else values

        outputs = self.w[1] * self.groups if self.conv_pass == "dgrad" else self.w[0]
        found = {"x": draw(self.x, self.x_last), "w": draw(self.w, self.w_last), "y": draw(self.y, self.y_last)}
        if self.bias:
            found["bias"] = draw((outputs,))
        if self.residual:
            found["residual"] = draw(self.y, self.y_last)
        return found

    def reference(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The pass's outputs in float64."""
        doubles = {name: tensor.double() for name, tensor in tensors.items()}
        x, w, y = (doubles[name].clone().requires_grad_() for name in ("x", "w", "y"))
        top, bottom, left, right = self.padding
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        value = self.padding_value if mode == "constant" else None
        padded = torch.nn.functional.pad(x, (left, right, top, bottom), mode, value)
        output = torch.nn.functional.conv2d(padded, w, None, self.stride, 0, self.dilation, self.groups)
        if self.conv_pass == "wgrad":
            (gradient,) = torch.autograd.grad(output, w, y)
            return {"w": gradient} | ({"bias": y.detach().sum((0, 2, 3))} if self.bias else {})
        name = "y" if self.conv_pass == "fprop" else "x"
        result = output.detach() if name == "y" else torch.autograd.grad(output, x, y)[0]
        if self.bias:
            result = result + doubles["bias"].view(1, -1, 1, 1)
        if self.residual:
            result = result + doubles["residual"]
        functions = {"identity": lambda value: value, "relu": torch.relu, "silu": torch.nn.functional.silu}
        return {name: functions[self.activation](result)}

    def run(self, config: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The pass's outputs, into memory that held NaN; the workspace held NaN too."""
        compiled = emulator.module()
        plan = compiled.Plan(self.problem(compiled, tensors), self.kernel, config)
        outputs = {"fprop": ["y"], "dgrad": ["x"], "wgrad": ["w", "bias"]}[self.conv_pass]
        used = {
            name: torch.full_like(tensor, float("nan")) if name in outputs else tensor
            for name, tensor in tensors.items()
        }
        workspace = torch.full((plan.workspace_bytes + 16,), 255, dtype=torch.uint8)
        start = workspace.data_ptr()
        pointers = [used[name].data_ptr() if name in used else 0 for name in ("x", "w", "y", "bias", "residual")]
        plan.launch(pointers, start + -start % 16)
        return {name: used[name] for name in outputs if name in used}


def assert_exact(case: Case, config: str, seed: int = 0) -> None:
    tensors = case.tensors(seed)
    expected = case.reference(tensors)
    for name, result in case.run(config, tensors).items():
        wrong = result != expected[name].to(result.dtype)  # the sums are exact, and are rounded once
        assert not wrong.any(), (
            f"{name}: {int(wrong.sum())} of {wrong.numel()} elements are wrong, the first at "
            f"{wrong.nonzero()[0].tolist()}\n{repeat_line('assert_exact', case, config, seed)}"
        )


def repeat_line(function: str, case: Case, config: str, seed: int) -> str:
    return f'repeat with: python -c "from tests.core.mma_support import *; {function}({case!r}, {config!r}, {seed})"'


def assert_accurate(case: Case, config: str, seed: int = 0) -> None:
    """On normal numbers: within the roundings of the operands, of a float32 sum in any order, and of the output."""
    tensors = case.tensors(seed, kind="normal")
    expected = case.reference(tensors)
    positive = dataclasses.replace(case, activation="identity", padding_value=abs(case.padding_value))
    magnitude = positive.reference({name: tensor.abs() for name, tensor in tensors.items()})
    terms = max(case.y[0] * case.y[2] * case.y[3], case.w[0], case.w[1]) * case.w[2] * case.w[3] + 4
    of_operands = 2.0**-10 if case.allow_tf32 and case.dtype == torch.float32 else 2.0**-21
    of_output = torch.finfo(case.dtype).eps / 2
    for name, result in case.run(config, tensors).items():
        allowed = (of_operands + terms * 2.0**-24) * magnitude[name] + of_output * 1.01 * expected[name].abs()
        wrong = ~((result.double() - expected[name]).abs() <= allowed + torch.finfo(case.dtype).smallest_normal)
        assert not wrong.any(), (
            f"{name}: {int(wrong.sum())} of {wrong.numel()} elements are too far away, the first at "
            f"{wrong.nonzero()[0].tolist()}\n{repeat_line('assert_accurate', case, config, seed)}"
        )
