"""benchmarks/gpu_session.py, as far as it can be tested without a GPU: limits, failures, files, the table."""

import importlib.util
import json
import platform
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script():
    path = ROOT / "benchmarks" / "gpu_session.py"
    if not path.exists():
        pytest.fail(f"{path} is missing: tests run from a checkout")
    sys.path.insert(0, str(path.parent))  # as Python does for a script
    specification = importlib.util.spec_from_file_location("gpu_session", path)
    module = importlib.util.module_from_spec(specification)
    sys.modules["gpu_session"] = module
    specification.loader.exec_module(module)
    yield module
    sys.path.remove(str(path.parent))


@pytest.fixture
def session(script, tmp_path):
    return script.Session(script.parse(["build", "--out", str(tmp_path / "out"), "--limit", "20"]))


def step(script, name, code, **options):
    return script.Step(name, [sys.executable, "-S", "-c", code], **options)


def test_a_failing_step_does_not_stop_the_next_and_the_note_names_it(script, session):
    outcome = session.run(
        [step(script, "bad", "print('went wrong'); raise SystemExit(3)"), step(script, "good", "print('fine')")], "s"
    )
    assert outcome.status == "failed"
    assert outcome.note == "bad: ended with 3 (went wrong)"
    assert "fine" in (session.out / "s-good.log").read_text()


def test_a_step_that_does_not_end_is_stopped_with_all_it_started(script, session):
    child = "import subprocess, sys, time; subprocess.run([sys.executable, '-S', '-c', 'import time; time.sleep(60)'])"
    session.options.limit = 2
    began = time.monotonic()
    outcome = session.run([step(script, "slow", f"print('begun', flush=True); {child}", share=0.6)], "s")
    assert time.monotonic() - began < 15
    assert outcome.status == "out of time"
    assert "stopped after 1 s" in outcome.note


def test_a_command_that_does_not_exist_is_a_failure_not_a_crash(script, session):
    outcome = session.run([script.Step("ncu", ["/nowhere/ncu"])], "s")
    assert outcome.status == "failed"
    assert "/nowhere/ncu" in outcome.note


@pytest.mark.parametrize(
    ("capability", "asked", "built"), [("9.0a", "", "9.0a"), ("8.6", "", "8.6"), ("9.0a", "8.0", "8.0"), ("", "", None)]
)
def test_the_build_is_for_the_gpu_that_is_here_alone(script, session, monkeypatch, capability, asked, built):
    ran = []
    monkeypatch.setattr(session, "_one", lambda step, stage, allowed: ran.append(step) or (0, "fine"))
    monkeypatch.setattr(session.machine, "architecture", lambda: capability)
    session.options.arch = asked
    session.build()
    assert ran[0].environment.get("TORCH_CUDA_ARCH_LIST") == built
    assert ran[0].environment["FASTCONV_BUILD_CUDA"] == "1"


def test_commands_are_those_that_the_profilers_take(script, session, monkeypatch):
    ran = []
    monkeypatch.setattr(session, "_one", lambda step, stage, allowed: ran.append(step) or (0, "fine"))
    session.options.profile = ["pools/resnet_3x3_s2/fwd/bfloat16/channels_last/n64@max_pool_forward"]
    session.ncu()
    session.sanitizer()
    ncu, *sanitizers = ([Path(one.command[0]).name, *one.command[1:]] for one in ran)
    assert ncu[:3] == ["ncu", "--clock-control", "none"]
    assert ncu[ncu.index("--kernel") + 1] == "max_pool_forward"
    assert [one[:3] for one in sanitizers] == [["compute-sanitizer", "--tool", tool] for tool in script.SANITIZERS]


def test_output_is_on_disk_before_the_command_ends(script, session):
    session.options.limit = 3
    session.run([step(script, "slow", "print('early', flush=True); import time; time.sleep(60)", share=0.5)], "s")
    assert "early" in (session.out / "s-slow.log").read_text()


