"""The interpreter as we run it: bfloat16 done right, no trace left behind, no index arithmetic that overflows."""

from __future__ import annotations

import inspect
import subprocess
import sys
import threading

import pytest
import torch
import triton
import triton.language as tl
from triton.runtime import interpreter

from fastconv.backends.triton.backend import families
from fastconv.backends.triton.compilation import compile_launch
from fastconv.backends.triton.numerics import activate, dot, narrow, raised, sum_over, turned
from fastconv.backends.triton.runtime import Launch, index_overflow_checks, kernel
from tests.support.references import ACTIVATIONS
from tests.triton.oracle import conv_problem, expected_conv, inputs_of, plan_of, run

TYPES = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16, torch.float32: tl.float32, torch.float64: tl.float64}


@kernel
def convert_kernel(
    x_pointer, y_pointer, elements, COMPUTED: tl.constexpr, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr
):
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = index < elements
    value = raised(tl.load(x_pointer + index, mask=valid, other=0.0), COMPUTED)
    tl.store(y_pointer + index, narrow(activate(value, ACTIVATION), y_pointer.dtype.element_ty), mask=valid)


@kernel
def product_kernel(x_pointer, w_pointer, y_pointer, sums_pointer, BLOCK: tl.constexpr):
    index = tl.arange(0, BLOCK)
    tile = index[:, None] * BLOCK + index[None, :]
    product = tl.full([BLOCK, BLOCK], 0.0, tl.float32)
    product = dot(tl.load(x_pointer + tile), tl.load(w_pointer + tile), product, "ieee")
    tl.store(y_pointer + tile, product)
    tl.store(sums_pointer + index, sum_over(product, 1))


def convert(x: torch.Tensor, dtype: torch.dtype, activation: str = "identity", computed=tl.float32) -> torch.Tensor:
    y = torch.full(x.shape, 7, dtype=dtype)
    constants = {"COMPUTED": computed, "ACTIVATION": activation, "BLOCK": 1024}
    launch = Launch(convert_kernel, triton.cdiv(x.numel(), 1024), {"elements": x.numel()}, constants)
    launch.run({"x": x, "y": y}, x.device)
    return y


