"""What is backed up comes back as it was, once, and a file that is not whole is refused before anything changes."""

import hashlib
import io
import json
from typing import Any

import pytest

from penstock.engine import AddRequest, Bury, Cancel, Engine, Filter
from penstock.model.job import Details, Job, Unique
from penstock.model.retry import Policy
from penstock.model.states import State
from penstock.moving import BackupInvalid, Tally, back_up, examine_backup, restore
from penstock.testing import TurnedClock, memory_engine
from tests.moving.jobs import Worker, fill, job_id, new_job, stored

TAKEN_MS = 1_700_000_000_000


def backup_of(engine: Engine) -> bytes:
    file = io.BytesIO()
    back_up(engine, file.write, version="9.9", taken_ms=TAKEN_MS)
    return file.getvalue()


def restored(backup: bytes, engine: Engine) -> Tally:
    file = io.BytesIO(backup)
    return restore(file, examine_backup(file), engine)


def totals(tally: Tally) -> tuple[int, int, int, int]:
    total = tally.total()
    return total.found, total.moved, total.there, total.left


def filled(count: int = 300) -> Engine:
    engine = memory_engine(TurnedClock())
    fill(engine, count)
    return engine


def test_every_job_comes_back_as_it_was() -> None:
    source, target = filled(2100), memory_engine(TurnedClock())
    assert totals(restored(backup_of(source), target)) == (2100, 2100, 0, 0)
    assert stored(target) == stored(source)
    assert target.counts() == source.counts()


def test_restoring_twice_changes_nothing_more() -> None:
    backup, target = backup_of(filled()), memory_engine(TurnedClock())
    restored(backup, target)
    before = stored(target)
    Worker(target, "p").run()
    after = stored(target)
    assert after != before
    assert totals(restored(backup, target)) == (300, 0, 300, 0)
    assert stored(target) == after


def test_backup_is_json_line_by_line() -> None:
    engine = memory_engine(TurnedClock())
    engine.alter_queue("slow", paused=True, max_jobs=9)
    engine.add([AddRequest((new_job(1, crc=5),))])
    head, queue, job, end = [json.loads(line) for line in backup_of(engine).splitlines()]
    assert (head["penstock_backup"], head["version"], head["kind"]) == (1, "9.9", "memory")
    assert (head["taken_ms"], head["counts"], len(head["epoch"]) > 8) == (TAKEN_MS, {"ready": 1}, True)
    assert queue == {"queue": "slow", "paused": True, "max_jobs": 9}
    assert job["job"]["envelope"] == '{"v":1,"task":"b","args":[1]}'
    assert (end["end"]["jobs"], end["end"]["queues"]) == (1, 1)


def test_bytes_that_are_no_text_are_kept() -> None:
    source, target = memory_engine(), memory_engine()
    source.add([AddRequest((new_job(1, envelope=b"\xff\x00\xfe"), new_job(2, envelope="ü\x00".encode())))])
    backup = backup_of(source)
    assert "envelope_base64" in backup.decode()
    restored(backup, target)
    assert stored(target) == stored(source)


def test_switches_come_back_where_none_is_set() -> None:
    source, target = memory_engine(), memory_engine()
    source.alter_queue("mail", paused=True)
    source.alter_queue("slow", paused=True)
    target.alter_queue("slow", max_jobs=3)
    restored(backup_of(source), target)
    assert {queue.name: (queue.paused, queue.max_jobs) for queue in target.queues()} == {
        "mail": (True, None),
        "slow": (False, 3),
    }


def test_ready_jobs_come_back_in_the_order_of_arrival() -> None:
    source, target = memory_engine(TurnedClock()), memory_engine(TurnedClock())
    for start in (0, 1000):
        source.add([AddRequest(tuple(new_job(number) for number in range(start, start + 1000)))])
    restored(backup_of(source), target)
    worker, claimed = Worker(target, "p"), []
    while claims := worker.claim():
        claimed += [claim.id for claim in claims]
    assert claimed == [job_id(number) for number in range(2000)]


def test_waiting_job_finds_its_key_though_an_ended_one_had_it() -> None:
    source, target = memory_engine(TurnedClock()), memory_engine(TurnedClock())
    window = Details(unique=Unique("k", until="window", window_ms=90_000, clash="replace"))
    source.add([AddRequest((new_job(1, details=window),))])
    source.add([AddRequest((new_job(3, details=window),))])
    assert {job.state for job in stored(source).values()} == {State.CANCELLED, State.READY}
    assert totals(restored(backup_of(source), target)) == (2, 2, 0, 0)
    [[answer]] = target.add([AddRequest((new_job(5, details=Details(unique=Unique("k"))),))])
    assert (answer.id, answer.existing) == (job_id(3), True)


# -- jobs that ran ----------------------------------------------------------------------------------------------------


def running(**fields: Any) -> bytes:
    engine = memory_engine(TurnedClock())
    engine.add([AddRequest((new_job(1, **fields),))])
    Worker(engine, "p").claim()
    return backup_of(engine)


def come_back(backup: bytes) -> Job:
    target = memory_engine(TurnedClock())
    restored(backup, target)
    [job] = stored(target).values()
    return job


