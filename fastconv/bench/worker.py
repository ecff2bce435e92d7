"""The process that measures. It reads a job from standard input and writes an event a line to standard output.

A kernel that hangs or takes its process down must not end a run, so the supervisor (`fastconv.bench.supervisor`) stays outside.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from typing import Any

from fastconv.bench.results import Row


def main() -> None:
    events = os.fdopen(os.dup(1), "w")
    # Compilers and libraries print where they like; standard output is for events alone.
    os.dup2(2, 1)

    def send(event: str, **fields: Any) -> None:
        events.write(json.dumps({"event": event, **fields}) + "\n")
        events.flush()

    job = json.loads(sys.stdin.readline())
    run(job, send)
    send("end")


def run(job: dict[str, Any], send: Any) -> None:
    """Job: mode, cases (keys), field, effort, skip (row ids), gpu (of predictions), deadline (of time.time()), modules (that
    register kernels)."""
    from fastconv.bench.cases import case_of

    for module in job["modules"]:
        importlib.import_module(module)
    cases = [case_of(key) for key in job["cases"]]
    skip = set(job["skip"])

    def emit(row: Row) -> None:
        send("row", row=json.loads(row.to_json()))

    def begin(name: str) -> None:
        send("begin", id=name)

    one = _measuring(job, send, emit, begin, skip) if job["mode"] == "measured" else _predicting(job, emit, begin, skip)
    for case in cases:
        if time.time() > job["deadline"]:
            send("out of time")
            return
        one(case)


def _measuring(job: dict[str, Any], send: Any, emit: Any, begin: Any, skip: set[str]) -> Any:
    import torch

    from fastconv.bench import environment
    from fastconv.bench.device import CudaDevice
    from fastconv.bench.hardware import Ceilings
    from fastconv.bench.measurement import Effort
    from fastconv.bench.precision import precision_named
    from fastconv.bench.runner import DeviceLostError, Field, run_case

    begin("start")
    torch.empty(1, device="cuda")
    device = CudaDevice()
    if job.get("ceilings"):
        ceilings = Ceilings(**job["ceilings"])
    else:
        precisions = {precision_named(key.split("/")[3]).name for key in job["cases"]}
        ceilings = environment.measure_ceilings(device, precisions)
        send("ceilings", ceilings=ceilings.__dict__)
    send("gpu state", state=environment.gpu_state())

    def measure(case: Any) -> None:
        try:
            run_case(case, Field(**job["field"]), device, ceilings, Effort(**job["effort"]), emit, begin, skip)
        except DeviceLostError as error:
            send("lost", reason=str(error))
            events_flushed_exit()

    return measure


def events_flushed_exit() -> None:
    """Leaves at once: tearing down a broken CUDA context may hang. Events are flushed as they are sent."""
    os._exit(3)


def _predicting(job: dict[str, Any], emit: Any, begin: Any, skip: set[str]) -> Any:
    import torch

    from fastconv.bench.hardware import gpu_named
    from fastconv.bench.prediction import predict_case

    # Layers here are tiny, and the emulator has threads of its own.
    torch.set_num_threads(1)
    gpu = gpu_named(job["gpu"])
    return lambda case: predict_case(case, job["field"]["backends"], job["field"]["kernels"], gpu, emit, begin, skip)


if __name__ == "__main__":
    main()
