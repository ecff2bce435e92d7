"""The setuptools commands: build_ext runs ninja and puts the modules into the package, build starts from an empty folder."""

from __future__ import annotations

import atexit
import fcntl
import filecmp
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import ClassVar

from setuptools import Command
from setuptools.command.build import build

from build_support import graph, report
from build_support.settings import BuildError, Settings
from build_support.toolchain import Toolchain

ROOT = Path(__file__).resolve().parent.parent


class Build(build):
    """Removes what an earlier build left in setuptools' own folder: modules that are gone must not get into a wheel."""

    def run(self) -> None:
        leftovers = Path(self.build_lib).resolve()
        if leftovers.is_relative_to(ROOT / "build"):
            shutil.rmtree(leftovers, ignore_errors=True)
        super().run()


class BuildExtension(Command):
    """setuptools' protocol for a step of `build` (setuptools.command.build.SubCommand), with ninja doing the work."""

    description = "compile fastconv's modules with ninja"
    user_options: ClassVar = [("inplace", "i", "put the modules into the checkout, as an editable install does")]
    boolean_options: ClassVar = ["inplace"]

    def initialize_options(self) -> None:
        self.build_lib: str | None = None
        self.inplace = False
        self.editable_mode = False
        self.built_files: dict[str, Path] = {}  # name inside the package -> compiled module

    def finalize_options(self) -> None:
        self.set_undefined_options("build", ("build_lib", "build_lib"))

    def run(self) -> None:
        try:
            settings = Settings.read(os.environ)
            toolchain = Toolchain.find(settings, os.environ)
            built = compile_modules(toolchain, settings)
        except BuildError as error:
            raise SystemExit(f"\nfastconv: {error}") from error
        self.built_files = {_file_name(module.name): ROOT / module.output for module in built}
        description = report.make(toolchain, settings, built)
        package = self._package()
        for name in graph.ALL_MODULES:
            target = package / _file_name(name)
            if target.name in self.built_files:
                _replace(self.built_files[target.name], target)
            else:
                # The module of an earlier build, which this one was not to make: the report has to be true.
                target.unlink(missing_ok=True)
        _write_if_changed(package / report.FILE_NAME, report.dumps(description))
        atexit.register(print, report.block(description), flush=True)

    def get_source_files(self) -> list[str]:
        return []  # MANIFEST.in names them

    def get_outputs(self) -> list[str]:
        return [str(Path(self.build_lib or "", "fastconv", name)) for name in (*self.built_files, report.FILE_NAME)]

    def get_output_mapping(self) -> dict[str, str]:
        if not self._in_place():
            return {}
        return {output: str(ROOT / "fastconv" / Path(output).name) for output in self.get_outputs()}

    def _in_place(self) -> bool:
        return bool(self.inplace or self.editable_mode)

    def _package(self) -> Path:
        return (ROOT if self._in_place() else Path(self.build_lib or "")) / "fastconv"


def _file_name(module: str) -> str:
    return f"{module}{sysconfig.get_config_var('EXT_SUFFIX')}"


def compile_modules(toolchain: Toolchain, settings: Settings) -> list[graph.Module]:
    """Runs ninja on a freshly written ninja file; returns the modules it made. One build at a time in a checkout."""
    folders = graph.Folders.of_this_python()
    folder = ROOT / folders.build
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (ROOT / folders.links).mkdir(exist_ok=True)
        for path, target in graph.links(toolchain, folders).items():
            _link(ROOT / path, target)
        for path, text in graph.stamps(toolchain, folders).items():
            _write_if_changed(ROOT / path, text)
        built = graph.modules(toolchain, settings, ROOT, folders)
        ninja_file = Path(folders.build, "build.ninja")
        _write_if_changed(ROOT / ninja_file, graph.ninja_file(toolchain, built, folders))
        command = [toolchain.ninja, "-f", ninja_file, "-j", str(toolchain.jobs)]
        # Not captured: the compiler's messages go where the build's own output goes.
        status = subprocess.run(command, cwd=ROOT).returncode
    if status != 0:
        raise BuildError(
            "compiling failed; the compiler's message stands above, after the line that begins with FAILED."
        )
    for module in built:
        _check_that_it_loads(ROOT / module.output)
    return built


def _check_that_it_loads(module: Path) -> None:
    """A function that nobody defines is no error when a shared library is linked, so it is looked for here."""
    script = "import ctypes, os, sys; ctypes.PyDLL(sys.argv[1], mode=os.RTLD_NOW)"
    result = subprocess.run([sys.executable, "-c", script, module], capture_output=True, text=True)
    if result.returncode != 0:
        raise BuildError(f"a compiled module does not load: {result.stderr.strip().splitlines()[-1]}")


def _link(path: Path, target: Path) -> None:
    if path.is_symlink() and path.readlink() == target:
        return
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _write_if_changed(path: Path, text: str) -> None:
    """Leaves an unchanged file alone, because ninja goes by modification times."""
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _replace(source: Path, target: Path) -> None:
    """Puts a new file in target's place, so that processes which have loaded the old one keep it."""
    if target.exists() and filecmp.cmp(source, target, shallow=False):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.new")
    shutil.copy2(source, temporary)
    temporary.replace(target)
