"""Everything that is to be done on a real GPU, by stage, on a machine that may be offline and may be gone in ten minutes.

    python benchmarks/gpu_session.py build tests sanitizer              stages by name, in this order
    python benchmarks/gpu_session.py build bench -- --suite resnet50    what follows "--" goes to `fastconv bench`
    python benchmarks/gpu_session.py baselines                          PyTorch's side alone: no build is needed

It needs nvcc, a C++ compiler, torch, Triton, pybind11, ninja, setuptools and pytest, and takes nothing from the network. What
else the stages need and the machine has not comes as wheels from a folder, made beforehand where there is a network, for the
Python and the platform of the machine with the GPU:

    pip download -d wheels --only-binary=:all: --python-version 3.12 --implementation cp \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
        --platform manylinux_2_27_x86_64 platformdirs rich typer matplotlib expecttest numpy
    python benchmarks/gpu_session.py packages build tests --wheels wheels

A wheel of a package that is there is not used, and no pip is needed. The stage `packages` lists what is there and which stages
lack what; a stage that lacks something says so and is skipped. Every stage has its own time limit, at most nine minutes, writes
its files under --out as it goes, and ends without taking the others along. `summary.json` and `session.tar.gz` are made anew
after every stage; a short table comes last.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from offline import NEEDS, OPTIONAL, Machine

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 540.0  # seconds of a stage, at most
SANITIZERS = ("memcheck", "racecheck", "synccheck", "initcheck")

#: Case and kernel pattern, for ncu where none is named: one of each kind of kernel.
PROFILED = (
    "resnet50/layer1.0.conv2/fwd/bfloat16/channels_last/n32",
    "resnet50/layer1.0.conv2/wgrad/bfloat16/channels_last/n32",
    "mobilenet_v2/block3.1.depthwise/fwd/bfloat16/channels_last/n32",
    "pools/resnet_3x3_s2/fwd/bfloat16/channels_last/n64",
    "stems/resnet_7x7_s2/fwd/bfloat16/channels_last/n64",
)
SECTIONS = (
    "SpeedOfLight",
    "MemoryWorkloadAnalysis",
    "Occupancy",
    "LaunchStats",
    "WarpStateStats",
    "ComputeWorkloadAnalysis",
)


@dataclasses.dataclass
class Outcome:
    stage: str
    status: str  # "ok", "failed", "out of time", "skipped"
    seconds: float
    note: str  # the one line that says what came of it


@dataclasses.dataclass
class Step:
    """One command of a stage. Its output goes to a file of its own, line by line."""

    name: str
    command: Sequence[str]
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    share: float = 1.0  # of the stage's time that is left
    accepted: tuple[int, ...] = (0,)


class Session:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.out = Path(options.out).resolve()
        self.out.mkdir(parents=True, exist_ok=True)
        self.began = time.monotonic()
        self.environment = dict(os.environ)
        self.environment |= {
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", "")))),
            "FASTCONV_CACHE": str(self.out / "cache"),
            "COLUMNS": "160",
        }
        self.environment.setdefault("MAX_JOBS", str(len(os.sched_getaffinity(0))))
        self.machine = Machine(self.environment)

    # --- running

    def left(self) -> float:
        return self.options.total - (time.monotonic() - self.began)

    def run(self, steps: Sequence[Step], stage: str) -> Outcome:
        """The steps of a stage one after the other; a failing one does not stop the next."""
        began = time.monotonic()
        deadline = began + min(self.options.limit, LIMIT, max(0.0, self.left()))
        failures: list[str] = []
        note = ""
        timed_out = False
        for step in steps:
            allowed = (deadline - time.monotonic()) * step.share
            if allowed < 1:
                failures.append(f"{step.name}: no time was left")
                timed_out = True
                continue
            code, note = self._one(step, stage, allowed)
            if code is None:
                timed_out = True
                failures.append(f"{step.name}: stopped after {allowed:.0f} s ({note})")
            elif code not in step.accepted:
                failures.append(f"{step.name}: ended with {code} ({note})")
        status = "ok" if not failures else "out of time" if timed_out else "failed"
        return Outcome(stage, status, time.monotonic() - began, "; ".join(failures) or note)

    def _one(self, step: Step, stage: str, allowed: float) -> tuple[int | None, str]:
        """(exit status or None if it ran out of time, the last line that says something)."""
        log = self.out / f"{stage}-{re.sub(r'[^A-Za-z0-9._-]', '-', step.name)}.log"
        with log.open("w") as file:
            file.write(f"$ {' '.join(map(str, step.command))}\n")
            file.flush()
            try:
                process = subprocess.Popen(
                    [str(part) for part in step.command],
                    cwd=ROOT,
                    env=self.environment | step.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=_heed_interrupts,
                )
            except OSError as error:
                file.write(f"{error}\n")
                return 127, str(error)
            try:
                code: int | None = process.wait(allowed)
            except subprocess.TimeoutExpired:
                code = None
                _stop(process)
        return code, _last_line(log)

    # --- stages

    def packages(self) -> Outcome:
        """What Python and the machine have of what the stages need."""
        began = time.monotonic()
        lines = self.machine.report()
        (self.out / "packages.txt").write_text("\n".join(lines) + "\n")
        print("\n".join(lines), flush=True)
        missing = sorted({name for stage in STAGES for name in self.machine.lacks(stage)})
        note = f"missing: {', '.join(missing)}" if missing else "every stage has what it needs"
        return Outcome("packages", "ok", time.monotonic() - began, note)

    def build(self) -> Outcome:
        """In place, without isolation and without the network; the modules land in fastconv/."""
        settings = {"FASTCONV_BUILD_CUDA": "1"}
        if (
            architecture := self.options.arch or self.machine.architecture()
        ):  # one alone compiles in half the time of two
            settings["TORCH_CUDA_ARCH_LIST"] = architecture
        steps = [Step("build_ext", (sys.executable, "setup.py", "build_ext", "--inplace"), settings, share=0.9)]
        if not any(self.machine.lacks(one) for one in ("tests", "bench")):
            steps.append(Step("info", (sys.executable, "-m", "fastconv", "info")))
        else:
            steps.append(Step("import", (sys.executable, "-c", "import fastconv._cuda as m; print(m.__file__)")))
        return self.run(steps, "build")

    def conformance(self) -> Outcome:
        """mma, ldmatrix, cp.async, shuffles, votes, atomics on the device, held to the rules that the emulator keeps."""
        return self._pytest("conformance", ["tests/emulator", "-m", "gpu"])

    def tests(self) -> Outcome:
        arguments = ["tests", "-m", "gpu", "--fuzz-problems", str(self.options.fuzz_problems)]
        missing = [module for module in OPTIONAL if not self.machine.has(module)]
        left_out = sorted({file for module in missing for file in OPTIONAL[module]})
        outcome = self._pytest("tests", [*arguments, *(f"--ignore={file}" for file in left_out)])
        if left_out:
            outcome.note += f"; left out without {', '.join(missing)}: {', '.join(left_out)}"
        return outcome

    def _pytest(self, stage: str, arguments: Sequence[str]) -> Outcome:
        report = self.out / f"{stage}.xml"
        command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", f"--junitxml={report}", *arguments]
        # A file that needs a package which is not there must not keep the others from running.
        command.append("--continue-on-collection-errors")
        return self.run([Step("pytest", command)], stage)

    def sanitizer(self) -> Outcome:
        """Each tool over the fuzzer's problems on CUDA tensors, an equal share of the time for each."""
        steps = []
        for number, tool in enumerate(SANITIZERS):
            command = [
                self.machine.command("compute-sanitizer"),
                "--tool",
                tool,
                "--error-exitcode",
                "99",
                "--target-processes",
                "all",
            ]
            command += ["--log-file", str(self.out / f"sanitizer-{tool}.txt")]
            command += [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "tests/fuzz", "-m", "gpu"]
            command += ["--fuzz-backends", "cuda", "--fuzz-problems", str(self.options.sanitizer_problems)]
            # With the caching allocator a write past a tensor may land in a neighbour, which no tool sees.
            environment = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
            steps.append(Step(tool, command, environment, share=1 / (len(SANITIZERS) - number)))
        return self.run(steps, "sanitizer")

    def bench(self) -> Outcome:
        return self._bench("bench", [])

    def baselines(self) -> Outcome:
        """PyTorch's side alone, torch.compile included."""
        return self._bench("baselines", ["--backend", "none"])

    def _bench(self, stage: str, arguments: Sequence[str]) -> Outcome:
        # The report is drawn after the measuring; it needs some of the stage's time.
        budget = max(10.0, min(self.options.limit, LIMIT, self.left()) - 45)
        folder = self.out / f"{stage}-{self.machine.gpu_folder()}"
        command = [sys.executable, "-m", "fastconv", "bench", "--output", str(folder), "--resume"]
        command += ["--time-budget", f"{budget:.0f}", *arguments, *self.options.bench_arguments]
        return self.run([Step("fastconv", command)], stage)

    def tune(self) -> Outcome:
        budget = max(10.0, min(self.options.limit, LIMIT, self.left()) - 30)
        command = [sys.executable, "-m", "fastconv", "tune", "--time-budget", f"{budget:.0f}"]
        table = self.out / f"tune-{self.machine.gpu_folder()}.json"  # for fastconv/tuning/tables
        command += ["--export", str(table), *shlex.split(self.options.tune_arguments)]
        return self.run([Step("fastconv", command)], "tune")

    def ncu(self) -> Outcome:
        """Counters of the kernels of named cases; `CASE` or `CASE@KERNEL`, where KERNEL is a family of ours."""
        steps = []
        wanted = self.options.profile or PROFILED
        for number, one in enumerate(wanted):
            case, _, kernel = one.partition("@")
            target = [sys.executable, "benchmarks/one_layer.py", case, "--calls", "1"]
            target += ["--kernel", kernel] if kernel else []
            sections = [part for name in SECTIONS for part in ("--section", name)]
            command = [
                self.machine.command("ncu"),
                "--clock-control",
                "none",
                "--target-processes",
                "all",
                "--force-overwrite",
                *sections,
            ]
            # Random inputs are kernels too: only ours are profiled.
            command += ["--kernel-name", f"regex:{self.options.kernel_pattern}", "--launch-count", "6", *target]
            steps.append(Step(f"{number}-{case}", command, share=1 / (len(wanted) - number)))
        return self.run(steps, "ncu")

    # --- what is left behind

    def write_summary(self, outcomes: Sequence[Outcome]) -> None:
        (self.out / "summary.json").write_text(
            json.dumps([dataclasses.asdict(one) for one in outcomes], indent=1) + "\n"
        )
        archive = self.out / "session.tar.gz"
        part = archive.with_suffix(".part")
        with tarfile.open(part, "w:gz", compresslevel=6) as tar:
            for path in sorted(self.out.rglob("*")):
                if path.is_file() and path not in (archive, part) and self.out / "site" not in path.parents:
                    tar.add(path, arcname=str(path.relative_to(self.out)))
        os.replace(part, archive)


