"""What a step that failed leaves behind for the next one."""

import threading
from pathlib import Path

import pytest

from penstock.engine import MOST_AT_ONCE, AddRequest
from penstock.engines.sqlite import SqliteEngine
from penstock.model.errors import StoreCorrupt
from penstock.model.job import NewJob
from penstock.model.retry import Fixed, Policy
from penstock.model.states import State
from penstock.testing.clock import TurnedClock
from penstock.testing.conformance.trial import new_job, want
from tests.engines.sqlite.jobs import P1, add, add_one, assert_sound, enrol, opened, run_all


def test_numbers_of_a_step_that_was_taken_back_are_not_used_by_another_thread(tmp_path: Path) -> None:
    """A lane made in a step that rolls back gives its number to another lane later."""
    engine = opened(tmp_path / "store.db")
    enrol(engine)

    def spoil() -> None:
        for number in range(200):
            bad = new_job(queue=f"spoilt-{number}", crc=2**70)
            with pytest.raises(OverflowError):
                engine.add([AddRequest((bad,))])

    def fill(name: str) -> None:
        for number in range(200):
            add(engine, new_job(f"{name}-{number}", queue=f"{name}-{number % 20}"))

    threads = [threading.Thread(target=spoil), *(threading.Thread(target=fill, args=(name,)) for name in ("a", "b"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(job is not None for job in engine.get(ids("a", "b")))
    assert {job.id.rsplit("-", 1)[0] for job in engine.get(ids("a", "b")) if job} == {"a", "b"}
    assert all(job.queue.startswith(job.id[0] + "-") for job in engine.get(ids("a", "b")) if job)
    assert run_all(engine) == 400
    assert_sound(tmp_path / "store.db")


def ids(*names: str) -> list[str]:
    return [f"{name}-{number}" for name in names for number in range(200)]


def test_stored_policy_that_cannot_be_read_is_told_as_damage(tmp_path: Path) -> None:
    engine = opened(tmp_path / "store.db")
    enrol(engine)
    add_one(engine)
    spoilt = 'UPDATE policies SET body = \'{"backoff":{"kind":"fixed","every_s":"5s"}}\''
    engine._store.write(lambda db: db.execute(spoilt))
    with pytest.raises(StoreCorrupt):
        engine.exchange(P1, 1, [], want())


def test_policy_with_values_of_another_type_is_refused_when_the_job_is_added(tmp_path: Path) -> None:
    engine = opened(tmp_path / "store.db")
    wrong = Policy(backoff=Fixed("5s"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"5s|every_s"):
        engine.add([AddRequest((new_job(policy=wrong),))])


def test_claim_expires_a_bounded_number_of_jobs_and_asks_to_be_called_again(tmp_path: Path) -> None:
    clock = TurnedClock()
    engine = SqliteEngine(tmp_path / "store.db", durability="normal", clock=clock)
    enrol(engine)
    late: list[NewJob] = [new_job(expires_in_ms=10) for _ in range(2 * MOST_AT_ONCE)]
    for start in range(0, len(late), MOST_AT_ONCE):
        add(engine, *late[start : start + MOST_AT_ONCE])
    good = add_one(engine)
    clock.turn(20)

    first = engine.exchange(P1, 1, [], want(limit=1))
    assert first.claims == ()
    assert sum(count.states.get(State.EXPIRED, 0) for count in engine.counts()) == MOST_AT_ONCE
    second = engine.exchange(P1, 2, [], want(limit=1))
    third = engine.exchange(P1, 3, [], want(limit=1))
    assert [claim.id for claim in (*second.claims, *third.claims)] == [good]
    assert first.mark < third.mark
