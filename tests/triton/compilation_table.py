"""What Triton's compiler makes of every kernel, problem and configuration: `compilation_table.json`, and how to make it.

    python -m tests.triton.compilation_table [--jobs 2] [--only fprop_3x3 ...] [--check]

It takes an hour on two cores. One row is a problem, a capability, a kernel and a configuration. Numbers change with Triton's
version, which is in the file.
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


def rows_of(name: str, capability: int, rejected: bool = False) -> list[Key]:
    """A row for every candidate of a problem that is shipped, or for every rejected one."""
    candidates = backend.candidates(problem(name, capability))
    return [(name, capability, c.kernel, c.config) for c in candidates if c.legal != rejected]


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
    table = json.loads(PATH.read_text())["rows"]
    return {
        (name, int(capability), kernel, config): row
        for name, capabilities in table.items()
        for capability, kernels in capabilities.items()
        for kernel, configs in kernels.items()
        for config, row in configs.items()
    }


def save(rows: dict[Key, dict[str, Any]]) -> None:
    table: dict[str, Any] = {}
    for (name, capability, kernel, config), row in sorted(rows.items()):
        table.setdefault(name, {}).setdefault(str(capability), {}).setdefault(kernel, {})[config] = row
    text = json.dumps({"triton": triton.__version__, "rows": table}, indent=1)
    PATH.write_text(_one_line_a_launch(text) + "\n")


def _one_line_a_launch(text: str) -> str:
    """Joins the lines of the innermost objects, so that a changed number is a changed line."""
    lines: list[str] = []
    for line in text.splitlines():
        joins = lines and (lines[-1].endswith(",") or lines[-1].endswith("{")) and '"registers"' in lines[-1] + line
        if joins or (lines and '"registers"' in lines[-1] and not lines[-1].rstrip(",").endswith("}")):
            lines[-1] += (" " if not lines[-1].endswith("{") else "") + line.strip()
        else:
            lines.append(line)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=2, help="processes that compile")
    parser.add_argument("--only", nargs="*", default=None, help="problems to compile again; the others keep their rows")
    parser.add_argument("--check", action="store_true", help="compare with the table instead of writing it")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = arguments.only or list(PROBLEMS)
    kept = {key: row for key, row in load().items() if key[0] not in names} if arguments.only else {}
    keys = [key for name in names for capability in TARGETS for key in rows_of(name, capability)]
    with concurrent.futures.ProcessPoolExecutor(arguments.jobs) as pool:
        made = dict(zip(keys, pool.map(compile_row, keys, chunksize=4), strict=True))
    if arguments.check:
        old = load()
        different = [key for key in made if made[key] != old.get(key)]
        for key in different:
            print("different:", *key, old.get(key), made[key], sep="\n  ")
        sys.exit(f"{len(different)} of {len(made)} rows differ" if different else 0)
    save(kept | made)
    spilled = [key for key, row in made.items() if any(kernel["local_bytes"] for kernel in row.values())]
    print(f"{len(made)} rows, {len(spilled)} with local memory")
    for key in spilled:
        print("local memory:", *key)


if __name__ == "__main__":
    main()
