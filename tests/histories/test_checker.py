"""The checker on histories written by hand: for each invariant those it must let pass, and those it must not."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from penstock.engine import AddRequest
from penstock.engines.open import open_engine
from penstock.model.codec import encode_envelope
from penstock.model.job import NO_COUNTERS, Counters, Fence, JobId, NewJob
from penstock.model.states import Cause, State
from tests.histories import reading
from tests.histories.checker import check
from tests.histories.history import (
    NEVER,
    Act,
    Add,
    Altered,
    Began,
    Bore,
    Changed,
    Claimed,
    Dead,
    Did,
    Evicted,
    Final,
    History,
    Leased,
    Noted,
    Op,
    Outcome,
    Recorded,
    Stored,
    Taken,
    Voided,
)
from tests.histories.judging import judge
from tests.histories.watching import Log, watch

MS = 1_000_000
JOB, OTHER = JobId("job"), JobId("other")
STARTED = Counters(attempts=1)
FAILED = Counters(attempts=1, failures=1)


class Tale:
    """A history as it is told: each act takes the ms after the one before, unless its time is given."""

    def __init__(self, **final: Any) -> None:
        self.ops: list[Op] = []
        self.final = {"jobs": {}, "counted": {}, "recounted": {}} | final
        self._ms = 0

    def did(self, act: Act, by: str = "p1", outcome: Outcome = "ok", at: tuple[int, int] | None = None) -> "Tale":
        start, end = at or (self._ms + 1, self._ms + 2)
        self._ms = max(self._ms, end)
        self.ops.append(Op(start * MS, NEVER if outcome == "unknown" else end * MS, by, outcome, act))
        return self

    def added(self, job: JobId = JOB, outcome: Outcome = "ok", **fields: Any) -> "Tale":
        return self.did(Add(**({"job": job, "request": job, "told": job} | fields)), "producer", outcome)

    def claimed(self, number: int, by: str = "p1", job: JobId = JOB, token: int = 0, **fields: Any) -> "Tale":
        fields = {"max_attempts": 3, "max_crashes": 3} | fields
        return self.did(Claimed(job, fence(number, token), **fields), by)

    def taken(self, number: int, previous: str, by: str = "tender", **fields: Any) -> "Tale":
        fields = {"fate": "lost", "max_attempts": 3, "max_crashes": 3} | fields
        return self.did(Taken(JOB, fence(number), previous, **fields), by)

    def succeeded(self, number: int, by: str = "p1", outcome: Outcome = "ok", job: JobId = JOB) -> "Tale":
        return self.did(succeed(number, job), by, outcome)

    def failed(self, number: int, by: str = "p1", counters: Counters = FAILED) -> "Tale":
        return self.did(Changed(JOB, fence(number), Cause.RETRY, State.READY, counters), by)

    def released(self, number: int, by: str = "tender", counters: Counters = NO_COUNTERS) -> "Tale":
        return self.did(Changed(JOB, fence(number), Cause.RELEASE, State.READY, counters), by)

    def altered(self, how: str, before: State, after: State | None, outcome: Outcome = "ok") -> "Tale":
        return self.did(Altered(JOB, how, before, after), "operator", outcome)

    def left(self, number: int = 1, state: State = State.SUCCEEDED, job: JobId = JOB, **fields: Any) -> "Tale":
        """Say how a job stands in the end."""
        result = f"by {number}" if state is State.SUCCEEDED else ""
        values = {"claim_number": number, "counters": STARTED, "result": result} | fields
        self.final["jobs"] |= {job: Stored(job, state, **values)}
        return self

    def history(self, jumps: tuple[int, ...] = ()) -> History:
        return History(self.ops, Final(**self.final), [jump * MS for jump in jumps])

    def found(self, jumps: tuple[int, ...] = ()) -> list[str]:
        return [violation.invariant for violation in check(self.history(jumps))]


def fence(number: int, token: int = 0) -> Fence:
    return Fence(number, token or 100 + number)


def succeed(number: int, job: JobId = JOB) -> Changed:
    return Changed(job, fence(number), Cause.SUCCEED, State.SUCCEEDED, STARTED, f"by {number}")


def plain() -> Tale:
    """A job that was accepted, ran, and succeeded."""
    return Tale().added().claimed(1).succeeded(1).left()


def two_claims() -> Tale:
    """A job that was claimed, given back, and claimed again by another."""
    return Tale().added().claimed(1).released(1, "p1").claimed(2, "p2")


GOOD = {
    "a job that succeeds": plain(),
    "a job that is retried": Tale()
    .added()
    .claimed(1)
    .failed(1)
    .claimed(2, counters=FAILED)
    .did(Changed(JOB, fence(2), Cause.SUCCEED, State.SUCCEEDED, Counters(2, 1), "by 2"))
    .left(2, counters=Counters(2, 1)),
    "an end of which nobody heard": Tale().added().claimed(1).succeeded(1, outcome="unknown").left(),
    "an add of which nobody heard": Tale().added(outcome="unknown").claimed(1).succeeded(1).left(),
    "an add of which nobody heard and that never came": Tale().added(outcome="unknown"),
    "a job that was refused": Tale().added(outcome="fail"),
    "a job that was deleted": plain().altered("delete", State.SUCCEEDED, None),
    "a late result that is refused": Tale()
    .added()
    .did(Leased("p1", 10), "w")
    .claimed(1)
    .did(Changed(JOB, fence(1), Cause.SUCCEED, State.SUCCEEDED, STARTED, "late"), "p1", "fail", at=(40, 41))
    .taken(2, "p1")
    .released(2)
    .claimed(3, "p2")
    .succeeded(3, "p2")
    .left(3),
    "a claim that was taken from a dead process": Tale()
    .added()
    .did(Leased("p1", 30_000), "w")
    .claimed(1)
    .did(Dead("p1"), "w", at=(10, 12))
    .did(Taken(JOB, fence(2), "p1", "released", max_attempts=3, max_crashes=3), "w", at=(10, 12))
    .released(2, "w")
    .claimed(3)
    .succeeded(3)
    .left(3),
    "a lease that lapsed when the clock was set": Tale()
    .added()
    .did(Leased("p1", 30_000), "w")
    .claimed(1)
    .taken(2, "p1")
    .released(2)
    .claimed(3)
    .succeeded(3)
    .left(3),
    "a lease that was asked for before it was given": Tale()
    .added()
    .did(Voided("p1"), "p1")
    .did(Leased("p1", 30_000), "w")
    .claimed(1)
    .succeeded(1)
    .left(),
    "a claim of an evicted worker": Tale()
    .added()
    .did(Leased("p1", 30_000), "w")
    .claimed(1)
    .did(Evicted("w"), "operator")
    .taken(2, "p1")
    .released(2)
    .claimed(3)
    .succeeded(3)
    .left(3),
    "a job that was kicked": Tale()
    .added()
    .altered("cancel", State.READY, State.CANCELLED)
    .altered("kick", State.CANCELLED, State.READY)
    .claimed(1)
    .succeeded(1)
    .left(),
    "a job that heard that it should stop": Tale()
    .added()
    .claimed(1)
    .altered("cancel", State.RUNNING, State.RUNNING)
    .released(1, "p1")
    .claimed(2, cancel_requested=True)
    .did(Changed(JOB, fence(2), Cause.CANCEL, State.CANCELLED))
    .left(2, State.CANCELLED, counters=Counters()),
    "a key that is passed on": Tale()
    .added(key="k", until="ended")
    .claimed(1)
    .succeeded(1)
    .added(OTHER, key="k", until="ended")
    .claimed(1, job=OTHER)
    .succeeded(1, job=OTHER)
    .left()
    .left(job=OTHER),
    "a key that another holds": Tale()
    .added(key="k", until="ended")
    .added(OTHER, key="k", until="ended", told=JOB)
    .claimed(1)
    .succeeded(1)
    .left(),
    "a key whose holder had ended before its producer heard of it": Tale()
    .added(key="k", until="ended", outcome="unknown")
    .claimed(1)
    .succeeded(1)
    .added(OTHER, key="k", until="ended")
    .added(key="k", until="ended")
    .claimed(1, job=OTHER)
    .succeeded(1, job=OTHER)
    .left()
    .left(job=OTHER),
    "an effect that an earlier attempt recorded": plain()
    .did(Began(JOB, fence(1), "step", "mail", first=True), at=(3, 4))
    .did(Did(JOB, fence(1), "step", "mail"), at=(4, 4))
    .did(Recorded(JOB, fence(1), "step", "mail", "sent"), at=(4, 4)),
    "an effect of one who slept": two_claims()
    .did(Began(JOB, fence(1), "step", "mail", first=True), at=(3, 4))
    .did(Recorded(JOB, fence(2), "step", "mail", "sent"), "p2")
    .did(Did(JOB, fence(1), "step", "mail"))
    .succeeded(2, "p2")
    .left(2),
    "an effect that nobody recorded": plain()
    .did(Did(JOB, fence(1), "step", "mail"), at=(4, 4))
    .did(Did(JOB, fence(1), "step", "mail"), at=(5, 5)),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_history_passes(name: str) -> None:
    assert GOOD[name].found(jumps=(4,) if "clock" in name else ()) == []


BAD = {
    "I1: accepted and gone": Tale().added(),
    "I1: refused and there": plain().added(OTHER, "fail").left(0, State.SUCCEEDED, OTHER, result=""),
    "I1: there without being asked for": plain().left(job=OTHER),
    "I1: half of a request": plain().added(OTHER, "unknown", request=JOB).added(JOB, request=JOB),
    "I2: a stale end": two_claims().succeeded(1).succeeded(2, "p2", "unknown").left(2),
    "I2: a stale note": two_claims().did(Noted(JOB, fence(1))).succeeded(2, "p2").left(2),
    "I2: a stale side effect": two_claims().did(Recorded(JOB, fence(1), "once", "k", "1")).succeeded(2, "p2").left(2),
    "I2: a child of a stale claim": two_claims().did(Bore(JOB, fence(1))).succeeded(2, "p2").left(2),
    "I2: another token": Tale()
    .added()
    .claimed(1, token=5)
    .did(Changed(JOB, fence(1, 6), Cause.SUCCEED, State.SUCCEEDED, STARTED, "by 1"))
    .left(),
    "I2: an end told twice": plain().succeeded(1),
    "I2: a note after the end": plain().did(Noted(JOB, fence(1))),
    "I2: an end under a void lease": Tale().added().claimed(1).did(Voided("p1"), "w").succeeded(1).left(),
    "I3: stuck": Tale().added().left(0, State.READY),
    "I3: it left its end": plain().claimed(2).succeeded(2, outcome="unknown").left(2),
    "I3: ended by two": Tale().added().altered("cancel", State.READY, State.CANCELLED).claimed(1).succeeded(1).left(),
    "I3: another result than told": plain().left(result="by another"),
    "I3: another state than told": plain().left(1, State.CANCELLED),
    "I3: an end that nobody told": Tale().added().claimed(1).left(),
    "I3: an end of a stale claim": Tale().added().claimed(1).succeeded(1, outcome="unknown").left(2, result="by 1"),
    "I3: forgot to stop": Tale()
    .added()
    .claimed(1)
    .altered("cancel", State.RUNNING, State.RUNNING)
    .released(1, "p1")
    .claimed(2)
    .succeeded(2)
    .left(2),
    "I3: an error that is gone": Tale()
    .added()
    .claimed(1)
    .did(Changed(JOB, fence(1), Cause.BURY, State.BURIED, FAILED, error="ValueError: no"))
    .left(1, State.BURIED, counters=FAILED),
    "I4: one number for two": Tale().added().claimed(1).claimed(1, "p2", token=7).succeeded(1).left(),
    "I4: one claim for two": Tale().added().claimed(1).claimed(1, "p2").succeeded(1).left(),
    "I4: one token twice": Tale()
    .added()
    .claimed(1, token=9)
    .did(Changed(JOB, fence(1, 9), Cause.RELEASE, State.READY))
    .claimed(2, token=9)
    .did(Changed(JOB, fence(2, 9), Cause.SUCCEED, State.SUCCEEDED, STARTED, "by 2"))
    .left(2),
    "I4: numbers fall": Tale().added().claimed(3).released(3, "p1").claimed(2).succeeded(2).left(3, result="by 2"),
    "I4: the number is forgotten": Tale().added().claimed(5).succeeded(5).left(1, result="by 5"),
    "I5: claimed while it is held": Tale().added().claimed(1).claimed(2, "p2").succeeded(2, "p2").left(2),
    "I5: taken from another": Tale()
    .added()
    .claimed(1)
    .did(Dead("p2"), "w")
    .taken(2, "p2", fate="released")
    .did(succeed(2), "tender")
    .left(2),
    "I5: taken over after its end": Tale()
    .added()
    .claimed(1)
    .released(1, "p1")
    .did(Dead("p1"), "w")
    .taken(2, "p1", fate="released")
    .did(succeed(2), "tender")
    .left(2),
    "I6: robbed while its lease held": Tale()
    .added()
    .did(Leased("p1", 30_000), "w")
    .claimed(1)
    .taken(2, "p1")
    .released(2)
    .claimed(3)
    .succeeded(3)
    .left(3),
    "I6: called dead by nobody": Tale()
    .added()
    .claimed(1)
    .taken(2, "p1", fate="crashed")
    .released(2)
    .claimed(3)
    .succeeded(3)
    .left(3),
    "I8: a key of two": Tale()
    .added(key="k", until="ended")
    .added(OTHER, key="k", until="ended")
    .claimed(1)
    .succeeded(1)
    .claimed(1, job=OTHER)
    .succeeded(1, job=OTHER)
    .left()
    .left(job=OTHER),
    "I8: a key of the ended": Tale()
    .added(key="k", until="ended")
    .claimed(1)
    .succeeded(1)
    .added(OTHER, "fail", key="k", until="ended", told=JOB)
    .left(),
    "I8: a key of one that has started": Tale()
    .added(key="k", until="started")
    .claimed(1)
    .added(OTHER, "fail", key="k", until="started", told=JOB)
    .succeeded(1)
    .left(),
    "I8: two of one order": Tale()
    .added(once="o")
    .added(OTHER, once="o")
    .claimed(1)
    .succeeded(1)
    .claimed(1, job=OTHER)
    .succeeded(1, job=OTHER)
    .left(once="o")
    .left(job=OTHER, once="o"),
    "I9: more than the queue takes": Tale(bounds={"default": 1})
    .added()
    .added(OTHER)
    .claimed(1)
    .succeeded(1)
    .claimed(1, job=OTHER)
    .succeeded(1, job=OTHER)
    .left()
    .left(job=OTHER),
    "I10: a failure that is not counted": Tale().added().claimed(1).failed(1, counters=STARTED).left(1, State.BURIED),
    "I10: beyond the limit": Tale()
    .added()
    .claimed(1, max_attempts=1)
    .failed(1)
    .claimed(2, counters=FAILED)
    .did(Changed(JOB, fence(2), Cause.SUCCEED, State.SUCCEEDED, Counters(2, 1), "by 2"))
    .left(2, counters=Counters(2, 1)),
    "I10: forgotten between claims": Tale().added().claimed(1).failed(1).claimed(2).succeeded(2).left(2),
    "I10: forgotten in the end": plain().left(counters=Counters()),
    "I11: counts drift": Tale(counted={"north": 2}, recounted={"north": 1}),
    "I11: held by the dead": Tale(held=1),
    "I12: done again": plain()
    .did(Recorded(JOB, fence(1), "step", "mail", "sent"), at=(3, 4))
    .did(Did(JOB, fence(1), "step", "mail")),
    "I12: once done twice": plain()
    .did(Did(JOB, fence(1), "once", "mail", once=True))
    .did(Did(JOB, fence(1), "once", "mail", once=True)),
    "I12: two were the first": two_claims()
    .did(Began(JOB, fence(1), "once", "mail", first=True), at=(3, 4))
    .did(Began(JOB, fence(2), "once", "mail", first=True), "p2")
    .succeeded(2, "p2")
    .left(2),
    "I12: a value that was forgotten": plain()
    .did(Recorded(JOB, fence(1), "step", "mail", "sent"), at=(3, 3))
    .did(Began(JOB, fence(1), "step", "mail"), at=(4, 4)),
    "I12: a value that nobody gave": plain().did(Began(JOB, fence(1), "step", "mail", value="sent"), at=(3, 4)),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_history_is_found(name: str) -> None:
    assert name.partition(":")[0] in BAD[name].found()


# -- from lines to a verdict ------------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a history with an accepted job that is gone."""
    monkeypatch.setattr("tests.histories.judging.KEPT", tmp_path / "kept")
    engine = open_engine("memory://")
    watch(engine, Log(tmp_path))
    envelope, crc = encode_envelope("task", b"[]", b"{}")
    engine.add([AddRequest((NewJob(id=JOB, task="task", envelope=envelope, crc=crc),))])
    reading.keep(tmp_path, Final({}, {}, {}), [])
    return tmp_path


