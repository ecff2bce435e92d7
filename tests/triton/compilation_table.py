"""What Triton's compiler makes of every kernel, problem and configuration: `compilation_table.json`, and how to make it.

    python -m tests.triton.compilation_table [--jobs 2] [--only fprop_3x3 ...] [--best] [--missing | --check]

All of it takes an hour on two cores. One row is a problem, a capability, a kernel and a configuration. Numbers change with
Triton's version, which is in the file.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import sys
from pathlib import Path
from typing import Any

import torch
import triton

from fastconv.backends.triton import backend
from fastconv.backends.triton.compilation import compile_launch
from fastconv.backends.triton.plan import TritonPlan
from tests.triton.problems import PROBLEMS, TARGETS, problem

PATH = Path(__file__).with_suffix(".json")

Key = tuple[str, int, str, str]  # problem, capability, kernel family, config


#: The packed families launch what other rows have, on channels-last operands; these problems show it.
PACKED = ("fprop_3x3_nchw", "dgrad_3x3_stride2_nchw", "wgrad_3x3_nchw")


def rows_of(name: str, capability: int) -> list[Key]:
    """A row for every configuration that is offered for a problem."""
    legal = [candidate for candidate in backend.candidates(problem(name, capability)) if candidate.legal]
    shown = [candidate for candidate in legal if name in PACKED or not candidate.kernel.startswith("packed_")]
    return [(name, capability, candidate.kernel, candidate.config) for candidate in shown]


def compile_row(key: Key) -> dict[str, Any]:
    """Kernel name -> registers, shared and local memory, and the instructions that count, of every launch of the row."""
    name, capability, kernel, config = key
    made = problem(name, capability)
    candidate = next(c for c in backend.candidates(made) if (c.kernel, c.config) == (kernel, config))
    plan: TritonPlan = backend.plan(made, candidate)
    row = {}
    for launch in plan.launches:
        compiled = compile_launch(launch, plan.types(), capability)
        row[launch.kernel.name] = {
            "registers": compiled.registers,
            "shared_bytes": compiled.shared_bytes,
            "local_bytes": compiled.local_bytes,
            **{name: count for name, count in compiled.instructions.items() if count},
        }
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
    parser.add_argument("--jobs", type=int, default=2, help="processes that compile")
    parser.add_argument("--only", nargs="*", default=list(PROBLEMS), help="problems to compile; others keep their rows")
    parser.add_argument("--missing", action="store_true", help="compile only rows that the table has not")
    parser.add_argument(
        "--best", action="store_true", help="only the configuration that the model ranks first; minutes"
    )
    parser.add_argument("--check", action="store_true", help="compare with the table instead of writing it")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = load()
    wanted = {key for name in PROBLEMS for capability in TARGETS for key in rows_of(name, capability)}
    chosen = {rows_of(*key[:2])[0] for key in wanted} if arguments.best else wanted
    keys = sorted(key for key in chosen if key[0] in arguments.only and not (arguments.missing and key in table))
    rows = {key: row for key, row in table.items() if key in wanted}
    different = []
    with concurrent.futures.ProcessPoolExecutor(arguments.jobs) as pool:
        for key, row in zip(keys, pool.map(compile_row, keys), strict=True):
            if any(kernel["local_bytes"] for kernel in row.values()):
                print("local memory:", *key, flush=True)
            if arguments.check and row != table.get(key):
                different.append(key)
                print("different:", *key, table.get(key), row, sep="\n  ", flush=True)
            rows[key] = row
            if not arguments.check and len(rows) % 20 == 0:
                save(rows)  # so that an interrupted run can go on with --missing
    if arguments.check:
        sys.exit(f"{len(different)} of {len(keys)} rows differ" if different else 0)
    save(rows)
    print(f"{len(keys)} rows compiled, {len(rows)} in the table")


if __name__ == "__main__":
    main()
