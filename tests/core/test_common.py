"""csrc/common by itself: number conversions bit for bit, and division by multiplication."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from build_support import flags
from build_support.settings import Settings
from build_support.toolchain import Toolchain

ROOT = Path(__file__).resolve().parents[2]
PROBE = Path(__file__).resolve().parent / "probes" / "common.cpp"


def compiled(folder: Path, name: str, extra: tuple[str, ...]) -> ctypes.CDLL:
    toolchain = Toolchain.find(Settings.read(os.environ), os.environ)
    target = folder / f"{name}.so"
    options = ["-std=c++17", "-O2", "-fPIC", "-shared", f"-I{ROOT / 'csrc'}", *extra]
    subprocess.run([*toolchain.cxx, *options, str(PROBE), "-o", str(target)], check=True)
    return ctypes.CDLL(str(target))


@pytest.fixture(scope="module", params=["portable", "as built"])
def common(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Without any instruction set beyond the baseline, and with the flags of the emulated modules."""
    toolchain = Toolchain.find(Settings.read(os.environ), os.environ)
    extra = flags.emulator(toolchain, checked=False) if request.param == "as built" else ()
    library = compiled(tmp_path_factory.mktemp("common"), request.param.replace(" ", "_"), extra)
    library.has_hardware_halves.restype = ctypes.c_bool
    if request.param == "portable":
        assert not library.has_hardware_halves()
    return library


def call(function, source: np.ndarray, result: type) -> np.ndarray:
    source = np.ascontiguousarray(source)
    target = np.empty(source.shape, result)
    function(ctypes.c_void_p(source.ctypes.data), ctypes.c_int64(source.size), ctypes.c_void_p(target.ctypes.data))
    return target


def floats_to_convert() -> np.ndarray:
    """Every 16-bit number of both types, what lies midway between two of them, the floats beside those, and random bits."""
    numbers = [
        torch.arange(65536, dtype=torch.int32).to(torch.uint16).view(dtype) for dtype in (torch.float16, torch.bfloat16)
    ]
    parts = []
    for number in numbers:
        exact = number.float()
        following = (number.view(torch.int16) + 1).view(number.dtype).float()
        middle = ((exact.double() + following.double()) / 2).float()
        for values in (exact, middle):
            bits = values.view(torch.int32)
            parts += [bits, bits + 1, bits - 1]
    parts.append(torch.randint(-(2**31), 2**31, (1 << 20,)).to(torch.int32))
    # 65520 is the first that rounds to infinity in float16.
    parts.append(torch.tensor([65519.996, 65520.0, 65536.0, 3.4e38, 2.0**-25, 2.0**-24 * 1.5]).view(torch.int32))
    return torch.cat(parts).view(torch.float32).numpy()


@pytest.mark.parametrize("name", ["half", "bfloat16"])
def test_widening_is_exact_for_all_65536_numbers(common: ctypes.CDLL, name: str) -> None:
    dtype = torch.float16 if name == "half" else torch.bfloat16
    bits = np.arange(65536, dtype=np.uint16)
    expected = torch.from_numpy(bits.view(np.int16).copy()).view(dtype).float().numpy()
    widened = call(getattr(common, f"{name}_to_float"), bits, np.float32)
    is_nan = np.isnan(expected)
    assert np.array_equal(np.isnan(widened), is_nan)
    assert np.array_equal(widened.view(np.uint32)[~is_nan], expected.view(np.uint32)[~is_nan])
    assert np.array_equal(np.signbit(widened), np.signbit(expected))


@pytest.mark.parametrize("name", ["half", "bfloat16"])
def test_narrowing_rounds_to_nearest_even(common: ctypes.CDLL, name: str) -> None:
    dtype = torch.float16 if name == "half" else torch.bfloat16
    values = floats_to_convert()
    expected = torch.from_numpy(values).to(dtype).view(torch.int16).numpy().view(np.uint16)
    narrowed = call(getattr(common, f"float_to_{name}"), values, np.uint16)
    is_nan = np.isnan(values)
    assert np.array_equal(narrowed[~is_nan], expected[~is_nan])
    infinity = 0x7C00 if name == "half" else 0x7F80
    assert ((narrowed[is_nan] & 0x7FFF) > infinity).all()
    assert np.array_equal(narrowed[is_nan] >> 15, values.view(np.uint32)[is_nan] >> 31)


def edges(bits: int) -> list[int]:
    powers = {2**exponent + shift for exponent in range(bits + 1) for shift in (-1, 0, 1)}
    some = {3, 5, 6, 7, 10, 49, 641, 1000, 3136, 12544, 802816, 10**9}
    return sorted(number for number in powers | some if 0 <= number < 2**bits)


@pytest.mark.parametrize("bits", [32, 64])
def test_division_is_exact_at_every_edge(common: ctypes.CDLL, bits: int) -> None:
    word = np.uint32 if bits == 32 else np.uint64
    divide = getattr(common, f"divide{bits}")
    random = np.random.default_rng(0)
    for divisor in [edge for edge in edges(bits) if edge > 0] + random.integers(1, 2**bits, 200, word).tolist():
        largest = (2**bits - 1) // divisor
        quotients = {
            0,
            1,
            2,
            largest - 1,
            largest,
            largest // 2,
            *random.integers(0, largest, 20, np.uint64, True).tolist(),
        }
        around = {quotient * divisor + shift for quotient in quotients for shift in (-1, 0, 1)} | set(edges(bits))
        dividends = np.array(sorted(number for number in around if 0 <= number < 2**bits), word)
        result = np.empty_like(dividends)
        divide(
            ctypes.c_void_p(dividends.ctypes.data),
            ctypes.c_int64(dividends.size),
            (ctypes.c_uint32 if bits == 32 else ctypes.c_uint64)(divisor),
            ctypes.c_void_p(result.ctypes.data),
        )
        assert np.array_equal(result, dividends // word(divisor)), f"division by {divisor}"
