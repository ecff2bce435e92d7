"""How the derivative of a primitive reaches PyTorch: eager autograd, forward mode, torch.func, torch.compile.

A PrimitiveFunction holds the derivative rules of one op. They are installed as the op's kernel for the Autograd dispatch key,
so there is one path whoever calls: the functional, torch.ops.fastconv, or `apply`.

torch.library.register_autograd is not enough here: an op registered with it refuses torch.func.grad and gives zero tangents,
silently, in torch.func.jvp.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._functorch.autograd_function import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

from fastconv import library, recording


class PrimitiveFunction(torch.autograd.Function):
    """Base of the Functions. A subclass is decorated with the op it belongs to.

    It gives `setup_context` and `backward`, as any Function with a context of its own, and `tangent`.

    `tangent(ctx, saved, *tangents)` is the derivative of the outputs along the tangents (None where an input has none); `saved`
    are the tensors that `setup_context` gave to `save`.
    """

    primitive: torch._ops.OpOverload

    @classmethod
    def apply(cls, *arguments: Any) -> Any:
        """The op itself, all arguments by position."""
        return cls.primitive(*arguments)

    @staticmethod
    def tangent(ctx: Any, saved: tuple[Tensor | None, ...], *tangents: Tensor | None) -> Any:
        raise NotImplementedError


def forward_mode() -> bool:
    """Whether tangents are being carried, so that an input may have one without requiring a gradient."""
    return forward_ad._current_level >= 0


def save(ctx: Any, *tensors: Tensor | None) -> None:
    """Keeps tensors for `backward`, and for `tangent` where it may be called."""
    ctx.save_for_backward(*tensors)
    if forward_mode():
        ctx.save_for_forward(*tensors)


def derivative_of(primitive: torch._ops.OpOverload) -> Callable[[type[PrimitiveFunction]], type[PrimitiveFunction]]:
    """Installs the decorated Function as the derivative of the op."""

    def install(cls: type[PrimitiveFunction]) -> type[PrimitiveFunction]:
        cls.primitive = primitive
        library.LIBRARY.impl(primitive, _autograd_kernel(cls), "Autograd")
        return cls

    return install


def _autograd_kernel(cls: type[PrimitiveFunction]) -> Callable[..., Any]:
    primitive = cls.primitive

    def below_autograd(*arguments: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return primitive(*arguments)

    def next_transform(grad_mode: bool):
        # Autograd turns gradients off around a Function's forward. The transforms further out still need to record it.
        def forward(*arguments: Any) -> Any:
            with recording.recorded(), torch.set_grad_enabled(grad_mode), forward_ad._set_fwd_grad_enabled(True):
                return below_autograd(*arguments)

        return forward

    def jvp(ctx: Any, *tangents: Tensor | None) -> Any:
        return cls.tangent(ctx, ctx.saved_tensors, *tangents)

    def jvp_in_transform(ctx: Any, *tangents: Tensor | None) -> Any:
        # The same for forward mode. This level's tangents must be off the saved tensors then.
        saved = tuple(None if t is None else forward_ad.unpack_dual(t, level=0).primal for t in ctx.saved_tensors)
        with forward_ad._set_fwd_grad_enabled(True):
            return cls.tangent(ctx, saved, *tangents)

    def level(forward: Any, jvp: Any) -> type:
        """The Function of one autograd level, as kernels below torch.func's own dispatch want it."""
        methods = {"forward": forward, "setup_context": cls.setup_context, "backward": cls.backward, "jvp": jvp}
        return type(cls.__name__, (_SingleLevelFunction,), {name: staticmethod(f) for name, f in methods.items()})

    def recorded(*arguments: Any) -> Any:
        with recording.recorded():
            return below_autograd(*arguments)

    plain = level(recorded, jvp)
    in_transform = {mode: level(next_transform(mode), jvp_in_transform) for mode in (False, True)}

    def kernel(*arguments: Any) -> Any:
        if torch._C._are_functorch_transforms_active():
            with enable_single_level_autograd_function():
                return in_transform[torch.is_grad_enabled()].apply(*arguments)
        if (torch.is_grad_enabled() and torch._C._any_requires_grad(*arguments)) or forward_mode():
            return plain.apply(*arguments)
        return below_autograd(*arguments)

    return kernel
