"""Random problems: every op, forward and all gradients, against PyTorch in float64.

`pytest tests/fuzz --fuzz-problems 5000 --fuzz-seed 7` tries more; a failure prints the line that repeats it.
"""

from __future__ import annotations

import contextlib

import pytest
import torch

from fastconv import emulator
from tests.fuzz.shrink import shrink
from tests.support.cases import Case
from tests.support.check import find_failure, repeat_line
from tests.support.sampler import sample

#: One problem in so many runs in the emulator's check mode too.
CHECKED_EVERY = 8


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    option = metafunc.config.getoption
    if option("--problem"):
        cases = [Case.parse(line) for line in option("--problem")]
        metafunc.parametrize("case", cases, ids=[f"given-{number}" for number in range(len(cases))])
        return
    seed, backends = option("--fuzz-seed"), tuple(option("--fuzz-backends").split(","))
    checked = metafunc.function is test_random_problem_breaks_no_rule_of_cuda
    parameters = []
    for device in ("cpu",) if checked or not torch.cuda.is_available() else ("cpu", "cuda"):
        for index in range(0, option("--fuzz-problems"), CHECKED_EVERY if checked else 1):
            marks = [pytest.mark.gpu] if device == "cuda" else []
            case = sample(seed, index, backends, device)
            parameters.append(pytest.param(case, marks=marks, id=f"{device}-seed{seed}-{index}"))
    metafunc.parametrize("case", parameters)


def test_random_problem_is_as_accurate_as_pytorch(case: Case) -> None:
    _assert_passes(case)


def test_random_problem_breaks_no_rule_of_cuda(case: Case) -> None:
    """Out-of-bounds accesses, races and divergent barriers, the threads of a block running in shuffled order."""
    if case.backend != "cuda" or case.device != "cpu":
        pytest.skip("only the emulator checks")
    _assert_passes(case, checked=True)


def _assert_passes(case: Case, checked: bool = False) -> None:
    __tracebackhide__ = True
    failure = _failure_of(case, checked)
    if failure:
        smaller = shrink(case, lambda candidate: bool(_failure_of(candidate, checked)))
        lines = [failure, repeat_line(case)]
        if smaller != case:
            lines += ["", "a smaller problem fails too:", _failure_of(smaller, checked), repeat_line(smaller)]
        pytest.fail("\n".join(lines), pytrace=False)


def _failure_of(case: Case, checked: bool) -> str:
    mode = emulator.check(seed=case.seed) if checked else contextlib.nullcontext()
    try:
        with mode:
            return find_failure(case)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
