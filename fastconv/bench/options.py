"""What a run of the benchmark is asked for. Its file remembers that, so that --resume alone goes on with the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fastconv.bench.cases import Selection
from fastconv.bench.fields import require

#: Predictions are for this GPU unless another is named.
USUAL_GPU = "H200"


@dataclasses.dataclass
class Options:
    selection: Selection
    backends: Sequence[str] = ()
    kernels: Sequence[str] = ()
    baselines: Sequence[str] | None = None  # None: all, without torch.compile in a quick run
    peers: Sequence[str] = ()
    gpu: str = ""  # of predictions, where there is no GPU; "" is the usual one, in a resumed run the one it began with
    output: Path | None = None
    resume: bool = False
    time_budget: float | None = None  # seconds
    measured: bool = dataclasses.field(default_factory=torch.cuda.is_available)

    def remembered(self) -> dict[str, Any]:
        """For the file of the run. Not the time: each run has its own."""
        fields = dataclasses.asdict(self.selection) | {name: getattr(self, name) for name in _CONTESTANTS}
        listed = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
        return listed | {"gpu": self.gpu}

    def completed(self, before: Mapping[str, Any]) -> Options:
        """With what a file remembers of the run that is resumed, {} where none is: all of it where nothing is named now.

        ValueError names what is there and is not what a run would have written.
        """
        require(before, _REMEMBERED)
        changes: dict[str, Any] = {"gpu": self.gpu or before.get("gpu") or USUAL_GPU}
        nothing = Options(Selection())
        if before and all(getattr(self, name) == getattr(nothing, name) for name in ("selection", *_CONTESTANTS)):
            chosen = {field.name: before[field.name] for field in dataclasses.fields(Selection) if field.name in before}
            changes["selection"] = Selection(**chosen)
            changes |= {name: before[name] for name in _CONTESTANTS if name in before}
        return dataclasses.replace(self, **changes)


_CONTESTANTS = ("backends", "kernels", "baselines", "peers")
_REMEMBERED = {
    **dict.fromkeys(("suites", "filters", "families", "directions", "precisions", "layouts"), list[str]),
    **dict.fromkeys(("backends", "kernels", "peers"), list[str]),
    "baselines": list[str] | None,
    "batch": int | None,
    "quick": bool,
    "gpu": str,
}
