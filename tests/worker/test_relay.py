"""The relay: every job of the outbox reaches the store once, whatever fails, and the worker never suffers for it."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from penstock.client import Penstock
from penstock.engine import ALL_CAPABILITIES, Added, AddRequest, Engine, Filter
from penstock.engines.open import open_engine, open_outbox
from penstock.engines.sqlite import SqliteEngine
from penstock.model.errors import EngineDown, IdempotencyConflict, PenstockError, QueueFull
from penstock.model.job import Details, JobId, NewJob, Unique
from penstock.outbox import Entry, Fate, Outbox
from penstock.testing.conformance.trial import new_job
from penstock.worker.relay import LONGEST_BACKOFF_S, Relay, carry, fate_of
from tests.conftest import lasting_server
from tests.engines.databases import Database, PostgresDatabase, SqliteDatabase, made
from tests.polling import await_true

DEADLINE_S = 30.0


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    if request.param == "postgres":
        return PostgresDatabase(request.getfixturevalue("postgres_server").url)
    return SqliteDatabase(tmp_path / "app.db")


@pytest.fixture
def outbox(database: Database) -> Iterator[Outbox]:
    with closing(made(database)) as outbox:
        yield outbox


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store.db?durability=normal"


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    with closing(open_engine(url)) as engine:
        yield engine


def put(database: Database, *jobs: NewJob) -> None:
    with closing(open_outbox(database.url)) as outbox, closing(database.connect()) as connection:
        outbox.put(connection, jobs, ALL_CAPABILITIES)
        connection.commit()


def stored(engine: Engine) -> list[str]:
    return sorted(job.id for job in engine.find(Filter(limit=1000)).jobs)


class Failing(SqliteEngine):
    """A store that fails to add, before or after it has stored, as often as it is told to."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, durability="normal")
        self.before = self.after = 0

    def add(self, requests: Sequence[AddRequest]) -> list[list[Added] | PenstockError]:
        if self.before:
            self.before -= 1
            raise EngineDown("The store is down.")
        answers = super().add(requests)
        if self.after:
            self.after -= 1
            raise EngineDown("The reply was lost.")
        return answers


def test_jobs_reach_the_store_in_order_and_leave_the_outbox(database: Database, outbox: Outbox, engine: Engine) -> None:
    jobs = [new_job(), new_job(delay_ms=60_000), new_job(queue="mail", details=Details(tags=("π",)))]
    put(database, *jobs)
    assert carry(outbox, engine) == 3
    assert stored(engine) == [job.id for job in jobs]
    [mail] = engine.get([jobs[2].id])
    assert mail is not None
    assert (mail.queue, mail.details.tags, mail.envelope) == ("mail", ("π",), jobs[2].envelope)
    assert carry(outbox, engine) == 0
    assert database.execute("SELECT * FROM penstock_outbox") == []


def test_job_that_the_store_has_is_not_stored_again(database: Database, outbox: Outbox, engine: Engine) -> None:
    job = new_job()
    engine.add([AddRequest((job,))])
    put(database, job, job)
    assert carry(outbox, engine) == 2
    assert stored(engine) == [job.id]


def test_lost_reply_of_the_store_makes_no_second_job(database: Database, outbox: Outbox, tmp_path: Path) -> None:
    job = new_job()
    put(database, job)
    with closing(Failing(tmp_path / "store.db")) as engine:
        engine.after = 1
        with pytest.raises(EngineDown):
            carry(outbox, engine)
        assert carry(outbox, engine) == 1
        assert stored(engine) == [job.id]
    assert outbox.stand().waiting == 0


def test_relay_that_dies_between_the_two_stores_makes_no_second_job(
    database: Database, outbox: Outbox, engine: Engine
) -> None:
    job = new_job()
    put(database, job)
    [entry] = outbox.take(10, 1000)
    engine.add([AddRequest((job,))])
    assert carry(outbox, engine) == 0
    database.pass_time(1000)
    assert carry(outbox, engine) == 1
    assert stored(engine) == [job.id]
    assert entry.tries == 0