def _heed_interrupts() -> None:
    """A script that a shell started in the background ignores SIGINT, and would leave that to its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _stop(process: subprocess.Popen) -> None:
    """The command and all that it started. First gently: a benchmark writes its report on an interrupt."""
    for number, wait in ((signal.SIGINT, 20.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process.pid, number)
            process.wait(wait)
            return
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            return


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()[1:]]
    said = [line for line in lines if re.search(r"[A-Za-z]", line)]
    return said[-1].strip("= ")[:160] if said else "it said nothing"


def print_table(outcomes: Sequence[Outcome], out: Path) -> None:
    print(f"\n{'stage':<12} {'status':<12} {'seconds':>8}  note")
    for one in outcomes:
        print(f"{one.stage:<12} {one.status:<12} {one.seconds:8.1f}  {one.note[:150]}")
    print(f"files: {out}")


STAGES = tuple(NEEDS)


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if float(text) > 0:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r}, but must be a number of seconds above 0")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    own, rest = _split(arguments)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="+", choices=STAGES, metavar="STAGE", help=", ".join(STAGES))
    parser.add_argument("--out", default=os.environ.get("OUT", "gpu-session"), help="folder of all files; default $OUT")
    parser.add_argument("--limit", type=_seconds, default=LIMIT, help="seconds of a stage; at most 540")
    parser.add_argument("--total", type=_seconds, default=float("inf"), help="seconds of all stages together")
    parser.add_argument("--wheels", help="folder of wheels to install first")
    parser.add_argument("--arch", default="", help="TORCH_CUDA_ARCH_LIST of the build; default: this GPU's")
    parser.add_argument("--fuzz-problems", type=int, default=500)
    parser.add_argument("--sanitizer-problems", type=int, default=40)
    parser.add_argument("--profile", action="append", help="CASE or CASE@KERNEL for ncu; several times")
    parser.add_argument("--kernel-pattern", default="fastconv|conv|pool", help="regular expression of kernels for ncu")
    parser.add_argument("--tune-arguments", default="--quick", help="for `fastconv tune`, in one string")
    options = parser.parse_args(own)
    options.bench_arguments = rest
    return options


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is for this script, and what is for `fastconv bench`."""
    arguments = list(arguments)
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:at], arguments[at + 1 :]


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    session = Session(options)
    if options.wheels and (problem := session.machine.install_wheels(Path(options.wheels), session.out / "site")):
        print(problem, flush=True)
    outcomes: list[Outcome] = []
    for stage in options.stages:
        print(f"== {stage}", flush=True)
        work: Callable[[], Outcome] = getattr(session, stage)
        try:
            complaint = session.machine.complaint(stage)
            outcome = Outcome(stage, "skipped", 0.0, complaint) if complaint else work()
        except Exception as error:
            outcome = Outcome(stage, "failed", 0.0, f"{type(error).__name__}: {error}")
        outcomes.append(outcome)
        print(f"   {outcome.status} after {outcome.seconds:.0f} s: {outcome.note}", flush=True)
        session.write_summary(outcomes)
    print_table(outcomes, session.out)
    return 0 if all(one.status == "ok" for one in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