def test_one_stage_failing_does_not_stop_the_others_and_the_table_comes_last(script, tmp_path, monkeypatch, capsys):
    def build(self):
        raise RuntimeError("no compiler")

    monkeypatch.setitem(script.NEEDS, "tests", ("json",))
    monkeypatch.setattr(script.Session, "build", build)
    monkeypatch.setattr(script.Session, "tests", lambda self: script.Outcome("tests", "ok", 1.0, "12 passed"))
    assert script.main(["build", "tests", "--out", str(tmp_path / "out")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-4].startswith("stage")
    assert "no compiler" in lines[-3]
    assert "12 passed" in lines[-2]
    outcomes = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [one["status"] for one in outcomes] == ["failed", "ok"]
    with tarfile.open(tmp_path / "out" / "session.tar.gz") as archive:
        assert archive.getnames() == ["summary.json"]


def test_a_stage_that_lacks_something_is_skipped_with_what_and_how_and_the_others_run(
    script, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(script.NEEDS, "bench", ("no_such_module", "ncu"))
    monkeypatch.setattr(script.Machine, "program", lambda self, name: None)
    monkeypatch.setitem(script.NEEDS, "tests", ("json",))
    monkeypatch.setattr(script.Session, "tests", lambda self: script.Outcome("tests", "ok", 1.0, "12 passed"))
    assert script.main(["bench", "tests", "--out", str(tmp_path / "out")]) == 1
    bench, tests = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert bench["status"] == "skipped"
    assert "ncu not found on PATH" in bench["note"]
    assert "no no_such_module: --wheels" in bench["note"]
    assert tests["status"] == "ok"


def test_what_is_there_is_listed_for_each_stage(script, session, monkeypatch, capsys):
    monkeypatch.setitem(script.NEEDS, "tune", ("pytest", "no_such_module"))
    outcome = session.packages()
    assert outcome.status == "ok"
    assert "no_such_module" in outcome.note
    said = capsys.readouterr().out
    assert said == (session.out / "packages.txt").read_text()
    assert "stage tune: Python finds no no_such_module" in said
    assert f"pytest {pytest.__version__}" in said


def make_wheel(folder, name, files):
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


def test_wheels_of_what_is_missing_are_unpacked_and_found(script, session, tmp_path, monkeypatch):
    wheels, site = tmp_path / "wheels", session.out / "site"
    make_wheel(wheels, "made_up", {
        "made_up/__init__.py": "", "made_up-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\n",
        "made_up-1.0.data/purelib/made_up_too.py": "", "made_up-1.0.data/scripts/run": "", "../outside.py": "",
    })  # fmt: skip
    make_wheel(wheels, "pytest", {"pytest/__init__.py": "raise ImportError"})
    (wheels / "broken-1.0-py3-none-any.whl").write_text("no archive")
    monkeypatch.setitem(script.NEEDS, "tune", ("made_up", "made_up_too", "pytest"))
    assert session.machine.lacks("tune") == ["made_up", "made_up_too"]
    assert "broken-1.0" in session.machine.install_wheels(wheels, site)
    assert session.machine.lacks("tune") == []
    assert sorted(path.name for path in site.iterdir()) == ["made_up", "made_up-1.0.dist-info", "made_up_too.py"]
    assert not (session.out / "outside.py").exists()
    assert "made_up 1.0" in session.machine.report()
    assert "no wheel" in session.machine.install_wheels(tmp_path / "nowhere", site)


def test_no_stage_is_longer_than_nine_minutes(script):
    assert script.LIMIT == 540
    for stage in script.STAGES:
        assert callable(getattr(script.Session, stage))


def test_what_follows_the_dashes_goes_to_the_benchmark(script):
    options = script.parse(["bench", "--total", "60", "--", "--suite", "pools", "--quick"])
    assert options.bench_arguments == ["--suite", "pools", "--quick"]
    assert options.stages == ["bench"]
    with pytest.raises(SystemExit):
        script.parse(["benchmark"])


@pytest.mark.parametrize("stage", ["conformance", "tests", "sanitizer", "baselines", "bench", "tune", "ncu"])
def test_every_stage_keeps_to_its_limit_and_names_commands_that_exist(script, session, monkeypatch, stage):
    ran = []
    monkeypatch.setattr(session, "_one", lambda step, stage, allowed: ran.append((step, allowed)) or (0, "fine"))
    assert getattr(session, stage)().status == "ok"
    for one, allowed in ran:
        assert allowed <= 20
        for part in one.command:
            if str(part).startswith(("tests/", "benchmarks/")):
                assert (ROOT / part).exists(), part


def test_results_are_kept_apart_by_the_gpu_that_is_lent(script, session, monkeypatch):
    """Rows of two devices do not go into one file, and the next session may get another card."""
    ran = []
    monkeypatch.setattr(session, "_one", lambda step, stage, allowed: ran.append(step.command) or (0, "fine"))
    for gpu, name in (("NVIDIA H100 80GB HBM3", "nvidia-h100-80gb-hbm3"), ("NVIDIA H200", "nvidia-h200")):
        monkeypatch.setattr(session.machine, "_gpu", [gpu, "9.0"])
        for stage in ("bench", "baselines", "tune"):
            getattr(session, stage)()
            option = "--export" if stage == "tune" else "--output"
            wanted = session.out / (f"{stage}-{name}.json" if stage == "tune" else f"{stage}-{name}")
            assert ran[-1][ran[-1].index(option) + 1] == str(wanted)
            assert ("--resume" in ran[-1]) == (stage != "tune")


@pytest.mark.parametrize(
    ("said", "name", "architecture"),
    [
        ("NVIDIA H100 80GB HBM3\n9.0", "NVIDIA H100 80GB HBM3", "9.0a"),
        ("NVIDIA A100\n8.0", "NVIDIA A100", "8.0"),
        ("", "", ""),
    ],
)
def test_the_gpu_is_asked_for_once_and_a_stage_that_needs_one_is_skipped_without(
    session, monkeypatch, said, name, architecture
):
    asked = []
    monkeypatch.setattr(session.machine, "_asked", lambda code: asked.append(code) or said)
    assert (session.machine.gpu(), session.machine.architecture()) == (name, architecture)
    assert len(asked) == 1
    assert ("torch sees no GPU" in session.machine.complaint("tests")) == (not name)
    assert "GPU" not in session.machine.complaint("build")
    assert f"gpu {name or 'missing'}" in "\n".join(session.machine.report())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("rich-15.0.0-py3-none-any", ""),
        (
            f"numpy-2.4.6-cp3{sys.version_info.minor}-cp3{sys.version_info.minor}-manylinux_2_27_{platform.machine()}",
            "",
        ),
        (f"a-1.0-cp38-abi3-manylinux2014_{platform.machine()}", ""),
        ("six-1.0-py2.py3-none-any", ""),
        ("numpy-2.4.6-cp37-cp37m-manylinux_2_27_x86_64", "is for cp37, and this is Python 3."),
        (f"numpy-2.4.6-cp3{sys.version_info.minor}-none-win_amd64", "is for win_amd64, and this machine is"),
    ],
)
def test_a_wheel_for_another_python_or_machine_is_not_unpacked(session, tmp_path, name, said):
    folder = tmp_path / "wheels"
    folder.mkdir()
    with zipfile.ZipFile(folder / f"made_up_{name}.whl", "w") as archive:
        archive.writestr("made_up_wheel.py", "")
    complaint = session.machine.install_wheels(folder, session.out / "site")
    assert said in complaint
    assert bool(complaint) == bool(said)
    assert (session.out / "site" / "made_up_wheel.py").exists() == (not said)


