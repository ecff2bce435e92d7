"""Tables of winners that ship with the package, one file a GPU: made by `fastconv tune --export` from measured times.

A table that cannot be read, is of another schema or was measured on another GPU is not used, with a warning. A winner that this
version does not have, or that cannot run, is passed over when it is chosen from.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastconv.tuning.keys import slug, split_batch
from fastconv.tuning.store import StoreWarning

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

SCHEMA = 1

#: How far a batch size may be from one in the table, as a factor, for the winner to be taken over.
NEAREST_BATCH = 4.0


def folder() -> Traversable:
    """Where they are: data of the package."""
    return importlib.resources.files(__package__) / "tables"


@functools.cache
def shipped(gpu: str) -> Mapping[str, str]:
    """Problem key -> candidate key for the GPU of that name, PyTorch's or the datasheet's; empty where no table ships."""
    name = _file_for(gpu)
    if not name:
        return {}
    try:
        return _parse((folder() / f"{name}.json").read_text(), name)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        warnings.warn(f"the shipped table {name}.json is not used: {error}", StoreWarning, stacklevel=2)
        return {}


def _file_for(gpu: str) -> str:
    """`nvidia-h200` for "NVIDIA H200", and for "H200" too; "" where there is none."""
    names, wanted = shipped_names(), slug(gpu)
    return wanted if wanted in names else next((name for name in names if wanted in name.split("-")), "")


def _parse(text: str, name: str) -> dict[str, str]:
    content: Any = json.loads(text)
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise ValueError(f"it is not of schema {SCHEMA}")
    if slug(content["environment"]["gpu"]) != name:
        raise ValueError(f"it was measured on another GPU, {content['environment']['gpu']}")
    for problem, winner in content["winners"].items():
        split_batch(problem)
        if not isinstance(winner, str):
            raise TypeError(f"the winner of {problem} is {winner!r}, which names no candidate")
    return content["winners"]


def shipped_names() -> list[str]:
    """The GPUs that a table ships for, as their files are named."""
    place = folder()
    files = [entry.name for entry in place.iterdir()] if place.is_dir() else []
    return sorted(name.removesuffix(".json") for name in files if name.endswith(".json"))


def look_up(table: Mapping[str, str], problem: str) -> tuple[str, str]:
    """(candidate key, note): the problem's own entry, else that of the same layer with the nearest batch; ("", "") if none."""
    if problem in table:
        return table[problem], ""
    layer, batch = split_batch(problem)
    nearest, distance = 0, math.log(NEAREST_BATCH) + 1e-9
    for other_batch in _batches(table).get(layer, ()):
        if batch > 0 and other_batch > 0 and abs(math.log(other_batch / batch)) <= distance:
            nearest, distance = other_batch, abs(math.log(other_batch / batch))
    if not nearest:
        return "", ""
    op, _, rest = layer.partition(" ")
    return table[f"{op} n{nearest} {rest}"], f"of batch {nearest}"


_known_batches: dict[int, tuple[Mapping[str, str], dict[str, list[int]]]] = {}


def _batches(table: Mapping[str, str]) -> dict[str, list[int]]:
    """Layer -> batch sizes of a table; made once a table."""
    held = _known_batches.get(id(table))
    if held is None or held[0] is not table:
        found: dict[str, list[int]] = {}
        for key in table:
            layer, batch = split_batch(key)
            found.setdefault(layer, []).append(batch)
        held = _known_batches[id(table)] = (table, found)
    return held[1]


def export(problems: Mapping[str, Mapping[str, float]], environment: Mapping[str, Any]) -> str:
    """A table's text from measured times: the fastest candidate of each problem."""
    winners = {}
    for problem, times in sorted(problems.items()):
        finite = {name: seconds for name, seconds in times.items() if math.isfinite(seconds)}
        if finite:
            winners[problem] = min(finite, key=lambda name: finite[name])
    return json.dumps({"schema": SCHEMA, "environment": dict(environment), "winners": winners}, indent=1) + "\n"
