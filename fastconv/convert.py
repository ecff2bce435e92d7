"""Puts fastconv's kernels under a model that exists, in place, and takes them out again.

A layer is converted by changing its class, and nothing else: it stays the same object with the same parameters, hooks, training
flag and state-dict keys, wherever and however often the model refers to it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrize

from fastconv import arguments, nn
from fastconv.table import as_text

if TYPE_CHECKING:
    from rich.table import Table

#: What becomes what.
REPLACEMENTS: dict[type, type] = {
    torch.nn.Conv2d: nn.Conv2d,
    torch.nn.ConvTranspose2d: nn.ConvTranspose2d,
    torch.nn.MaxPool2d: nn.MaxPool2d,
    torch.nn.AdaptiveMaxPool2d: nn.AdaptiveMaxPool2d,
    torch.nn.MaxUnpool2d: nn.MaxUnpool2d,
}

_ORIGINALS = {new: old for old, new in REPLACEMENTS.items()}
#: Layers that are fastconv's already. The fused ones are subclasses of torch.nn.Conv2d, too.
_OURS = (*_ORIGINALS, nn.Conv2dMaxPool2d, nn.Conv2dGlobalMax)
_QUANTIZED_MODULES = ("torch.ao.nn", "torch.nn.quantized", "torch.nn.intrinsic", "torch.nn.qat")
_PARAMETRIZED = re.compile("Parametrized(Conv2d|ConvTranspose2d|MaxPool2d|AdaptiveMaxPool2d|MaxUnpool2d)")
_MARK = "_fastconv_converted"
_REBASED_FROM = "_fastconv_rebased_from"


@dataclasses.dataclass(frozen=True)
class ConvertedLayer:
    """One layer of the report."""

    names: tuple[str, ...]  # several where the model holds one module under several names; "" is the model itself
    was: str
    now: str  # empty where it was left
    reason: str  # why it was left; empty where it was replaced

    @property
    def converted(self) -> bool:
        return not self.reason


@dataclasses.dataclass(frozen=True)
class ConversionReport:
    """What `convert` did to each layer that it knows or that looks as if it should. Iterable, and prints as a table."""

    layers: tuple[ConvertedLayer, ...]

    @property
    def converted(self) -> list[ConvertedLayer]:
        return [layer for layer in self.layers if layer.converted]

    @property
    def left(self) -> list[ConvertedLayer]:
        return [layer for layer in self.layers if not layer.converted]

    def __iter__(self) -> Iterator[ConvertedLayer]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def to_dict(self) -> list[dict[str, Any]]:
        return [dataclasses.asdict(layer) for layer in self.layers]

    def __rich__(self) -> Table:
        from rich.table import Table

        table = Table(title=f"fastconv: {len(self.converted)} layers converted, {len(self.left)} left")
        for heading in ("layer", "was", "is now", "or why not"):
            table.add_column(heading, overflow="fold")
        for layer in self.layers:
            names = ", ".join(name or "(the model)" for name in layer.names)
            table.add_row(names, layer.was, layer.now, layer.reason)
        return table

    def __str__(self) -> str:
        return as_text(self)


def convert(
    model: torch.nn.Module, *, backend: str | None = None, memory_format: torch.memory_format | None = None
) -> ConversionReport:
    """Makes every torch.nn.Conv2d, ConvTranspose2d and 2-D max pooling layer in the model a fastconv.nn one, in place.

    Only exact instances are replaced, and those whose parametrization is all that makes them a subclass: what another subclass
    does differently is not known. A model wrapped by torch.compile or DistributedDataParallel may be given as it is.

    Layers that are fastconv's already are left alone, unless a backend is named that they do not have: those that an earlier
    call converted get it, and those that were built as fastconv's are reported as left.

    Args:
        backend: what the layers are to insist on; None or "auto" lets each choose.
        memory_format: torch.channels_last lays the weights of the converted layers so, as `module.to(memory_format=...)` does.
            Their outputs are channels_last then whatever the input is, so the whole model runs without turning tensors, and the
            tensor-core kernels read weights and pixels as they are. torch.contiguous_format turns them back; None leaves them.

    Returns:
        A report to print: each layer and what replaced it, or why it was left.

    Raises:
        TypeError: the model is not a torch.nn.Module, or is a TorchScript module, whose code is fixed; memory_format is none.
        ValueError: an unknown backend, or another memory format.

    >>> import torch, fastconv
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2))
    >>> report = fastconv.convert(model)
    >>> [(layer.names[0], layer.now) for layer in report]
    [('0', 'fastconv.nn.Conv2d'), ('2', 'fastconv.nn.MaxPool2d')]
    >>> len(fastconv.revert(model))
    2
    """
    arguments.backend("convert", backend)
    if not any(memory_format is one for one in (None, torch.channels_last, torch.contiguous_format)):
        error = ValueError if isinstance(memory_format, torch.memory_format) else TypeError
        raise error(
            f"convert(): memory_format is {memory_format!r}, but must be torch.channels_last, torch.contiguous_format or None"
        )
    layers = []
    for names, module in _named_once(model, "convert"):
        if not _is_candidate(module):
            if isinstance(module, _OURS) and backend not in (None, module.backend or "auto"):
                layers.append(_with_backend(names, module, backend))
            continue
        was = _full_name(type(module))
        reason = _why_left(module)
        if not reason:
            module.__class__ = _rebased(type(module), REPLACEMENTS[_base(module)])
            module.__dict__[_MARK] = True
            if backend is not None:
                module.backend = backend
            if memory_format is not None:
                module.to(memory_format=memory_format)
        layers.append(ConvertedLayer(names, was, "" if reason else _full_name(type(module)), reason))
    return ConversionReport(tuple(layers))


def _with_backend(names: tuple[str, ...], module: torch.nn.Module, backend: str) -> ConvertedLayer:
    """What becomes of a layer that is fastconv's already and has another backend."""
    name = _full_name(type(module))
    if _MARK not in module.__dict__:
        return ConvertedLayer(
            names, name, "", f"built as fastconv's, with backend={module.backend!r}: set the attribute"
        )
    module.backend = backend
    return ConvertedLayer(names, name, name, "")


