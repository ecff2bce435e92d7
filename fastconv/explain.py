"""Says, of each primitive that a call runs, what was computed by which kernel, and why that one."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules import module as torch_modules

from fastconv import dispatch
from fastconv.following import Following
from fastconv.plan import Candidate, Plan
from fastconv.problem import (
    ActivationBackwardProblem,
    AdaptivePoolProblem,
    ChannelSumProblem,
    ConvMaxPoolProblem,
    ConvProblem,
    FusedProblem,
    Operand,
    PoolProblem,
    Problem,
    UnpoolProblem,
)
from fastconv.table import as_text

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, Group


@dataclasses.dataclass(frozen=True)
class ExplainedCall:
    """One call of a primitive."""

    layer: str  # the module that was running, by its name in the model, else by its class; empty outside of modules
    is_backward: bool  # whether autograd made the call
    problem: Problem
    asked: str  # backend="..."
    chosen: Candidate
    why: str
    rejected: tuple[Candidate, ...]  # each with its reason
    workspace_bytes: int
    followed_by: tuple[str, ...] = ()  # modules that work on its output next and could be part of its kernel

    @property
    def where(self) -> str:
        return self.layer + (" (backward)" if self.is_backward else "") if self.layer else "backward" * self.is_backward

    def to_dict(self) -> dict[str, Any]:
        """Values that JSON can hold."""
        return {
            "layer": self.layer,
            "is_backward": self.is_backward,
            "op": self.problem.op,
            "problem": _plain(dataclasses.asdict(self.problem)),
            "flops": self.problem.flops(),
            "compulsory_bytes": self.problem.compulsory_bytes(),
            "asked": self.asked,
            "chosen": _candidate_dict(self.chosen),
            "why": self.why,
            "rejected": [_candidate_dict(candidate) for candidate in self.rejected],
            "workspace_bytes": self.workspace_bytes,
            "followed_by": list(self.followed_by),
        }


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What `explain` saw, in the order of the calls. Iterable, and prints as a table."""

    calls: tuple[ExplainedCall, ...]

    def __iter__(self) -> Iterator[ExplainedCall]:
        return iter(self.calls)

    def __len__(self) -> int:
        return len(self.calls)

    def to_dict(self) -> dict[str, Any]:
        """Values that JSON can hold: each call with every candidate, what was predicted and measured of it, and the summary."""
        from fastconv import (
            analysis,
            explain_summary,
        )  # they bring the harness along, which importing fastconv need not
        from fastconv.tuning.keys import candidate_key

        found = explain_summary.analyses(self.calls)
        calls = []
        for call, one in zip(self.calls, found, strict=True):
            looked_at = analysis.candidates_on(call.problem) if one is not None else []
            times = analysis.measured(call.problem)
            calls.append(
                call.to_dict()
                | {
                    "analysis": None if one is None else one.to_dict(),
                    "candidates": [
                        _candidate_dict(candidate)
                        | {
                            "predicted_seconds": analysis.predicted(call.problem, candidate),
                            "measured_seconds": times.get(candidate_key(candidate)),
                        }
                        for candidate in looked_at
                    ],
                }
            )
        return {"calls": calls, "summary": explain_summary.summary(self.calls, found)}

    def on(self, gpu: str) -> Explanation:
        """What `auto` would choose for the same calls on a named GPU (A100, H100, H200), whether or not there is one here."""
        from fastconv import analysis
        from fastconv.bench.hardware import gpu_named
        from fastconv.tuning import choice

        moved = []
        for call in self.calls:
            problem = analysis.on_gpu(call.problem, gpu_named(gpu))
            found = analysis.candidates_on(problem)
            picked = choice.choose(problem, found)
            if picked is None:
                raise RuntimeError(f"no backend here can say what {describe(problem)} would run on")
            rejected = tuple(candidate for candidate in found if not candidate.legal)
            workspace = int(picked[0].details.get("workspace_bytes", 0))
            chosen, why = picked
            moved.append(
                dataclasses.replace(
                    call,
                    problem=problem,
                    asked="auto",
                    chosen=chosen,
                    why=why,
                    rejected=rejected,
                    workspace_bytes=workspace,
                )
            )
        return Explanation(tuple(moved))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Group]:
        from fastconv import explain_summary, explain_text

        found = explain_summary.analyses(self.calls)
        lines = explain_summary.summary(self.calls, found)
        yield explain_text.render(self.calls, found, lines, options.max_width)

    def __str__(self) -> str:
        return as_text(self)


def explain(fn_or_module: Callable[..., Any], *inputs: Any, **keywords: Any) -> Explanation:
    """Calls ``fn_or_module(*inputs, **keywords)`` and tells what each fastconv op in it ran on, and why.

    The call is real: it computes, and a function that calls backward shows the backward passes too. Calls that fastconv is not
    asked to make, such as those of plain torch.nn layers, are not listed; see fastconv.convert and fastconv.intercept. Nor are
    adaptive pools whose windows differ in what torch.compile made: they are its own there.

    Returns:
        An Explanation: iterable, printable, and as values for JSON by ``to_dict()``.

    Raises:
        TypeError: fn_or_module cannot be called. Whatever the call raises.

    >>> import torch, fastconv
    >>> model = torch.nn.Sequential(fastconv.nn.Conv2d(3, 8, 3), fastconv.nn.MaxPool2d(2))
    >>> explanation = fastconv.explain(model, torch.randn(1, 3, 8, 8))
    >>> [(call.layer, call.problem.op, call.chosen.backend) for call in explanation]
    [('0', 'conv2d_fprop', 'aten'), ('1', 'max_pool2d_forward', 'aten')]
    """
    if not callable(fn_or_module):
        raise TypeError(f"explain(): fn_or_module is of type {type(fn_or_module).__name__}, but must be callable")
    calls: list[ExplainedCall] = []
    following = Following()
    with _running_modules(fn_or_module, calls, following) as running:

        def listener(choice: dispatch.Choice, plan: Plan) -> None:
            is_backward = torch._C._current_graph_task_id() != -1
            layer = running[-1] if running and not is_backward else ""
            calls.append(
                ExplainedCall(
                    layer,
                    is_backward,
                    choice.problem,
                    choice.asked,
                    choice.chosen,
                    choice.why,
                    choice.rejected,
                    plan.workspace_bytes,
                )
            )

        with dispatch.listening(listener):
            fn_or_module(*inputs, **keywords)
    return Explanation(
        tuple(dataclasses.replace(call, followed_by=following.after(number)) for number, call in enumerate(calls))
    )