def test_store_that_is_down_leaves_the_jobs_where_they_are(database: Database, outbox: Outbox, tmp_path: Path) -> None:
    jobs = [new_job(), new_job()]
    put(database, *jobs)
    with closing(Failing(tmp_path / "store.db")) as engine:
        engine.before = 2
        for _ in range(2):
            with pytest.raises(EngineDown):
                carry(outbox, engine)
        assert outbox.stand().waiting == 2
        assert carry(outbox, engine) == 2
        assert stored(engine) == [job.id for job in jobs]


def test_full_queue_puts_off_its_jobs_alone(database: Database, outbox: Outbox, engine: Engine) -> None:
    engine.alter_queue("full", max_jobs=1)
    first, late, other = new_job(queue="full"), new_job(queue="full"), new_job()
    put(database, first, late, other)
    assert carry(outbox, engine) == 3
    assert stored(engine) == sorted([first.id, other.id])
    assert carry(outbox, engine) == 0
    assert outbox.stand().waiting == 1
    engine.alter_queue("full", unlimited=True)
    database.pass_time(60_000)
    assert carry(outbox, engine) == 1
    assert stored(engine) == sorted([first.id, late.id, other.id])


def test_hopeless_jobs_are_set_aside_with_their_error(
    database: Database, outbox: Outbox, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    holder = new_job(details=Details(unique=Unique("u"), idempotency_key="k"))
    engine.add([AddRequest((holder,))])
    clashing = new_job(args="[2]", details=Details(idempotency_key="k"))
    refused = new_job(details=Details(unique=Unique("u", clash="refuse")))
    unsound, unsupported = new_job(delay_ms=5, run_at_ms=5), new_job(details=Details(limit_keys=("l",)))
    good = new_job()
    put(database, clashing, refused, good)
    put_unchecked(database, unsound, unsupported)
    assert carry(outbox, engine) == 5
    assert stored(engine) == sorted([holder.id, good.id])
    standing = outbox.stand()
    assert (standing.waiting, standing.aside) == (0, 4)
    told = {id: error.partition(":")[0] for id, error in standing.shown}
    assert told == {
        clashing.id: "IdempotencyConflict",
        refused.id: "UniqueConflict",
        unsound.id: "ValueError",
        unsupported.id: "Unsupported",
    }
    assert "set aside" in caplog.text


def test_row_that_holds_no_job_is_set_aside(database: Database, outbox: Outbox, engine: Engine) -> None:
    good = new_job()
    put(database, good)
    database.execute("INSERT INTO penstock_outbox (id, job, added_ms) VALUES ('x', '{}', 0)")
    assert carry(outbox, engine) == 2
    assert stored(engine) == [good.id]
    [(id, error)] = outbox.stand().shown
    assert (id, error.partition(":")[0]) == ("x", "ValueError")


def put_unchecked(database: Database, *jobs: NewJob) -> None:
    """Write rows as a program of another version could."""
    from penstock.outbox import write_job

    for job in jobs:
        text = write_job(job).replace("'", "''")
        database.execute(f"INSERT INTO penstock_outbox (id, job, added_ms) VALUES ('{job.id}', '{text}', 0)")


@pytest.mark.usefixtures("outbox")
def test_several_workers_store_each_job_once(database: Database, url: str, engine: Engine) -> None:
    jobs = [new_job() for _ in range(80)]
    put(database, *jobs)
    outcome: list[int] = []

    def work() -> None:
        with closing(open_outbox(database.url)) as own, closing(open_engine(url)) as store:
            while (carried := carry(own, store, limit=9)) > 0:
                outcome.append(carried)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(outcome) == 80
    assert stored(engine) == sorted(job.id for job in jobs)


def relay(database: Database, open_store: Callable[[], Engine]) -> Relay:
    return Relay(lambda: open_outbox(database.url), open_store, 0.05)


@pytest.fixture
def ended() -> Iterator[list[Relay]]:
    """Relays that are ended with the test."""
    begun: list[Relay] = []
    yield begun
    for one in begun:
        one.close(DEADLINE_S)


def test_relay_makes_the_table_and_carries_what_comes(
    database: Database, url: str, engine: Engine, ended: list[Relay]
) -> None:
    running = relay(database, lambda: open_engine(url))
    ended.append(running)
    running.begin()
    await_true(lambda: running.done)
    job = new_job()
    put(database, job)
    await_true(lambda: stored(engine) == [job.id])
    await_true(lambda: running.done)


@pytest.mark.usefixtures("outbox")
def test_relay_goes_on_after_the_store_was_down(
    database: Database, tmp_path: Path, ended: list[Relay], caplog: pytest.LogCaptureFixture
) -> None:
    job = new_job()
    put(database, job)
    failing = Failing(tmp_path / "store.db")
    failing.before = 2
    running = relay(database, lambda: failing)
    ended.append(running)
    with caplog.at_level(logging.INFO, logger="penstock.worker"):
        running.begin()
        await_true(lambda: stored(failing) == [job.id])
    assert "The store is down" in caplog.text
    assert caplog.text.count("are carried to the store every") == 1


def test_relay_outlives_a_fault_in_the_database(
    url: str, engine: Engine, tmp_path: Path, ended: list[Relay], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "app.db"
    path.write_text("This is no database, and long enough to be taken for one. " * 20)
    running = Relay(lambda: open_outbox(f"sqlite:///{path}"), lambda: open_engine(url), 0.05)
    ended.append(running)
    with caplog.at_level(logging.WARNING, logger="penstock.worker"):
        running.begin()
        await_true(lambda: running.done)
        path.unlink()
        database = SqliteDatabase(path)
        made(database)
        job = new_job()
        put(database, job)
        await_true(lambda: stored(engine) == [job.id])
    assert "relay" in caplog.text


@pytest.mark.slow
def test_relay_goes_on_after_the_server_of_the_outbox_was_killed(
    url: str, engine: Engine, ended: list[Relay], caplog: pytest.LogCaptureFixture
) -> None:
    with lasting_server("postgresql") as server:
        database = PostgresDatabase(server.url)
        running = relay(database, lambda: open_engine(url))
        ended.append(running)
        running.begin()
        await_true(lambda: running.done)
        first, second = new_job(), new_job()
        put(database, first)
        server.restart(gently=False)
        put(database, second)
        await_true(lambda: stored(engine) == sorted([first.id, second.id]))
        running.close(DEADLINE_S)
    assert "relay of the outbox" in caplog.text


@pytest.mark.parametrize(
    ("answer", "fate"),
    [
        ([Added(JobId("a"))], Fate(7)),
        ([Added(JobId("b"), existing=True)], Fate(7)),
        (QueueFull("q", 1, 2.0), Fate(7, str("QueueFull: " + str(QueueFull("q", 1, 2.0))), again_ms=2000)),
        (IdempotencyConflict("k", "j"), Fate(7, "IdempotencyConflict: " + str(IdempotencyConflict("k", "j")))),
        (ValueError("no"), Fate(7, "ValueError: no")),
    ],
)
def test_answer_of_the_store_decides(answer: Any, fate: Fate) -> None:
    assert fate_of(Entry(7, "{}"), answer, 1.0) == fate


def test_full_queue_is_asked_less_and_less_often() -> None:
    full = QueueFull("q", 1, 0.1)
    waits = [fate_of(Entry(7, "{}", tries), full, 1.0).again_ms for tries in range(12)]
    assert waits[:4] == [1000, 2000, 4000, 8000]
    assert waits[-1] == LONGEST_BACKOFF_S * 1000
    assert fate_of(Entry(7, "{}"), full, 0.0).again_ms == 500


@pytest.mark.slow
def test_worker_runs_jobs_of_the_outbox_and_a_burst_waits_for_them(tmp_path: Path) -> None:
    """From the caller's commit to the end of the job, through a worker of its own."""
    import os
    import subprocess
    import sys

    (tmp_path / "shop.py").write_text(
        "from penstock import Penstock\n"
        "app = Penstock('sqlite:///store.db', outbox='sqlite:///app.db', outbox_period=0.2)\n"
        "@app.task\n"
        "def send(order: int) -> int:\n"
        "    return order\n"
    )
    database = SqliteDatabase(tmp_path / "app.db")
    made(database)
    app = Penstock(f"sqlite:///{tmp_path}/store.db", outbox=database.url)
    with closing(database.connect()) as connection:
        handles = [app.using(connection=connection).enqueue("shop.send", number) for number in range(3)]
        connection.commit()
    command = [sys.executable, "-m", "penstock", "worker", "-A", "shop:app", "--burst", "--processes", "1"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert [handle.result(timeout=10) for handle in handles] == [0, 1, 2]
    assert database.execute("SELECT * FROM penstock_outbox") == []
