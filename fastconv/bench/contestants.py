"""Who is timed: our backends, the baselines of PyTorch, and registered peers. Each turns a case into a call."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
import torch.nn.functional as F

import fastconv
from fastconv import backends as fastconv_backends
from fastconv import dispatch
from fastconv.bench.cases import Case, problems
from fastconv.bench.checking import Call, Tensors
from fastconv.bench.names import UnknownNameError, known
from fastconv.bench.surroundings import settable_cudnn
from fastconv.plan import Candidate
from fastconv.problem import Problem

BASELINES = ("pytorch", "pytorch-benchmark", "pytorch-other-layout", "pytorch-compile")
OUR_BACKENDS = dispatch.BACKENDS


@dataclasses.dataclass(frozen=True)
class Contestant:
    name: str
    role: Literal["ours", "baseline"]
    make: Callable[[Case], Call | None]  # None where it does not compute this case
    layout: str = ""  # of its tensors, where not the case's
    cudnn_benchmark: bool = False

    @contextlib.contextmanager
    def settings(self) -> Iterator[None]:
        """cudnn.benchmark as this contestant has it."""
        before = torch.backends.cudnn.benchmark
        with settable_cudnn():
            torch.backends.cudnn.benchmark = self.cudnn_benchmark
        try:
            yield
        finally:
            with settable_cudnn():
                torch.backends.cudnn.benchmark = before


def contestants_for(
    case: Case, backends: Sequence[str], kernels: Sequence[str], baselines: Sequence[str], peers: Sequence[str]
) -> list[Contestant]:
    """Baselines first: their errors and times are what ours are set against."""
    found = []
    for name in baselines:
        known("baseline", name, BASELINES)
        other = "nchw" if case.layout == "channels_last" else "channels_last"
        if name == "pytorch":
            found.append(Contestant(name, "baseline", pytorch))
        elif name == "pytorch-benchmark":
            found.append(Contestant(name, "baseline", pytorch, cudnn_benchmark=True))
        elif name == "pytorch-other-layout":
            found.append(Contestant(f"pytorch-benchmark-{other}", "baseline", pytorch, other, cudnn_benchmark=True))
        elif case.direction in ("fwd", "fwd+bwd"):
            # A gradient alone is one library call, which the compiler leaves as it is.
            found.append(Contestant(name, "baseline", compiled, cudnn_benchmark=True))
    for peer in peers:
        found.append(Contestant(peer, "baseline", _peer(peer)))
    for backend in backends:
        known("backend", backend, OUR_BACKENDS)
        found.append(
            Contestant(
                f"fastconv-{backend}", "ours", lambda case, backend=backend: ours(case, backend), cudnn_benchmark=True
            )
        )
    for kernel in kernels:
        found.append(Contestant(f"fastconv-{kernel}", "ours", lambda case, kernel=kernel: one_kernel(case, kernel)))
    return found


def _peer(address: str) -> Callable[[Case], Call | None]:
    """`package.module:function`; the function takes a Case and returns a Call, or None where it does not compute it."""
    module, _, function = address.partition(":")
    if not function:
        raise UnknownNameError(f"peer: {address!r} is not of the form package.module:function")
    return getattr(importlib.import_module(module), function)


def _split(case: Case, tensors: Tensors) -> dict[str, torch.Tensor]:
    return dict(zip(case.roles(), tensors, strict=True))


def _training(case: Case, forward: Callable[..., torch.Tensor], *, visible: bool = True) -> Call:
    """Forward, then the gradient of every input, through autograd."""

    def prepare(inputs: Tensors) -> Tensors:
        *leaves, dy = inputs
        return [*(leaf.detach().requires_grad_() for leaf in leaves), dy]

    def run(*arguments: torch.Tensor) -> Tensors:
        *leaves, dy = arguments
        y = forward(*leaves)
        return [y.detach(), *torch.autograd.grad(y, leaves, dy)]

    return Call(run, prepare, visible)


def _inference(forward: Callable[..., torch.Tensor], *, visible: bool = True) -> Call:
    def run(*arguments: torch.Tensor) -> Tensors:
        with torch.no_grad():
            return [forward(*arguments)]

    return Call(run, arithmetic_visible=visible)


# --- PyTorch


def _pytorch_forward(case: Case) -> Callable[..., torch.Tensor]:
    layer = case.layer
    if layer.op == "max_pool2d":
        window = (layer.kernel, layer.stride, layer.padding, layer.dilation, layer.ceil_mode)
        return lambda x: F.max_pool2d(x, *window)
    if layer.op == "conv_transpose2d":
        return lambda x, w, bias=None: F.conv_transpose2d(
            x, w, bias, layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation
        )

    def convolve(x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        return F.conv2d(x, w, bias, layer.stride, layer.padding, layer.dilation, layer.groups)

    if layer.op == "conv2d":
        return convolve
    pool = layer.pool
    return lambda *arguments: F.max_pool2d(torch.relu(convolve(*arguments)), pool.kernel, pool.stride, pool.padding)


def pytorch(case: Case) -> Call:
    """What torch.nn runs: ATen, and through it cuDNN."""
    if case.direction == "fwd":
        return _inference(_pytorch_forward(case))
    if case.direction == "fwd+bwd":
        return _training(case, _pytorch_forward(case))
    layer = case.layer
    if layer.op == "max_pool2d":
        window = (layer.kernel, layer.stride, layer.padding, layer.dilation, layer.ceil_mode)

        def prepare(inputs: Tensors) -> Tensors:
            x, dy = inputs
            return [dy, x, torch.ops.aten.max_pool2d_with_indices(x, *window)[1]]

        return Call(
            lambda dy, x, indices: [torch.ops.aten.max_pool2d_with_indices_backward(dy, x, *window, indices)], prepare
        )
    data = case.direction == "dgrad"
    transposed = layer.op == "conv_transpose2d"

    def prepare_gradient(inputs: Tensors) -> Tensors:
        given = _split(case, inputs)
        # The tensor that is not read is needed for its sizes and strides.
        missing = "x" if data else "w"
        like = given["w" if data else "x"]
        layout = torch.channels_last if _is_channels_last(given["dy"]) else torch.contiguous_format
        given[missing] = torch.zeros(case.sizes(missing), dtype=like.dtype, device=like.device).to(memory_format=layout)
        return [given["dy"], given["x"], given["w"]]

    def gradient(dy: torch.Tensor, x: torch.Tensor, w: torch.Tensor) -> Tensors:
        outputs = torch.ops.aten.convolution_backward(
            dy, x, w, None, layer.stride, layer.padding, layer.dilation, transposed, layer.output_padding, layer.groups,
            [data, not data, False],
        )  # fmt: skip
        return [outputs[0 if data else 1]]

    return Call(gradient, prepare_gradient)


def _is_channels_last(tensor: torch.Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


def compiled(case: Case) -> Call:
    """torch.compile, max-autotune. Without its own graphs: every contestant is replayed from a graph here alike."""
    # Every case is the same function to the compiler's cache, which takes only so many versions of one.
    torch.compiler.reset()
    forward = torch.compile(_pytorch_forward(case), mode="max-autotune-no-cudagraphs", fullgraph=True, dynamic=False)
    if case.direction == "fwd":
        return _inference(forward, visible=False)
    return _training(case, forward, visible=False)


# --- ours


def _our_forward(case: Case, backend: str) -> Callable[..., torch.Tensor]:
    layer = case.layer
    if layer.op == "max_pool2d":
        window = (layer.kernel, layer.stride, layer.padding, layer.dilation, layer.ceil_mode)
        return lambda x: fastconv.max_pool2d(x, *window, backend=backend)
    if layer.op == "conv_transpose2d":
        return lambda x, w, bias=None: fastconv.conv_transpose2d(
            x, w, bias, layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation, backend=backend
        )

    convolution = (layer.stride, layer.padding, layer.dilation, layer.groups)
    options = {"activation": layer.activation, "backend": backend}
    if layer.op == "conv2d":
        return lambda x, w, bias=None: fastconv.conv2d(x, w, bias, *convolution, **options)
    pool = layer.pool
    options |= {"pool_kernel_size": pool.kernel, "pool_stride": pool.stride, "pool_padding": pool.padding}
    return lambda x, w, bias=None: fastconv.conv2d_max_pool2d(x, w, bias, *convolution, **options)


def ours(case: Case, backend: str) -> Call:
    """fastconv as a user calls it; a gradient alone is the primitive that autograd would call."""
    if case.direction == "fwd":
        return _inference(_our_forward(case, backend))
    if case.direction == "fwd+bwd":
        return _training(case, _our_forward(case, backend))
    return _gradient(case, _our_gradient(case, backend), backend)


def _gradient(case: Case, primitive: Callable[..., Tensors], backend: str) -> Call:
    layer = case.layer
    if layer.op == "max_pool2d":
        window = (layer.kernel, layer.stride, layer.padding, layer.dilation, layer.ceil_mode)

        def prepare(inputs: Tensors) -> Tensors:
            x, dy = inputs
            return [dy, torch.ops.fastconv.max_pool2d_forward(x, *window, backend)[1]]

        return Call(primitive, prepare)
    # (w, dy) -> (dy, w) and (x, dy) -> (dy, x); in a transposed convolution x is the convolution's y, and comes first.
    if layer.op == "conv_transpose2d" and case.direction == "wgrad":
        return Call(primitive)
    return Call(primitive, lambda inputs: [inputs[1], inputs[0]])


def _our_gradient(case: Case, backend: str) -> Callable[..., Tensors]:
    layer, library = case.layer, torch.ops.fastconv
    if layer.op == "max_pool2d":
        size = case.sizes("x")
        window = (layer.kernel, layer.stride, layer.padding, layer.dilation, layer.ceil_mode)
        return lambda dy, offsets: [library.max_pool2d_backward(dy, offsets, size, *window, backend)]
    (top, left), size = layer.padding, case.sizes("x")
    geometry = (layer.stride, (top, top, left, left), layer.dilation, layer.groups, "zeros", 0.0)
    if case.direction == "wgrad":
        return lambda dy, x: [library.conv2d_wgrad(dy, x, layer.weight_size, *geometry, False, backend)[0]]
    if layer.op == "conv_transpose2d":
        return lambda dy, w: [library.conv2d_fprop(dy, w, None, None, *geometry, "identity", backend)]
    return lambda dy, w: [library.conv2d_dgrad(dy, w, None, size, *geometry, "identity", backend)]


def one_kernel(case: Case, kernel: str) -> Call | None:
    """The best configuration of one kernel family, whatever dispatch would choose; None where it cannot run the case."""
    found = one_candidate(case, kernel)
    return None if found is None else found[1]


def one_candidate(case: Case, kernel: str, config: str = "") -> tuple[Candidate, Call] | None:
    """Of a kernel family ("mma_fprop", "cuda:mma_fprop"): this configuration, else the best one, of those that can run here.

    None where there is none, or the case is more than one problem.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    made = problems(case, dispatch.target_of(device))
    if len(made) != 1:
        return None
    (problem,) = made
    legal = [
        one for one in all_candidates(problem) if one.legal and kernel in (one.kernel, f"{one.backend}:{one.kernel}")
    ]
    if not legal:
        return None
    candidate = next((one for one in legal if one.config == config), legal[0])
    return candidate, _call_of(case, problem, candidate)


