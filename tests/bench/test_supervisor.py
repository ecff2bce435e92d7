"""The supervisor: what is measured is kept, whatever becomes of the process that measures."""

import sys
import time

import pytest

from fastconv.bench.results import Writer, load
from fastconv.bench.rows import make_row
from fastconv.bench.supervisor import Job, supervise
from tests.bench.synthetic import cases

CASES = cases(suites=["resnet50"])[:3]

FIELD = {"backends": ["cuda", "triton"], "kernels": (), "baselines": (), "peers": ()}
ROWS = [make_row(case, f"fastconv-{name}", "ours", "predicted") for case in CASES for name in FIELD["backends"]]
GUILTY = ROWS[2].id

#: A worker that obeys the job's "skip" and does to the guilty row what the test says. It has the rows, so it imports nothing.
WORKER = """
import json, os, sys, time

def send(event, **fields):
    print(json.dumps({{"event": event, **fields}}), flush=True)

job = json.loads(sys.stdin.readline())
for id, row in {rows!r}:
    if id in job["skip"]:
        continue
    send("begin", id=id)
    if id == {guilty!r}:
        {mischief}
    send("row", row=json.loads(row))
send("end")
"""


@pytest.fixture
def attempt(tmp_path):
    def run(mischief="pass", done=(), deadline=float("inf"), on_row=lambda row: None):
        script = tmp_path / "worker.py"
        given = [(row.id, row.to_json()) for row in ROWS]
        script.write_text(WORKER.format(rows=given, guilty=GUILTY, mischief=mischief))
        path = tmp_path / "results.jsonl"
        writer = Writer(path, {}, resume=bool(done))
        patience = {"row": 1.0, "compile": 1.0, "start": 30.0}
        job = Job("predicted", CASES, FIELD, {}, "H200", deadline, patience, (sys.executable, "-S", str(script)))
        outcome = supervise(job, writer, tmp_path / "worker.log", set(done), on_row)
        writer.close()
        return outcome, {row.id: row for row in load(path).rows}

    return run


def test_every_row_of_a_worker_that_behaves_is_kept(attempt):
    outcome, rows = attempt()
    assert outcome.complete
    assert len(rows) == 6
    assert {row.status for row in rows.values()} == {"ok"}


@pytest.mark.parametrize(
    ("mischief", "reason"),
    [
        ("os.kill(os.getpid(), 11)", "SIGSEGV"),
        ("os._exit(7)", "ended with 7"),
        ("time.sleep(60)", "hung"),
        ("send('lost', reason='an illegal memory access'); os._exit(3)", "illegal memory access"),
    ],
    ids=["segmentation fault", "exit", "hang", "lost device"],
)
def test_a_row_that_takes_the_process_down_is_the_only_one_lost(attempt, mischief, reason):
    outcome, rows = attempt(mischief)
    assert outcome.complete
    assert len(rows) == 6
    assert rows[GUILTY].status == "failed"
    assert reason in rows[GUILTY].reason
    assert sum(row.status == "ok" for row in rows.values()) == 5


def test_rows_that_are_done_are_not_measured_again(attempt):
    _, first = attempt()
    done = set(list(first)[:4])
    outcome, rows = attempt(done=done)
    assert {row.id for row in outcome.rows} == set(rows) - done
    assert len(rows) == 6


def test_an_interruption_keeps_what_there_is_and_resumes(attempt):
    seen = []

    def interrupt(row):
        seen.append(row.id)
        if len(seen) == 2:
            raise KeyboardInterrupt

    outcome, rows = attempt(on_row=interrupt)
    assert (outcome.complete, outcome.reason, len(rows)) == (False, "interrupted", 2)
    outcome, rows = attempt(done=set(rows))
    assert outcome.complete
    assert len(rows) == 6


def test_a_worker_that_cannot_start_ends_the_run_with_the_reason(tmp_path):
    writer = Writer(tmp_path / "results.jsonl", {}, resume=False)
    command = (sys.executable, "-c", "raise SystemExit(5)")
    job = Job("predicted", CASES, {"backends": ["cuda"]}, {}, "H200", command=command)
    outcome = supervise(job, writer, tmp_path / "worker.log", set())
    writer.close()
    assert not outcome.complete
    assert "could not start" in outcome.reason
    assert "ended with 5" in outcome.reason


def test_when_time_is_up_a_hanging_row_is_not_waited_for_long(attempt):
    began = time.time()
    attempt("time.sleep(60)", deadline=time.time() + 1)
    assert time.time() - began < 30
