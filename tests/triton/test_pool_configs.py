"""Every configuration of the pooling kernels, small and ragged: winners, their places, gradients, and unpooling."""

from __future__ import annotations

import dataclasses

import numpy
import pytest
import torch
from triton.runtime import interpreter

from fastconv.backends.triton.backend import families
from tests.triton.oracle import every_config, inputs_of, layouts, plan_of, pool_plan, pool_problem, run, unpool_problem


def pools(pool_pass: str):
    return layouts(
        lambda channels_last: pool_problem(
            pool_pass, (2, 5, 9, 11), torch.float16, (3, 2), (2, 3), (1, 1), (1, 2), channels_last=channels_last
        )
    )


def winners(problem, tensors):
    """PyTorch's maxima and their flat indices."""
    return torch.nn.functional.max_pool2d(
        tensors["x"].float(), problem.kernel, problem.stride, problem.padding, problem.dilation, return_indices=True
    )


@pytest.mark.parametrize(("problem", "config"), every_config("max_pool_forward", pools("forward")))
def test_max_pool_forward(problem, config, seed):
    tensors = inputs_of(problem, seed)
    y, offsets = run(plan_of(problem, families()["max_pool_forward"], config), tensors)
    expected, indices = winners(problem, tensors)
    assert torch.equal(y.float(), expected)
    lookup = pools("indices")["nhwc" if problem.x.strides[1] == 1 else "nchw"]
    assert torch.equal(pool_plan(lookup)(offsets), indices)


@pytest.mark.parametrize(("problem", "config"), every_config("max_pool_backward", pools("backward")))
def test_max_pool_backward(problem, config, seed):
    layout = "nhwc" if problem.x.strides[1] == 1 else "nchw"
    tensors = inputs_of(problem, seed)
    _, indices = winners(problem, tensors)
    _, offsets = run(pool_plan(pools("forward")[layout]), tensors)
    (dx,) = run(plan_of(problem, families()["max_pool_backward"], config), tensors | {"offsets": offsets})
    expected = torch.zeros(dx.shape, dtype=torch.float64).flatten(2)
    expected.scatter_add_(2, indices.flatten(2), tensors["y"].double().flatten(2))
    assert torch.equal(dx.double(), expected.view(dx.shape))


@pytest.mark.parametrize(("problem", "config"), every_config("max_pool_lookup", pools("gather")))
def test_max_pool_gather(problem, config, seed):
    layout = "nhwc" if problem.x.strides[1] == 1 else "nchw"
    tensors = inputs_of(problem, seed)
    y, offsets = run(pool_plan(pools("forward")[layout]), tensors)
    (gathered,) = run(plan_of(problem, families()["max_pool_lookup"], config), tensors | {"offsets": offsets})
    assert torch.equal(gathered, y)


def unpools(unpool_pass: str, dtype=torch.bfloat16):
    """Several steps, ragged in both directions."""
    return layouts(
        lambda channels_last: unpool_problem(
            unpool_pass,
            (2, 35, 3, 7) if channels_last else (2, 3, 11, 13),
            (9, 17),
            dtype,
            channels_last=channels_last,
        )
    )


def unpool_inputs(problem, seed):
    """Some positions many times, some never."""
    tensors = inputs_of(problem, seed)
    positions = problem.y.sizes[2] * problem.y.sizes[3]
    drawn = torch.randint(0, positions, problem.x.sizes, generator=torch.Generator().manual_seed(seed))
    return tensors | {"indices": tensors["indices"].copy_(drawn.square_().floor_divide_(positions))}


@pytest.fixture
def stores(monkeypatch):
    """The addresses of every store of interpreted kernels where it is not masked."""
    seen: list = []
    store = interpreter.InterpreterBuilder.create_masked_store

    def spy(self, pointers, value, mask, *arguments):
        seen.append(pointers.data[mask.data])
        return store(self, pointers, value, mask, *arguments)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_masked_store", spy)
    return seen


