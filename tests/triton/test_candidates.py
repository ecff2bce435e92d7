"""What the host decides without a GPU: which configurations are legal, why the others are not, how many programs run."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch

import fastconv
from fastconv.backends.triton import backend
from fastconv.backends.triton.backend import families
from fastconv.backends.triton.family import ceil_div
from fastconv.backends.triton.hints import OperandHints, alignment, magic_division
from fastconv.problem import Operand, Target
from tests.triton.oracle import (
    conv_problem,
    expected_conv,
    inputs_of,
    plan_of,
    pool_problem,
    run,
    sum_problem,
)
from tests.triton.problems import PROBLEMS, TARGETS, problem

SMALL = conv_problem("fprop", (1, 4, 5, 5), (4, 4, 3, 3), torch.bfloat16, padding=(1, 1, 1, 1), channels_last=True)


@pytest.mark.parametrize("capability", TARGETS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_every_problem_has_a_candidate_and_every_rejection_a_reason(name, capability):
    candidates = backend.candidates(problem(name, capability))
    legal = [candidate for candidate in candidates if candidate.legal]
    assert legal
    assert candidates[: len(legal)] == legal, "rejected ones come last"
    times = [candidate.predicted_seconds for candidate in legal]
    assert times == sorted(times)
    assert 0 < times[0] < 1
    for candidate in candidates:
        assert "\n" not in candidate.reason
        assert candidate.backend == "triton"
        shown = (
            {"parts"} if candidate.kernel == "unfused" else {"programs", "useful_share", "registers", "shared_bytes"}
        )
        assert shown <= candidate.details.keys()


def emptied(made):
    """The problem with a batch of none."""
    fields = {}
    for field in dataclasses.fields(made):
        value = getattr(made, field.name)
        if isinstance(value, Operand) and field.name != "w":
            fields[field.name] = dataclasses.replace(value, sizes=(0, *value.sizes[1:]))
        elif dataclasses.is_dataclass(value) and field.name in ("conv", "pool"):
            fields[field.name] = emptied(value)
    return dataclasses.replace(made, **fields)


@pytest.mark.parametrize("capability", TARGETS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_an_empty_batch_has_candidates_on_a_gpu(name, capability):
    """The last batch of a loader may be one. Models that divide by the number of programs did not survive it."""
    legal = [candidate for candidate in backend.candidates(emptied(problem(name, capability))) if candidate.legal]
    assert legal
    assert all(0 < candidate.predicted_seconds < 1 for candidate in legal)


@pytest.mark.parametrize("name", ["fprop_3x3", "fprop_resnext", "wgrad_3x3_tf32", "pool_forward_3x3", "channel_sum"])
def test_configurations_have_different_names(name):
    made = problem(name, 90)
    for family in families().values():
        if made.op in family.ops:
            names = [str(config) for config in family.configs(made)]
            assert len(names) == len(set(names))


def test_tiles_that_do_not_fit_a_smaller_gpu_are_rejected_there():
    made = problem("fprop_3x3", 90)
    small = dataclasses.replace(made, target=Target("cuda", 120, 82))
    rejected = {(c.kernel, c.config): c.reason for c in backend.candidates(small)}
    fits = {(c.kernel, c.config) for c in backend.candidates(made) if c.legal}
    too_large = [config for config in fits if "shared memory" in rejected[config]]
    assert too_large, "a 227 KB tile cannot run with 99 KB"


def test_gpus_and_types_without_kernels_are_named_in_the_reason():
    old = dataclasses.replace(SMALL, target=Target("cuda", 75, 40))
    assert {c.reason for c in backend.candidates(old)} == {"needs compute capability 8.0, this GPU has 7.5"}
    whole_numbers = dataclasses.replace(SMALL, dtype=torch.int32)
    assert {c.reason for c in backend.candidates(whole_numbers)} == {"no kernels for torch.int32"}


@pytest.mark.parametrize("name", ["fprop_3x3", "dgrad_3x3", "wgrad_depthwise", "channel_sum", "pool_forward_3x3"])
def test_a_plain_cpu_has_candidates_too(name):
    """Without a GPU to play there are no multiprocessors to divide by."""
    made = dataclasses.replace(problem(name, 80), target=Target("cpu", 0, 0, "cpu"))
    assert any(candidate.legal for candidate in backend.candidates(made))


def test_mostly_empty_tiles_are_rejected_and_the_best_one_is_not():
    made = problem("fprop_resnext", 80)
    reasons = {c.config: c.reason for c in backend.candidates(made) if c.kernel == "conv_fprop"}
    assert "would be useful" in reasons["64x64x64_s4_w4"]
    assert any(not reason for reason in reasons.values())


def test_depthwise_prefers_the_kernel_made_for_it():
    for name in ("fprop_depthwise", "fprop_depthwise_nchw", "dgrad_depthwise", "wgrad_depthwise"):
        assert backend.candidates(problem(name, 90))[0].kernel.startswith("grouped_")


def test_a_dense_convolution_prefers_tensor_cores():
    for name in ("fprop_3x3", "dgrad_3x3", "wgrad_3x3"):
        assert backend.candidates(problem(name, 90))[0].kernel.startswith("conv_")


@pytest.mark.parametrize("groups", [1, 4, 32])
def test_groups_add_no_empty_programs(groups):
    """Counting all output channels for every group would launch `groups` times too many."""
    filters, block_m, block_n = 128, 64, 16
    made = conv_problem("fprop", (2, 64, 8, 8), (filters, 64 // groups, 1, 1), torch.float16, groups=groups)
    family = families()["conv_fprop"]
    config = next(c for c in family.configs(made) if str(c) == f"{block_m}x{block_n}x16_s4_w4")
    (launch,) = family.launches(made, config)
    assert launch.programs == 2 * 64 // block_m * groups * ceil_div(filters // groups, block_n)
    depthwise = families()["grouped_fprop"]
    config = depthwise.configs(made)[0]
    (launch,) = depthwise.launches(made, config)
    one_group = dataclasses.replace(made, groups=1, w=Operand((filters, 64, 1, 1), (64, 1, 1, 1)))
    assert launch.programs == depthwise.launches(one_group, config)[0].programs


def test_strided_dgrad_walks_only_the_taps_of_each_phase():
    """Inserting zeros would walk all nine taps for every pixel."""
    made = conv_problem("dgrad", (1, 64, 32, 32), (64, 64, 3, 3), torch.float16, stride=(2, 2), padding=(1, 1, 1, 1))
    family = families()["conv_dgrad"]
    config = family.configs(made)[0]
    shape = family.shape(made, config)
    assert shape.batches * shape.m == 32 * 32
    assert shape.taps == 3  # the mean of 4, 2, 2 and 1, rounded up


def test_long_reductions_are_split_and_the_result_is_repeatable(seed):
    made = conv_problem("wgrad", (2, 3, 24, 24), (5, 3, 3, 3), torch.float32, padding=(1, 1, 1, 1), has_bias=True)
    family = families()["conv_wgrad"]
    config = family.configs(made)[-1]
    splits = family.shape(made, config).splits
    assert splits > 1
    assert family.workspaces(made, config)["workspace"] == (splits * 5 * 27, torch.float32)
    plan = plan_of(made, family, config)
    tensors = inputs_of(made, seed, lambda sizes, generator: torch.randn(sizes, generator=generator))
    first, again = run(plan, tensors), run(plan, tensors)
    for one, other, expected in zip(first, again, expected_conv(made, tensors), strict=True):
        assert torch.equal(one, other)
        torch.testing.assert_close(one.double(), expected, rtol=1e-5, atol=1e-4)


def test_unknown_configurations_kernels_and_illegal_ones_are_refused():
    candidate = backend.candidates(SMALL)[0]
    with pytest.raises(ValueError, match="1x1x1"):
        backend.plan(SMALL, dataclasses.replace(candidate, config="1x1x1"))
    with pytest.raises(ValueError, match="does not compute conv2d_fprop"):
        backend.plan(SMALL, dataclasses.replace(candidate, kernel="conv_wgrad"))
    rejected = backend.candidates(SMALL)[-1]
    with pytest.raises(ValueError, match="cannot run this problem"):
        backend.plan(SMALL, rejected)


def test_a_plan_refuses_tensors_that_do_not_fit_its_problem():
    plan = backend.plan(SMALL, backend.candidates(SMALL)[0])
    tensors = inputs_of(SMALL, 0)
    x, w = tensors["x"], tensors["w"]
    for wrong in (x.contiguous(), x[:, :, :4], x.float()):
        with pytest.raises(ValueError, match="x has sizes"):
            plan(wrong, w, None, None)
    with pytest.raises(ValueError, match="bias is not part of this problem"):
        plan(x, w, torch.zeros(4), None)
    with pytest.raises(TypeError, match="takes 4 tensors"):
        plan(x, w)


def strange(sizes):
    """Dense strides in an order that has no name: W, N, C, H from the outside in."""
    n, c, h, _ = sizes
    return Operand(sizes, (c * h, h, 1, n * c * h))


@pytest.mark.parametrize("conv_pass", ["fprop", "dgrad", "wgrad"])
def test_outputs_have_the_strides_of_the_problem(conv_pass, seed):
    made = conv_problem(conv_pass, (2, 4, 6, 5), (6, 2, 3, 3), torch.float32, groups=2, has_bias=True)
    made = dataclasses.replace(made, x=strange(made.x.sizes), w=strange(made.w.sizes), y=strange(made.y.sizes))
    written = {"fprop": made.y, "dgrad": made.x, "wgrad": made.w}[conv_pass]
    tensors = inputs_of(made, seed)
    for candidate in backend.candidates(made):
        if candidate.legal:
            outputs = run(backend.plan(made, candidate), tensors)
            assert outputs[0].stride() == written.strides
            assert torch.equal(outputs[0].double(), expected_conv(made, tensors)[0])


def test_pool_outputs_have_the_strides_of_the_problem(seed):
    made = pool_problem("forward", (2, 3, 7, 6), torch.float32, (2, 2), (2, 2))
    made = dataclasses.replace(made, x=strange(made.x.sizes), y=strange(made.y.sizes), offsets=strange(made.y.sizes))
    tensors = inputs_of(made, seed)
    y, offsets = run(backend.plan(made, backend.candidates(made)[0]), tensors)
    assert y.stride() == offsets.stride() == made.y.strides
    assert torch.equal(y, torch.nn.functional.max_pool2d(tensors["x"], 2))


def test_sum_of_an_empty_batch_is_zero():
    made = sum_problem((0, 5, 4, 4), torch.float32, False)
    plan = backend.plan(made, backend.candidates(made)[0])
    assert torch.equal(plan(torch.empty(0, 5, 4, 4)), torch.zeros(5))


@pytest.mark.parametrize("divisor", [1, 2, 3, 5, 7, 10, 56, 641, 65535, 65536, 2**31 - 1])
def test_magic_division(divisor):
    """By the formula that `numerics.divide` computes in 32 bits."""
    arguments = magic_division("d", divisor)
    magic, shift = arguments["d_magic"] % 2**32, arguments["d_shift"]
    multiples = [divisor * factor for factor in (1, 2, 3, 1000, (2**31 - 1) // divisor)]
    near = itertools.chain.from_iterable((value - 1, value, value + 1) for value in multiples)
    for value in {0, 1, 2, 2**31 - 1, *near}:
        if 0 <= value < 2**31:
            assert ((magic * value >> 32) + value) >> shift == value // divisor, value


def test_hints_never_promise_what_is_not_true():
    assert alignment(24, 48) == 8
    assert alignment(0, 0) == 16
    assert alignment(7) == 1
    channels_last = OperandHints.of(Operand((2, 24, 5, 5), (600, 1, 120, 24)))
    assert (channels_last.unit, channels_last.alignment) == (1, 8)
    overlapping = OperandHints.of(Operand((2, 3, 4, 4), (21, 7, 1, 1)))
    assert overlapping.alignment == 1
    one_channel = OperandHints.of(Operand((2, 1, 5, 6), (30, 30, 6, 1)))
    assert one_channel.strides[1] == 0
    assert (one_channel.unit, one_channel.alignment) == (3, 2)


def test_an_empty_batch_of_images_without_pixels():
    x = torch.empty(0, 4, 0, 7)
    y = fastconv.conv2d(x, torch.ones(6, 4, 3, 3), padding=2, backend="triton")
    assert y.shape == (0, 6, 2, 9)


@pytest.mark.parametrize("groups", [1, 4])
def test_dgrad_is_not_unrolled_for_a_stride_beyond_its_taps(groups):
    """Compiled, a stride of a million would be a million comparisons."""
    x, w = torch.ones(1, 4, 2, 1), torch.arange(36.0).reshape(4, 1, 3, 3).repeat(1, 4 // groups, 1, 1)
    made = conv_problem(
        "dgrad", (1, 4, 11, 3), tuple(w.shape), torch.float32, padding=(0, 0, 0, 0), stride=(8, 1000), groups=groups
    )
    steps = [
        launch.constants[name]
        for family in families().values()
        if made.op in family.ops
        for config in family.configs(made)
        if not family.rejection(made, config)
        for launch in family.launches(made, config)
        for name in ("TAP_STEP_H", "TAP_STEP_W")
        if name in launch.constants
    ]
    assert steps
    assert max(steps) <= 3
    y = fastconv.conv_transpose2d(x, w, stride=(8, 1000), groups=groups, backend="triton")
    assert torch.equal(y, torch.nn.functional.conv_transpose2d(x, w, stride=(8, 1000), groups=groups))
