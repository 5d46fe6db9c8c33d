"""`breakers`, and what `workers`, `health` and `doctor` say of dependencies, quarantine and what the queue costs."""

import sqlite3
import time
from contextlib import closing
from typing import Any

import msgspec

from penstock.dependencies import BREAKERS
from penstock.engine import WorkerInfo
from penstock.model.breaker import Breaker, Terms, let_through, opened
from penstock.model.job import JobId, ProcessId
from penstock.model.record import Record, TaskRecord
from penstock.records import RECORDS
from tests.cli.desk import Desk


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def put(desk: Desk, breaker: Breaker) -> None:
    assert desk.store.engine.share(BREAKERS, "smtp", msgspec.json.encode(breaker), None)


def findings(desk: Desk, subject: str) -> list[dict[str, Any]]:
    return [one for one in desk.read("doctor")["findings"] if one["subject"] == subject]


# -- breakers ---------------------------------------------------------------------------------------------------------


def test_nothing_is_listed_while_everything_works(desk: Desk) -> None:
    desk.enqueue()
    result = desk.run("breakers", "list")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "No circuit breaker is open.\n")
    assert desk.read("breakers", "list") == {"breakers": []}


def test_an_open_breaker_is_shown_with_who_waits_and_why(desk: Desk) -> None:
    put(desk, opened(Terms(), ("shop.send",), "ConnectionError: refused", now_ms() - 60_000, 1.0))
    line = desk.done("breakers", "list").splitlines()[-1]
    assert "smtp" in line
    assert "with the next job" in line
    assert line.endswith("shop.send        ConnectionError: refused")
    [document] = desk.read("breakers", "list")["breakers"]
    assert (document["dependency"], document["tasks"], document["failed_tries"]) == ("smtp", ["shop.send"], 0)
    assert document["tried_by"] is None


def test_it_is_shown_which_job_tries(desk: Desk) -> None:
    put(desk, let_through(opened(Terms(), ("shop.send",), "refused", now_ms(), 1.0), JobId("job-7"), now_ms()))
    assert "now, job job-7" in desk.done("breakers", "list")
    assert desk.read("breakers", "list")["breakers"][0]["tried_by"] == "job-7"


def test_a_breaker_is_opened_and_closed_by_hand(desk: Desk) -> None:
    assert "penstock breakers close smtp" in desk.done("breakers", "open", "smtp", "--reason", "until noon")
    assert "once closed by hand" in desk.done("breakers", "list")
    assert "until noon" in desk.done("breakers", "list")
    assert desk.done("breakers", "close", "smtp") == "The breaker of smtp is closed.\n"
    assert desk.done("breakers", "close", "smtp") == "The breaker of smtp was not open.\n"


def test_what_is_no_name_of_a_dependency_is_refused(desk: Desk) -> None:
    result = desk.run("breakers", "open", "dependency:smtp")
    assert (result.exit_code, "is no name of a dependency" in result.stderr) == (2, True)


def test_doctor_tells_what_is_out_of_order_and_the_way_out(desk: Desk) -> None:
    put(desk, opened(Terms(), ("shop.send",), "refused", now_ms() - 60_000, 1.0))
    [found] = findings(desk, "breakers")
    assert found["found"] == "smtp is out of order since 1m, shop.send waits for it: refused"
    assert "penstock breakers close smtp" in found["remedy"]
    desk.store.dependency("smtp").open("by me")
    [found] = findings(desk, "breakers")
    assert "opened by hand" in found["remedy"]


def test_a_worker_whose_jobs_wait_for_a_dependency_is_not_silent(desk: Desk) -> None:
    desk.enqueue()
    desk.hand()
    with closing(sqlite3.connect(desk.file)) as db, db:
        db.execute("UPDATE ready SET since_ms = since_ms - 7200000")
    db.close()
    assert desk.run("health").exit_code == 1
    put(desk, opened(Terms(), ("shop.send",), "refused", now_ms(), 1.0))
    assert desk.run("health").exit_code == 0
    assert not [one for one in findings(desk, "workers") if one["verdict"] == "fault"]


