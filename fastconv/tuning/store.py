"""Measured times on disk: one JSON file an environment, safe with several processes, and never a reason to fail.

A process takes the file's lock, reads what others have written meanwhile, adds its own and replaces the file in one step. A
file that cannot be read, or that is of another version or environment, is set aside under another name, with a warning. Where
the folder cannot be written the times live as long as the process, with a warning.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import os
import threading
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock
import platformdirs

from fastconv.tuning.keys import Environment

SCHEMA = 1

#: Seconds to wait for another process that holds the lock of a file; it holds it for milliseconds.
LOCK_PATIENCE = 30.0


class StoreWarning(UserWarning):
    """Times could not be read or kept; everything works, and is measured again or chosen by the model."""


class _UnusableError(Exception):
    """Why a file is no store of this environment."""


def default_folder() -> Path:
    """FASTCONV_CACHE, or the user's cache folder."""
    return Path(os.environ.get("FASTCONV_CACHE") or platformdirs.user_cache_dir("fastconv")) / "tuning"


class Store:
    """Seconds by problem and candidate, in one environment."""

    def __init__(self, environment: Environment, folder: Path | None = None) -> None:
        self.environment = environment
        self.path = (folder or default_folder()) / environment.file_name
        self._problems: dict[str, dict[str, float]] = {}
        self._loaded = False
        self._warned = False
        self._thread_lock = threading.RLock()
        self._file_lock = filelock.FileLock(
            f"{self.path}.lock", timeout=LOCK_PATIENCE
        )  # may be taken again by its holder

    def times(self, problem: str) -> dict[str, float]:
        """Candidate key -> seconds; infinity for one that was tried and gave no right result."""
        with self._thread_lock:
            if not self._loaded:
                self._problems = _merged(self._read(), self._problems)
                self._loaded = True
            return dict(self._problems.get(problem, {}))

    def reload(self) -> None:
        """Takes in what other processes have added since."""
        with self._thread_lock:
            self._problems = _merged(self._problems, self._read())
            self._loaded = True

    def problems(self) -> dict[str, dict[str, float]]:
        self.times("")
        return {name: dict(times) for name, times in self._problems.items()}

    def add(self, problem: str, times: Mapping[str, float]) -> None:
        """Keeps times beside those that are there, here and on disk."""
        with self._thread_lock:
            self._problems = _merged(self._problems, {problem: dict(times)})
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self._file_lock:
                    self._problems = _merged(self._read(), self._problems)
                    self._loaded = True
                    self._write()
            except (OSError, filelock.Timeout) as error:
                self._warn(f"tuning results cannot be kept in {self.path.parent}: {error}")

    def _write(self) -> None:
        content = {
            "schema": SCHEMA,
            "environment": dataclasses.asdict(self.environment),
            # JSON has no infinity; null stands for a candidate that is not to be chosen.
            "seconds": {
                problem: {name: value if math.isfinite(value) else None for name, value in sorted(times.items())}
                for problem, times in sorted(self._problems.items())
            },
        }
        # Of the permissions that a new file has here, which tempfile's have not: others may read what one user measured.
        name = self.path.parent / f".{self.path.name}-{uuid.uuid4().hex}.part"
        try:
            with name.open("x") as file:
                json.dump(content, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise

    def _read(self) -> dict[str, dict[str, float]]:
        try:
            return self._parsed()
        except _UnusableError as error:
            return self._read_or_set_aside(str(error))

    def _parsed(self) -> dict[str, dict[str, float]]:
        try:
            return _parse(self.path.read_text(), self.environment)
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise _UnusableError(f"cannot be read ({error})") from error
        except (ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError) as error:
            raise _UnusableError(str(error)) from error

    def _read_or_set_aside(self, reason: str) -> dict[str, dict[str, float]]:
        """Alone, and read once more: another process may have set the file aside and written a good one meanwhile."""
        try:
            with self._file_lock:
                try:
                    return self._parsed()
                except _UnusableError as error:
                    reason = str(error)
                aside = self._move_aside()
            self._warn(f"the tuning results {self.path} were set aside as {aside.name}: {reason}", always=True)
        except (OSError, filelock.Timeout) as error:
            self._warn(f"the tuning results {self.path} are not used: {reason}; nor can they be set aside: {error}")
        return {}

    def _move_aside(self) -> Path:
        """To a name that nothing has, so that what was set aside before, in the same second too, stays. The lock is held."""
        stem = f".set-aside-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        names = (self.path.with_suffix(f"{stem}{f'-{number}' if number else ''}") for number in itertools.count())
        aside = next(name for name in names if not os.path.lexists(name))
        os.replace(self.path, aside)
        return aside

    def _warn(self, message: str, always: bool = False) -> None:
        if always or not self._warned:
            self._warned = True
            warnings.warn(message, StoreWarning, stacklevel=4)


def _parse(text: str, environment: Environment) -> dict[str, dict[str, float]]:
    content: Any = json.loads(text)
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise ValueError(f"it is not of schema {SCHEMA}")
    if content["environment"] != dataclasses.asdict(environment):
        raise ValueError("it is of another environment")
    problems: dict[str, dict[str, float]] = {}
    for problem, times in content["seconds"].items():
        problems[str(problem)] = {str(name): _seconds(value) for name, value in times.items()}
    return problems


def _seconds(value: Any) -> float:
    if value is None:
        return math.inf
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError(f"{value!r} is no time")
    return float(value)


def _merged(
    first: Mapping[str, Mapping[str, float]], second: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    """Everything of both; where both have a time, the second's."""
    merged = {problem: dict(times) for problem, times in first.items()}
    for problem, times in second.items():
        merged.setdefault(problem, {}).update(times)
    return merged


@contextlib.contextmanager
def measuring_alone(folder: Path, gpu: str, patience: float = 120.0) -> Iterator[None]:
    """One process at a time measures on a GPU: two at once would time each other. Goes on after `patience` with a warning."""
    lock: filelock.BaseFileLock | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / f"measuring-{gpu}.lock", timeout=patience)
        lock.acquire()
    except (OSError, filelock.Timeout) as error:
        lock = None
        warnings.warn(f"measuring while others may measure too: {error}", StoreWarning, stacklevel=3)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
