"""mma_conv_max_pool and mma_conv_global_max, every configuration of them: exact, without a mistake that the emulator's check
mode sees, without the convolution's output in memory."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch

import fastconv
from fastconv import backends, dispatch, emulator
from fastconv.backends.cuda import CudaPlan
from fastconv.problem import Operand
from tests.core.fused_support import POOLS, WHOLE, fused_candidates, problem_of
from tests.core.mma_support import Case as CoreCase
from tests.fused.support import Case

TYPES = ((torch.float16, False), (torch.bfloat16, False), (torch.float32, True), (torch.float32, False))
#: Three channels: pixels of 6 or 12 bytes.
NARROW = dataclasses.replace(WHOLE, x=(1, 3, 17, 15), w=(24, 3, 5, 3), stride=(2, 1), padding=(2, 1))


def run(case: Case, problem, candidate) -> tuple[torch.Tensor, torch.Tensor]:
    """y and the winners' indices, from that candidate."""
    plan = backends.get("cuda").plan(problem, candidate)
    y, places = plan(*case.tensors())
    if case.pool is None:
        return y, places
    size = [case.x[0], case.w[0], *case.map_size]
    return y, torch.ops.fastconv.max_pool2d_indices(places, size, *case.pool, (1, 1), False, "aten")


def assert_exact(case: Case, problem, candidate) -> None:
    expected = case.reference(*(None if t is None else t.double() for t in case.tensors()))
    y, indices = run(case, problem, candidate)
    context = f"{case!r} {candidate.kernel} {candidate.config}"
    assert torch.equal(y.double(), expected[0]), f"{int((y.double() != expected[0]).sum())} values: {context}"
    assert torch.equal(indices, expected[1]), f"{int((indices != expected[1]).sum())} winners: {context}"


EVERY_TYPE = [(WHOLE, pool) for pool in ("2x2s2", "3x3s2p1", "global")] + [
    (NARROW, pool) for pool in ("3x3s2p1", "global")
]
CALLS = [
    *((base, pool, *kind) for base, pool in EVERY_TYPE for kind in TYPES),
    *((WHOLE, pool, torch.float16, False) for pool in ("3x2s1", "2x2s3")),  # the geometry does not ask for the type
]


@pytest.mark.parametrize(
    ("base", "pool", "dtype", "allow_tf32"),
    CALLS,
    ids=lambda value: {WHOLE: "whole", NARROW: "narrow"}.get(value) if isinstance(value, Case) else str(value),
)
def test_every_configuration_is_exact_and_makes_no_mistake(base, pool, dtype, allow_tf32):
    case = dataclasses.replace(base, dtype=dtype, pool=POOLS[pool])
    problem = problem_of(case, allow_tf32)
    legal = [one for one in fused_candidates(problem) if one.legal]
    assert len(legal) >= (1 if base is NARROW else 3), fused_candidates(problem)
    for candidate in legal:
        with emulator.check():
            assert_exact(case, problem, candidate)


@pytest.mark.parametrize("pool", ["2x2s2", "global"])
def test_groups_and_filters_that_are_no_whole_chunk(pool):
    case = dataclasses.replace(
        WHOLE, x=(1, 32, 9, 9), w=(22, 16, 3, 3), groups=2, dtype=torch.float16, pool=POOLS[pool]
    )
    problem = problem_of(case)
    for candidate in fused_candidates(problem):
        with emulator.check():
            assert_exact(case, problem, candidate)


@pytest.mark.parametrize("pool", ["2x2s2", "3x3s2p1", "global"])
def test_layouts_of_the_output(pool):
    """NCHW: lanes go along pixels; the input is turned to channels-last first."""
    for layouts in (
        {"x_layout": "contiguous", "w_layout": "contiguous"},
        {"x_layout": "sliced"},
        {"x_layout": "offset"},
    ):
        case = dataclasses.replace(WHOLE, dtype=torch.float16, pool=POOLS[pool], **layouts)
        problem = problem_of(case)
        candidate = next(one for one in fused_candidates(problem) if one.legal)
        with emulator.check():
            assert_exact(case, problem, candidate)


@pytest.mark.parametrize("pool", ["2x2s2", "3x3s2p1", "global"])
@pytest.mark.parametrize("w_layout", ["contiguous", "channels_last"])
def test_parts_of_a_batch_equal_the_whole_bit_by_bit(pool, w_layout):
    """The workspace has room for two images in channels-last: the last part of seven has one."""
    layouts = {"x_layout": "contiguous", "w_layout": w_layout}
    call = dataclasses.replace(
        WHOLE, x=(7, 16, 19, 23), dtype=torch.float16, pool=POOLS[pool], data="normal", **layouts
    )
    problem = problem_of(call)
    most = 5 * 16 * 19 * 23 * 2
    legal = [one for one in fused_candidates(problem, most) if one.legal]
    assert legal
    for candidate in legal:
        assert candidate.details["parts"] == 4
        whole = next(one for one in fused_candidates(problem) if one.config == candidate.config)
        assert whole.details["parts"] == 1
        plan = CudaPlan(problem, candidate, most)
        assert plan.workspace_bytes <= most
        with emulator.check():
            results = plan(*call.tensors())
        for one, other in zip(results, backends.get("cuda").plan(problem, whole)(*call.tensors()), strict=True):
            assert torch.equal(one, other), candidate.config


