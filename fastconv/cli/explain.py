"""fastconv explain: which kernel a layer or a model runs on, and why that one."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

import fastconv
from fastconv.cli import layer
from fastconv.cli.models import differentiate, load_model, named_errors
from fastconv.cli.options import (
    BackendName,
    DeviceName,
    fail,
    one_of,
    parse_size,
    real_number,
    require_backend,
    whole_number,
)
from fastconv.explain import Explanation
from fastconv.problem import ACTIVATIONS, PADDING_MODES

Activation = enum.Enum("Activation", {name: name for name in ACTIVATIONS}, type=str)

_POOL = "For conv2d_max_pool2d"


class DataType(str, enum.Enum):
    float64 = "float64"
    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


def explain(
    target: Annotated[str, typer.Argument(help=f"{', '.join(layer.OPS)}, or package.module:factory of a model.")],
    size: Annotated[str | None, typer.Argument(help="The op's input, NxCxHxW or CxHxW.")] = None,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", help="A model's input, NxCxHxW; once for each.")
    ] = None,
    out_channels: Annotated[
        int | None, typer.Option(parser=whole_number(1), help="K. Left out: as many as input channels.")
    ] = None,
    kernel: Annotated[str | None, typer.Option(help="R or RxS. Left out: 3.")] = None,
    stride: Annotated[str | None, typer.Option(help="u or uxv. Left out: 1, for a pool its kernel.")] = None,
    padding: Annotated[
        str | None,
        typer.Option(help="Rows or rows x columns; for a conv2d also top x bottom x left x right, same and valid."),
    ] = None,
    padding_mode: Annotated[str | None, typer.Option(help=f"Of a conv2d: {', '.join(PADDING_MODES)}.")] = None,
    padding_value: Annotated[
        float | None, typer.Option(parser=real_number, help="What --padding-mode constant pads with.")
    ] = None,
    output_padding: Annotated[str | None, typer.Option(help="For conv_transpose2d.")] = None,
    output_size: Annotated[str | None, typer.Option(help="For adaptive_max_pool2d: P or PxQ. Left out: 1.")] = None,
    dilation: Annotated[str | None, typer.Option(help="One number or two.")] = None,
    groups: Annotated[int | None, typer.Option(parser=whole_number(1), help="G.")] = None,
    bias: Annotated[bool | None, typer.Option("--bias/--no-bias", help="Left out: with a bias.")] = None,
    activation: Annotated[
        Activation | None,
        typer.Option(
            parser=one_of(Activation),
            help="Applied by the convolution's kernel. Left out: relu for conv2d_max_pool2d, else none.",
        ),
    ] = None,
    pool_kernel: Annotated[str | None, typer.Option(help=f"{_POOL}: the window. Left out: 2.")] = None,
    pool_stride: Annotated[str | None, typer.Option(help=f"{_POOL}. Left out: the window.")] = None,
    pool_padding: Annotated[str | None, typer.Option(help=f"{_POOL}.")] = None,
    ceil_mode: Annotated[bool | None, typer.Option("--ceil-mode", help="For max_pool2d.")] = None,
    dtype: Annotated[DataType, typer.Option(parser=one_of(DataType), help="Of inputs and weights.")] = DataType.float32,
    channels_last: Annotated[bool, typer.Option("--channels-last", help="Input and weight channels_last.")] = False,
    backward: Annotated[bool, typer.Option("--backward", help="Run the gradients' passes too.")] = False,
    backend: Annotated[
        BackendName, typer.Option(parser=one_of(BackendName), help="Choose, or insist.")
    ] = BackendName.auto,
    device: Annotated[
        DeviceName, typer.Option(parser=one_of(DeviceName), help="auto: the GPU if there is one.")
    ] = DeviceName.auto,
    gpu: Annotated[
        str | None, typer.Option(help="What auto would choose on an A100, H100 or H200, predicted where not measured.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of a model's own error.")] = False,
) -> None:
    """Run a layer or a model once and print which kernel each op ran on, why, and what was not possible.

    A model's plain torch.nn layers are sent to fastconv while it runs. On a CPU the cuda and triton backends are emulated,
    which takes its time for large layers.

    [bold]Examples[/bold]

      fastconv explain conv2d 8x64x56x56 --out-channels 64 --kernel 3 --padding 1 --dtype bfloat16 --channels-last

      fastconv explain conv2d_max_pool2d 8x64x56x56 --padding 1 --padding-mode reflect --gpu H100

      fastconv explain max_pool2d 1x16x8x8 --kernel 2 --backend cuda --backward

      fastconv explain torchvision.models:resnet18 --input 1x3x224x224
    """
    where = device.resolve()
    require_backend(backend, where)
    torch.manual_seed(0)
    number = getattr(torch, dtype.value)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    options = {
        "out_channels": out_channels, "kernel": kernel, "stride": stride, "padding": padding, "padding_mode": padding_mode,
        "padding_value": padding_value, "output_padding": output_padding, "dilation": dilation, "groups": groups, "bias": bias,
        "activation": None if activation is None else activation.value, "pool_kernel": pool_kernel,
        "pool_stride": pool_stride, "pool_padding": pool_padding, "ceil_mode": ceil_mode, "output_size": output_size,
    }  # fmt: skip

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
        for name, value in options.items():
            if value is not None:
                raise typer.BadParameter(f"{layer.option_name(name)} is for a single op, not for a model.")
        tensors = [tensor(*parse_size(text, "--input")) for text in inputs]
        model = load_model(target, debug)
        if backward:
            model.register_forward_hook(lambda module, arguments, output: differentiate(output))
        with named_errors(f"{target}: the model failed", debug):
            model = model.to(device=where, dtype=number, memory_format=layout)
            with fastconv.intercept(backend=backend.value):
                explanation = _explained(model, tensors, backward)
    else:
        if inputs:
            raise typer.BadParameter("--input is for a model. An op takes its input's size as second argument.")
        described = layer.described(target, size, options)
        try:
            op, tensors = described.call(backend.value, tensor)
            explanation = _explained((lambda *given: differentiate(op(*given))) if backward else op, tensors, backward)
        except typer.Exit:  # a RuntimeError, which has said why
            raise
        except (RuntimeError, ValueError, TypeError) as error:
            if debug:
                raise
            fail(str(error))

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
        typer.echo(
            "No call reached a kernel: there is no convolution and no max pooling in it, or none that has channels."
        )


def _explained(call: Callable[..., Any], tensors: list[torch.Tensor], backward: bool) -> Explanation:
    with torch.set_grad_enabled(backward):
        return fastconv.explain(call, *tensors)
