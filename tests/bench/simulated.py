"""A device with streams and a clock of its own: work is done when its time comes, not when it is queued.

Tensors are ordinary CPU tensors. `launch` queues a kernel on a stream; its writes appear when a wait reaches its end. The
host's clock moves with launches and waits. So asynchronous cheats can be played on a machine without a GPU, exactly and
repeatably.
"""

import contextlib
import dataclasses

import torch

from fastconv.bench.device import Graph

LAUNCH = 5e-6  # host seconds a launch costs


@dataclasses.dataclass
class Mark:
    stream: str
    time: float


class SimulatedDevice:
    torch_device = torch.device("cpu")

    def __init__(self):
        self.host = 0.0
        self.ends = {"main": 0.0}
        self.queue = []  # (end, number, action)
        self.number = 0
        self.recording = None

    def launch(self, seconds, out=None, compute=lambda: None, stream="main"):
        """A kernel of that length. It reads its inputs in the stream's order, so what they are now; it writes when it ends."""
        if self.recording is not None:
            self.recording.append(lambda: self.launch(seconds, out, compute, stream))
            return
        result = compute()
        self.host += LAUNCH
        begin = max(self.ends.get(stream, 0.0), self.host)
        self.ends[stream] = begin + seconds
        self.number += 1
        if out is not None:
            self.queue.append((self.ends[stream], self.number, lambda: out.copy_(result)))

    def join(self, stream):
        """The main stream waits for all that is queued in another one."""
        if self.recording is not None:
            self.recording.append(lambda: self.join(stream))
        else:
            self.ends["main"] = max(self.ends["main"], self.ends.get(stream, 0.0))

    def _run_until(self, time):
        due = sorted(entry for entry in self.queue if entry[0] <= time)
        self.queue = [entry for entry in self.queue if entry[0] > time]
        for _, _, action in due:
            action()

    def record(self):
        return Mark("main", max(self.ends["main"], self.host))

    def seconds_between(self, first, second):
        return second.time - first.time

    def wait(self, mark):
        self._run_until(mark.time)
        self.host = max(self.host, mark.time)

    def synchronize(self):
        self._run_until(float("inf"))
        self.host = max(self.host, *self.ends.values())

    def host_seconds(self):
        return self.host

    def flush_cache(self):
        self.launch(5e-5)

    def run_ahead(self, seconds):
        self.launch(seconds)

    @contextlib.contextmanager
    def _capturing(self):
        self.recording = []
        try:
            yield self.recording
        finally:
            self.recording = None

    def capture(self, call):
        call()  # as on a real device, where a call must have run before it can be captured
        self.synchronize()
        with self._capturing() as launches:
            outputs = call()

        def replay():
            for launch in launches:
                launch()

        return Graph(replay, outputs)

    def peak_bytes(self, call):
        call()
        return None
