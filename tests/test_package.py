"""The package as a whole: what importing it costs, and the examples in its docstrings."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys

import pytest

DOCUMENTED = (
    "fastconv",
    "fastconv.autograd.convolution",
    "fastconv.autograd.pooling",
    "fastconv.convert",
    "fastconv.explain",
    "fastconv.functional",
    "fastconv.intercept",
    "fastconv.nn.convolution",
    "fastconv.nn.pooling",
)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_examples_in_docstrings(name):
    importlib.import_module(name)
    results = doctest.testmod(sys.modules[name], optionflags=doctest.ELLIPSIS)
    assert results.attempted > 0
    assert results.failed == 0


def test_importing_does_not_load_what_only_some_need():
    heavy = (
        "triton",
        "rich",
        "matplotlib",
        "sklearn",
        "typer",
        "fastconv._emulator",
        "fastconv._cuda",
        "torch._dynamo",
    )
    code = (
        "import sys, torch; before = set(sys.modules); import fastconv; "
        f"print([name for name in {heavy!r} if name in sys.modules and name not in before])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_every_public_name_is_there():
    import fastconv

    for name in fastconv.__all__:
        assert getattr(fastconv, name) is not None