def revert(model: torch.nn.Module) -> ConversionReport:
    """Undoes `convert`: every layer that it replaced is of its own class again. Layers built as fastconv.nn's stay so.

    Returns a report of the same form; TypeError as of `convert`.
    """
    layers = []
    for names, module in _named_once(model, "revert"):
        if _MARK not in module.__dict__:
            continue
        was = _full_name(type(module))
        if module.__dict__.get("activation") is not None:
            reason = f"activation={module.activation!r} was set since, which torch.nn's layer does not have"
            layers.append(ConvertedLayer(names, was, "", reason))
            continue
        module.__class__ = _rebased(type(module), _ORIGINALS[_base(module)])
        for attribute in (_MARK, "activation", "backend"):
            module.__dict__.pop(attribute, None)
        layers.append(ConvertedLayer(names, was, _full_name(type(module)), ""))
    return ConversionReport(tuple(layers))


def _named_once(model: torch.nn.Module, caller: str) -> Iterator[tuple[tuple[str, ...], torch.nn.Module]]:
    """Each module of the model once, with all its names."""
    if not isinstance(model, torch.nn.Module):
        value = repr(model)
        value = value if len(value) <= 80 else f"{value[:77]}..."
        raise TypeError(f"{caller}(): model is {value} of type {type(model).__name__}, but must be a torch.nn.Module")
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            f"{caller}(): model is a TorchScript module ({type(model).__name__}), whose code is fixed; {caller} the "
            "torch.nn.Module before torch.jit.script or torch.jit.trace"
        )
    names: dict[torch.nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    for module, all_names in names.items():
        yield tuple(all_names), module


def _is_candidate(module: torch.nn.Module) -> bool:
    """Whether the report should say something about it."""
    if isinstance(module, _OURS):
        return False
    if isinstance(module, tuple(REPLACEMENTS)):
        return True
    kind = getattr(module, "original_name", type(module).__name__)  # a TorchScript submodule has another class
    looks_like_one = any(base.__name__ in kind for base in REPLACEMENTS)
    return looks_like_one and (isinstance(module, torch.jit.ScriptModule) or _is_quantized(module))


def _is_quantized(module: torch.nn.Module) -> bool:
    return type(module).__module__.startswith(_QUANTIZED_MODULES)


def _base(module: torch.nn.Module) -> type:
    """The class of the module, without its parametrizations."""
    cls = type(module)
    return cls.__bases__[0] if _is_parametrized_class(module) else cls


def _is_parametrized_class(module: torch.nn.Module) -> bool:
    return (
        parametrize.is_parametrized(module)
        and type(module).__name__ == f"Parametrized{type(module).__bases__[0].__name__}"
    )


def _why_left(module: torch.nn.Module) -> str:
    if isinstance(module, torch.jit.ScriptModule):
        return "a TorchScript module, whose code is fixed"
    if _is_quantized(module):
        return "quantised, or prepared for it"
    if isinstance(module, LazyModuleMixin):
        return "not initialised yet: run one batch through the model, then convert"
    base = _base(module)
    if base not in REPLACEMENTS:
        known = next(cls for cls in REPLACEMENTS if isinstance(module, cls))
        return f"a subclass of torch.nn.{known.__name__}, which may compute something else"
    for method in ("forward", "_conv_forward"):
        if method in module.__dict__:
            return f"its {method} was replaced on this one object"
    taken = [name for name in ("activation", "backend") if hasattr(module, name)]
    if taken:
        return f"has an attribute of its own named {taken[0]!r}, which fastconv's layer needs"
    return ""


def _rebased(cls: type, base: type) -> type:
    """`base`, or the parametrized class like `cls` on top of it."""
    if cls in REPLACEMENTS or cls in _ORIGINALS:
        return base
    before = cls.__dict__.get(_REBASED_FROM)
    if before is not None and before.__bases__ == (base,):
        return before
    members = {name: value for name, value in cls.__dict__.items() if name not in ("__dict__", "__weakref__")}
    return type(f"Parametrized{base.__name__}", (base,), members | {_REBASED_FROM: cls})


def _full_name(cls: type) -> str:
    for package, classes in (("fastconv.nn", _ORIGINALS), ("torch.nn", REPLACEMENTS)):
        if cls in classes:
            return f"{package}.{cls.__name__}"
        if cls.__bases__[0] in classes and _PARAMETRIZED.fullmatch(cls.__name__):
            return f"{package}.{cls.__bases__[0].__name__}, parametrized"
    return f"{cls.__module__}.{cls.__qualname__}"
