"""Telling people of buried jobs: once among all workers, never not at all, and never at the cost of a job."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.alerts import APART_MS, SENDING_MS, Alert, read_states
from penstock.client import Penstock
from penstock.worker.telling import Teller
from tests.client.hand import Hand
from tests.polling import await_true
from tests.receiver import Receiver
from tests.worker import jobs
from tests.worker.harness import application, working

TASK = "shop.send"
NOON = 1_800_000_000_000


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def app() -> Iterator[Penstock]:
    with Penstock("memory://") as app:
        yield app


class Desk:
    """A teller whose time is turned by hand."""

    def __init__(self, app: Penstock, worker: str = "w1", **seams: object) -> None:
        self.now_ms = NOON
        self.teller = Teller(app.engine, worker, now_ms=lambda: self.now_ms, **seams)  # type: ignore[arg-type]

    def look(self, *alerts: Alert, after_ms: int = 0) -> None:
        self.now_ms += after_ms
        self.teller.look(alerts)


def bury(app: Penstock, count: int = 1, task: str = TASK, queue: str = "mail", message: str = "no order") -> None:
    app.using(queue=queue).enqueue(task)
    for _ in range(count - 1):
        app.using(queue=queue).enqueue(task)
    hand = Hand(app.engine, [task])
    for claim in hand.claim():
        hand.bury(claim, message)


def test_message_tells_of_all_that_failed_alike(app: Penstock, receiver: Receiver) -> None:
    bury(app, 3)
    desk, alert = Desk(app), Alert(receiver.url())
    desk.look(alert)
    desk.look(alert, after_ms=10 * alert.every_ms)
    [message] = receiver.messages
    assert message["title"] == f"3 jobs of {TASK} are buried"
    assert f"penstock jobs kick --group {app.groups()[0].id}" in message["message"]
    [state] = read_states(app.engine).values()
    assert (state.sent, state.sent_ms, state.failures) == (message["title"], NOON, 0)


def test_further_jobs_of_the_group_wait_for_the_next_message(app: Penstock, receiver: Receiver) -> None:
    desk, alert = Desk(app), Alert(receiver.url())
    bury(app)
    desk.look(alert)
    bury(app, 4)
    desk.look(alert, after_ms=APART_MS)
    assert len(receiver.messages) == 1
    desk.look(alert, after_ms=alert.every_ms)
    assert receiver.titles == [f"1 job of {TASK} is buried", f"5 jobs of {TASK} are buried"]


def test_each_alert_tells_of_its_queue_and_task(app: Penstock, receiver: Receiver) -> None:
    bury(app, 2)
    bury(app, 3, task="shop.pay", queue="slow")
    alerts = [
        Alert(receiver.url("mail"), queue="mail"),
        Alert(receiver.url("pay"), task="shop.pay"),
        Alert(receiver.url("none"), queue="mail", task="shop.pay"),
        Alert(receiver.url("all")),
    ]
    Desk(app).look(*alerts)
    found = {message["path"]: message["title"] for message in receiver.messages}
    assert found == {
        "/mail": f"2 jobs of {TASK} are buried",
        "/pay": "3 jobs of shop.pay are buried",
        "/all": "5 jobs of 2 tasks are buried",
    }


def test_what_a_person_buried_is_not_told_of(app: Penstock, receiver: Receiver) -> None:
    app.bury(app.enqueue(TASK))
    Desk(app).look(Alert(receiver.url()))
    assert receiver.messages == []


def test_notifier_that_fails_is_tried_again_and_logged_once_for_each_cause(
    app: Penstock, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "penstock.worker")
    bury(app)
    receiver.status = 503
    desk, alert = Desk(app), Alert(receiver.url("s3cr3t"))
    for after_ms in (0, 10_000, 20_000):
        desk.look(alert, after_ms=after_ms)
    desk.look(alert, after_ms=1)
    [state] = read_states(app.engine).values()
    assert (state.failures, state.failed_ms) == (3, NOON + 30_000)
    assert "503" in state.error
    receiver.status = 200
    desk.look(alert, after_ms=40_000)
    assert len(receiver.messages) == 1
    [state] = read_states(app.engine).values()
    assert (state.failures, state.error) == (0, "")
    said = [record.getMessage() for record in caplog.records]
    assert len([line for line in said if "could not be sent" in line]) == 1
    assert f"alert {alert.label} was sent, after 3 failed tries: 1 job of {TASK} is buried" in said
    assert "s3cr3t" not in caplog.text + state.error


def test_message_of_a_worker_that_dies_is_sent_by_another(app: Penstock, receiver: Receiver) -> None:
    """Whether the dead one had sent it nobody knows, so it may come twice, but never not at all."""

    def die(*_: str) -> None:
        raise SystemExit

    bury(app)
    alert = Alert(receiver.url())
    with pytest.raises(SystemExit):
        Desk(app, send=die).look(alert)
    other = Desk(app, "w2")
    other.look(alert, after_ms=SENDING_MS - 1)
    assert receiver.messages == []
    other.look(alert, after_ms=1)
    assert len(receiver.messages) == 1


def test_of_many_workers_one_sends_each_message(tmp_path: Path, receiver: Receiver) -> None:
    url, alert = f"sqlite:///{tmp_path}/store.db", Alert(receiver.url(), every_ms=1000)
    with Penstock(url) as app:
        for round_ in range(3):
            bury(app, 2, message=f"round {round_}")
            tellers = [
                Teller(app.engine, f"w{number}", now_ms=lambda at=round_: NOON + at * 10**6) for number in range(6)
            ]
            threads = [threading.Thread(target=teller.look, args=([alert],)) for teller in tellers]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
    assert receiver.titles == [f"{count} jobs of {TASK} are buried" for count in (2, 4, 6)]


def test_groups_are_looked_at_when_the_counts_change(app: Penstock, receiver: Receiver) -> None:
    desk, alert = Desk(app), Alert(receiver.url())
    desk.look(alert)
    assert read_states(app.engine) == {}
    bury(app)
    desk.look(alert)
    app.delete(app.find(state="buried"))
    desk.look(alert)
    bury(app, task="shop.pay")
    desk.look(alert, after_ms=APART_MS)
    assert receiver.titles == [f"1 job of {TASK} is buried", "1 job of shop.pay is buried"]


@pytest.mark.slow
def test_worker_tells_and_its_log_keeps_the_secret(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    monkeypatch.setenv("PENSTOCK_ALERTS", receiver.url("hooks/s3cr3t", login="bob:pa55word@"))
    with application(url) as app:
        job = app.enqueue("thread.steer", "bury")
        with working(url, log_level="debug") as worker:
            await_true(lambda: worker.has_said("was sent"))
        [state] = read_states(app.engine).values()
        assert job.info().error.where == "tests.worker.jobs:steer"  # type: ignore[union-attr]  # it failed
    assert receiver.titles == ["1 job of thread.steer is buried"]
    assert "in queue default: hopeless" in receiver.messages[0]["message"]
    assert state.sender == ""
    log = "\n".join(worker.lines)
    assert f"alert {state.label} was sent" in log
    assert not [secret for secret in ("s3cr3t", "pa55word", "bob") if secret in log]


@pytest.mark.slow
def test_worker_that_ends_tells_first(tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    monkeypatch.setenv("PENSTOCK_ALERTS", receiver.url())
    with application(url) as app:
        app.enqueue("thread.steer", "bury")
        with working(url, burst=True) as worker:
            assert worker.wait() == 0
    assert receiver.titles == ["1 job of thread.steer is buried"]


@pytest.mark.slow
def test_alert_that_cannot_be_sent_costs_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    monkeypatch.setenv("PENSTOCK_ALERTS", "carrierpigeon://s3cr3t")
    with application(url) as app:
        app.enqueue("thread.steer", "bury")
        with working(url) as worker:
            await_true(lambda: worker.has_said("could not be sent"))
            assert jobs.add.enqueue(1, 2).result(timeout=20) == 3
    assert not worker.has_said("s3cr3t")
