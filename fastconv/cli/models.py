"""Models that a command line names as package.module:factory, and what becomes of the errors of other people's code."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
import typer

from fastconv.cli.options import fail

DEBUG_HINT = "--debug shows where"


def load_model(target: str, debug: bool = False) -> torch.nn.Module:
    """The model of "package.module:factory", where factory is a module or makes one without arguments.

    What the module or the factory raises ends the command with one line; with `debug` it is raised.
    """
    module_name, _, factory_name = target.partition(":")
    module = import_module(module_name, target, debug)
    factory = getattr(module, factory_name, None)
    if factory is None:
        fail(f"{target}: {module_name} has no {factory_name!r}.")
    if isinstance(factory, torch.nn.Module):
        return _eager(factory, target)
    if not callable(factory):
        fail(
            f"{target}: {factory_name} is a {type(factory).__name__}. Accepted is a torch.nn.Module or what makes one."
        )
    with named_errors(f"{target}: {factory_name}() failed", debug):
        model = factory()
    if not isinstance(model, torch.nn.Module):
        fail(f"{target}: {factory_name} gave a {type(model).__name__}. Accepted is a torch.nn.Module.")
    return _eager(model, target)


def _eager(model: torch.nn.Module, target: str) -> torch.nn.Module:
    if isinstance(model, torch.jit.ScriptModule):
        fail(
            f"{target}: the model is a TorchScript module, whose calls nothing sees. Accepted is the one it was made of."
        )
    return model


def import_module(name: str, target: str, debug: bool = False, hint: str = DEBUG_HINT) -> ModuleType:
    """The module, from the current folder too. `target` is what the command line said; errors as of :func:`load_model`."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    with named_errors(f"{target}: {name} cannot be imported", debug, hint):
        return importlib.import_module(name)


@contextlib.contextmanager
def named_errors(what: str, debug: bool, hint: str = DEBUG_HINT) -> Iterator[None]:
    """Ends the command with one line, `what` and the exception, where the code inside raises anything or exits.

    `hint` says how to see where it was raised.
    """
    try:
        yield
    except typer.Exit:
        raise
    except (Exception, SystemExit) as error:
        if debug:
            raise
        said = str(error).strip().splitlines()
        fail(f"{what}: {type(error).__name__}{f': {said[0]}' if said else ''} ({hint})")


def differentiate(output: Any) -> None:
    """Runs backward from every tensor that has a gradient in what a model returned."""
    if isinstance(output, torch.Tensor):
        output = [output]
    elif isinstance(output, dict):
        output = output.values()
    for tensor in output:
        if isinstance(tensor, torch.Tensor) and tensor.requires_grad:
            tensor.backward(torch.randn_like(tensor), retain_graph=True)