def _call_of(case: Case, problem: Problem, candidate: Candidate) -> Call:
    plan = fastconv_backends.get(candidate.backend).plan(problem, candidate)
    # A plan wants the absent ones as None.
    operands = {"conv2d_fprop": 4, "conv2d_dgrad": 3, "conv2d_max_pool2d": 3}.get(problem.op, 0)

    def run(*arguments: torch.Tensor) -> Tensors:
        result = plan(*arguments, *[None] * (operands - len(arguments)))
        return [result[0] if isinstance(result, tuple) else result]

    if case.direction == "fwd":
        return Call(run)
    return _gradient(case, run, candidate.backend)


def all_candidates(problem: Problem) -> list[Candidate]:
    """Of every backend that loads here, each backend's best first."""
    found: list[Candidate] = []
    for name in fastconv_backends.NAMES:
        with contextlib.suppress(fastconv_backends.BackendUnavailableError):
            found += fastconv_backends.get(name).candidates(problem)
    return found


def check_kernels(kernels: Sequence[str], cases: Sequence[Case]) -> None:
    """UnknownNameError where no backend has a kernel of that name for any of the cases."""
    if not kernels:
        return
    device = torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")
    target = dispatch.target_of(device)
    found: dict[str, Candidate] = {}
    for case in cases:
        for problem in problems(case, target):
            if problem.op not in found:
                found |= {one.kernel: one for one in all_candidates(problem)}
                found |= {problem.op: all_candidates(problem)[0]}
    for kernel in kernels:
        if kernel not in {f"{one.backend}:{one.kernel}" for one in found.values()}:
            known("kernel", kernel, sorted(found))
