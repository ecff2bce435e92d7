"""Names under which times are kept: of a problem, of a candidate, and of the environment they were measured in."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import re

import torch

from fastconv._version import __version__
from fastconv.plan import Candidate
from fastconv.problem import (
    ActivationBackwardProblem,
    AdaptivePoolProblem,
    ConvMaxPoolProblem,
    ConvProblem,
    FusedProblem,
    Operand,
    PoolProblem,
    Problem,
    UnpoolProblem,
)
from fastconv.shapes import dense_strides


@dataclasses.dataclass(frozen=True)
class Environment:
    """Times measured in one environment say nothing about another."""

    gpu: str
    driver: str
    cuda: str
    cudnn: str
    torch: str
    triton: str
    fastconv: str

    @classmethod
    @functools.cache
    def here(cls, gpu: str) -> Environment:
        from fastconv import info  # which asks this package for its cache folder

        return cls(
            gpu=gpu,
            driver=info.driver_version(),
            cuda=str(torch.version.cuda or ""),
            cudnn=str(torch.backends.cudnn.version() or ""),
            torch=torch.__version__,
            triton=_version("triton"),
            fastconv=__version__,
        )

    @property
    def file_name(self) -> str:
        """Readable, and different for different environments."""
        versions = repr(dataclasses.astuple(self)).encode()
        return f"{slug(self.gpu)}-{hashlib.sha256(versions).hexdigest()[:12]}.json"


def slug(name: str) -> str:
    return re.sub(r"\W+", "-", name.lower()).strip("-") or "unknown"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def candidate_key(candidate: Candidate) -> str:
    digest = candidate.details.get("digest")  # of a registered kernel's source
    return f"{candidate.backend}:{candidate.kernel}:{candidate.config}{f'@{digest}' if digest else ''}"


def problem_key(problem: Problem) -> str:
    """One line that says everything but the device; the batch size comes second, so that near problems are found."""
    words = [problem.op, f"n{problem.x.sizes[0]}", str(problem.dtype).removeprefix("torch.")]
    if isinstance(problem, FusedProblem):
        words += _convolution_words(problem.conv)
        words += ["then", *_pool_words(problem.pool)] if isinstance(problem, ConvMaxPoolProblem) else []
    elif isinstance(problem, ConvProblem):
        words += _convolution_words(problem)
    elif isinstance(problem, PoolProblem):
        words += [_operand("x", problem.x), *_pool_words(problem)]
    elif isinstance(problem, AdaptivePoolProblem):
        words += [_operand("x", problem.x), _operand("y", problem.y)]
    elif isinstance(problem, UnpoolProblem):
        words += [_operand("x", problem.x), _operand("indices", problem.indices), _operand("y", problem.y)]
    elif isinstance(problem, ActivationBackwardProblem):
        words += [_operand("dy", problem.dy), _operand("saved", problem.saved), problem.activation]
    else:
        words.append(_operand("x", problem.x))
    return " ".join([*words, f"i{problem.index_bits}"])


def _convolution_words(problem: ConvProblem) -> list[str]:
    words = [_operand("x", problem.x), _operand("w", problem.w), _operand("y", problem.y)]
    words += [_numbers("s", problem.stride), _numbers("p", problem.padding), _numbers("d", problem.dilation)]
    words += [f"g{problem.groups}", problem.activation]
    if problem.padding_mode != "zeros":  # the keys of zeros are those of before there were other modes
        words.append(f"pad:{problem.padding_mode}:{problem.padding_value}")
    words += ["bias"] if problem.has_bias else []
    words += [_operand("residual", problem.residual)] if problem.residual is not None else []
    words += ["tf32"] if problem.allow_tf32 else []
    words += ["deterministic"] if problem.deterministic else []
    return words


def _pool_words(problem: PoolProblem) -> list[str]:
    """All but the input."""
    words = [_operand("y", problem.y), _operand("offsets", problem.offsets)]
    words += [_numbers("k", problem.kernel), _numbers("s", problem.stride), _numbers("p", problem.padding)]
    return [*words, _numbers("d", problem.dilation)]


def split_batch(key: str) -> tuple[str, int]:
    """A problem's key without its batch size, and the batch size. ValueError where it is no key."""
    if not re.fullmatch(r"\w+ n\d+ .+", key):
        raise ValueError(f"{key!r} does not name a problem")
    op, batch, rest = key.split(" ", 2)
    return f"{op} {rest}", int(batch[1:])


def _operand(name: str, operand: Operand) -> str:
    """Sizes without the batch, and how they lie in memory."""
    batch, channels, height, width = operand.sizes
    sizes = f"{name}={channels}x{height}x{width}"
    if name == "w":
        sizes = f"{name}={batch}x{channels}x{height}x{width}"
    for layout, channels_last in (("nchw", False), ("nhwc", True)):
        if _same_places(operand, dense_strides(operand.sizes, channels_last)):
            return f"{sizes}:{layout}"
    return f"{sizes}:{'/'.join(map(str, operand.strides))}"


def _same_places(operand: Operand, strides: tuple[int, ...]) -> bool:
    """Whether the elements lie as with these strides: that of a dimension of one element says nothing.

    PyTorch gives it several values: a depthwise or 1x1 weight is of both layouts, and comes with the strides of either.
    """
    triples = zip(operand.sizes, operand.strides, strides, strict=True)
    return all(size == 1 or stride == wanted for size, stride, wanted in triples)


def _numbers(name: str, values: tuple[int, ...]) -> str:
    return name + ",".join(map(str, values))
