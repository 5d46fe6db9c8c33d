"""`health`, `doctor`, `migrate` and `config`: what they find, and how they end."""

import fcntl
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from penstock.client import Penstock
from penstock.engines.sqlite.inspection import inspect
from tests.cli.desk import Desk


def findings(desk: Desk, *words: str, url: str | None = None) -> dict[str, dict[str, Any]]:
    """What the doctor says, by subject; of several on one subject, the worst."""
    result = desk.run("doctor", "--json", *words, *(("--url", url) if url else ()))
    document = json.loads(result.stdout)
    order = ("ok", "warning", "fault")
    found = sorted(document["findings"], key=lambda finding: order.index(finding["verdict"]))
    assert result.exit_code == (1 if any(one["verdict"] == "fault" for one in found) else 0)
    return {one["subject"]: one for one in found}


@pytest.fixture
def foreign_writer(desk: Desk) -> "Iterator[subprocess.Popen[str]]":
    """A program without penstock that has begun to write and does not end it."""
    desk.enqueue()
    code = (
        "import sqlite3, sys\n"
        "db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('BEGIN IMMEDIATE')\n"
        "print('begun', flush=True)\n"
        "sys.stdin.read()\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code, str(desk.file)], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        yield process
        process.kill()


def test_health_is_one_line(desk: Desk) -> None:
    desk.enqueue()
    desk.hand()
    written = desk.done("health")
    assert re.fullmatch(r"healthy: 1 worker, 0 running, 1 ready \(oldest \d+m?s\), 0 buried\n", written)


def test_no_worker_is_unhealthy_unless_none_is_wanted(desk: Desk) -> None:
    desk.enqueue()
    result = desk.run("health")
    assert (result.exit_code, result.stdout.startswith("unhealthy: 0 of at least 1 workers live")) == (1, True)
    assert desk.run("health", "--min-workers", "0").exit_code == 0


def test_an_old_ready_job_is_unhealthy(desk: Desk) -> None:
    desk.enqueue()
    desk.hand()
    assert desk.run("health", "--max-age", "1h").exit_code == 0
    with closing(sqlite3.connect(desk.file)) as db, db:
        db.execute("UPDATE ready SET since_ms = since_ms - 7200000")
    db.close()
    result = desk.run("health", "--max-age", "1h")
    assert (result.exit_code, "a ready job waits for 2h, over 1h" in result.stdout) == (1, True)


def test_a_worker_that_takes_nothing_is_unhealthy_and_a_fault(desk: Desk) -> None:
    desk.enqueue()
    desk.hand()
    assert desk.run("health").exit_code == 0
    with closing(sqlite3.connect(desk.file)) as db, db:
        db.execute("UPDATE ready SET since_ms = since_ms - 60000")
    result = desk.run("health")
    assert (result.exit_code, "runs nothing, but a job in queue default is ready for 1m" in result.stdout) == (1, True)
    assert desk.run("health", "--silent-after", "1h").exit_code == 0
    assert findings(desk)["workers"]["verdict"] == "fault"


def test_a_store_that_is_not_there_is_unhealthy(desk: Desk) -> None:
    result = desk.run("health", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert (document["healthy"], document["store"]) == (False, "unreachable")


def test_doctor_finds_no_fault_with_a_store_in_use(desk: Desk) -> None:
    desk.enqueue()
    desk.hand()
    found = findings(desk, "--deep")
    assert {one["verdict"] for one in found.values()} <= {"ok", "warning"}
    for subject in ("file", "mode", "folder", "filesystem", "disk", "lock", "schema", "journal", "clock", "due"):
        assert subject in found
    assert found["integrity"]["verdict"] == "ok"
    assert "D2" in found["durability"]["found"]


def test_doctor_makes_no_store(desk: Desk) -> None:
    assert "does not exist yet" in findings(desk)["file"]["found"]
    assert not desk.file.exists()


def test_a_small_disk_is_measured_in_mebibytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = os.statvfs_result((4096, 4096, 2560, 512, 512, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: small)
    found = {finding.subject: finding.found for finding in inspect(tmp_path / "shop.db").findings}
    assert found["disk"] == "2.0 MiB free of 10.0 MiB"


def test_doctor_warns_of_a_readable_file(desk: Desk) -> None:
    desk.enqueue()
    desk.file.chmod(0o644)
    found = findings(desk)["mode"]
    assert (found["verdict"], found["remedy"]) == ("warning", f"Run `chmod 600 {desk.file}`.")


def test_doctor_says_who_holds_the_gate(desk: Desk) -> None:
    desk.enqueue()
    with open(desk.file.with_name("shop.db-penstock") / "gate", "rb") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        found = findings(desk)["lock"]
    assert found["verdict"] == "fault"
    assert f"process {os.getpid()} " in found["found"]


def test_doctor_says_which_other_program_writes(desk: Desk) -> None:
    desk.enqueue()
    other = sqlite3.connect(desk.file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        found = findings(desk)["lock"]
    finally:
        other.close()
    assert found["verdict"] == "fault"
    assert f"process {os.getpid()} " in found["found"]


def test_doctor_names_the_foreign_program_and_not_the_worker_that_waits_for_it(
    desk: Desk, foreign_writer: "subprocess.Popen[str]"
) -> None:
    """A worker that waits for SQLite's own lock holds the gate meanwhile."""
    with open(desk.file.with_name("shop.db-penstock") / "gate", "rb") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        found = findings(desk)["lock"]
    assert found["verdict"] == "fault"
    assert f"process {foreign_writer.pid} " in found["found"]


def test_doctor_finds_jobs_that_nobody_runs(desk: Desk) -> None:
    desk.enqueue("another.task")
    assert "nobody to run them" in findings(desk)["tasks"]["found"]
    desk.hand()
    assert "knows task 'another.task'" in findings(desk)["tasks"]["found"]


def test_doctor_finds_paused_queues_and_buried_jobs(desk: Desk) -> None:
    desk.bury()
    desk.done("queues", "pause", "mail")
    found = findings(desk)
    assert "penstock queues resume mail" in found["queues"]["remedy"]
    assert "1 of shop.refuse" in found["buried"]["found"]


def test_doctor_finds_overdue_jobs(desk: Desk) -> None:
    desk.enqueue("shop.send", 1, delay=60)
    desk.store.close()
    with closing(sqlite3.connect(desk.file)) as db, db:
        db.execute("UPDATE jobs SET due_ms = due_ms - 100000")
    db.close()
    found = findings(desk)["due"]
    assert (found["verdict"], "nobody tends the store" in found["found"]) == ("fault", True)


def test_doctor_finds_a_clock_that_was_set_back(desk: Desk) -> None:
    desk.enqueue()
    desk.store.close()
    with closing(sqlite3.connect(desk.file)) as db, db:
        db.execute("UPDATE jobs SET created_ms = created_ms + 3600000")
    db.close()
    assert "the clock was set back" in findings(desk)["clock"]["found"]


def test_doctor_finds_damage(desk: Desk) -> None:
    for number in range(200):
        desk.enqueue("shop.send", number)
    desk.store.close()
    with desk.file.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xa5" * 4096 * 4)
    found = findings(desk, "--deep")
    assert any(one["verdict"] == "fault" and "damaged" in one["found"] for one in found.values())


@pytest.mark.parametrize("command", ["doctor", "migrate"])
def test_a_file_of_another_kind_is_a_fault(desk: Desk, tmp_path: Path, command: str) -> None:
    text, foreign = tmp_path / "text.db", tmp_path / "foreign.db"
    text.write_text("no database at all " * 100)
    with closing(sqlite3.connect(foreign)) as db, db:
        db.execute("CREATE TABLE t (a)")
    db.close()
    for file, words in ((text, "is not an SQLite database"), (foreign, "of another program")):
        result = desk.run(command, "--url", f"sqlite:///{file}")
        assert result.exit_code == {"doctor": 1, "migrate": 3}[command]
        assert words in result.output


def test_migrate_says_from_where_to_where(desk: Desk) -> None:
    assert "would go from nothing to schema " in desk.done("migrate", "--dry-run")
    assert not desk.file.exists()
    assert "went from nothing to schema " in desk.done("migrate")
    assert "nothing to do" in desk.done("migrate")


def test_a_newer_schema_is_refused_and_left_as_it_is(desk: Desk) -> None:
    desk.done("migrate")
    with closing(sqlite3.connect(desk.file)) as db, db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    for words in (["migrate"], ["migrate", "--dry-run"], ["jobs", "list"]):
        result = desk.run(*words)
        assert result.exit_code == 3
        assert "99" in result.output
    assert findings(desk)["schema"]["verdict"] == "fault"


def test_a_store_that_nobody_named_is_said_to_be_the_default(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = f"sqlite:///penstock.db, the default in {tmp_path} as no URL was given"
    assert told in desk.run("health", PENSTOCK_URL="").stdout
    assert told in desk.done("doctor", PENSTOCK_URL="")
    with Penstock() as store:
        store.enqueue("a.task")
    assert told in desk.run("health", PENSTOCK_URL="").stdout
    assert "default" not in desk.run("health", "--url", "sqlite:///penstock.db").stdout


def test_config_shows_value_and_source(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "penstock.toml").write_text('slots = 3\nlease = "1m"\n')
    monkeypatch.chdir(tmp_path)
    settings = {one["name"]: one for one in json.loads(desk.done("config", "--json", PENSTOCK_SLOTS="5"))["settings"]}
    assert (settings["slots"]["value"], settings["slots"]["source"]) == (5, "$PENSTOCK_SLOTS")
    assert (settings["lease"]["value"], settings["lease"]["source"]) == (60.0, str(tmp_path / "penstock.toml"))
    assert "$PENSTOCK_URL" in desk.done("config")


def test_all_faults_of_settings_are_told_at_once(desk: Desk) -> None:
    result = desk.run("config", PENSTOCK_SLOTS="x", PENSTOCK_LEASE="1y")
    assert result.exit_code == 2
    assert [line.startswith("penstock: ") for line in result.stderr.splitlines()] == [True, True]


def test_ready_jobs_without_a_worker_are_told(desk: Desk) -> None:
    desk.hand()
    for n in range(7):
        desk.enqueue(f"another.task{n}")
    desk.enqueue("another.task6")
    assert re.search(r"8 ready \(oldest \d+m?s, 8 that no live worker takes\)", desk.done("health"))
    assert desk.read("health")["unserved"] == 8
    told = [finding["found"] for finding in desk.read("doctor")["findings"] if finding["subject"] == "tasks"]
    assert told[0] == "2 ready jobs of another.task6: no live worker knows task 'another.task6'"
    assert told[5:] == ["2 ready jobs of 2 more tasks that no live worker takes"]
