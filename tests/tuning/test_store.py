"""The store: nothing is lost, whatever other processes, crashes and broken files do."""

import dataclasses
import json
import math
import os
import subprocess
import sys
import textwrap
import time
import warnings

import pytest

from fastconv.tuning.store import Store, StoreWarning
from tests.tuning.support import HERE


def test_times_come_back_from_disk(tmp_path):
    Store(HERE, tmp_path).add("a problem", {"cuda:k:c": 1e-5, "cuda:k:wrong": math.inf})
    assert Store(HERE, tmp_path).times("a problem") == {"cuda:k:c": 1e-5, "cuda:k:wrong": math.inf}
    assert Store(HERE, tmp_path).times("another") == {}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_a_file_of_times_may_be_read_by_whom_the_umask_lets(tmp_path):
    before = os.umask(0o027)
    try:
        store = Store(HERE, tmp_path)
        store.add("problem", {"one": 1.0})
    finally:
        os.umask(before)
    assert store.path.stat().st_mode & 0o777 == 0o640


def test_adding_keeps_what_another_store_added_meanwhile(tmp_path):
    first, second = Store(HERE, tmp_path), Store(HERE, tmp_path)
    first.times("p")
    second.add("p", {"b": 2.0})
    first.add("p", {"a": 1.0})
    assert first.times("p") == Store(HERE, tmp_path).times("p") == {"a": 1.0, "b": 2.0}


def test_every_part_of_the_environment_has_its_own_file(tmp_path):
    Store(HERE, tmp_path).add("p", {"a": 1.0})
    for field in dataclasses.fields(HERE):
        other = dataclasses.replace(HERE, **{field.name: "different"})
        assert Store(other, tmp_path).times("p") == {}, f"times survive another {field.name}"


ADDER = """
    import sys
    from pathlib import Path
    from fastconv.tuning.store import Store
    from tests.tuning.support import HERE
    store = Store(HERE, Path(sys.argv[1]))
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(60):
        store.add(f"problem {number % 7}", {f"{sys.argv[2]} {number}": 1e-6 * (number + 1)})
"""


TUNER = """
    import sys
    from pathlib import Path
    from fastconv import backends
    from fastconv.bench.device import CpuDevice
    from fastconv.tuning.store import Store
    from fastconv.tuning.tuner import tune_problem
    from tests.tuning.support import CPU, HERE, candidates, conv

    def make_plan(problem, candidate):
        aten = backends.get("aten")
        return aten.plan(problem, aten.candidates(problem)[0])

    store = Store(HERE, Path(sys.argv[1]))
    print("ready", flush=True)
    sys.stdin.readline()
    for channels in range(1, 13):
        problem = conv(target=CPU, channels=channels)
        result = tune_problem(problem, candidates(1e-6, 1e-6), store, device=CpuDevice(), make_plan=make_plan)
        for name in result.measured:
            print(f"{result.problem} | {name}", flush=True)
"""


