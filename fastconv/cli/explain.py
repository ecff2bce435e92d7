"""fastconv explain: which kernel a layer or a model runs on, and why that one."""

from __future__ import annotations

import enum
import functools
import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

import fastconv
from fastconv.cli.options import BackendName, DeviceName, fail, parse_pair, parse_size, require_backend
from fastconv.explain import Explanation
from fastconv.problem import ACTIVATIONS

OPS = ("conv2d", "conv_transpose2d", "max_pool2d")

Activation = enum.Enum("Activation", {name: name for name in ACTIVATIONS}, type=str)


class DataType(str, enum.Enum):
    float64 = "float64"
    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


def explain(
    target: Annotated[
        str, typer.Argument(help="conv2d, conv_transpose2d, max_pool2d, or package.module:factory of a model.")
    ],
    size: Annotated[str | None, typer.Argument(help="The op's input, NxCxHxW or CxHxW.")] = None,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", help="A model's input, NxCxHxW; once for each.")
    ] = None,
    out_channels: Annotated[int | None, typer.Option(min=1, help="K. Left out: as many as input channels.")] = None,
    kernel: Annotated[str, typer.Option(help="R or RxS.")] = "3",
    stride: Annotated[str | None, typer.Option(help="u or uxv. Left out: 1, for a pool its kernel.")] = None,
    padding: Annotated[str, typer.Option(help="Rows or rows x columns; for conv2d also same and valid.")] = "0",
    output_padding: Annotated[str, typer.Option(help="For conv_transpose2d.")] = "0",
    dilation: Annotated[str, typer.Option(help="One number or two.")] = "1",
    groups: Annotated[int, typer.Option(min=1, help="G.")] = 1,
    bias: Annotated[bool, typer.Option(help="With a bias or without.")] = True,
    activation: Annotated[Activation, typer.Option(help="Applied by the convolution's kernel.")] = Activation.identity,
    ceil_mode: Annotated[bool, typer.Option("--ceil-mode", help="For max_pool2d.")] = False,
    dtype: Annotated[DataType, typer.Option(help="Of inputs and weights.")] = DataType.float32,
    channels_last: Annotated[bool, typer.Option("--channels-last", help="Input and weight channels_last.")] = False,
    backward: Annotated[bool, typer.Option("--backward", help="Run the gradients' passes too.")] = False,
    backend: Annotated[BackendName, typer.Option(help="Choose, or insist.")] = BackendName.auto,
    device: Annotated[DeviceName, typer.Option(help="auto: the GPU if there is one.")] = DeviceName.auto,
    gpu: Annotated[
        str | None, typer.Option(help="What auto would choose on an A100, H100 or H200, predicted where not measured.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run a layer or a model once and print which kernel each op ran on, why, and what was not possible.

    A model's plain torch.nn layers are sent to fastconv while it runs. On a CPU the cuda and triton backends are emulated,
    which takes its time for large layers.

    [bold]Examples[/bold]

      fastconv explain conv2d 8x64x56x56 --out-channels 64 --kernel 3 --padding 1 --dtype bfloat16 --channels-last

      fastconv explain max_pool2d 1x16x8x8 --kernel 2 --backend cuda --backward

      fastconv explain torchvision.models:resnet18 --input 1x3x224x224
    """
    where = device.resolve()
    require_backend(backend, where)
    torch.manual_seed(0)
    number = getattr(torch, dtype.value)
    layout = torch.channels_last if channels_last else torch.contiguous_format

    def tensor(*sizes: int) -> torch.Tensor:
        try:
            made = torch.randn(sizes, dtype=number, device=where)
        except RuntimeError as error:
            fail(f"no room for a tensor of {'x'.join(map(str, sizes))}: {str(error).splitlines()[0]}")
        made = made.contiguous(memory_format=layout) if len(sizes) == 4 else made
        return made.requires_grad_(backward)

    if ":" in target:
        if size is not None or not inputs:
            raise typer.BadParameter("a model takes its inputs as --input NxCxHxW, once for each of them.")
        model = load_model(target).to(device=where, dtype=number, memory_format=layout)
        tensors = [tensor(*parse_size(text)) for text in inputs]
        if backward:
            model.register_forward_hook(lambda module, arguments, output: _differentiate(output))
        with fastconv.intercept(backend=backend.value):
            explanation = _explained(model, tensors, backward)
    else:
        if target not in OPS:
            raise typer.BadParameter(f"{target!r} is neither one of {', '.join(OPS)} nor a package.module:factory.")
        if size is None or inputs:
            raise typer.BadParameter(f"{target} takes the size of its input as second argument: {target} 8x64x56x56.")
        sizes = parse_size(size)
        if len(sizes) not in (3, 4):
            raise typer.BadParameter(f"{size!r} has {len(sizes)} numbers. Accepted are NxCxHxW and CxHxW.")
        channels, filters, taps = sizes[-3], out_channels or sizes[-3], parse_pair(kernel)
        options: dict[str, Any] = {"dilation": parse_pair(dilation), "backend": backend.value}
        options["padding"] = padding if padding in ("same", "valid") else parse_pair(padding)
        if stride is not None:
            options["stride"] = parse_pair(stride)
        tensors = [tensor(*sizes)]
        if target == "max_pool2d":
            options |= {"kernel_size": taps, "ceil_mode": ceil_mode}
        else:
            options |= {"groups": groups, "activation": activation.value}
            ends = (filters, channels // groups) if target == "conv2d" else (channels, filters // groups)
            tensors.append(tensor(*ends, *taps))
            if bias:
                tensors.append(tensor(filters))
        if target == "conv_transpose2d":
            options["output_padding"] = parse_pair(output_padding)
        op = functools.partial(getattr(fastconv, target), **options)
        explanation = _explained((lambda *given: _differentiate(op(*given))) if backward else op, tensors, backward)

    if gpu is not None:
        try:
            explanation = explanation.on(gpu)
        except (RuntimeError, ValueError) as error:
            fail(str(error))
    if as_json:
        typer.echo(json.dumps(explanation.to_dict(), indent=1))
    elif len(explanation):
        Console().print(explanation)
    else:
        typer.echo("No call reached fastconv: there is no convolution and no max pooling in it.")


def _explained(call: Callable[..., Any], tensors: list[torch.Tensor], backward: bool) -> Explanation:
    try:
        with torch.set_grad_enabled(backward):
            return fastconv.explain(call, *tensors)
    except (RuntimeError, ValueError, TypeError) as error:
        fail(str(error))


def _differentiate(output: Any) -> None:
    """Runs backward from every tensor that has a gradient in what a model returned."""
    if isinstance(output, torch.Tensor):
        output = [output]
    elif isinstance(output, dict):
        output = output.values()
    for tensor in output:
        if isinstance(tensor, torch.Tensor) and tensor.requires_grad:
            tensor.backward(torch.randn_like(tensor), retain_graph=True)


def load_model(target: str) -> torch.nn.Module:
    """The model of "package.module:factory", where factory is a module or makes one without arguments."""
    module_name, _, factory_name = target.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        fail(f"{target}: {module_name} cannot be imported: {error}")
    factory = getattr(module, factory_name, None)
    if factory is None:
        fail(f"{target}: {module_name} has no {factory_name!r}.")
    if not callable(factory):
        fail(
            f"{target}: {factory_name} is a {type(factory).__name__}. Accepted is a torch.nn.Module or what makes one."
        )
    model = factory if isinstance(factory, torch.nn.Module) else factory()
    if not isinstance(model, torch.nn.Module):
        fail(f"{target}: {factory_name} gave a {type(model).__name__}. Accepted is a torch.nn.Module.")
    return model
