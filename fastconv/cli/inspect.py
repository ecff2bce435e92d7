"""fastconv inspect: what the compiler made of the CUDA C++ kernels."""

from __future__ import annotations

import collections
import json
import re
import shutil
import subprocess
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastconv import machine_code
from fastconv.cli.options import fail

#: What to look for in machine code, by the beginning of the instruction.
TELLING = {
    "HGMMA": "warpgroup matrix products",
    "HMMA": "matrix products of a warp",
    "DMMA": "matrix products in float64",
    "UTMALDG": "copies by TMA",
    "LDGSTS": "asynchronous copies",
    "LDSM": "matrix loads from shared memory",
    "LDG": "loads from global memory",
    "STG": "stores to global memory",
    "LDL": "loads from local memory",
    "STL": "stores to local memory",
    "BAR": "barriers",
}


def inspect(
    words: Annotated[list[str] | None, typer.Argument(help="Of a kernel's name; all must be in it.")] = None,
    architecture: Annotated[str | None, typer.Option(help="sm_80, sm_90a, ...; all where none is named.")] = None,
    sass: Annotated[bool, typer.Option("--sass", help="Print the machine code, and what stands out in it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the kernels in fastconv._cuda with their registers, stack and local memory; a kernel that spills has the latter.

    The module is read as a file, so no GPU is needed, but cuobjdump, which Triton's wheel brings.

    [bold]Examples[/bold]

      fastconv inspect gather_gemm BFloat16

      fastconv inspect depthwise --architecture sm_90a --json

      fastconv inspect channel_sum Half --architecture sm_80 --sass
    """
    try:
        built = machine_code.built()
    except machine_code.UnknownResourcesError as error:
        fail(str(error))
    architectures = sorted({name for name, _ in built})
    if architecture is not None and architecture not in architectures:
        fail(f"--architecture {architecture}: fastconv._cuda has code for {', '.join(architectures)}.")
    symbols = [key for key in sorted(built) if architecture in (None, key[0])]
    names = dict(zip(symbols, _demangled([symbol for _, symbol in symbols]), strict=True))
    chosen = [key for key in symbols if all(word.lower() in names[key].lower() for word in words or ())]
    if not chosen:
        fail(f"no kernel has {' and '.join(words or ())} in its name; `fastconv inspect` lists all {len(symbols)}.")
    code = _code(chosen) if sass else {}
    rows = [
        {
            "architecture": key[0],
            "kernel": names[key],
            "symbol": key[1],
            "registers": built[key].registers,
            "stack": built[key].stack,
            "local": built[key].local,
            **({"instructions": _telling(code[key]), "sass": code[key]} if sass else {}),
        }
        for key in chosen
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    Console().print(_table(rows))
    for row in rows if sass else ():
        found = ", ".join(f"{count} {name} ({TELLING[name]})" for name, count in row["instructions"].items())
        typer.echo(f"\n{row['architecture']} {row['kernel']}\n{found or 'none of the telling instructions'}")
        typer.echo("\n".join(f"  {line}" for line in row["sass"]))


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table("architecture", "kernel")
    for heading in ("registers", "stack", "local"):
        table.add_column(heading, justify="right")
    for row in rows:
        numbers = (str(row[name]) for name in ("registers", "stack", "local"))
        table.add_row(row["architecture"], Text(row["kernel"], overflow="fold"), *numbers)
    return table


def _demangled(symbols: list[str]) -> list[str]:
    """As C++ writes them, without return type, arguments and our namespace; as they are where there is no c++filt."""
    tool = shutil.which("c++filt") or shutil.which("cu++filt")
    if tool is None or not symbols:
        return symbols
    done = subprocess.run([tool], input="\n".join(symbols), capture_output=True, text=True, timeout=60)
    lines = done.stdout.splitlines()
    if done.returncode or len(lines) != len(symbols):
        return symbols
    return [_name(line) for line in lines]


def _name(signature: str) -> str:
    """ "void fastconv::kernel<fastconv::Half, int>(fastconv::Parameters<int>)" is "kernel<Half, int>"."""
    text = signature.removeprefix("void ").replace("fastconv::", "")
    depth = 0
    for at, letter in enumerate(text):
        depth += {"<": 1, ">": -1}.get(letter, 0)
        if letter == "(" and depth == 0 and at:
            return text[:at]
    return text


def _code(keys: list[tuple[str, str]]) -> dict[tuple[str, str], list[str]]:
    """The instructions of each kernel, in order."""
    cuobjdump, module = machine_code.find_disassembler(), machine_code.find_module()
    found: dict[tuple[str, str], list[str]] = {key: [] for key in keys}
    for architecture in dict.fromkeys(name for name, _ in keys):
        words = [symbol for name, symbol in keys if name == architecture]
        text = machine_code.disassemble(cuobjdump, module, *words, architecture=architecture)
        for of_code, named, instructions in machine_code.functions(text):
            key = of_code or architecture, named.partition("Function :")[2].strip()
            if key in found:
                found[key] = [f"{address:04x}  {instruction}" for address, instruction in instructions]
    return found


def _telling(code: list[str]) -> dict[str, int]:
    counts: collections.Counter[str] = collections.Counter()
    for line in code:
        operation = re.sub(r"^@!?U?P\w+\s+", "", line.split("  ", 1)[1])
        name = re.match(r"\w*", operation).group()
        if name in TELLING:
            counts[name] += 1
    return {name: counts[name] for name in TELLING if counts[name]}