def test_every_bfloat16_is_read_exactly():
    bits = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16)
    x = bits.view(torch.bfloat16)
    expected = x.float()
    numbers = ~expected.isnan()
    actual = convert(x, torch.float32)
    assert torch.equal(actual[numbers].view(torch.int32), expected[numbers].view(torch.int32))
    assert actual[~numbers].isnan().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_conversion_rounds_to_nearest_even(dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(20_000, generator=generator) * torch.exp2(
        torch.randint(-40, 40, (20_000,), generator=generator)
    )
    one = torch.ones(1).view(torch.int32) + torch.arange(0, 1 << 17, 1 << 12, dtype=torch.int32)
    edges = torch.tensor(
        [0.0, -0.0, float("inf"), -float("inf"), float("nan"), 3.39e38, -3.4e38, 65519.9, 65520.0, 1e-40]
    )
    x = torch.cat([random, one.view(torch.float32), -one.view(torch.float32), edges])
    actual, expected = convert(x, dtype), x.to(dtype)
    assert torch.equal(actual.isnan(), expected.isnan())
    assert torch.equal(actual.nan_to_num(7.0), expected.nan_to_num(7.0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_dot_and_sum_of_16_bit_operands_are_right(dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    x, w = (torch.randint(-3, 4, (32, 32), generator=generator).to(dtype) for _ in range(2))
    y, sums = torch.empty(32, 32), torch.empty(32)
    Launch(product_kernel, 1, {}, {"BLOCK": 32}).run({"x": x, "w": w, "y": y, "sums": sums}, x.device)
    assert torch.equal(y, x.float() @ w.float())
    assert torch.equal(sums, y.sum(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_are_pytorchs(activation, dtype):
    special = torch.tensor([float("nan"), 0.0, 1e-30, -1e-30, 3.0, -3.0, 100.0, -100.0], dtype=dtype)
    x = torch.cat([torch.linspace(-12, 12, 2001, dtype=dtype), torch.linspace(-0.03, 0.03, 501, dtype=dtype), special])
    actual = convert(x, dtype, activation, TYPES[dtype]).double()
    expected = ACTIVATIONS[activation](x.double())
    eps = torch.finfo(dtype).eps
    if dtype == torch.float64:  # PyTorch's result is the reference, so its own roundings count here too
        allowed = 4 * eps * torch.maximum(x.abs(), expected.abs())
    else:
        own = (ACTIVATIONS[activation](x).double() - expected).abs()
        allowed = 2 * own.nan_to_num(0.0).max() + eps / 2 * expected.abs()
    assert torch.equal(actual.isnan(), expected.isnan())
    error = (actual - expected).abs().nan_to_num(0.0)
    assert (error <= allowed.nan_to_num(1.0)).all()


@kernel
def turn_kernel(x_pointer, y_pointer, PRECISION: tl.constexpr, BLOCK: tl.constexpr):
    index = tl.arange(0, BLOCK)
    tl.store(y_pointer + index, turned(tl.load(x_pointer + index), PRECISION))


@pytest.mark.parametrize("precision", ["tf32_hopper", "tf32_blackwell", "tf32", "ieee"])
def test_turned_rounds_to_tf32_on_the_gpus_that_need_it(precision, seed):
    x = torch.randn(64, generator=torch.Generator().manual_seed(seed))
    x[:6] = torch.tensor([1 + 2**-11, -1 - 2**-11, 1 + 3 * 2**-12, float("inf"), float("-inf"), float("nan")])
    y = torch.empty(64)
    Launch(turn_kernel, 1, {}, {"PRECISION": precision, "BLOCK": 64}).run({"x": x, "y": y}, x.device)
    if precision in ("tf32", "ieee"):
        assert torch.equal(y.nan_to_num(7.0), x.nan_to_num(7.0))
    else:
        assert y[:5].tolist() == [1 + 2**-10, -1 - 2**-10, 1 + 2**-10, float("inf"), float("-inf")]
        assert y[5].isnan()
        assert not (y[6:].view(torch.int32) & 0x1FFF).any()
        assert ((y[6:] - x[6:]).abs() <= 2**-11 * x[6:].abs()).all()


SMALL = conv_problem("fprop", (1, 4, 5, 5), (4, 4, 3, 3), torch.bfloat16, padding=(1, 1, 1, 1), channels_last=True)


def small_plan():
    family = families()["conv_fprop"]
    return plan_of(SMALL, family, family.configs(SMALL)[-1])


def snapshot() -> dict[str, object]:
    """What the interpreter replaces while it runs."""
    members = {f"tl.{name}": value for name, value in inspect.getmembers(tl)}
    return members | {f"tl.tensor.{name}": value for name, value in vars(tl.tensor).items()}


def interpreted_is_right() -> bool:
    tensors = inputs_of(SMALL, 3)
    return torch.equal(run(small_plan(), tensors)[0].double(), expected_conv(SMALL, tensors)[0])


def compiled_has_tensor_cores() -> bool:
    plan = small_plan()
    return all(compile_launch(launch, plan.types(), 80).tensor_cores for launch in plan.launches)


def test_interpreting_and_compiling_take_turns_in_one_process():
    assert interpreted_is_right()
    before = snapshot()
    assert compiled_has_tensor_cores()
    assert interpreted_is_right()
    assert snapshot() == before
    assert compiled_has_tensor_cores()


def test_a_failing_interpreted_kernel_leaves_no_trace():
    before = snapshot()
    plan = small_plan()
    (launch,) = plan.launches
    broken = {name: value for name, value in launch.constants.items() if name != "ACTIVATION"} | {
        "ACTIVATION": object()
    }
    options = interpreter.interpreter_builder.options
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the interpreter makes of a missing tensor
        Launch(launch.kernel, 1, launch.scalars, broken).run({"x": None}, torch.device("cpu"))
    assert snapshot() == before
    assert interpreter.interpreter_builder.options == options


def test_interpreting_threads_do_not_disturb_each_other():
    results = []
    threads = [threading.Thread(target=lambda: results.append(interpreted_is_right())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 3


@kernel
def overflowing_kernel(y_pointer, factor, BLOCK: tl.constexpr):
    index = tl.arange(0, BLOCK)
    tl.store(y_pointer + index, index * factor)


def test_index_overflow_is_reported_where_it_is_asked_for():
    y = torch.empty(16, dtype=torch.int32)
    launch = Launch(overflowing_kernel, 1, {"factor": 1 << 30}, {"BLOCK": 16})
    launch.run({"y": y}, y.device)
    with index_overflow_checks(), pytest.raises(Exception, match="overflow"):
        launch.run({"y": y}, y.device)


@pytest.mark.parametrize("conv_pass", ["fprop", "dgrad", "wgrad"])
def test_kernels_do_not_overflow_32_bit_indices(conv_pass, seed):
    problem = conv_problem(
        conv_pass,
        (2, 4, 6, 5),
        (6, 2, 3, 3),
        torch.float32,
        stride=(2, 1),
        padding=(1, 2, 0, 1),
        groups=2,
        has_bias=True,
    )
    tensors = inputs_of(problem, seed)
    with index_overflow_checks():
        for family in families().values():
            for config in family.configs(problem) if problem.op in family.ops else ():
                if "depth" not in family.rejection(problem, config):
                    outputs = run(plan_of(problem, family, config), tensors)
                    assert torch.equal(outputs[0].double(), expected_conv(problem, tensors)[0])
                    break


def test_importing_fastconv_does_not_import_triton():
    program = "import sys, fastconv, fastconv.backends.triton; print('triton' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "False"


def test_without_triton_the_backend_says_what_to_install():
    program = """
import sys
sys.modules["triton"] = None
from fastconv.backends.triton import backend
print(backend.unavailable("cpu"))
"""
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "Triton is not installed" in output
    assert "pip install triton" in output
