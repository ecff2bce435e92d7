"""`fastconv.register_kernel`: a kernel of one's own under the ops, beside the built-in ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from fastconv import dispatch
from fastconv.backends import registered
from fastconv.problem import Problem

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def register_kernel(
    op: str,
    name: str | None = None,
    *,
    can_implement: Callable[[Problem], str],
    configs: Callable[[Problem], Sequence[str]] | Sequence[str] = ("",),
    predict: Callable[[Problem, str], float] | None = None,
    preferred: bool = False,
) -> Callable[[Kernel], Kernel]:
    """Makes a function a kernel of one of the primitives: a Triton kernel, an extension's, or plain PyTorch.

    It is a candidate from then on: ``backend="registered"`` insists on it, ``fastconv.explain`` lists it with its reasons,
    ``fastconv --import MODULE bench`` and ``tune`` measure it (MODULE is the one that registers it), and "auto"
    takes it on a GPU where it measured fastest. With ``preferred=True`` "auto" takes it wherever it can run, on any device, so
    that models, gradcheck and ``pytest tests/fuzz -p MODULE --fuzz-backends auto`` run on it, and the built-in kernels do the
    rest.

    The function is called as ``function(problem, config, *tensors)``. The problem says sizes, strides, dtype, padding and so on
    (:class:`fastconv.problem.ConvProblem` and its kin); which tensors come and what is to be returned is in the table of
    :class:`fastconv.plan.Plan`. Inputs may have any strides. Results with other strides than the problem's are copied; other
    sizes, dtypes or devices are a RuntimeError.

    Args:
        op: "conv2d_fprop", "conv2d_dgrad", "conv2d_wgrad", "max_pool2d_forward", ... : the ops of that table.
        name: how it is called in candidates and reports; the function's name where left out.
        can_implement: why the kernel cannot run a problem, in one line, or an empty str where it can. It is all that stands
            between a problem and a kernel that was not written for it: padding modes, activations, residuals, groups, index
            width and dtype are its business.
        configs: the configurations of a problem, best guess first; each is a candidate of its own, and the str is what the
            function is given.
        predict: seconds that a cost model predicts for a problem and config.
        preferred: "auto" takes it before all others.

    Raises:
        ValueError: an op that there is not; a name that another function has for this op. The same function, defined
            again, replaces itself.

    >>> import torch, fastconv
    >>> def no_frills(problem):
    ...     plain = problem.padding_mode == "zeros" and problem.activation == "identity" and problem.residual is None
    ...     pads_evenly = problem.padding[0::2] == problem.padding[1::2]
    ...     return "" if plain and pads_evenly else "it pads evenly with zeros, and has no epilogue"
    >>> @fastconv.register_kernel("conv2d_fprop", can_implement=no_frills)
    ... def by_aten(problem, config, x, w, bias, residual):
    ...     return torch.conv2d(x, w, bias, problem.stride, problem.padding[0::2], problem.dilation, problem.groups)
    >>> fastconv.conv2d(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 3, 3), backend="registered").flatten()
    tensor([9., 9., 9., 9.])
    >>> fastconv.unregister_kernel("conv2d_fprop", "by_aten")
    """
    if op not in registered.RESULTS:
        raise ValueError(f"op is {op!r}, but must be one of {', '.join(map(repr, registered.RESULTS))}")
    if not callable(can_implement):
        raise TypeError(f"can_implement is {can_implement!r}, but must be a function of a problem")
    if predict is not None and not callable(predict):
        raise TypeError(f"predict is {predict!r}, but must be a function of a problem and a config, or None")
    if isinstance(configs, str):
        raise TypeError(
            f"configs is {configs!r}, but must be a sequence of str or a function of a problem that returns one"
        )
    of_problem = configs if callable(configs) else lambda problem, chosen=tuple(configs): chosen

    def register(function: Kernel) -> Kernel:
        chosen = name or function.__name__
        before = registered.backend.kernels.get((op, chosen))
        if before is not None and _place(before.run) != _place(function):
            raise ValueError(
                f"name is {chosen!r}, which {_place(before.run)} has for {op}; "
                "take another name, or fastconv.unregister_kernel(op, name) first"
            )
        registered.backend.kernels[op, chosen] = registered.RegisteredKernel(
            op, chosen, function, can_implement, of_problem, predict, preferred
        )
        dispatch.clear()
        return function

    return register


def unregister_kernel(op: str, name: str) -> None:
    """Takes a registered kernel out again. KeyError where there is none of that op and name.

    >>> import fastconv
    >>> fastconv.unregister_kernel("conv2d_fprop", "never registered")
    Traceback (most recent call last):
    ...
    KeyError: "no kernel 'never registered' of conv2d_fprop is registered; there are none"
    """
    if (op, name) not in registered.backend.kernels:
        there = ", ".join(f"{other!r} of {of}" for of, other in registered.backend.kernels) or "none"
        raise KeyError(f"no kernel {name!r} of {op} is registered; there are {there}")
    del registered.backend.kernels[op, name]
    dispatch.clear()


def _place(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', repr(function))}"
