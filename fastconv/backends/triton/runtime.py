"""One kernel source, run two ways: compiled on CUDA tensors, interpreted on CPU tensors, chosen per launch.

`triton.runtime.interpreter` runs a kernel as plain Python on numpy arrays. It replaces the members of `triton.language` while
it runs, so interpretation and compilation must not overlap: every launch holds one lock. Device functions are found through
the globals of the kernel; an interpreted kernel is a copy whose globals hold the interpreted copies of its device functions,
so the originals stay compilable.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
import inspect
import itertools
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy
import torch
import triton
import triton.language as tl
from triton.runtime import interpreter

#: Held while Triton interprets or compiles, because the interpreter patches `triton.language` for the whole process.
language_lock = threading.RLock()

#: Compiled device function -> what stands in for it when interpreted, where that is not its own source.
_stand_ins: dict[Any, Callable] = {}


def device_function(function: Callable | None = None, *, interpreted: Callable | None = None):
    """Decorator of a function that kernels call. `interpreted` replaces it where the interpreter needs another way."""
    if function is None:
        return functools.partial(device_function, interpreted=interpreted)
    compiled = triton.jit(function)
    if interpreted is not None:
        _stand_ins[compiled] = interpreted
    return compiled


class Kernel:
    """A kernel: `compiled` is Triton's own function object, `interpreted` a plain function that the interpreter can run.

    Integer arguments are never specialised on their value, so the number of compiled variants is known: one for each set of
    constants. What the compiler should know about an integer reaches it through a constant.
    """

    def __init__(self, function: Callable) -> None:
        parameters = inspect.signature(function).parameters
        self.name = function.__name__
        self.constants = tuple(name for name, p in parameters.items() if "constexpr" in str(p.annotation))
        self.pointers = tuple(name for name in parameters if name.endswith("_pointer"))
        self.scalars = tuple(name for name in parameters if name not in self.constants + self.pointers)
        self.compiled = triton.jit(function, do_not_specialize=self.scalars)

    @functools.cached_property
    def interpreted(self) -> Callable:
        return _interpreted_copy(self.compiled)


kernel = Kernel


@dataclasses.dataclass(frozen=True)
class Launch:
    """One launch of a kernel, complete but for the tensors: the argument `x_pointer` takes the tensor in the role "x"."""

    kernel: Kernel
    programs: int
    scalars: Mapping[str, int]
    constants: Mapping[str, Any]
    num_warps: int = 4
    num_stages: int = 1
    max_registers: int | None = None  # of one thread; without it the assembler spills a little to fit more blocks
    descriptors: bool = False  # the kernel makes tensor descriptors, for which Triton asks for memory at each launch
    asserts: bool = False  # what the kernel asserts is checked on a GPU; CPU tensors are checked before a launch
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)  # the kernel's role -> the problem's

    @property
    def roles(self) -> dict[str, str]:
        """Argument -> role, for every tensor that the kernel takes."""
        names = {argument: argument.removesuffix("_pointer") for argument in self.kernel.pointers}
        return {argument: self.aliases.get(name, name) for argument, name in names.items()}

    def options(self) -> dict[str, Any]:
        """How Triton is to compile the launch."""
        options: dict[str, Any] = {"num_warps": self.num_warps, "num_stages": self.num_stages}
        if self.asserts:
            options |= {"debug": True, "sanitize_overflow": False}  # and none about overflow, which debugging adds
        if self.max_registers is not None and torch.version.hip is None:
            options["maxnreg"] = self.max_registers
        return options

    def run(self, tensors: Mapping[str, torch.Tensor | None], device: torch.device) -> None:
        """Launch on the tensors of these roles; an absent tensor is None."""
        if self.programs == 0:
            return
        pointers = {argument: tensors.get(role) for argument, role in self.roles.items()}
        arguments = {**pointers, **self.scalars, **self.constants}
        with language_lock:
            if device.type == "cpu":
                _interpret(self.kernel, self.programs, arguments)
            else:
                with torch.cuda.device(device):  # Triton launches on the current device and its current stream
                    if self.descriptors:
                        # In a context of its own, so that the allocator that someone else has set stays set.
                        contextvars.copy_context().run(self._launch_with_memory, arguments, device)
                    else:
                        self.kernel.compiled[(self.programs, 1, 1)](**arguments, **self.options())

    def _launch_with_memory(self, arguments: Mapping[str, Any], device: torch.device) -> None:
        triton.set_allocator(lambda size, alignment, stream: torch.empty(size, dtype=torch.int8, device=device))
        self.kernel.compiled[(self.programs, 1, 1)](**arguments, **self.options())


def _interpret(kernel: Kernel, programs: int, arguments: Mapping[str, Any]) -> None:
    """Runs every program in order, directly on the memory of the tensors.

    Triton's own executor copies every storage back onto itself after each launch, which would write to read-only memory and
    touch whole storages behind small views.
    """
    function = kernel.interpreted
    builder = interpreter.interpreter_builder
    options = builder.options
    scope = interpreter._patch_lang(function)
    # Triton 3.6 converts a one-element array here in a way that numpy 2.4 refuses.
    scope.set_attr(tl.tensor, "__index__", lambda self: int(self.handle.data.item()))
    # The overflow checks double the time, and report nothing unless debug is on.
    builder.options = dataclasses.replace(options, sanitize_overflow=options.debug)
    try:
        values = {
            name: value if name in kernel.constants else interpreter._implicit_cvt(value)
            for name, value in arguments.items()
        }
        builder.set_grid_dim(programs, 1, 1)
        with numpy.errstate(all="ignore"):
            for program in range(programs):
                builder.set_grid_idx(program, 0, 0)
                function(**values)
    finally:
        builder.options = options
        scope.restore()


@contextlib.contextmanager
def index_overflow_checks() -> Iterator[None]:
    """Interpreted kernels raise inside where 32-bit integer arithmetic overflows."""
    builder = interpreter.interpreter_builder
    options = builder.options
    builder.options = dataclasses.replace(options, debug=True)
    try:
        yield
    finally:
        builder.options = options


@functools.cache
def _interpreted_copy(compiled: Any) -> Callable:
    """The plain function behind a compiled one, with the device functions it names replaced by interpreted ones."""
    if compiled in _stand_ins:
        return _stand_ins[compiled]
    source = compiled.fn
    names = dict(source.__globals__)
    for name in _names_used(source.__code__):
        if isinstance(names.get(name), triton.JITFunction):
            names[name] = _interpreted_copy(names[name])
    copy = types.FunctionType(source.__code__, names, source.__name__, source.__defaults__, source.__closure__)
    copy.__annotations__ = source.__annotations__
    copy.__kwdefaults__ = source.__kwdefaults__
    copy.__module__ = source.__module__
    return interpreter.InterpretedFunction(copy).rewrite()


def _names_used(code: types.CodeType) -> set[str]:
    inner = (_names_used(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(itertools.chain(code.co_names, *inner))