def at_once(program, folder, root, names=("first", "second")):
    """A process of each name that runs it, all past their imports."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program), str(folder), name],
            cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for name in names
    ]  # fmt: skip
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    return processes


@pytest.mark.parametrize("begins_with", [None, "{"], ids=["nothing", "a broken file"])
@pytest.mark.parametrize("names", [("first", "second"), ("first", "second", "third")], ids=len)
def test_processes_at_once_lose_nothing(tmp_path, pytestconfig, names, begins_with):
    if begins_with is not None:
        Store(HERE, tmp_path).path.write_text(begins_with)
    for process in at_once(ADDER, tmp_path, pytestconfig.rootpath, names):
        process.communicate(timeout=120)
        assert process.returncode == 0
    kept = {name for times in Store(HERE, tmp_path).problems().values() for name in times}
    assert kept == {f"{name} {number}" for name in names for number in range(60)}
    assert not list(tmp_path.glob(".*.part"))
    assert [path.read_text() for path in tmp_path.glob("*.set-aside-*")] == [begins_with] * (begins_with is not None)


def kept_by(folder):
    return {f"{problem} | {name}" for problem, times in Store(HERE, folder).problems().items() for name in times}


@pytest.mark.parametrize("names", [("first", "second"), ("first", "second", "third")], ids=len)
def test_processes_tuning_at_once_lose_nothing_and_measure_nothing_twice(tmp_path, pytestconfig, names):
    processes = at_once(TUNER, tmp_path, pytestconfig.rootpath, names)
    said = [line for process in processes for line in process.communicate(timeout=120)[0].splitlines()]
    assert [process.returncode for process in processes] == [0] * len(names)
    assert len(said) == len(set(said)) == 12 * 3
    assert kept_by(tmp_path) == set(said)


def test_a_process_killed_while_it_measures_leaves_its_times_and_holds_up_nobody(tmp_path, pytestconfig):
    killed, other = at_once(TUNER, tmp_path, pytestconfig.rootpath)
    first = killed.stdout.readline()
    killed.kill()
    said = [first, *killed.communicate(timeout=60)[0].splitlines()]
    rest = other.communicate(timeout=120)[0].splitlines()
    assert other.returncode == 0
    assert len(kept_by(tmp_path)) == 12 * 3
    assert kept_by(tmp_path) >= set(map(str.strip, said + rest)) - {""}  # it may die before it says what it has kept


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", '"words"', '{"schema": 999, "environment": {}, "seconds": {}}', '{"schema": 1}',
        '{"schema": 1, "environment": {"gpu": "other"}, "seconds": {}}', "SECONDS:[]", "SECONDS:-1", 'SECONDS:"fast"',
        "SECONDS:true", "\x00\x01", "SECONDS:NaN", "SECONDS:1" + 400 * "0", 100_000 * "[",
    ],
    ids=lambda text: text[:40],
)  # fmt: skip
def test_a_corrupt_or_stale_file_is_set_aside_with_a_warning_and_kept(tmp_path, text):
    path = Store(HERE, tmp_path).path
    if text.startswith("SECONDS:"):
        head = {"schema": 1, "environment": dataclasses.asdict(HERE)}
        value = text.removeprefix("SECONDS:")
        text = (
            json.dumps(head)[:-1] + (', "seconds": ' + ("[]" if value == "[]" else f'{{"p": {{"a": {value}}}}}')) + "}"
        )
    path.write_text(text)
    store = Store(HERE, tmp_path)
    with pytest.warns(StoreWarning, match="set aside"):
        assert store.times("p") == {}
    (aside,) = tmp_path.glob("*.set-aside-*")
    assert aside.read_text() == text
    store.add("p", {"a": 1.0})
    assert Store(HERE, tmp_path).times("p") == {"a": 1.0}


def test_files_set_aside_in_the_same_second_are_all_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda form: "20000101-000000")
    texts = ["{", "[]", "not a store"]
    for text in texts:
        store = Store(HERE, tmp_path)
        store.path.write_text(text)
        with pytest.warns(StoreWarning, match="set aside"):
            store.times("p")
    assert sorted(path.read_text() for path in tmp_path.glob("*.set-aside-*")) == sorted(texts)


def test_a_good_file_that_another_process_put_in_the_place_of_a_broken_one_is_not_set_aside(tmp_path, monkeypatch):
    """Between the moment in which this process read the broken one and that in which it would move it away."""
    store = Store(HERE, tmp_path)
    store.path.write_text("{")
    acquire = store._file_lock.acquire

    def late(*arguments, **options):
        monkeypatch.undo()
        with pytest.warns(StoreWarning, match="set aside"):
            Store(HERE, tmp_path).add("p", {"a": 1.0})
        return acquire(*arguments, **options)

    monkeypatch.setattr(store._file_lock, "acquire", late)
    assert store.times("p") == {"a": 1.0}
    assert len(list(tmp_path.glob("*.set-aside-*"))) == 1
    assert Store(HERE, tmp_path).times("p") == {"a": 1.0}


def test_bytes_that_are_no_text_are_set_aside_too(tmp_path):
    store = Store(HERE, tmp_path)
    store.path.write_bytes(b"\xff\xfe\x80")
    with pytest.warns(StoreWarning, match="set aside"):
        assert store.times("p") == {}


def test_a_folder_that_cannot_be_written_is_one_warning_and_times_live_on_in_memory(tmp_path):
    (tmp_path / "file").write_text("in the way")
    store = Store(HERE, tmp_path / "file" / "folder")
    with pytest.warns(StoreWarning, match="cannot be kept"):
        store.add("p", {"a": 1.0})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.add("p", {"b": 2.0})
    assert store.times("p") == {"a": 1.0, "b": 2.0}


def test_a_broken_file_that_cannot_be_moved_is_a_warning_with_both_reasons(tmp_path, monkeypatch):
    store = Store(HERE, tmp_path)
    store.path.write_text("{")

    def refuse(*arguments, **options):
        raise PermissionError("read-only")

    monkeypatch.setattr(store._file_lock, "acquire", refuse)
    with pytest.warns(StoreWarning, match=r"not used: Expecting property name.*nor can they be set aside: read-only"):
        assert store.times("p") == {}


def test_a_crash_while_writing_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    store = Store(HERE, tmp_path)
    store.add("p", {"a": 1.0})

    def crash(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        store.add("p", {"b": 2.0})
    monkeypatch.undo()
    assert Store(HERE, tmp_path).times("p") == {"a": 1.0}
    assert not list(tmp_path.glob(".*.part"))
