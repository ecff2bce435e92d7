"""A device with streams and a clock of its own: work is done when its time comes, not when it is queued.

Tensors are ordinary CPU tensors. `launch` queues an action on a stream; it takes effect when a wait reaches its end. The host's
clock moves with launches and waits. So asynchronous cheats can be played on a machine without a GPU, exactly and repeatably.
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

    def launch(self, seconds, action=lambda: None, stream="main"):
        """A kernel of that length, whose writes appear when it ends."""
        if self.recording is not None:
            self.recording.append((seconds, action, stream))
            return
        self.host += LAUNCH
        begin = max(self.ends.get(stream, 0.0), self.host)
        self.ends[stream] = begin + seconds
        self.number += 1
        self.queue.append((self.ends[stream], self.number, action))

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
        with self._capturing() as launches:
            outputs = call()

        def replay():
            for seconds, action, stream in launches:
                self.launch(seconds, action, stream)

        return Graph(replay, outputs)

    def peak_bytes(self, call):
        call()
        return None
