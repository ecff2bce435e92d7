"""Compile a launch for a GPU that is not there, and read what became of it: registers, spills, shared memory, instructions.

Triton carries its own assembler and disassembler, so this needs neither a GPU nor a CUDA toolkit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
import triton
from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.compiler.compiler import make_backend

from fastconv.backends.triton.runtime import Launch, language_lock

_POINTERS = {
    torch.float64: "*fp64",
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.uint8: "*u8",
    torch.int32: "*i32",
    torch.int64: "*i64",
}

#: Name -> pattern in SASS. The first three are tensor cores of Ampere, Hopper and Blackwell; UTMALDG is
#: a descriptor's load.
_INSTRUCTIONS = {
    "HMMA": r"\bHMMA\b",
    "HGMMA": r"\bHGMMA\b",
    "UTCMMA": r"\bUTC\w*MMA\b",
    "LDGSTS.128": r"\bLDGSTS\.[.\w]*\b128\b",
    "LDGSTS": r"\bLDGSTS\b",
    "UTMALDG": r"\bUTMALDG\b",
    "LDG.128": r"\bLDG\.[.\w]*\b128\b",
    "LDG": r"\bLDG\b",
    "STG.128": r"\bSTG\.[.\w]*\b128\b",
    "STG": r"\bSTG\b",
    "LDL": r"\bLDL\b",
    "STL": r"\bSTL\b",
}


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the assembler made of one launch."""

    registers: int  # of one thread
    shared_bytes: int  # of one block
    local_bytes: int  # of one thread: spills and stack, which live in device memory
    instructions: Mapping[str, int]  # how often each appears

    @property
    def tensor_cores(self) -> bool:
        return any(self.instructions[name] for name in ("HMMA", "HGMMA", "UTCMMA"))


def source_of(launch: Launch, types: Mapping[str, torch.dtype | None]) -> ASTSource:
    """What Triton's launcher would compile for tensors of these types, by role, that are 16-byte aligned."""
    kernel = launch.kernel
    roles = launch.roles
    signature: dict[str, str] = {}
    constants = {}
    attributes = {}
    for index, name in enumerate(kernel.compiled.arg_names):
        if name in roles and types.get(roles[name]) is not None:
            signature[name] = _POINTERS[types[roles[name]]]
            attributes[(index,)] = [["tt.divisibility", 16]]
        elif name in kernel.scalars:
            signature[name] = "i64" if abs(launch.scalars[name]) >= 1 << 31 else "i32"
        else:
            signature[name] = "constexpr"
            constants[(index,)] = launch.constants.get(name)
    return ASTSource(kernel.compiled, signature, constants, attributes)


def digest(launch: Launch, types: Mapping[str, torch.dtype | None], capability: int) -> str:
    """Names what the assembler would be given: two launches with the same digest compile to the same code.

    It is a hash of Triton's simplified intermediate code without source locations, and of everything else that the compiler
    looks at. It takes some fifty milliseconds, compiling takes seconds.
    """
    target = GPUTarget("cuda", capability, 32)
    backend = make_backend(target)
    options = backend.parse_options(launch.options())
    source = source_of(launch, types)
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    with language_lock:
        functions, modules = backend.get_codegen_implementation(options), backend.get_module_map()
        module = source.make_ir(target, options, functions, modules, context)
        module = backend.make_ttir(module, {}, options, capability)
    text = "\n".join((triton.__version__, str(capability), str(sorted(launch.options().items())), module.str_nodebug()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def compile_launch(launch: Launch, types: Mapping[str, torch.dtype | None], capability: int) -> Compiled:
    """Compile for that compute capability: 80, 90, ..."""
    target = GPUTarget("cuda", capability, 32)
    with language_lock:
        binary = triton.compile(source_of(launch, types), target=target, options=launch.options())
    return _read(binary.asm["cubin"], binary.metadata.shared)


def _read(cubin: bytes, shared_bytes: int) -> Compiled:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", "-sass", str(file)]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    registers, stack, local = (int(re.search(rf"\b{name}:(\d+)", text)[1]) for name in ("REG", "STACK", "LOCAL"))
    counts = {name: len(re.findall(pattern, text)) for name, pattern in _INSTRUCTIONS.items()}
    return Compiled(registers, shared_bytes, stack + local, counts)
