"""The setuptools commands: build_ext runs ninja and hands the modules to setuptools, build starts from an empty folder."""

from __future__ import annotations

import atexit
import fcntl
import filecmp
import os
import shutil
import subprocess
from pathlib import Path

from setuptools import Extension
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

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


class BuildExtension(build_ext):
    def run(self) -> None:
        try:
            settings = Settings.read(os.environ)
            toolchain = Toolchain.find(settings, os.environ)
            built = compile_modules(toolchain, settings)
        except BuildError as error:
            raise SystemExit(f"\nfastconv: {error}") from error
        self.built_files = {module.name: module.output for module in built}
        self.report = report.make(toolchain, settings, built)
        self.distribution.ext_modules = [Extension(f"fastconv.{module.name}", sources=[]) for module in built]
        self.finalize_options()
        super().run()
        atexit.register(print, report.block(self.report), flush=True)

    def build_extensions(self) -> None:
        for name, source in self.built_files.items():
            _replace(ROOT / source, Path(self.get_ext_fullpath(f"fastconv.{name}")))
        _write_if_changed(Path(self.build_lib, "fastconv", report.FILE_NAME), report.dumps(self.report))

    def copy_extensions_to_source(self) -> None:
        """In the checkout, modules of an earlier build that this one did not make are removed: the report must be true."""
        package = ROOT / "fastconv"
        for name in (*graph.EMULATED_MODULES, graph.CUDA_MODULE):
            target = package / self.get_ext_filename(name)
            if name in self.built_files:
                _replace(ROOT / self.built_files[name], target)
            else:
                target.unlink(missing_ok=True)
        _write_if_changed(package / report.FILE_NAME, report.dumps(self.report))

    def get_outputs(self) -> list[str]:
        return [*super().get_outputs(), str(Path(self.build_lib, "fastconv", report.FILE_NAME))]


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
    return built


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
