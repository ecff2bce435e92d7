"""What `auto` takes on a GPU: the fastest measured candidate, else the shipped table's, else the cost model's."""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from fastconv.plan import Candidate
from fastconv.problem import Problem
from fastconv.tuning import tables
from fastconv.tuning.keys import Environment, candidate_key, problem_key
from fastconv.tuning.mode import Mode, mode
from fastconv.tuning.model import aten_seconds
from fastconv.tuning.store import Store, default_folder

#: How much faster than ATen the cost model must think one of our kernels before it is chosen unmeasured: a user who converts a
#: model must not lose because of a guess.
MARGIN = 1.3

_lock = threading.Lock()
_measured_by_force: set[str] = set()


def store_for(gpu: str) -> Store:
    return _store(gpu, default_folder())


@functools.cache
def _store(gpu: str, folder: Path) -> Store:
    return Store(Environment.here(gpu), folder)


def choose(problem: Problem, candidates: Sequence[Candidate], backend: str = "auto") -> tuple[Candidate, str] | None:
    """The candidate and why; None where nothing here has an opinion (CPU tensors, no candidate that can run).

    Where a backend was asked for, `candidates` are its own, and their order stands unless times are known.
    """
    legal = [candidate for candidate in candidates if candidate.legal]
    if problem.target.device_type != "cuda" or not legal:
        return None
    wanted = mode()
    if wanted is not Mode.off:
        key = problem_key(problem)
        store = store_for(problem.target.name)
        if wanted in (Mode.measure, Mode.force) and _may_measure():
            _measure_missing(problem, key, legal, store, wanted)
        if chosen := fastest(legal, store.times(key)):
            return chosen
        if chosen := from_table(legal, tables.shipped(problem.target.name), key, problem.target.name):
            return chosen
    return by_model(problem, legal) if backend == "auto" else None


def fastest(legal: Sequence[Candidate], times: Mapping[str, float]) -> tuple[Candidate, str] | None:
    """Among those with a time."""
    timed = [
        (times[candidate_key(one)], one) for one in legal if math.isfinite(times.get(candidate_key(one), math.inf))
    ]
    if not timed:
        return None
    seconds, chosen = min(timed, key=lambda pair: pair[0])
    why = f"measured fastest of {len(timed)} on this GPU: {seconds * 1e6:.1f} us"
    aten = min((time for time, one in timed if one.backend == "aten"), default=None)
    if aten is not None and chosen.backend != "aten":
        why += f", ATen {aten * 1e6:.1f} us"
    return chosen, why


def from_table(
    legal: Sequence[Candidate], table: Mapping[str, str], key: str, gpu: str
) -> tuple[Candidate, str] | None:
    """The shipped winner, where it still exists and can run."""
    wanted, note = tables.look_up(table, key)
    chosen = next((candidate for candidate in legal if candidate_key(candidate) == wanted), None)
    if chosen is None:
        return None
    return chosen, f"the shipped table for {gpu} has it{f', {note}' if note else ''}"


def by_model(problem: Problem, legal: Sequence[Candidate]) -> tuple[Candidate, str] | None:
    """The least predicted time, ours against ATen's with a margin; None where no candidate has a prediction."""
    ours = [one for one in legal if one.backend != "aten" and one.predicted_seconds is not None]
    aten = next((one for one in legal if one.backend == "aten"), None)
    best = min(ours, key=lambda one: one.predicted_seconds, default=None)
    if best is None:
        alone = all(one.backend == "aten" for one in legal)
        why = "no other candidate can run it" if alone else "no other candidate has a predicted time"
        return None if aten is None else (aten, why)
    text = f"predicted {best.predicted_seconds * 1e6:.1f} us"
    if aten is None:
        return best, f"{text}, the least of {len(ours)} (cost model, not measured)"
    rival = aten_seconds(problem)
    if best.predicted_seconds * MARGIN <= rival:
        return best, f"{text}, ATen {rival * 1e6:.1f} us (cost model, not measured)"
    ours_text = f"{best.backend} {best.kernel} {text}"
    return (
        aten,
        f"{ours_text}, ATen {rival * 1e6:.1f} us, and {MARGIN:g} times faster is asked for (cost model, not measured)",
    )


def _may_measure() -> bool:
    """Not while a graph is captured: measuring synchronises. Not while torch.compile traces: there are no real tensors."""
    if not torch.cuda.is_available() or torch.compiler.is_compiling():
        return False
    return not torch.cuda.is_current_stream_capturing()


def _measure_missing(problem: Problem, key: str, legal: Sequence[Candidate], store: Store, wanted: Mode) -> None:
    from fastconv.tuning.tuner import tune_problem

    with _lock:
        again = wanted is Mode.force and key not in _measured_by_force
        _measured_by_force.add(key)
    tune_problem(problem, legal, store, again=again)
