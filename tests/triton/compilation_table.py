"""What Triton's compiler makes of every kernel, problem and configuration: `compilation_table.json`, and how to make it.

    python -m tests.triton.compilation_table [--jobs 2] [--only fprop_3x3 ...] [--best] [--check]

All of it takes an hour of one core, and minutes where little has changed since: what has been compiled is kept by digest. One
row is a problem, a capability, a kernel and a configuration. Numbers change with Triton's version, which is in the file.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import json
import sys
from pathlib import Path
from typing import Any

import platformdirs
import torch
import triton

from fastconv.backends.triton import backend
from fastconv.backends.triton.compilation import compile_launch, digest
from fastconv.backends.triton.plan import TritonPlan
from tests.triton.problems import PROBLEMS, TARGETS, problem

PATH = Path(__file__).with_suffix(".json")
#: What has been compiled, by digest, so that making the table again compiles only what changed.
CACHE = platformdirs.user_cache_path("fastconv") / "triton-compiled"

Key = tuple[str, int, str, str]  # problem, capability, kernel family, config


#: The packed families launch what other rows have, on channels-last operands; these problems show it.
PACKED = ("fprop_3x3_nchw", "dgrad_3x3_stride2_nchw")

#: What other kernels make of 1x1 filters is in other rows.
POINTWISE = ("fprop_1x1", "fprop_1x1_tf32")


@functools.cache
def rows_of(name: str, capability: int) -> list[Key]:
    """A row for every configuration that is offered for a problem."""
    legal = [candidate for candidate in backend.candidates(problem(name, capability)) if candidate.legal]
    others = ("unfused",) if name in PACKED else ("unfused", "packed_")
    shown = [candidate for candidate in legal if not candidate.kernel.startswith(others)]
    if name in POINTWISE:
        shown = [candidate for candidate in shown if candidate.kernel.startswith("pointwise_")]
    return [(name, capability, candidate.kernel, candidate.config) for candidate in shown]


def plan_of_row(key: Key) -> TritonPlan:
    name, capability, kernel, config = key
    made = problem(name, capability)
    candidate = next(c for c in backend.candidates(made) if (c.kernel, c.config) == (kernel, config))
    return backend.plan(made, candidate)


def digest_row(key: Key) -> dict[str, str]:
    """Kernel name -> digest of what the assembler is given, of every launch of the row."""
    plan = plan_of_row(key)
    return {launch.kernel.name: digest(launch, plan.types(), key[1]) for launch in plan.launches}


def compile_row(key: Key, cache: Path | None = None) -> dict[str, Any]:
    """Kernel name -> digest, registers, shared and local memory, and the instructions that count, of every launch of the row.

    With a `cache`, a folder, what has been compiled before is read from there.
    """
    plan = plan_of_row(key)
    row = {}
    for launch in plan.launches:
        name = digest(launch, plan.types(), key[1])
        kept = cache / f"{name}.json" if cache else None
        if kept and kept.exists():
            row[launch.kernel.name] = json.loads(kept.read_text())
            continue
        compiled = compile_launch(launch, plan.types(), key[1])
        made = {
            "digest": name,
            "registers": compiled.registers,
            "shared_bytes": compiled.shared_bytes,
            "local_bytes": compiled.local_bytes,
            **{name: count for name, count in compiled.instructions.items() if count},
        }
        row[launch.kernel.name] = made
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(made))
    return row


def load() -> dict[Key, dict[str, Any]]:
    table: dict[Key, dict[str, Any]] = {}
    for words, row in json.loads(PATH.read_text())["rows"].items():
        name, capability, kernel, config = words.split()
        table[name, int(capability), kernel, config] = row
    return table


def save(rows: dict[Key, dict[str, Any]]) -> None:
    """One line a row, so that a changed number is a changed line."""
    lines = [f"{json.dumps(' '.join(map(str, key)))}: {json.dumps(row)}" for key, row in sorted(rows.items())]
    text = ",\n".join(lines)
    PATH.write_text(f'{{"triton": "{triton.__version__}", "rows": {{\n{text}\n}}}}\n')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=1, help="processes that compile")
    parser.add_argument("--only", nargs="*", default=list(PROBLEMS), help="problems to compile; others keep their rows")
    parser.add_argument(
        "--best", action="store_true", help="only the configuration that the model ranks first; minutes"
    )
    parser.add_argument("--check", action="store_true", help="compare with the table instead of writing it")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of what has been compiled before")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = load()
    wanted = {key for name in PROBLEMS for capability in TARGETS for key in rows_of(name, capability)}
    chosen = {rows_of(*key[:2])[0] for key in wanted} if arguments.best else wanted
    best = {rows_of(*key[:2])[0] for key in chosen}
    # What is missing first, and of that what is chosen first.
    keys = sorted(
        (key for key in chosen if key[0] in arguments.only), key=lambda key: (key in table, key not in best, key)
    )
    rows = {key: row for key, row in table.items() if key in wanted}
    different = []
    with concurrent.futures.ProcessPoolExecutor(arguments.jobs) as pool:
        made = pool.map(functools.partial(compile_row, cache=arguments.cache), keys)
        for number, (key, row) in enumerate(zip(keys, made, strict=True)):
            if any(kernel["local_bytes"] for kernel in row.values()):
                print("local memory:", *key, flush=True)
            if arguments.check and row != table.get(key):
                different.append(key)
                print("different:", *key, table.get(key), row, sep="\n  ", flush=True)
            rows[key] = row
            if number % 25 == 0:
                print(f"{number} of {len(keys)}", flush=True)
                if not arguments.check:
                    save(rows)  # so that an interrupted run is not lost
    if arguments.check:
        sys.exit(f"{len(different)} of {len(keys)} rows differ" if different else 0)
    save(rows)
    print(f"{len(keys)} rows compiled, {len(rows)} in the table")


if __name__ == "__main__":
    main()