def test_a_question_that_is_not_answered_in_time_is_no_answer(script, session, monkeypatch):
    monkeypatch.setattr(sys.modules["offline"], "PATIENCE", 0.5)
    assert session.machine._asked("import time; time.sleep(60)") == ""
    assert session.machine._asked("raise SystemExit(1)") == ""


def test_test_files_that_cannot_be_imported_are_left_out_and_said(script, session, monkeypatch):
    ran = []
    monkeypatch.setattr(session, "_one", lambda step, stage, allowed: ran.append(step.command) or (0, "12 passed"))
    monkeypatch.setattr(session.machine, "has", lambda name: name not in ("expecttest", "rich"))
    note = session.tests().note
    assert note.startswith("12 passed; left out without expecttest, rich: tests/bench/test_suites.py")
    ignored = [part.removeprefix("--ignore=") for part in ran[0] if part.startswith("--ignore=")]
    assert "tests/conformance/test_opinfo.py" in ignored
    assert "tests/test_demo.py" in ignored
    for files in script.OPTIONAL.values():
        for file in files:
            assert (ROOT / file).exists(), file


def test_every_stage_has_what_the_wheels_in_the_help_bring(script):
    """What is no part of torch, Triton or a compiler can be had by the command that --help shows."""
    brought = script.__doc__.partition("manylinux_2_27_x86_64 ")[2].partition("\n")[0].split()
    there = {"torch", "triton", "gpu", "pybind11", "ninja", "setuptools", "pytest", "filelock", "jinja2"}
    for stage in script.STAGES:
        assert set(script.NEEDS[stage]) <= {*brought, *there, *sys.modules["offline"].PROGRAMS}, stage


def test_the_profiled_cases_exist(script):
    from fastconv.bench.cases import case_of

    for key in script.PROFILED:
        assert case_of(key).key == key


@pytest.mark.parametrize("option", ["--limit", "--total"])
@pytest.mark.parametrize("value", ["0", "-5", "nan", "soon"])
def test_seconds_in_which_nothing_can_be_done_are_refused(script, capsys, option, value):
    with pytest.raises(SystemExit):
        script.parse(["build", option, value])
    assert f"argument {option}: " in (printed := capsys.readouterr().err)
    assert value in printed
