"""The build: what it makes of its environment, and that it recompiles only what changed. docs/build.md is the text to it."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import textwrap
import time
from pathlib import Path

import pytest

from build_support import backend, flags, nvcc
from build_support.settings import DEFAULT_ARCHITECTURES, BuildError, Settings, parse_architectures
from build_support.toolchain import jobs_for

ROOT = Path(__file__).resolve().parent.parent
GIB = 1024**3


@pytest.mark.parametrize(
    ("text", "names", "too_old"),
    [
        (DEFAULT_ARCHITECTURES, ("sm_80", "compute_80", "sm_90a"), ()),
        ("8.0;9.0a+PTX", ("sm_80", "sm_90a", "compute_90"), ()),
        ("7.5 8.0 8.6 9.0 10.0 12.0+PTX", ("sm_80", "sm_86", "sm_90a", "sm_100", "sm_120", "compute_120"), ("7.5",)),
        ("8.0, 8.0;", ("sm_80",), ()),
    ],
)
def test_architecture_list_is_read_as_pytorch_writes_it(text, names, too_old):
    assert parse_architectures(text) == (names, too_old)


@pytest.mark.parametrize("text", ["Hopper", "9", "8.0;sm_90", "7.5"])
def test_unknown_architecture_is_an_error_that_names_the_list(text):
    with pytest.raises(BuildError, match="TORCH_CUDA_ARCH_LIST"):
        parse_architectures(text)


@pytest.mark.parametrize(
    ("names", "passes"),
    [
        (["sm_80", "compute_80", "sm_90a"], ["compute_80,code=[sm_80,compute_80,sm_90a]"]),
        (["sm_90a", "sm_86"], ["compute_86,code=[sm_90a,sm_86]"]),
        (["sm_80", "sm_90a", "compute_90"], ["compute_80,code=[sm_80,sm_90a]", "compute_90,code=[compute_90]"]),
        (["sm_80", "sm_100f"], ["compute_80,code=[sm_80]", "compute_100f,code=[sm_100f]"]),
        (["sm_100f"], ["compute_100f,code=[sm_100f]"]),
    ],
)
def test_one_front_end_pass_for_all_machine_code(names, passes):
    assert flags.code(names) == tuple(f"-gencode=arch={one}" for one in passes)


def test_no_source_asks_for_which_architecture_it_is_compiled():
    # flags.code relies on it: all machine code comes from PTX of the lowest architecture.
    paths = [path for suffix in ("h", "cuh", "cu", "cpp") for path in (ROOT / "csrc").rglob(f"*.{suffix}")]
    assert len(paths) > 100
    asked = re.compile(r"__CUDA_ARCH(_FEAT|_SPECIFIC|_FAMILY|_LIST)|(?<!defined\()__CUDA_ARCH__")
    found = [f"{path}: {line}" for path in paths for line in path.read_text().splitlines() if asked.search(line)]
    assert found == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("FASTCONV_BUILD_CUDA", "yes"), ("FASTCONV_NVCC", "conda"), ("MAX_JOBS", "0"), ("MAX_JOBS", "many")],
)
def test_value_that_is_not_understood_is_an_error_that_names_it(name, value):
    with pytest.raises(BuildError, match=f"{name}='{value}'.*accepted"):
        Settings.read({name: value})


@pytest.mark.parametrize(
    ("cores", "free", "jobs"), [(8, 64 * GIB, 8), (64, 16 * GIB, 8), (2, 1 * GIB, 1), (2, -GIB, 1), (1, 64 * GIB, 1)]
)
def test_jobs_fit_cores_and_memory(cores, free, jobs):
    assert jobs_for(cores, free) == jobs


def settings(**changes: object) -> Settings:
    return dataclasses.replace(Settings.read({}), **changes)


def test_build_cuda_1_without_nvcc_is_an_error(monkeypatch):
    monkeypatch.setattr(nvcc, "has_driver", lambda: False)
    with pytest.raises(BuildError, match="FASTCONV_BUILD_CUDA=1"):
        nvcc.find(settings(build_cuda=True), {"PATH": ""})


def test_build_cuda_0_skips_even_an_installed_nvcc(fake_toolkit):
    found, reason = nvcc.find(settings(build_cuda=False), {"PATH": str(fake_toolkit / "bin")})
    assert found is None
    assert reason == "FASTCONV_BUILD_CUDA=0"


def test_without_nvcc_and_driver_the_reason_is_told(monkeypatch):
    monkeypatch.setattr(nvcc, "has_driver", lambda: False)
    found, reason = nvcc.find(settings(), {"PATH": ""})
    assert found is None
    assert "no nvcc" in reason


def test_driver_without_nvcc_never_builds_without_cuda(monkeypatch):
    monkeypatch.setattr(nvcc, "has_driver", lambda: True)
    monkeypatch.setattr(nvcc, "find_in_wheels", lambda path: None)
    assert nvcc.wants_wheels(settings(), {"PATH": ""})
    with pytest.raises(BuildError, match="NVIDIA driver but no nvcc"):
        nvcc.find(settings(), {"PATH": ""})


def test_compiler_wheels_are_required_only_where_they_are_needed(monkeypatch, fake_toolkit):
    with_nvcc = {"PATH": str(fake_toolkit / "bin")}
    monkeypatch.setattr(nvcc, "has_driver", lambda: False)
    assert nvcc.wants_wheels(settings(nvcc_from_pip=True), with_nvcc)
    assert not nvcc.wants_wheels(settings(nvcc_from_pip=True, build_cuda=False), with_nvcc)
    assert not nvcc.wants_wheels(settings(), {"PATH": ""})
    monkeypatch.setattr(nvcc, "has_driver", lambda: True)
    assert not nvcc.wants_wheels(settings(), with_nvcc)


def test_backend_asks_for_compiler_wheels(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(backend.build_meta, "get_requires_for_build_wheel", lambda config: ["something"])
    monkeypatch.setenv("FASTCONV_NVCC", "pip")
    assert backend.get_requires_for_build_wheel() == ["something", *nvcc.WHEELS]


def test_driver_is_seen_without_nvidia_smi(tmp_path):
    assert not nvcc.has_driver(tmp_path)
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/version").write_text("NVRM version: ...")
    assert nvcc.has_driver(tmp_path)


def test_nvcc_is_found_in_cuda_home_before_path(fake_toolkit):
    found, _ = nvcc.find(settings(cuda_home=str(fake_toolkit)), {"PATH": ""})
    assert found == nvcc.Nvcc(fake_toolkit / "bin/nvcc", fake_toolkit, "CUDA_HOME", "13.0.88")
    with pytest.raises(BuildError, match="no bin/nvcc"):
        nvcc.find(settings(cuda_home=str(fake_toolkit / "bin")), {"PATH": str(fake_toolkit / "bin")})


def test_nvcc_is_found_in_wheels(tmp_path, fake_toolkit):
    (tmp_path / "nvidia").mkdir()
    (tmp_path / "nvidia/cu13").symlink_to(fake_toolkit)
    found = nvcc.find_in_wheels([str(tmp_path / "elsewhere"), str(tmp_path)])
    assert found is not None
    assert (found.source, found.version) == ("PyPI", "13.0.88")
    assert nvcc.find_in_wheels([str(tmp_path / "elsewhere")]) is None


# From here on a small project is really built: this build_support around sources of a few lines, with a compiler named nvcc
# that is the C++ compiler in disguise, so that what ninja does can be seen in seconds and on any machine.

MODULE = """
#include <Python.h>
#include "launch/answer.h"
#define NAME_OF(module) #module
#define NAME(module) NAME_OF(module)
#define INIT_OF(module) PyInit_##module
#define INIT(module) INIT_OF(module)
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, NAME(FASTCONV_MODULE_NAME), nullptr, 0};
PyMODINIT_FUNC INIT(FASTCONV_MODULE_NAME)() {
  PyObject* module = PyModule_Create(&definition);
  PyModule_AddIntConstant(module, "answer", answer());
#ifdef FASTCONV_CUDA_ARCHS
  PyModule_AddStringConstant(module, "archs", FASTCONV_CUDA_ARCHS);
#endif
  return module;
}
"""

FAKE_NVCC = """
#!/bin/sh
# A C++ compiler in nvcc's clothes: leaves out the flags that only nvcc has.
case "$1" in
  --version) echo "Cuda compilation tools, release 13.0, V13.0.88"; exit ;;
  --dryrun) echo "#$ TOP=$(dirname "$0")/.." >&2; exit ;;