def test_running_job_is_ready_and_suspect_when_it_comes_back() -> None:
    job = come_back(running())
    assert (job.state, job.claim_number, job.process) == (State.READY, 1, "p")
    assert (job.counters.losses, job.counters.suspect, job.counters.attempts) == (1, True, 0)
    assert job.error is not None
    assert "was running when its store was backed up" in job.error.message


def test_running_job_that_may_start_only_once_is_buried_when_it_comes_back() -> None:
    job = come_back(running(policy=Policy(max_attempts=1, max_crashes=0)))
    assert (job.state, job.ended_ms, job.counters.crashes) == (State.BURIED, TAKEN_MS, 1)


def test_running_job_that_comes_back_twice_stays_as_it_is() -> None:
    backup, target = running(), memory_engine(TurnedClock())
    restored(backup, target)
    before = stored(target)
    assert totals(restored(backup, target)) == (1, 0, 1, 0)
    assert stored(target) == before


# -- what is refused --------------------------------------------------------------------------------------------------


def test_sound_backup_tells_what_it_holds() -> None:
    engine = filled()
    engine.alter_queue("slow", paused=True)
    Worker(engine, "p").claim(7)
    contents = examine_backup(io.BytesIO(backup_of(engine)))
    assert (contents.jobs, contents.queues, contents.running) == (300, 1, 7)
    assert sum(contents.header.counts.values()) == 300


def test_backup_that_is_cut_off_anywhere_is_refused() -> None:
    backup = backup_of(filled(20))
    target = memory_engine()
    for length in (*range(0, len(backup) - 1, 97), len(backup) - 1):
        with pytest.raises(BackupInvalid, match=r"cut off|not the header"):
            restored(backup[:length], target)
    assert stored(target) == {}


def test_damaged_lines_are_named() -> None:
    lines = backup_of(filled(20)).splitlines(keepends=True)
    lines[4], lines[9] = lines[4].replace(b'"state"', b'"stXte"'), b"\xff{\n"
    target = memory_engine()
    with pytest.raises(BackupInvalid, match="lines 5, 10"):
        restored(b"".join(lines), target)
    assert stored(target) == {}


def test_line_that_was_changed_fails_the_checksum() -> None:
    backup = backup_of(filled(20))
    with pytest.raises(BackupInvalid, match="checksum differs"):
        restored(backup.replace(b'"mail"', b'"nail"'), memory_engine())


def test_missing_line_fails_the_checksum() -> None:
    lines = backup_of(filled(20)).splitlines(keepends=True)
    with pytest.raises(BackupInvalid, match="checksum differs"):
        restored(b"".join([*lines[:5], *lines[6:]]), memory_engine())


def test_what_was_appended_is_refused() -> None:
    with pytest.raises(BackupInvalid, match="behind the end"):
        restored(backup_of(filled(20)) + b"{}\n", memory_engine())


def test_newer_format_is_refused_and_says_who_wrote_it() -> None:
    backup = backup_of(filled(20)).replace(b'"penstock_backup":1', b'"penstock_backup":2', 1)
    with pytest.raises(BackupInvalid, match=r"format 2, written by penstock 9\.9"):
        restored(backup, memory_engine())


def test_fields_that_a_later_version_added_are_passed_over() -> None:
    lines = backup_of(filled(20)).splitlines(keepends=True)[:-1]
    lines = [line.replace(b'{"job":{', b'{"job":{"mood":"good",') for line in lines]
    end = {"jobs": 20, "queues": 0, "sha256": hashlib.sha256(b"".join(lines)).hexdigest()}
    lines.append(json.dumps({"end": end}, separators=(",", ":")).encode() + b"\n")
    assert totals(restored(b"".join(lines), memory_engine())) == (20, 20, 0, 0)


def test_job_whose_key_is_held_is_refused_alone() -> None:
    source, target = memory_engine(TurnedClock()), memory_engine(TurnedClock())
    details = Details(unique=Unique("k"))
    source.add([AddRequest((new_job(1, details=details), new_job(2)))])
    target.add([AddRequest((new_job(9, details=details),))])
    result = restored(backup_of(source), target)
    assert totals(result) == (2, 1, 0, 1)
    assert "unique key 'k'" in result.refusals[0].why


# -- beside work ------------------------------------------------------------------------------------------------------


def test_backup_beside_work_has_each_job_once() -> None:
    engine = memory_engine(TurnedClock())
    for start in range(0, 5000, 1000):
        engine.add([AddRequest(tuple(new_job(number) for number in range(start, start + 1000)))])
    worker, file = Worker(engine, "p"), io.BytesIO()

    def work(_: int) -> None:
        """What goes on while a page is written."""
        for claim in worker.claim(40):
            worker.end(claim)
        waiting = engine.find(Filter(states=frozenset({State.READY}), limit=30)).jobs
        engine.alter([job.id for job in waiting[:15]], Bury())
        engine.alter([job.id for job in waiting[15:]], Cancel())

    kept = back_up(engine, file.write, version="9.9", taken_ms=TAKEN_MS, advance=work)
    assert kept.jobs == 5000
    target = memory_engine(TurnedClock())
    assert totals(restored(file.getvalue(), target)) == (5000, 5000, 0, 0)
    assert stored(target).keys() == stored(engine).keys()