def at_odd_address(tensor: torch.Tensor) -> torch.Tensor:
    """The same values, one element past an address that is a multiple of 16."""
    moved = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)[1:].as_strided(tensor.shape, tensor.stride(), 1)
    return moved.copy_(tensor)


@pytest.mark.parametrize("size", [3, 11, 12, 16, 17])
def test_a_window_fits_the_tiles_of_unaligned_tensors_too_or_is_refused(size):
    """Where x lies is known only at the launch, and the kernel for odd addresses has a smaller tile."""
    window = ((size, size), (size, size), (0, 0))
    case = dataclasses.replace(WHOLE, x=(1, 16, 2 * size, 2 * size), w=(8, 16, 3, 3), dtype=torch.float16, pool=window)
    problem = problem_of(case)
    candidates = fused_candidates(problem)
    assert any(one.legal for one in candidates) == (size <= 11)  # 128 pixels hold 11 x 11
    if size in (12, 16):
        assert any(one.reason.endswith("as x has if its address is not a multiple of 16") for one in candidates)
        turned = dataclasses.replace(case, x_layout="contiguous")  # and so aligned, wherever it lies
        (candidate, *_) = [one for one in fused_candidates(problem_of(turned)) if one.legal]
        with emulator.check():
            assert_exact(turned, problem_of(turned), candidate)
    x, w, bias = case.tensors()
    expected = case.reference(x.double(), w.double(), bias.double())[0]
    for candidate in [one for one in candidates if one.legal]:
        plan = backends.get("cuda").plan(problem, candidate)
        with emulator.check():
            for moved in ((at_odd_address(x), w), (x, at_odd_address(w)), (at_odd_address(x), at_odd_address(w))):
                assert torch.equal(plan(*moved, bias)[0].double(), expected), candidate.config


def test_the_parts_of_unaligned_tensors_are_in_the_workspace_that_is_judged():
    """The tile for odd addresses makes more parts of a map than a tile of 256 pixels."""
    compiled = emulator.module()
    case = CoreCase("fprop", torch.float16, (1, 16, 40, 40), (64, 16, 3, 3))
    used = set()
    for most in range(8_000, 80_000, 1_000):
        convolution = dataclasses.replace(case, most_workspace_bytes=most).problem(compiled)
        problem = compiled.ConvGlobalMaxProblem(conv=convolution)
        for candidate in compiled.candidates(problem):
            if candidate.reason:
                continue
            used.add(candidate.config)
            assert compiled.Plan(problem, candidate.kernel, candidate.config).workspace_bytes <= most, candidate.config
    assert len(used) >= 3


@pytest.mark.parametrize("activation", ["leaky_relu", "silu", "gelu", "sigmoid", "hardswish", "tanh"])
@pytest.mark.parametrize("pool", ["3x3s2p1", "global"])
def test_every_activation_equals_the_unfused_kernels(pool, activation):
    """Bit by bit: the fused epilogue rounds what it compares, as if it had been stored."""
    case = dataclasses.replace(WHOLE, dtype=torch.bfloat16, pool=POOLS[pool], activation=activation, data="normal")
    problem = problem_of(case)
    fused = next(one for one in fused_candidates(problem) if one.legal)
    unfused = next(one for one in backends.get("cuda").candidates(problem) if one.kernel == "unfused")
    for one, other in zip(run(case, problem, fused), run(case, problem, unfused), strict=True):
        assert torch.equal(one, other)


def test_float32_as_accurate_as_the_plain_kernel():
    """Split TF32: infinities and numbers that it cannot hold are computed again here too."""
    case = dataclasses.replace(WHOLE, dtype=torch.float32, pool=None, activation=None, data="normal", bias=False)
    x, w, _ = case.tensors()
    x = x.contiguous(memory_format=torch.channels_last)
    x[0, 0, 5, 5] = float("inf")
    x[1] *= 1e-38
    problem = problem_of(case)
    candidate = next(one for one in fused_candidates(problem) if one.legal)
    y, indices = backends.get("cuda").plan(problem, candidate)(x, w, None)
    expected, places = case.reference(x.double(), w.double(), None)
    assert torch.equal(y[0].isinf(), expected[0].isinf())
    assert torch.equal(indices[1], places[1])
    torch.testing.assert_close(y[1].double(), expected[1], rtol=2e-6, atol=1e-44)