esac
for word in "$@"; do
  shift
  case "$word" in
    -gencode*|-lineinfo) ;;
    -Xcompiler=*) set -- "$@" "${word#-Xcompiler=}" ;;
    -isystem=*) set -- "$@" -isystem "${word#-isystem=}" ;;
    *) set -- "$@" "$word" ;;
  esac
done
exec g++ -x c++ "$@"
"""


@pytest.fixture
def fake_toolkit(tmp_path):
    return make_toolkit(tmp_path / "toolkit")


def make_toolkit(folder: Path) -> Path:
    for name in ("bin", "include", "lib64"):
        (folder / name).mkdir(parents=True)
    compiler = folder / "bin/nvcc"
    compiler.write_text(FAKE_NVCC.lstrip())
    compiler.chmod(compiler.stat().st_mode | stat.S_IEXEC)
    (folder / "include/fake_cuda.h").write_text("// part of the toolkit\n")
    (folder / "lib64/libcudart_static.a").write_bytes(b"!<arch>\n")  # an archive with nothing in it
    return folder


class Project:
    """A folder with the build of fastconv and sources of a few lines."""

    def __init__(self, root: Path, toolkit: Path | None) -> None:
        self.root = root
        self.toolkit = toolkit
        shutil.copytree(ROOT / "build_support", root / "build_support", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("setup.py", "MANIFEST.in"):
            shutil.copy(ROOT / name, root)
        text = (ROOT / "pyproject.toml").read_text()
        (root / "pyproject.toml").write_text(text.replace('readme = "README.md"', ""))
        self.write("fastconv/__init__.py", "")
        self.write("fastconv/_version.py", '__version__ = "0.1.0"')
        self.write("csrc/bindings.cpp", MODULE)
        self.write("csrc/common/common.cpp", "int common_part() { return 40; }")
        entry_points = "void __tsan_init() {}\nvoid __tsan_func_entry(void*) {}\nvoid __tsan_func_exit() {}\n"
        self.write("csrc/emulator/emulator.cpp", f'extern "C" {{\n{entry_points}}}\n')
        self.write("csrc/launch/answer.h", "int answer();\n")
        self.write("csrc/kernels/two.cuh", "#pragma once\nenum { two = 2 };")
        fake_cuda = "\n#ifndef FASTCONV_EMULATOR\n#include <fake_cuda.h>\n#endif\n"
        answer = '#include "kernels/two.cuh"\n#include "launch/answer.h"\nint common_part();\n'
        self.write("csrc/launch/answer.cu", f"{fake_cuda}{answer}int answer() {{ return common_part() + two; }}")
        self.write("csrc/launch/other.cu", '#include "kernels/two.cuh"\nint other() { return two; }')

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        steering = ("FASTCONV_", "CUDA_", "TORCH_CUDA", "CXX", "LDFLAGS", "MAX_JOBS")
        variables = {name: value for name, value in os.environ.items() if not name.startswith(steering)}
        if self.toolkit is not None:
            variables["CUDA_HOME"] = str(self.toolkit)
        else:
            variables["FASTCONV_BUILD_CUDA"] = "0"
        variables.update(environment)
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=self.root, env=variables, capture_output=True, text=True, timeout=300)

    def build(self, **environment: str) -> str:
        """Builds in place; returns what was printed."""
        # Ninja compares times, and the file systems of some machines keep them to the hundredth of a second only.
        time.sleep(0.02)
        result = self.run("setup.py", "build_ext", "--inplace", **environment)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def compiled(self, printed: str) -> list[str]:
        """The objects that a build compiled, as "_emulator/launch/answer.cu"."""
        lines = [line for line in printed.splitlines() if re.match(r"\[\d+/\d+\] (C\+\+ |nvcc) ", line)]
        return sorted("/".join(line.split()[-1].split("/")[2:]).removesuffix(".o") for line in lines)


@pytest.fixture
def project(tmp_path, fake_toolkit):
    return Project(tmp_path / "project", fake_toolkit)


MODULES = ("_cuda", "_emulator", "_emulator_checked")


def test_every_module_is_built_and_answers(project):
    printed = project.build(TORCH_CUDA_ARCH_LIST="9.0")
    assert "built with nvcc 13.0.88 from CUDA_HOME, for sm_90a" in printed
    script = "; ".join(f"import fastconv.{name} as {name}; print({name}.answer)" for name in MODULES)
    answers = project.run("-c", f"{script}; print(_cuda.archs)")
    assert answers.stdout.split() == ["42", "42", "42", "sm_90a"], answers.stderr


def test_second_build_compiles_nothing_and_a_touched_kernel_only_itself(project):
    assert len(project.compiled(project.build())) == 4 + 5 + 5
    printed = project.build()
    assert "no work to do" in printed
    (project.root / "csrc/launch/answer.cu").touch()
    assert project.compiled(project.build()) == [f"{module}/launch/answer.cu" for module in MODULES]
    (project.root / "csrc/kernels/two.cuh").touch()
    sources = ("answer.cu", "other.cu")
    assert project.compiled(project.build()) == [f"{module}/launch/{name}" for module in MODULES for name in sources]


def test_toolkit_that_moved_recompiles_nothing(project, tmp_path):
    """Under pip's build isolation a compiler from PyPI is unpacked anew, elsewhere, for every build."""
    project.build()
    project.toolkit = make_toolkit(tmp_path / "elsewhere")
    assert project.compiled(project.build()) == []