def test_verdict_names_seed_engine_operations_and_where_the_lines_lie(kept: Path) -> None:
    with pytest.raises(AssertionError) as told:
        judge(kept, "sqlite", "42", "SEED=42 python -m pytest")
    text = str(told.value)
    assert "I1: job job: it was accepted and is gone" in text
    assert "on sqlite, checked in" in text
    assert "draw the same again: SEED=42 python -m pytest" in text
    assert "Add(job='job'" in text
    assert f"python -m tests.histories {kept / 'kept' / 'sqlite-42'}" in text
    assert [violation.invariant for violation in check(reading.read(kept / "kept" / "sqlite-42"))] == ["I1"]


def test_act_whose_process_died_is_unknown_and_a_torn_line_is_none(kept: Path) -> None:
    [file] = (kept / "history").iterdir()
    asked, answered = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(asked + answered[: len(answered) // 2])
    [op] = reading.read_ops(kept)
    assert (op.outcome, op.t1) == ("unknown", NEVER)


def test_ten_thousand_operations_are_checked_in_about_a_second() -> None:
    tale = Tale()
    for number in range(3400):
        job = JobId(str(number))
        tale.added(job).claimed(1, job=job).succeeded(1, job=job).left(job=job)
    began = time.process_time()
    assert tale.found() == []
    assert len(tale.ops) > 10_000
    assert time.process_time() - began < 5, f"generous for a busy machine ({os.cpu_count()} cores)"
