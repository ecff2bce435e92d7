"""The problems chosen by hand, in every dtype and both memory formats, forward and all gradients."""

from __future__ import annotations

import pytest

from tests.support.cases import DTYPES, Case
from tests.support.check import assert_case
from tests.support.curated import CURATED, with_options


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CURATED)
def test_curated_problem(name, dtype, layout, device):
    assert_case(_variant(CURATED[name], dtype, layout, "cuda", device))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("name", CURATED)
def test_curated_problem_through_aten(name, layout, device):
    """Tests what lies between the call and the kernels: ATen's own float64 kernels are right."""
    assert_case(_variant(CURATED[name], "float64", layout, "aten", device))


@pytest.mark.parametrize("name", [name for name in CURATED if name != "p_byte_offsets_full"])
def test_curated_problem_through_triton(name, device):
    """Once each in Triton's interpreter, which is slow (the one left out takes it many seconds); tests/triton has more."""
    number = list(CURATED).index(name)
    dtype, layout = ("float32", "bfloat16")[number % 2], ("contiguous", "channels_last")[number // 2 % 2]
    assert_case(_variant(CURATED[name], dtype, layout, "triton", device))


@pytest.mark.parametrize("name", CURATED)
def test_curated_problem_with_64_bit_offsets(name, device):
    assert_case(with_options(CURATED[name], index_bits=64, data="integers", device=device))


def _variant(case: Case, dtype: str, layout: str, backend: str, device: str) -> Case:
    # Integers in one of the formats, so that every problem is compared exactly once in every dtype.
    data = "integers" if layout == "contiguous" else "normal"
    return with_options(
        case, dtype=dtype, x_layout=layout, w_layout=layout, dy_layout=layout, backend=backend, device=device, data=data
    )