@contextlib.contextmanager
def _running_modules(
    fn_or_module: Callable[..., Any], calls: Sequence[ExplainedCall], following: Following
) -> Iterator[list[str]]:
    """The names of the modules that are running now, the innermost last. `following` hears of each that returns."""
    root = fn_or_module if isinstance(fn_or_module, torch.nn.Module) else None
    names = {} if root is None else {module: name for name, module in root.named_modules()}
    running: list[str] = []
    begun: list[int] = []  # how many calls there were before each of them

    # torch.compile traces the hooks of the modules inside what it compiles, and fails at a module that it meets in `names` too.

    def enter(module: torch.nn.Module, _: Any) -> None:
        if torch.compiler.is_compiling():
            return
        running.append(names.get(module) or type(module).__name__)
        begun.append(len(calls))

    def leave(module: torch.nn.Module, arguments: Any, output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        if running:  # a module that failed before `enter` leaves all the same
            running.pop()
            following.returned(module, arguments, output, [call.problem for call in calls], begun.pop())

    hooks = (
        torch_modules.register_module_forward_pre_hook(enter),
        torch_modules.register_module_forward_hook(leave, always_call=True),
    )
    try:
        yield running
    finally:
        for hook in hooks:
            hook.remove()


# --- in words ---------------------------------------------------------------------------------------------------------


def describe(problem: Problem) -> str:
    """A problem in one line."""
    if isinstance(problem, FusedProblem):
        pool = problem.pool
        words = f", then pool {_pair(pool.kernel)} stride {_pair(pool.stride)}"
        words += f" padding {_pair(pool.padding)}" if any(pool.padding) else ""
        return describe(problem.conv) + (words if isinstance(problem, ConvMaxPoolProblem) else "")
    dtype = _type_name(problem.dtype)
    if isinstance(problem, ActivationBackwardProblem):
        return f"{dtype} dy {_operand(problem.dy)}, {problem.activation}"
    if isinstance(problem, ChannelSumProblem):
        return f"{dtype} x {_operand(problem.x)}"
    if isinstance(problem, UnpoolProblem | AdaptivePoolProblem):
        return f"{dtype} x {_operand(problem.x)}, y {_operand(problem.y)}"
    if isinstance(problem, PoolProblem):
        parts = [
            f"{dtype} x {_operand(problem.x)}",
            f"kernel {_pair(problem.kernel)}",
            f"stride {_pair(problem.stride)}",
        ]
        padding = _pair(problem.padding)
    else:
        parts = [f"{dtype} x {_operand(problem.x)}", f"w {_sizes(problem.w)}", f"stride {_pair(problem.stride)}"]
        top, bottom, left, right = problem.padding
        symmetric = top == bottom and left == right
        padding = _pair((top, left)) if symmetric else f"{top},{bottom},{left},{right}"
    if padding != "0":
        parts.append(f"padding {padding}")
    if problem.dilation != (1, 1):
        parts.append(f"dilation {_pair(problem.dilation)}")
    if not isinstance(problem, PoolProblem):
        extras = {
            f"padded by {_padding_mode(problem)}": problem.padding_mode != "zeros",
            f"groups {problem.groups}": problem.groups != 1,
            "bias": problem.has_bias,
            "residual": problem.residual is not None,
            problem.activation: problem.activation != "identity",
            "tf32": problem.allow_tf32,
        }
        parts += [words for words, is_there in extras.items() if is_there]
    if problem.index_bits == 64:
        parts.append("64-bit offsets")
    return ", ".join(parts)


def _padding_mode(problem: ConvProblem) -> str:
    return f"{problem.padding_value:g}" if problem.padding_mode == "constant" else problem.padding_mode


def _operand(operand: Operand) -> str:
    _, channels, height, width = operand.sizes
    if operand.is_channels_last():
        order = " channels_last"
    else:
        is_dense = operand.strides == (channels * height * width, height * width, width, 1)
        order = "" if is_dense else f" strides {operand.strides}"
    return _sizes(operand) + order


def _sizes(operand: Operand) -> str:
    return "x".join(map(str, operand.sizes))


def _pair(numbers: tuple[int, int]) -> str:
    return str(numbers[0]) if numbers[0] == numbers[1] else f"{numbers[0]}x{numbers[1]}"


def _type_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _candidate_dict(candidate: Candidate) -> dict[str, Any]:
    return _plain(dataclasses.asdict(candidate))


def _plain(value: Any) -> Any:
    """The value in the types of JSON."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value).removeprefix("torch.")
