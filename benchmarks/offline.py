"""What a machine without a network has of what the stages of gpu_session.py need, and wheels for what it has not."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

#: Modules that Python must find for a stage, programs included, and "gpu", one that torch sees. torch brings filelock, jinja2
#: and sympy along.
_PACKAGE = ("torch", "triton", "filelock", "jinja2", "platformdirs")
_COMMAND_LINE = (*_PACKAGE, "gpu", "numpy", "rich", "typer", "matplotlib")
NEEDS: dict[str, tuple[str, ...]] = {
    "packages": (),
    "build": ("setuptools", "pybind11", "ninja", "nvcc"),
    "conformance": (*_PACKAGE, "gpu", "pytest", "numpy", "pybind11", "nvcc"),
    "tests": (*_PACKAGE, "gpu", "pytest", "numpy"),
    "sanitizer": (*_PACKAGE, "gpu", "pytest", "numpy", "compute-sanitizer"),
    "baselines": _COMMAND_LINE,
    "bench": _COMMAND_LINE,
    "tune": _COMMAND_LINE,
    "ncu": (*_PACKAGE, "gpu", "numpy", "ncu"),
}
#: What single test files need, which are left out without it, and said: all but opinfo have no test for a GPU.
OPTIONAL: dict[str, tuple[str, ...]] = {
    "expecttest": ("tests/conformance/test_opinfo.py",),
    "matplotlib": ("tests/bench/test_report.py", "tests/bench/test_suites.py", "tests/test_demo.py"),
    "rich": ("tests/bench/test_suites.py", "tests/test_cli.py", "tests/test_demo.py"),
    "sklearn": ("tests/test_demo.py",),
    "typer": ("tests/test_cli.py", "tests/test_demo.py"),
}
#: Seconds for a question to Python, which imports torch and may open a GPU.
PATIENCE = 90.0
PROGRAMS = ("nvcc", "compute-sanitizer", "ncu")


class Machine:
    """This machine, as processes with that environment find it."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._modules: dict[str, str] | None = None
        self._gpu: list[str] | None = None
        on_path = shutil.which("nvcc", path=environment.get("PATH", ""))
        if not on_path and "CUDA_HOME" not in environment and (nvcc := self.program("nvcc")):
            environment["CUDA_HOME"] = str(Path(nvcc).parent.parent)  # where the build looks

    def has(self, name: str) -> bool:
        if name in PROGRAMS:
            return self.program(name) is not None
        if name == "gpu":
            return bool(self.gpu())
        return name in self._importable()

    def program(self, name: str) -> str | None:
        """On PATH, else where CUDA's installers put it."""
        places = [self._environment.get("PATH", "")]
        for home in (self._environment.get("CUDA_HOME"), "/usr/local/cuda"):
            places += [f"{home}/bin", f"{home}/compute-sanitizer"] if home else []
        return shutil.which(name, path=os.pathsep.join(places))

    def command(self, name: str) -> str:
        """What to start; the bare name where it was not found, for the message that this gives."""
        return self.program(name) or name

    def gpu(self) -> str:
        """The name of the GPU that torch sees, empty where it sees none. Which one is lent may change between sessions."""
        return self._gpu_facts()[0]

    def gpu_folder(self) -> str:
        """The GPU's name as part of a path."""
        return re.sub(r"\W+", "-", self.gpu().lower()).strip("-")

    def architecture(self) -> str:
        """TORCH_CUDA_ARCH_LIST for the GPU that is here; empty where torch sees none."""
        found = self._gpu_facts()[1]
        return f"{found}a" if found == "9.0" else found

    def _gpu_facts(self) -> list[str]:
        if self._gpu is None:
            code = "import torch as t; print(t.cuda.get_device_name(), '%d.%d' % t.cuda.get_device_capability(), sep='\\n')"
            lines = self._asked(code).splitlines()
            self._gpu = lines[-2:] if len(lines) >= 2 else ["", ""]
        return self._gpu

    def _asked(self, code: str) -> str:
        """What a process of the stages' Python prints; empty where it fails or says nothing in time."""
        try:
            done = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, env=self._environment, timeout=PATIENCE
            )
        except subprocess.TimeoutExpired:
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    def _importable(self) -> dict[str, str]:
        """Modules that the stages' Python finds, with versions. Asked of a process, as the path may have grown by wheels."""
        if self._modules is None:
            names = sorted({name for needs in NEEDS.values() for name in (*needs, *OPTIONAL)} - {*PROGRAMS, "gpu"})
            code = (
                "import importlib.metadata as m, importlib.util as u, json, sys\n"
                "def version(name):\n"
                "    try: return m.version(name)\n"
                "    except m.PackageNotFoundError: return ''\n"
                "print(json.dumps({n: version(n) for n in sys.argv[1:] if u.find_spec(n)}))"
            )
            command = [sys.executable, "-c", code, *names]
            done = subprocess.run(
                command, capture_output=True, text=True, env=self._environment, check=True, timeout=PATIENCE
            )
            self._modules = json.loads(done.stdout)
        return self._modules

    def lacks(self, stage: str) -> list[str]:
        return [name for name in NEEDS[stage] if not self.has(name)]

    def report(self) -> list[str]:
        """What there is, and which stage lacks what, one fact a line."""
        lines = [f"python {sys.version.split()[0]} {sys.executable}"]
        lines += [f"{name} {version or 'without a version'}" for name, version in self._importable().items()]
        lines += [f"{name} {self.program(name) or 'missing'}" for name in PROGRAMS]
        lines.append(f"gpu {' '.join(self._gpu_facts())}" if self.gpu() else "gpu missing")
        return lines + [f"stage {stage}: {self.complaint(stage) or 'has all it needs'}" for stage in NEEDS]

    def complaint(self, stage: str) -> str:
        """Why a stage cannot run; empty where it can."""
        lack = self.lacks(stage)
        programs = [name for name in lack if name in PROGRAMS]
        modules = [name for name in lack if name not in (*PROGRAMS, "gpu")]
        notes = ["torch sees no GPU"] if "gpu" in lack else []
        notes += [f"{', '.join(programs)} not found on PATH or in /usr/local/cuda"] if programs else []
        if modules:
            notes.append(f"Python finds no {', '.join(modules)}: --wheels FOLDER (see --help for how to make it)")
        return "; ".join(notes)

    def install_wheels(self, folder: Path, site: Path) -> str:
        """Unpacks the wheels of what is not there into a folder at the end of the path. Returns a complaint or ""."""
        wheels = sorted(folder.glob("*.whl"))
        if not wheels:
            return f"--wheels {folder}: there is no wheel in it"
        complaints = []
        for wheel in wheels:
            if misfit := _misfit(wheel.name):
                complaints.append(f"{wheel.name}: {misfit}")
                continue
            name = wheel.name.partition("-")[0]
            try:
                importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                try:
                    _unpack(wheel, site)
                except (OSError, zipfile.BadZipFile) as error:
                    complaints.append(f"{wheel.name}: {error}")
        self._environment["PYTHONPATH"] = os.pathsep.join((self._environment["PYTHONPATH"], str(site)))
        self._modules = self._gpu = None
        return "; ".join(complaints)


def _misfit(name: str) -> str:
    """Why a wheel is not for this Python and machine, by its name; empty where it is."""
    pythons, abi, platforms = name.removesuffix(".whl").split("-")[-3:]
    version = sys.version_info
    fitting = {"py3", f"py3{version.minor}", f"cp3{version.minor}"}
    if abi == "abi3":
        fitting |= {f"cp3{minor}" for minor in range(version.minor)}
    if not fitting.intersection(pythons.split(".")):
        return f"is for {pythons}, and this is Python {version.major}.{version.minor}"
    if platforms != "any" and not ("linux" in platforms and platform.machine() in platforms):
        return f"is for {platforms}, and this machine is {platform.machine()}"
    return ""


def _unpack(wheel: Path, site: Path) -> None:
    """A wheel is a zip archive of what lies in site-packages, and of NAME.data/purelib and platlib, which belong there too."""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            parts = Path(member.filename).parts
            if len(parts) > 2 and parts[0].endswith(".data"):
                if parts[1] not in ("purelib", "platlib"):
                    continue
                parts = parts[2:]
            if member.is_dir() or ".." in parts:
                continue
            target = site.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(member))