@pytest.mark.parametrize(("problem", "config"), every_config("max_unpool", unpools("forward")))
def test_max_unpool(problem, config, seed, stores):
    """Of equal positions the last one stands. On a GPU the elements of one store come in any order, so none may meet."""
    tensors = unpool_inputs(problem, seed)
    (y,) = run(plan_of(problem, families()["max_unpool"], config), tensors)
    expected = torch.zeros(y.shape, dtype=y.dtype).flatten(2)
    for source in range(tensors["x"][0, 0].numel()):
        value, place = (tensors[role].flatten(2)[..., source : source + 1] for role in ("x", "indices"))
        expected.scatter_(2, place, value)
    assert torch.equal(y, expected.view(y.shape))
    assert sum(len(addresses) for addresses in stores) >= y.numel()
    assert all(len(numpy.unique(addresses)) == len(addresses) for addresses in stores)


@pytest.mark.parametrize(("problem", "config"), every_config("max_unpool", unpools("add", torch.float32)))
def test_max_unpool_add(problem, config, seed):
    tensors = unpool_inputs(problem, seed)
    (y,) = run(plan_of(problem, families()["max_unpool"], config), tensors)
    expected = torch.zeros(y.shape).flatten(2).scatter_add_(2, tensors["indices"].flatten(2), tensors["x"].flatten(2))
    assert torch.equal(y, expected.view(y.shape))


@pytest.mark.parametrize(("problem", "config"), every_config("max_unpool_gather", unpools("gather")))
def test_max_unpool_gather(problem, config, seed):
    tensors = unpool_inputs(problem, seed)
    (x,) = run(plan_of(problem, families()["max_unpool_gather"], config), tensors)
    assert torch.equal(x.flatten(2), tensors["y"].flatten(2).gather(2, tensors["indices"].flatten(2)))


@pytest.mark.parametrize("index_bits", [32, 64])
def test_positions_outside_of_the_plane_are_neither_written_nor_read(index_bits, seed):
    """CPU tensors are checked before; on a GPU there is no time for it."""
    problem = unpool_problem("forward", (1, 2, 1, 3), (2, 3), torch.float32, index_bits=index_bits)
    indices = torch.tensor([[1, -1, 5], [6, 2**40, 0]]).view(1, 2, 1, 3)
    x = torch.arange(1.0, 7.0).view(1, 2, 1, 3)
    for config in families()["max_unpool"].configs(problem):
        y = plan_of(problem, families()["max_unpool"], config)(x, indices)
        assert y.flatten(2).tolist() == [[[0, 1, 0, 0, 0, 3], [6, 0, 0, 0, 0, 0]]]
    gather = dataclasses.replace(problem, unpool_pass="gather")
    family = families()["max_unpool_gather"]
    picked = plan_of(gather, family, family.configs(gather)[-1])(x.new_tensor(range(12)).view(1, 2, 2, 3), indices)
    assert picked.flatten(2).tolist() == [[[1, 0, 5], [0, 0, 6]]]


def global_pools():
    return layouts(
        lambda channels_last: pool_problem(
            "forward", (2, 5, 23, 17), torch.bfloat16, (23, 17), (23, 17), channels_last=channels_last
        )
    )


@pytest.mark.parametrize(("problem", "config"), every_config("max_pool_global", global_pools()))
def test_max_pool_global(problem, config, seed):
    """The two largest numbers of a channel are equal, in another a NaN comes before the last, one is minus infinity."""
    tensors = inputs_of(problem, seed)
    x = tensors["x"]
    x[0, 0, 3, 5] = x[0, 0, 20, 1] = 7
    x[0, 1, 2, 2] = x[0, 1, 19, 9] = float("nan")
    x[1, 2] = float("-inf")
    y, places = run(plan_of(problem, families()["max_pool_global"], config), tensors)
    expected, indices = torch.nn.functional.max_pool2d(x.float(), problem.kernel, return_indices=True)
    assert torch.equal(y.float().nan_to_num(9.0), expected.nan_to_num(9.0))
    assert torch.equal(places.long(), indices)
