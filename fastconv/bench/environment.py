"""What a run must record about where it ran: device, clocks, throttling, driver, versions; and the ceilings of that device."""

from __future__ import annotations

import datetime
import functools
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from fastconv import info
from fastconv.bench.device import CudaDevice
from fastconv.bench.hardware import Ceilings
from fastconv.bench.precision import precision_named, switches

_QUERY = (
    "name",
    "driver_version",
    "clocks.sm",
    "clocks.mem",
    "clocks.max.sm",
    "clocks.max.mem",
    "clocks_throttle_reasons.active",
    "clocks_throttle_reasons.hw_slowdown",
    "clocks_throttle_reasons.sw_thermal_slowdown",
    "clocks_throttle_reasons.sw_power_cap",
    "temperature.gpu",
    "power.draw",
    "power.limit",
    "persistence_mode",
    "mig.mode.current",
    "utilization.gpu",
    "memory.used",
)


def collect() -> dict[str, Any]:
    """Facts of this machine and installation. Never raises: what cannot be found out says so."""
    found: dict[str, Any] = {
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "versions": info.versions(),
        "system": platform.platform(),
        "cpu": info.machine().get("cpu", ""),
        "commit": commit(),
        "environment": info.environment(),
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        found["device"] = {
            "name": properties.name,
            "capability": properties.major * 10 + properties.minor,
            "multiprocessors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
            "l2_bytes": properties.L2_cache_size,
        }
        found["driver"] = info.driver_version()
        found["cuda"] = torch.version.cuda
        found["cudnn"] = torch.backends.cudnn.version()
        found["gpu_state"] = gpu_state()
    return found


def gpu_state() -> dict[str, str]:
    """Clocks, temperature and throttling at this moment, by nvidia-smi.

    One unknown field fails a whole query, so newer drivers' names are tried too, and then only those that every driver knows.
    """
    renamed = tuple(name.replace("clocks_throttle_reasons", "clocks_event_reasons") for name in _QUERY)
    complaint = ""
    for names in (
        _QUERY,
        renamed,
        ("name", "driver_version", "clocks.sm", "clocks.mem", "temperature.gpu", "power.draw"),
    ):
        try:
            command = ["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=20)
            if done.returncode == 0:
                values = done.stdout.splitlines()[torch.cuda.current_device()].split(", ")
                return dict(zip(names, (value.strip() for value in values), strict=True))
            complaint = (done.stdout + done.stderr).strip().splitlines()[0]
        except (OSError, subprocess.SubprocessError, IndexError, ValueError) as error:
            complaint = str(error)
    return {"nvidia-smi": complaint}


def commit() -> str:
    """The commit of the checkout that the package lies in, with "+" where files differ from it; empty outside one."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return os.environ.get("FASTCONV_COMMIT", "")
    try:
        run = ["git", "-C", str(folder)]
        head = subprocess.run([*run, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=20)
        dirty = subprocess.run(
            [*run, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def measure_ceilings(device: CudaDevice, precisions: set[str]) -> Ceilings:
    """A large copy (bytes read plus bytes written) and a large matrix product in each precision, on random data."""
    elements = 1 << 28
    while True:
        try:
            source = torch.randn(elements, device=device.torch_device, dtype=torch.float32).view(torch.int32)
            target = torch.empty_like(source)
            break
        except torch.cuda.OutOfMemoryError:
            elements //= 2
    bandwidth = 2 * source.numel() * 4 / _best_seconds(device, functools.partial(target.copy_, source))
    source = target = None
    flops = {name: _matmul_flops(device, name) for name in sorted(precisions | {"float32", "tf32"})}
    return Ceilings("measured in this run: a 1 GiB copy and matrix products", bandwidth, flops, measured=True)


def _matmul_flops(device: CudaDevice, name: str) -> float:
    precision = precision_named(name)
    size = {"float64": 4096, "float32": 4096}.get(name, 8192)
    options = {"device": device.torch_device, "dtype": precision.dtype}
    with switches(precision):
        a, b = torch.randn(size, size, **options), torch.randn(size, size, **options)
        out = torch.empty(size, size, **options)
        return 2 * size**3 / _best_seconds(device, lambda: torch.mm(a, b, out=out))


def _best_seconds(device: CudaDevice, call: Any) -> float:
    """The fastest of a few: a ceiling is what the device can do, not what it usually does."""
    for _ in range(3):
        call()
    seconds = []
    for _ in range(10):
        start = device.record()
        call()
        end = device.record()
        device.wait(end)
        seconds.append(device.seconds_between(start, end))
    return min(seconds)