def test_changed_flags_recompile_what_they_are_for(project):
    project.build()
    compiled = project.compiled(project.build(TORCH_CUDA_ARCH_LIST="8.0"))
    sources = ("bindings.cpp", "common/common.cpp", "launch/answer.cu", "launch/other.cu")
    assert compiled == [f"_cuda/{name}" for name in sources]


def test_compile_error_shows_the_compilers_message(project):
    project.write("csrc/launch/other.cu", "int other() { return undeclared_name; }")
    result = project.run("setup.py", "build_ext", "--inplace")
    assert result.returncode != 0
    assert "undeclared_name" in result.stdout
    assert "csrc/launch/other.cu:1" in result.stdout
    assert "compiling failed" in result.stderr


def test_undefined_function_fails_the_build_not_the_first_import(project):
    project.write("csrc/common/common.cpp", "")
    result = project.run("setup.py", "build_ext", "--inplace")
    assert result.returncode != 0
    assert "does not load" in result.stderr
    assert "common_part" in result.stderr


def test_module_of_an_earlier_build_does_not_outlive_the_report(project):
    project.build()
    assert list(project.root.glob("fastconv/_cuda*.so"))
    printed = project.build(FASTCONV_BUILD_CUDA="0")
    assert "NOT built: FASTCONV_BUILD_CUDA=0" in printed
    assert not list(project.root.glob("fastconv/_cuda*.so"))


