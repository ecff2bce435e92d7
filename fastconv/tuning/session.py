"""Tuning the layers of suites or of a model: what `fastconv tune` does."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from fastconv import dispatch
from fastconv.bench.cases import Case, problems
from fastconv.bench.precision import PRECISIONS, switches
from fastconv.problem import Problem
from fastconv.tuning.keys import problem_key
from fastconv.tuning.store import Store
from fastconv.tuning.tuner import MOST_PER_BACKEND, Tuned, tune_problem


@dataclasses.dataclass
class Report:
    """What a session came to."""

    tuned: list[Tuned]
    errors: dict[str, str]  # problem -> why it could not be tuned at all
    left: int  # problems that the time did not suffice for

    @property
    def measured(self) -> int:
        return sum(len(one.measured) for one in self.tuned)

    def winners(self) -> dict[str, int]:
        """How many problems each backend serves fastest."""
        counts: dict[str, int] = {}
        for one in self.tuned:
            finite = {name: seconds for name, seconds in one.times.items() if math.isfinite(seconds)}
            if finite:
                backend = min(finite, key=lambda name: finite[name]).partition(":")[0]
                counts[backend] = counts.get(backend, 0) + 1
        return counts


def problems_of_cases(cases: Iterable[Case]) -> list[Problem]:
    """The primitives of suites' cases on the GPU that is here, each once."""
    target = dispatch.target_of(torch.device("cuda", torch.cuda.current_device()))
    return list(dict.fromkeys(problem for case in cases for problem in problems(case, target)))


def problems_of_call(call: Callable[[], Any]) -> list[Problem]:
    """The primitives that a call runs on a GPU, each once."""
    found: dict[Problem, None] = {}
    with dispatch.listening(lambda choice, plan: found.setdefault(choice.problem)):
        call()
    return [problem for problem in found if problem.target.device_type == "cuda"]


def tune(
    wanted: Sequence[Problem],
    store: Store,
    *,
    most: int | None = MOST_PER_BACKEND,
    again: bool = False,
    deadline: float = float("inf"),
    on_problem: Callable[[Problem, Tuned | str], None] = lambda problem, result: None,
    device: Any = None,
) -> Report:
    """Measures what has no time yet, problem by problem; every problem's times are kept as soon as it is done."""
    report = Report([], {}, 0)
    for number, problem in enumerate(wanted):
        if time.time() > deadline:
            report.left = len(wanted) - number
            break
        result: Tuned | str
        try:
            with _precision(problem):
                result = tune_problem(
                    problem, dispatch.candidates(problem), store, most=most, again=again, device=device
                )
            report.tuned.append(result)
        except Exception as error:
            result = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            report.errors[problem_key(problem)] = result
            if _is_lost(error):
                report.left = len(wanted) - number - 1
                break
        on_problem(problem, result)
    dispatch.clear()
    return report


def _precision(problem: Problem) -> contextlib.AbstractContextManager[None]:
    name = str(problem.dtype).removeprefix("torch.")
    return switches(PRECISIONS["tf32" if getattr(problem, "allow_tf32", False) and name == "float32" else name])


def _is_lost(error: Exception) -> bool:
    """After these a CUDA context answers nothing any more."""
    words = ("illegal memory access", "illegal instruction", "misaligned address", "unspecified launch failure")
    return any(word in str(error) for word in words)
