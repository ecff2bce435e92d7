"""Where time comes from: marks in a stream, a whole-device wait, a cache flush, and graphs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from fastconv.bench import genuine, guards

Outputs = Sequence[torch.Tensor]


@dataclasses.dataclass
class Graph:
    """A captured call: replaying it writes the same outputs again."""

    replay: Callable[[], None]
    outputs: Outputs


class Device(Protocol):
    """What the measurement needs of a device. CudaDevice is the real one; tests have one of simulated streams."""

    torch_device: torch.device

    def record(self) -> Any:
        """A mark after all work so far in the current stream."""

    def seconds_between(self, first: Any, second: Any) -> float: ...

    def wait(self, mark: Any) -> None:
        """Until the mark is reached; other streams may still be busy."""

    def synchronize(self) -> None:
        """Until the whole device is idle."""

    def host_seconds(self) -> float: ...

    def flush_cache(self) -> None:
        """Queue something that leaves nothing of the inputs in the cache."""

    def run_ahead(self, seconds: float) -> None:
        """Queue a pause during which the host can queue the next call, so that its launches cost no device time."""

    def capture(self, call: Callable[[], Outputs]) -> Graph: ...

    def peak_bytes(self, call: Callable[[], Outputs]) -> int | None:
        """Device memory that a call takes beyond what was allocated, outputs included."""


class CudaDevice:
    """The current CUDA device, timed by events in the current stream."""

    def __init__(self, index: int | None = None) -> None:
        self.torch_device = torch.device("cuda", torch.cuda.current_device() if index is None else index)
        properties = torch.cuda.get_device_properties(self.torch_device)
        self.l2_bytes = properties.L2_cache_size
        # Four times the cache: writing it takes the device long enough for the host to queue the call behind it.
        self._scratch = torch.empty(max(4 * self.l2_bytes, 1 << 28), dtype=torch.int8, device=self.torch_device)

    def record(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds_between(self, first: torch.cuda.Event, second: torch.cuda.Event) -> float:
        return first.elapsed_time(second) * 1e-3

    def wait(self, mark: torch.cuda.Event) -> None:
        mark.synchronize()

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.torch_device)

    def host_seconds(self) -> float:
        return guards.host_seconds()

    def flush_cache(self) -> None:
        self._scratch.zero_()

    def run_ahead(self, seconds: float) -> None:
        torch.cuda._sleep(int(seconds * 2e9))  # device cycles; a slower clock only makes it longer

    def capture(self, call: Callable[[], Outputs]) -> Graph:
        warm_up = torch.cuda.Stream()
        warm_up.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(warm_up):
            for _ in range(2):
                call()
        torch.cuda.current_stream().wait_stream(warm_up)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = call()
        return Graph(graph.replay, outputs)

    def peak_bytes(self, call: Callable[[], Outputs]) -> int | None:
        self.synchronize()
        before = torch.cuda.memory_allocated(self.torch_device)
        torch.cuda.reset_peak_memory_stats(self.torch_device)
        outputs = call()
        self.synchronize()
        del outputs
        return torch.cuda.max_memory_allocated(self.torch_device) - before


class CpuDevice:
    """The host: work is done when a call returns. For tuning's and the harness' own tests; the CPU is not benchmarked."""

    torch_device = torch.device("cpu")

    def record(self) -> float:
        return guards.host_seconds()

    def seconds_between(self, first: float, second: float) -> float:
        return second - first

    def wait(self, mark: float) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def host_seconds(self) -> float:
        return guards.host_seconds()

    def flush_cache(self) -> None:
        pass

    def run_ahead(self, seconds: float) -> None:
        pass

    def capture(self, call: Callable[[], Outputs]) -> Graph:
        raise NotImplementedError("a CPU has no graphs")

    def peak_bytes(self, call: Callable[[], Outputs]) -> int | None:
        return None


for _owner in (CudaDevice, CpuDevice):
    genuine.watch(
        "timer",
        _owner,
        *("record", "seconds_between", "wait", "synchronize", "host_seconds", "flush_cache", "run_ahead", "capture"),
    )
