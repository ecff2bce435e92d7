"""Mistakes that other Triton convolution kernels made, each with a test that fails if ours make them."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy
import pytest
import torch
import torch.nn.functional as F
from triton.runtime import interpreter

import fastconv
from fastconv.backends import triton as package
from fastconv.backends.triton.backend import families
from fastconv.backends.triton.gemm import TileConfig
from tests.triton.oracle import conv_problem, expected_conv, inputs_of, plan_of, pool_problem, run

SOURCES = sorted(Path(package.__file__).parent.glob("*.py"))


def loads_of(source: Path):
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "tl.load":
            yield node, {keyword.arg for keyword in node.keywords}


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_every_masked_load_says_what_masked_elements_are(source):
    """Without `other` they are undefined when compiled, and zero in the interpreter: nothing else would show it."""
    for node, keywords in loads_of(source):
        assert "mask" not in keywords or "other" in keywords, f"{source.name}:{node.lineno}"


def test_there_are_masked_loads_to_check():
    assert sum("mask" in keywords for source in SOURCES for _, keywords in loads_of(source)) > 10


GUARD = 1 << 14  # bytes before a tensor that no pointer may fall into


def with_room_before(tensor: torch.Tensor) -> torch.Tensor:
    """A copy with the same strides, whose address has GUARD bytes of other memory before it."""
    skipped = GUARD // tensor.element_size()
    extent = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    storage = torch.full((skipped + extent,), float("nan"), dtype=tensor.dtype)
    return storage[skipped:].as_strided(tensor.shape, tensor.stride(), skipped).copy_(tensor)


@pytest.fixture
def loads(monkeypatch):
    """The addresses and the mask of every load of interpreted kernels."""
    seen: list = []
    load = interpreter.InterpreterBuilder.create_masked_load

    def spy(self, pointers, mask, *arguments):
        seen.append((pointers.data, mask.data))
        return load(self, pointers, mask, *arguments)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_masked_load", spy)
    return seen


def assert_nothing_before(tensor: torch.Tensor, loads: list, name: str) -> None:
    """No load from the tensor has an address before it, not even where it is masked."""
    start = tensor.data_ptr()
    end = start + tensor.untyped_storage().nbytes() - GUARD
    of_tensor = [pointers for pointers, mask in loads if ((pointers >= start) & (pointers < end) & mask).any()]
    assert of_tensor
    for pointers in of_tensor:
        assert pointers.min() >= start, name


HALO = {"stride": (2, 1), "padding": (3, 2, 2, 4), "dilation": (1, 2)}


def runnable(family, problem):
    """A configuration that gives the right result, be it wasteful."""
    fits = [config for config in family.configs(problem) if "depth" not in family.rejection(problem, config)]
    return fits[0] if fits else None


def halo_problems():
    for conv_pass, read in (("fprop", "x"), ("dgrad", "y"), ("wgrad", "x")):
        for sizes, groups in (((6, 6, 3, 3), 1), ((6, 1, 3, 3), 6)):
            for channels_last in (False, True):
                made = conv_problem(
                    conv_pass, (2, 6, 7, 6), sizes, torch.float32, groups=groups, channels_last=channels_last, **HALO
                )
                yield pytest.param(made, read, id=f"{conv_pass}-groups{groups}-{'nhwc' if channels_last else 'nchw'}")
        for mode in ("reflect", "circular"):
            made = conv_problem(
                conv_pass, (2, 6, 7, 6), (6, 6, 3, 3), torch.float32, channels_last=True, padding_mode=mode, **HALO
            )
            yield pytest.param(made, read, id=f"{conv_pass}-{mode}")


@pytest.mark.parametrize(("problem", "read"), list(halo_problems()))
def test_no_pointer_lies_before_its_tensor_not_even_a_masked_one(problem, read, seed, loads):
    """A pipelined load may be issued before its mask is known to matter, so halo offsets are clamped too."""
    tensors = inputs_of(problem, seed)
    tensors[read] = with_room_before(tensors[read])
    for family in families().values():
        config = runnable(family, problem) if problem.op in family.ops else None
        if config is not None and "zeros only" not in family.rejection(problem, config):
            loads.clear()
            outputs = run(plan_of(problem, family, config), tensors)
            assert torch.equal(outputs[0].double(), expected_conv(problem, tensors)[0])
            if "packed" not in family.name:  # its copies lie elsewhere
                assert_nothing_before(tensors[read], loads, family.name)


def test_no_pooling_pointer_lies_before_its_tensor(seed, loads):
    made = pool_problem("forward", (2, 3, 7, 6), torch.float32, (3, 4), (2, 1), (1, 2))
    x = with_room_before(inputs_of(made, seed)["x"])
    family = families()["max_pool_forward"]
    y, _ = run(plan_of(made, family, family.configs(made)[0]), {"x": x})
    assert torch.equal(y, F.max_pool2d(x, (3, 4), (2, 1), (1, 2)))
    assert_nothing_before(x, loads, "max_pool_forward")


@pytest.mark.parametrize("kernel", ["conv_fprop", "conv_dgrad", "conv_wgrad", "conv_fprop_rows"])
def test_eight_warp_configurations_have_nested_loops(kernel):
    """A flattened loop over filter rows, columns and channels was miscompiled with eight warps or more."""
    module = Path(package.__file__).parent
    text = (module / "implicit_gemm.py").read_text()
    inner = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.For)]
    ranges = [ast.unparse(node.iter) for node in inner]
    assert "range(0, channels, BLOCK_K)" in ranges
    assert not any("channels" in bounds and "taps" in bounds for bounds in ranges)
    lists = families()[kernel].tiles.values()
    assert any(config.num_warps >= 8 for configs in lists for config in configs if isinstance(config, TileConfig))


# Offsets beyond 32 bits. The storage is 4 GB of addresses, of which kernels touch a few pages.


@pytest.fixture
def far_apart():
    """[2, 1, 4, 5], its images 2^31 + 64 elements apart."""
    distance = 2**31 + 64
    storage = torch.empty(distance + 32, dtype=torch.bfloat16)
    view = storage.as_strided((2, 1, 4, 5), (distance, 1, 5, 1))
    return view.copy_(torch.randint(-3, 4, (2, 1, 4, 5)))


@pytest.mark.plain_memory
def test_images_more_than_2_to_the_31_elements_apart(far_apart):
    near = far_apart.clone(memory_format=torch.contiguous_format)
    w = torch.randint(-2, 3, (3, 1, 2, 2)).bfloat16()
    expected = F.conv2d(near.float(), w.float()).bfloat16()
    assert torch.equal(fastconv.conv2d(far_apart, w, backend="triton"), expected)
    assert torch.equal(fastconv.max_pool2d(far_apart, 2, backend="triton"), F.max_pool2d(near, 2))


@pytest.mark.plain_memory
def test_gradient_images_more_than_2_to_the_31_elements_apart(far_apart):
    near = far_apart.clone(memory_format=torch.contiguous_format)
    x, w = torch.randint(-2, 3, (2, 1, 5, 6)).bfloat16(), torch.randint(-2, 3, (1, 1, 2, 2)).bfloat16()

    def gradients(dy):
        leaves = x.clone().requires_grad_(), w.clone().requires_grad_()
        return torch.autograd.grad(fastconv.conv2d(*leaves, backend="triton"), leaves, dy)

    for one, other in zip(gradients(far_apart), gradients(near), strict=True):
        assert torch.equal(one, other)


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_weights_in_read_only_memory_can_be_read(tmp_path):
    """Triton's own executor writes every storage back after a launch, which would crash on a mapped file."""
    values = numpy.arange(36, dtype=numpy.float32).reshape(4, 1, 3, 3) % 5
    values.tofile(tmp_path / "weights")
    mapped = numpy.memmap(tmp_path / "weights", dtype=numpy.float32, mode="r", shape=(4, 1, 3, 3))
    w = torch.from_numpy(mapped)
    y = fastconv.conv2d(torch.ones(1, 1, 3, 3), w, backend="triton")
    assert torch.equal(y.flatten(), torch.from_numpy(values).sum((1, 2, 3)))
