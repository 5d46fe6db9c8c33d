"""Groups of buried jobs, trials, and many jobs that are retried without a rush."""

import threading
from collections.abc import Iterator

import pytest

from penstock.client import Penstock
from penstock.model.errors import JobNotFound, JobRefused, ResultTimeout
from penstock.model.job import JobId
from penstock.model.states import State
from penstock.remedies import spread_out
from tests.client.hand import Hand

TASK = "shop.send"


@pytest.fixture
def app() -> Iterator[Penstock]:
    with Penstock("memory://") as app:
        yield app


def bury(app: Penstock, *orders: int, queue: str = "default", task: str = TASK) -> list[JobId]:
    """Let jobs fail for good, and give their ids."""
    ids = [app.using(queue=queue).enqueue(task, order).id for order in orders]
    hand = Hand(app.engine, [TASK, "shop.refund"])
    for claim in hand.claim():
        hand.bury(claim, f"no order {claim.id}")
    return ids


def test_groups_tell_what_failed_alike_and_the_last_to_be_buried_stands_first(app: Penstock) -> None:
    mails, refunds = bury(app, 1, 2, queue="mail"), bury(app, 3, task="shop.refund")
    groups = {group.task: group for group in app.groups()}
    mail = groups[TASK]
    assert (mail.queue, mail.count, mail.error.type) == ("mail", 2, "builtins.ValueError")
    assert mail.sample in mails
    assert mail.first_ms <= mail.last_ms
    assert [group.sample for group in app.groups(queue="default")] == refunds
    assert app.groups(task="shop.refund") == app.groups(queue="default")
    assert app.groups(queue="nowhere") == []


def test_jobs_of_a_group_are_found_by_it_or_its_id(app: Penstock) -> None:
    bury(app, 1, 2)
    bury(app, 3, task="shop.refund")
    [group] = app.groups(task=TASK)
    assert len(app.find(group=group)) == 2
    assert app.find(group=group.id, limit=1)[0].group == group.id


def test_group_is_kicked_whole(app: Penstock) -> None:
    bury(app, *range(600))
    bury(app, *range(600))
    [group] = app.groups()
    assert len(app.kick(group)) == 1200
    assert app.counts()["default"]["ready"] == 1200
    assert app.groups() == []


def test_kicked_jobs_become_ready_one_after_the_other_the_oldest_first(app: Penstock) -> None:
    ids = bury(app, 1, 2, 3, 4)
    app.kick(app.groups()[0], delay="1m", spread="4m")
    due = [job.due_ms or 0 for job in app.engine.get(ids) if job is not None]
    assert [round((at - due[0]) / 1000) for at in due] == [0, 60, 120, 180]


def test_spread_covers_all_jobs_at_bounded_cost() -> None:
    for count, span_ms, most in ((0, 5000, 0), (1, 5000, 1), (7, 5000, 7), (2500, 0, 3), (2500, 60_000, 1000)):
        ids = [JobId(str(number)) for number in range(count)]
        parts = list(spread_out(ids, 100, span_ms))
        assert [id for some, _ in parts for id in some] == ids
        assert len(parts) == most
        assert all(1 <= len(some) <= 1000 for some, _ in parts)
        assert all(100 <= delay < 100 + max(span_ms, 1) for _, delay in parts)
        assert sorted(delay for _, delay in parts) == [delay for _, delay in parts]


def test_trial_waits_for_how_the_job_ends(app: Penstock) -> None:
    [first, second] = bury(app, 1, 2)
    with Working(app, "good"):
        tried = app.trial(app.groups()[0], timeout=10)
    assert (tried.state, tried.id in (first, second)) == (State.SUCCEEDED, True)
    assert app.counts()["default"]["buried"] == 1


def test_trial_that_fails_is_buried_again_without_retries(app: Penstock) -> None:
    [id] = bury(app, 1)
    with Working(app, "bad"):
        tried = app.trial(id, timeout=10)
    assert (tried.state, tried.counters.attempts, len(tried.history)) == (State.BURIED, 1, 2)
    assert tried.error is not None
    assert tried.error.message == "bad again"


def test_trial_of_what_cannot_be_kicked_is_refused(app: Penstock) -> None:
    with pytest.raises(JobNotFound):
        app.trial("ghost")
    ready = app.enqueue(TASK, 1)
    with pytest.raises(JobRefused, match=f"Job {ready.id} was not tried: job is ready"):
        app.trial(ready)


def test_trial_that_nobody_runs_ends_with_its_time(app: Penstock) -> None:
    [id] = bury(app, 1)
    with pytest.raises(ResultTimeout):
        app.trial(id, timeout=0.05)


def test_edits_are_kept_with_who_made_them(app: Penstock) -> None:
    [id] = bury(app, 1)
    app.edit(id, args=[2])
    app.edit(id, queue="mail", by="ada")
    first, second = app.job(id).info().details.edits
    assert '"args":[1]' in first.envelope
    assert "@" in first.by
    assert (second.by, second.queue, second.envelope) == ("ada", "default", "")


class Working:
    """A thread that ends the first job it gets: well, or by the failure that is named."""

    def __init__(self, app: Penstock, ending: str) -> None:
        self._hand, self._ending = Hand(app.engine, [TASK]), ending
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._over = threading.Event()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._over.wait(0.01):
            for claim in self._hand.claim():
                if self._ending == "good":
                    self._hand.succeed(claim, b"1")
                else:
                    self._hand.fail(claim, f"{self._ending} again")