@pytest.mark.parametrize("pool", ["2x2s2", "3x3s2p1", "global"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_the_convolutions_output_is_never_written(dtype, pool):
    """What is written to memory is y and a byte for each of its elements; of a global maximum the parts and the results."""
    case = dataclasses.replace(WHOLE, x=(1, 16, 32, 32), w=(64, 16, 3, 3), dtype=dtype, pool=POOLS[pool])
    problem = problem_of(case)
    outputs = problem.pool.y.sizes[0] * problem.pool.y.sizes[1] * problem.pool.y.sizes[2] * problem.pool.y.sizes[3]
    feature_map = 64 * 32 * 32 * dtype.itemsize
    for candidate in fused_candidates(problem):
        plan = backends.get("cuda").plan(problem, candidate)
        tensors = case.tensors()
        with emulator.count() as counters:
            plan(*tensors)
        names = ("x", "w", "y", "bias", "offsets", "indices", "parts")
        written = {name: sum(launch.total(name, "store").bytes for launch in counters.launches) for name in names}
        assert written["y"] == outputs * dtype.itemsize, candidate.config
        assert written["offsets" if case.pool else "indices"] == outputs * (1 if case.pool else 8)
        assert written["x"] == written["w"] == written["bias"] == 0
        if case.pool is None:
            assert written["parts"] <= feature_map / 8, candidate.config
        else:
            launch = counters.launches[-1]
            assert launch.kernel == "mma_conv_max_pool"
            assert set(launch.widths("y", "store")) == {16}
            assert set(launch.widths("offsets", "store")) == {16 // dtype.itemsize}
            for name in ("y", "offsets"):
                stored = launch.total(name, "store")
                assert stored.sector_bytes == stored.bytes, f"{candidate.config}: {stored}"
        loads = set(counters.launches[-2 if case.pool is None else -1].widths("x", "load"))
        assert loads == {16}, candidate.config


@pytest.mark.parametrize("pool", ["2x2s2", "3x3s2p1"])
def test_pooling_in_shared_memory_has_no_bank_conflicts(pool):
    for dtype in (torch.float16, torch.float32):
        case = dataclasses.replace(WHOLE, x=(1, 16, 32, 32), w=(128, 16, 3, 3), dtype=dtype, pool=POOLS[pool])
        problem = problem_of(case)
        for candidate in fused_candidates(problem):
            plan = backends.get("cuda").plan(problem, candidate)
            tensors = case.tensors()
            with emulator.count() as counters:
                plan(*tensors)
            lines = [
                access
                for access in counters.launches[-1].by_line()
                if access.target == "dynamic shared memory" and ("pool_gemm" in access.line or "finish" in access.line)
            ]
            assert lines
            for access in lines:
                assert access.bank_conflicts == 0, f"{candidate.config}: {access}"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dtype": torch.float64}, "float64"),
        ({"pool": ((20, 20), (20, 20), (0, 0)), "x": (1, 16, 40, 40)}, "does not fit a byte|do not fit a byte"),
        ({"pool": ((16, 16), (16, 16), (0, 0)), "x": (1, 16, 40, 40)}, "does not fit a tile of 128 pixels"),
        ({"w": (16, 16, 33, 1), "x": (1, 16, 40, 8)}, "31 rows"),
        ({"groups": 4, "x": (1, 16, 8, 8), "w": (16, 4, 3, 3)}, "groups of 4 input channels"),
    ],
)
def test_what_no_fused_kernel_takes_has_a_reason_and_runs_unfused(change, words):
    case = dataclasses.replace(WHOLE, dtype=torch.float16, x_layout="contiguous")
    case = dataclasses.replace(case, **change)
    problem = problem_of(case)
    rejected = [one for one in fused_candidates(problem) if not one.legal]
    assert any(re.search(words, one.reason) for one in rejected), rejected
    case.assert_exact("cuda")


@pytest.mark.parametrize("rows", [128, 256])
@pytest.mark.parametrize("pool", ["2x2s2", "3x3s2p1"])
def test_patches_use_most_of_a_tile(pool, rows):
    """On a large map: 2x2 windows waste nothing; of 3x3 ones a tile of 128 holds 25 at most, so 1.28 is as good as it gets."""
    case = dataclasses.replace(WHOLE, x=(1, 16, 112, 112), w=(64, 16, 3, 3), dtype=torch.bfloat16, pool=POOLS[pool])
    problem = problem_of(case)
    for candidate in fused_candidates(problem):
        details = candidate.details
        if details["tile_rows"] != rows:
            continue
        column_tiles = -(-64 // details["tile_columns"])
        computed = details["grid"] // column_tiles * rows
        assert computed <= 112 * 112 * (1.1 if pool == "2x2s2" else 1.4), candidate


def test_the_fused_kernel_is_chosen_where_it_moves_less():
    """A VGG layer on an H100, by the cost model: the unfused kernels write and read the feature map."""
    x = torch.empty(32, 64, 224, 224, device="meta", dtype=torch.bfloat16)
    target = dispatch.target_of(torch.device("cpu"), "cuda")
    problem = dispatch.make_conv_max_pool_problem(
        torch.bfloat16,
        dataclasses.replace(target, capability=90, multiprocessors=132),
        x=Operand.of(x.contiguous(memory_format=torch.channels_last)),
        w=Operand((64, 64, 3, 3), (576, 1, 192, 64)),
        stride=(1, 1),
        padding=(1, 1, 1, 1),
        dilation=(1, 1),
        groups=1,
        activation="relu",
        pool_kernel=(2, 2),
        pool_stride=(2, 2),
        pool_padding=(0, 0),
    )
    assert fastconv.dispatch.choose(problem, "cuda").chosen.kernel == "mma_conv_max_pool"