# -- quarantine and eviction ------------------------------------------------------------------------------------------


def test_a_host_is_put_in_quarantine_and_readmitted(desk: Desk) -> None:
    desk.store.engine.enrol(WorkerInfo(id="w", host="wolf", tasks=("shop.send",)), [ProcessId("p")])
    result = desk.run("workers", "quarantine", "wolf", "--reason", "its disk is dying")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "wolf is in quarantine: its disk is dying" in desk.run("workers", "list").stderr
    assert desk.read("workers", "list")["quarantine"][0]["name"] == "wolf"
    assert [one["found"] for one in findings(desk, "workers")][-1] == "wolf is in quarantine: its disk is dying"
    assert desk.done("workers", "readmit", "wolf") == "wolf may claim jobs again.\n"
    result = desk.run("workers", "readmit", "wolf")
    assert (result.exit_code, result.stderr) == (1, "wolf was not in quarantine.\n")


def test_a_name_that_no_worker_has_is_put_in_quarantine_with_a_warning(desk: Desk) -> None:
    result = desk.run("workers", "quarantine", "wof")
    assert result.exit_code == 0
    assert "no live worker has the id 'wof' or runs on such a host" in result.stderr


def test_an_evicted_worker_has_lost_its_jobs(desk: Desk) -> None:
    id = desk.enqueue()
    desk.hand().claim()
    [worker] = desk.read("workers", "list")["workers"]
    result = desk.run("workers", "evict", worker["id"], input="n\n")
    assert (result.exit_code, desk.state(id)) == (130, "running")
    assert "with 1 job; other workers take them over" in desk.done("workers", "evict", worker["id"], "--yes")
    document = desk.read("workers", "list")
    assert (document["workers"], document["quarantine"][0]["name"]) == ([], worker["id"])
    other = desk.store.engine
    other.enrol(WorkerInfo(id="other"), [ProcessId("q")])
    [taken] = other.tend(ProcessId("q")).taken
    assert (taken.claim.id, taken.fate) == (id, "lost")


def test_only_a_worker_that_is_there_is_evicted(desk: Desk) -> None:
    desk.enqueue()
    result = desk.run("workers", "evict", "nobody", "--yes")
    assert (result.exit_code, "No worker has the id 'nobody'" in result.stderr) == (1, True)
    assert desk.read("workers", "list")["quarantine"] == []


# -- what the queue costs ---------------------------------------------------------------------------------------------


def test_doctor_advises_against_jobs_that_are_smaller_than_their_way(desk: Desk) -> None:
    tasks = {"shop.send": TaskRecord(200, 0, 2_000, 30_000), "shop.linger": TaskRecord(200, 0, 2_000_000, 30_000)}
    record = msgspec.json.encode(Record("w", "wolf", now_ms(), tasks))
    assert desk.store.engine.share(RECORDS, "p", record, None)
    [found] = findings(desk, "overhead")
    assert found["found"] == "jobs of shop.send run for 10 µs, and to fetch and deliver each takes 150 µs"
    assert found["remedy"] == "Call it as a function where its result is awaited, or let one job do 150 of them."


def test_the_record_shows_what_each_task_did_and_cost(desk: Desk) -> None:
    desk.enqueue()
    assert "No worker has told of any job" in desk.run("workers", "record").stderr
    for process, tasks in (("p", {"shop.send": TaskRecord(2, 1, 30_000, 600)}), ("q", {"shop.send": TaskRecord(1, 0)})):
        record = msgspec.json.encode(Record("w", "wolf", now_ms(), tasks))
        assert desk.store.engine.share(RECORDS, process, record, None)
    assert desk.done("workers", "record").splitlines()[-1].split() == ["shop.send", "3", "1", "7.5", "ms", "150", "µs"]
    [document] = desk.read("workers", "record")["tasks"]
    assert document == {"task": "shop.send", "done": 3, "failed": 1, "run_us": 7500.0, "queue_us": 150.0}