def test_insisting_on_cuda_without_nvcc_fails(tmp_path):
    project = Project(tmp_path / "project", toolkit=None)
    result = project.run("setup.py", "build_ext", "--inplace", FASTCONV_BUILD_CUDA="1", PATH=minimal_path(tmp_path))
    assert result.returncode != 0
    assert "FASTCONV_BUILD_CUDA=1" in result.stderr or "NVIDIA driver" in result.stderr


def minimal_path(folder: Path) -> str:
    """A PATH with the host's tools but without nvcc."""
    tools = folder / "tools"
    tools.mkdir()
    for name in ("g++", "gcc", "as", "ld", "sh"):
        found = shutil.which(name)
        if found:
            (tools / name).symlink_to(found)
    return str(tools)


def test_wheel_has_the_modules_the_report_and_nothing_left_over(project, tmp_path):
    script = "from build_support.backend import build_wheel; print(build_wheel({!r}))"
    project.write("fastconv/removed.py", "")
    assert project.run("-c", script.format(str(tmp_path))).returncode == 0
    (project.root / "fastconv/removed.py").unlink()
    result = project.run("-c", script.format(str(tmp_path)), FASTCONV_BUILD_CUDA="0")
    assert result.returncode == 0, result.stderr
    [wheel] = tmp_path.glob("*.whl")
    names = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", str(wheel)], capture_output=True, text=True, check=True
    ).stdout
    assert "fastconv/_build.json" in names
    assert "fastconv/_emulator." in names
    assert "fastconv/_cuda" not in names
    assert "fastconv/removed.py" not in names


def test_source_archive_has_all_that_a_build_needs(project, tmp_path):
    script = f"from build_support.backend import build_sdist; print(build_sdist({str(tmp_path)!r}))"
    result = project.run("-c", script)
    assert result.returncode == 0, result.stderr
    with tarfile.open(tmp_path / "fastconv-0.1.0.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "setup.py",
        "pyproject.toml",
        "build_support/graph.py",
        "csrc/launch/answer.cu",
        "csrc/kernels/two.cuh",
    } <= names


def test_checkout_was_built_as_its_report_says():
    """A machine with nvcc must not lose the CUDA module on the way."""
    from fastconv import info

    report = info.build()
    assert report is not None
    for name, state in report["modules"].items():
        assert info.modules()[name] == "" if state["built"] else info.modules()[name].startswith("not built")
