"""fastconv.emulator: contexts, environment variables, devices."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import torch

from fastconv import backends, emulator


def test_module_is_not_the_one_that_the_context_asks_for(probes):
    assert emulator.module().__name__ == "probes_fast"
    with emulator.check():
        assert emulator.module().__name__ == "probes_checked"
        with emulator.count():
            assert emulator.module().__name__ == "probes_checked"
    with emulator.count():
        assert emulator.module().__name__ == "probes_checked"
    assert emulator.module().__name__ == "probes_fast"


def test_context_of_one_thread_is_hidden_from_another(probes):
    names = []
    with emulator.check():
        thread = threading.Thread(target=lambda: names.append(emulator.module().__name__))
        thread.start()
        thread.join()
    assert names == ["probes_checked"]


def test_count_inside_check_no_longer_checks(run):
    memory = torch.zeros(4096)
    with (
        emulator.check(seed=1),
        emulator.count() as counters,
        pytest.raises(emulator.KernelError, match="out of bounds"),
    ):
        run("reads_past_the_end", memory[:64], memory[1024:1088])
    assert counters.launches == []


def test_inner_count_takes_launches_from_the_outer_one(run, x, y):
    with emulator.count() as outer:
        run("copy_bytes_4", x, y, grid=(1,), block=(32,))
        with emulator.count() as inner:
            run("copy_bytes_8", x, y, grid=(1,), block=(32,))
        assert len(outer.launches) == 2
        run("copy_bytes_4", x, y, grid=(1,), block=(32,))
    run("copy_bytes_4", x, y, grid=(1,), block=(32,))
    assert [launch.kernel for launch in inner.launches] == ["copy_bytes_8"]
    assert [launch.kernel for launch in outer.launches] == ["copy_bytes_4", "copy_bytes_8", "copy_bytes_4"]


def test_check_mode_of_the_environment_is_ignored(run, monkeypatch):
    memory = torch.zeros(4096)
    run("reads_past_the_end", memory[:64], memory[1024:1088])
    monkeypatch.setenv("FASTCONV_EMULATOR_MODE", "check")
    with pytest.raises(emulator.KernelError, match="out of bounds"):
        run("reads_past_the_end", memory[:64], memory[1024:1088])
    monkeypatch.setenv("FASTCONV_EMULATOR_MODE", "fast")
    run("reads_past_the_end", memory[:64], memory[1024:1088])


def test_device_is_not_the_one_that_was_chosen(probes, monkeypatch):
    assert emulator.current_device().capability == 90
    with emulator.device("sm_80") as chosen:
        assert emulator.current_device() == chosen
        assert (chosen.capability, chosen.multiprocessors, chosen.l2_bytes) == (80, 108, 40 << 20)
        assert emulator.module().control.device()[1:] == (80, 108)
        with emulator.device("sm_90"):
            assert emulator.module().control.device()[1:] == (90, 132)
        assert emulator.module().control.device()[1:] == (80, 108)
    assert emulator.module().control.device()[1:] == (90, 132)
    monkeypatch.setenv("FASTCONV_EMULATOR_DEVICE", "sm_80")
    assert emulator.current_device().capability == 80


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("FASTCONV_EMULATOR_MODE", "quick", "FASTCONV_EMULATOR_MODE must be one of fast, check, got 'quick'"),
        ("FASTCONV_EMULATOR_DEVICE", "sm_70", "FASTCONV_EMULATOR_DEVICE must be one of sm_80, sm_90, got 'sm_70'"),
        ("FASTCONV_EMULATOR_THREADS", "0", "FASTCONV_EMULATOR_THREADS must be a number from 1 to 4096, got '0'"),
        ("FASTCONV_EMULATOR_THREADS", "all", "FASTCONV_EMULATOR_THREADS must be a number from 1 to 4096, got 'all'"),
    ],
)
def test_unknown_value_in_the_environment_is_taken(probes, monkeypatch, variable, value, says):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=says):
        emulator.module()
    assert says in backends.unavailable("cuda", "cpu")  # what `fastconv info` prints


def test_a_device_that_could_not_be_entered_is_played(probes, monkeypatch):
    emulator.module()
    monkeypatch.setenv("FASTCONV_EMULATOR_THREADS", "all")
    with pytest.raises(ValueError, match="FASTCONV_EMULATOR_THREADS"), emulator.device("sm_80"):
        pass
    monkeypatch.delenv("FASTCONV_EMULATOR_THREADS")
    assert emulator.current_device().capability == 90


def test_bad_argument_is_taken(probes):
    with (
        pytest.raises(ValueError, match="order must be one of shuffled, natural, got 'random'"),
        emulator.check(order="random"),
    ):
        pass
    with pytest.raises(TypeError, match=r"seed must be an int.*'a' of type str"), emulator.check(seed="a"):
        pass
    with pytest.raises(ValueError, match="seed must be in 0"), emulator.check(seed=-1):
        pass
    with pytest.raises(ValueError, match="device must be one of sm_80, sm_90, got 'a100'"), emulator.device("a100"):
        pass


def test_missing_module_gives_no_advice(monkeypatch):
    monkeypatch.setattr(emulator, "_MODULES", ("fastconv._not_built", "fastconv._not_built_either"))
    with pytest.raises(ImportError, match=r"fastconv\._not_built, .*pip install") as caught:
        emulator.module()
    assert caught.value.name == "fastconv._not_built"
    with pytest.raises(ImportError, match="_not_built_either"), emulator.check():
        pass
    assert not emulator._watches


def test_fast_build_pretends_to_check(probe_modules):
    with pytest.raises(ValueError, match="cannot check or count"):
        probe_modules["fast"].control.watch(check=True, count=False, shuffled=False, seed=0)


def test_report_without_addr2line_fails(probe_modules, tmp_path):
    """Lines become a module and an offset where binutils are missing."""
    file = probe_modules["checked"].__spec__.origin
    code = f"""
import ctypes
from pathlib import Path
from tests.emulator import build
memory = ctypes.create_string_buffer(1024)
y = ctypes.addressof(memory) // 256 * 256 + 256
module = build.load(Path({file!r}))
module.control.watch(check=True, count=False, shuffled=False, seed=0)
try:
    module.run("writes_past_the_end", [1, 1, 1], [32, 1, 1], 0, [("x", 0, 0, False), ("y", y, 128, True)], 0)
except RuntimeError as error:
    print(error)
"""
    environment = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert "just past the end of tensor y (128 bytes)" in done.stdout, done.stdout + done.stderr
    assert "probes_checked.so+0x" in done.stdout
