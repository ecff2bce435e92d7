"""The compiled core called as the CUDA backend calls it: problems, plans and pointers."""

from __future__ import annotations

from typing import Any

import torch

NAMES = {
    torch.float64: "float64",
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
    torch.uint8: "uint8",
    torch.int32: "int32",
}
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)

#: How a [N, C, H, W] tensor can lie in memory.
LAYOUTS = ("contiguous", "channels_last", "sliced", "transposed")


def accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def operand(tensor: torch.Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(tensor.shape), tuple(tensor.stride())


def laid_out(tensor: torch.Tensor, layout: str) -> torch.Tensor:
    """The same values with other strides; "sliced" has gaps in every dimension."""
    if layout == "channels_last":
        return tensor.contiguous(memory_format=torch.channels_last)
    if layout == "transposed":
        return tensor.transpose(2, 3).contiguous().transpose(2, 3)
    if layout == "sliced":
        larger = tensor.new_zeros([2 * size + 1 for size in tensor.shape])
        view = larger[1::2, 1::2, 1::2, 1::2]
        view.copy_(tensor)
        return view
    return tensor.contiguous()


def integers(shape: tuple[int, ...], largest: int, dtype: torch.dtype) -> torch.Tensor:
    """Sums of products of these are exact in every type that is computed in float32."""
    return torch.randint(-largest, largest + 1, shape).to(dtype)


def unwritten(shape: tuple[int, ...], dtype: torch.dtype, layout: str = "contiguous") -> torch.Tensor:
    fill = float("nan") if dtype.is_floating_point else torch.iinfo(dtype).max
    return laid_out(torch.full(shape, fill, dtype=dtype), layout)


def pointer(tensor: torch.Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def launch(
    core: Any, problem: Any, kernel: str, config: str, tensors: tuple[torch.Tensor | None, ...]
) -> dict[str, Any]:
    """Runs a plan in a workspace full of NaN; returns its details."""
    plan = core.Plan(problem, kernel, config)
    workspace = torch.full((plan.workspace_bytes,), 255, dtype=torch.uint8)
    plan.launch(tuple(map(pointer, tensors)), workspace.data_ptr() if len(workspace) else 0, 0, 0)
    return plan.details


def convolve(
    core: Any,
    conv_pass: str,
    x: torch.Tensor,
    w: torch.Tensor,
    y: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    config: str,
    **geometry: Any,
) -> dict[str, Any]:
    """Runs the direct kernel of a pass; x, w or y is what it writes."""
    problem = core.ConvProblem(
        conv_pass=conv_pass,
        dtype=NAMES[x.dtype],
        x=operand(x),
        w=operand(w),
        y=operand(y),
        has_bias=bias is not None,
        residual=None if residual is None else operand(residual),
        **geometry,
    )
    return launch(core, problem, f"direct_{conv_pass}", config, (x, w, y, bias, residual))


def pool(
    core: Any,
    pool_pass: str,
    dtype: torch.dtype,
    x: torch.Tensor,
    y: torch.Tensor,
    offsets: torch.Tensor,
    family: str = "max_pool",
    config: str = "",
    **geometry: Any,
) -> dict[str, Any]:
    """Runs a pooling pass by a family's kernel for it; the indices are written to y."""
    problem = core.PoolProblem(
        pool_pass=pool_pass,
        dtype=NAMES[dtype],
        x=operand(x),
        y=operand(y),
        offsets=operand(offsets),
        offsets_dtype=NAMES[offsets.dtype],
        **geometry,
    )
    tensors = (None, None, offsets, y) if pool_pass == "indices" else (x, y, offsets, None)
    return launch(core, problem, f"{family}_{pool_pass}", config, tensors)


def channel_sums(core: Any, x: torch.Tensor, **target: int) -> tuple[torch.Tensor, dict[str, Any]]:
    sums = unwritten((x.shape[1],), x.dtype)
    problem = core.ChannelSumProblem(dtype=NAMES[x.dtype], x=operand(x), **target)
    return sums, launch(core, problem, "channel_sum", "", (x, sums))


def shifted(tensor: torch.Tensor, elements: int) -> torch.Tensor:
    """The same values and strides, so many elements behind a boundary of 16 bytes."""
    room = tensor.new_empty(tensor.numel() + elements)
    return room.as_strided(tensor.shape, tensor.stride(), elements).copy_(tensor)


def unpool(
    core: Any, unpool_pass: str, x: torch.Tensor, indices: torch.Tensor, y: torch.Tensor, config: str, **target: int
) -> dict[str, Any]:
    """Runs a pass of unpooling; gather writes x, the others y."""
    problem = core.UnpoolProblem(
        unpool_pass=unpool_pass,
        dtype=NAMES[x.dtype],
        x=operand(x),
        indices=operand(indices),
        y=operand(y),
        **target,
    )
    kernel = "max_unpool_gather" if unpool_pass == "gather" else "max_unpool"
    return launch(core, problem, kernel, config, (x, indices, y))
