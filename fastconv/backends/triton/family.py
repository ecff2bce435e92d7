"""What a kernel family is to the backend: configurations, legality, a cost, and launches. All of it pure host arithmetic."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import torch

from fastconv.backends.triton.runtime import Launch
from fastconv.problem import Problem


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What the host predicts of a configuration on a problem."""

    seconds: float
    programs: int
    steps: int  # iterations of the tile loop in one program
    useful: float  # share of the tiles' elements that belong to the problem
    shared_bytes: int = 0
    registers: int = 0  # of one thread

    def details(self) -> dict[str, Any]:
        return {
            "programs": self.programs,
            "steps": self.steps,
            "useful_share": round(self.useful, 4),
            "shared_bytes": self.shared_bytes,
            "registers": self.registers,
        }


#: Scratch tensors between the launches: role -> number of elements and their type.
Workspaces = dict[str, tuple[int, torch.dtype]]


class Family(Protocol):
    """One kernel, or a kernel and its reduction, with a list of configurations that print themselves."""

    name: str
    ops: tuple[str, ...]

    def configs(self, problem: Problem) -> tuple[Any, ...]:
        """The configurations for the problem's type, whether or not they fit."""

    def rejection(self, problem: Problem, config: Any) -> str:
        """One line on why the configuration cannot or should not run the problem; empty where it can."""

    def estimate(self, problem: Problem, config: Any) -> Estimate: ...

    def launches(self, problem: Problem, config: Any) -> list[Launch]: ...

    def workspaces(self, problem: Problem, config: Any) -> Workspaces: ...


def ceil_div(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)
