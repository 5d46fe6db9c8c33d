"""What the PostgreSQL engine promises beyond what every engine does."""

import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from msgspec import json
from msgspec.structs import replace

from penstock.cli.main import cli
from penstock.engine import AddRequest, Cancel, Delete, Edit, Engine, Filter, Kick, Subject, Want, WorkerInfo
from penstock.engines.open import check_url, examine, is_there, open_engine
from penstock.engines.postgres import PostgresEngine
from penstock.engines.postgres.exchanging import Head, Sight
from penstock.engines.postgres.inspection import durability
from penstock.engines.postgres.listening import WORK
from penstock.engines.postgres.schema import schema_version
from penstock.model.codec import decode_envelope
from penstock.model.errors import (
    ConnectionInvalid,
    EngineBusy,
    EngineDown,
    EngineReadOnly,
    EngineUnknown,
    LeaseLost,
    PenstockError,
    SchemaMismatch,
    StoreInvalid,
)
from penstock.model.job import Claim, Details, JobId, ProcessId, Unique
from penstock.model.states import State
from penstock.testing.conformance.trial import change, new_job, want
from tests.polling import comes_true
from tests.servers.postgres import PostgresServer
from tests.servers.programs import postgres_program
from tests.servers.proxy import Proxy

P = ProcessId("p")
DEADLINE_S = 20.0
ADD_LATE = (
    "SELECT penstock.add('1s', NULL, ARRAY['late'], ARRAY[1], ARRAY[1], NULL, ARRAY[0::bigint], NULL, NULL, NULL,"
    " NULL, ARRAY['{}'::bytea])"
)


@pytest.fixture
def url(postgres_server: PostgresServer) -> str:
    """Give the URL of an empty database of its own."""
    return postgres_server.empty_store()


@pytest.fixture
def engine(url: str) -> Iterator[PostgresEngine]:
    engine = opened(url)
    yield engine
    engine.close()


@pytest.fixture
def other(url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(url) as connection:
        yield connection


def opened(url: str) -> PostgresEngine:
    engine = open_engine(url)
    assert isinstance(engine, PostgresEngine)
    return engine


class Worker:
    """One process that claims."""

    def __init__(self, engine: Engine, process: ProcessId = P) -> None:
        self.engine, self.process, self.beat = engine, process, 0
        engine.enrol(WorkerInfo(id=f"w-{process}", lease_ms=60_000), [process])

    def claim(self, wanted: Want | None = None) -> tuple[Claim, ...]:
        self.beat += 1
        return self.engine.exchange(self.process, self.beat, (), wanted or want()).claims


def add(engine: Engine, **fields: object) -> str:
    [[added]] = engine.add([AddRequest((new_job(**fields),))])  # type: ignore[misc, arg-type]
    return added.id


# -- the schema -------------------------------------------------------------------------------------------------------


def test_opening_makes_nothing_and_the_first_call_makes_the_schema(url: str) -> None:
    assert not is_there(url)
    engine = opened(url)
    assert not is_there(url)
    assert engine.describe().schema == schema_version()
    assert is_there(url)
    engine.close()


def test_of_two_migrators_one_waits_and_both_find_one_store(url: str) -> None:
    engines = [opened(url) for _ in range(4)]
    epochs: list[str] = []
    threads = [threading.Thread(target=lambda one=one: epochs.append(one.describe().epoch)) for one in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert len(epochs) == 4
    assert len(set(epochs)) == 1
    for engine in engines:
        engine.close()


def test_newer_schema_is_refused_and_left_as_it_is(url: str, engine: PostgresEngine) -> None:
    engine.describe()
    with psycopg.connect(url) as db:
        db.execute("INSERT INTO penstock.migrations (version, name) VALUES (99, 'later')")
    newer = opened(url)
    with pytest.raises(SchemaMismatch) as refused:
        newer.counts()
    assert (refused.value.found, refused.value.known) == (99, schema_version())
    assert examine(url).schema == 99
    newer.close()


def test_tables_of_another_program_are_refused(url: str, other: psycopg.Connection) -> None:
    other.execute("CREATE TABLE public.jobs (id integer)")
    other.commit()
    engine = opened(f"{url}?schema=public")
    with pytest.raises(StoreInvalid, match=r"another program.*\?schema=penstock"):
        engine.counts()
    assert [one.verdict for one in examine(f"{url}?schema=public").findings] == ["fault"]
    engine.close()


def test_stores_of_two_schemas_are_apart(url: str) -> None:
    one, two = opened(f"{url}?schema=one"), opened(f"{url}?schema=two")
    add(one)
    assert two.counts() == []
    assert one.describe().epoch != two.describe().epoch
    one.close()
    two.close()


def test_store_that_was_moved_begins_a_new_epoch_and_voids_every_lease(url: str, other: psycopg.Connection) -> None:
    before = opened(url)
    worker = Worker(before)
    add(before)
    epoch = before.describe().epoch
    other.execute("UPDATE penstock.meta SET identity = 'elsewhere'")
    other.commit()
    before.close()
    assert before.describe().epoch != epoch
    with pytest.raises(LeaseLost):
        worker.claim()
    before.close()


@pytest.mark.parametrize("way", ["same database", "other database", "template"])
def test_store_that_was_restored_from_a_dump_begins_a_new_epoch_and_voids_every_lease(
    url: str, postgres_server: PostgresServer, way: str
) -> None:
    before = opened(url)
    worker = Worker(before)
    add(before)
    [claim] = worker.claim()
    epoch = before.describe().epoch
    before.close()
    restored = _restored(url, postgres_server, way)
    after = opened(restored)
    assert after.describe().epoch != epoch
    with pytest.raises(LeaseLost):
        after.exchange(P, worker.beat + 1, [change(claim)], want())
    again = Worker(after, ProcessId("again"))
    assert [taken.claim.id for taken in after.tend(again.process).taken] == [claim.id]
    after.close()


def _restored(url: str, server: PostgresServer, way: str) -> str:
    """Copy the store as pg_dump and psql do, or as a database made from another."""
    if way == "template":
        copy = f"{url}_copy"
        with psycopg.connect(server.url, autocommit=True) as db:
            names = (copy.rpartition("/")[2], url.rpartition("/")[2])
            db.execute("CREATE DATABASE {} TEMPLATE {}".format(*names))
        return copy
    dump = subprocess.run([postgres_program("pg_dump"), "--schema=penstock", url], check=True, capture_output=True)
    target = server.empty_store() if way == "other database" else url
    with psycopg.connect(target, autocommit=True) as db:
        db.execute("DROP SCHEMA IF EXISTS penstock CASCADE")
    run = [postgres_program("psql"), "-q", "-v", "ON_ERROR_STOP=1", target]
    subprocess.run(run, input=dump.stdout, check=True, capture_output=True)
    return target


def test_store_that_was_set_back_is_looked_at_anew(url: str, other: psycopg.Connection) -> None:
    """As after a restore to a point before lines were made and numbers drawn, under an engine that lives on."""
    engine = opened(url)
    worker = Worker(engine)
    add(engine, queue="before")
    assert len(worker.claim()) == 1
    other.execute("TRUNCATE penstock.lines, penstock.jobs, penstock.claims, penstock.deltas RESTART IDENTITY")
    other.execute("ALTER SEQUENCE penstock.ready_seq RESTART")
    other.execute("UPDATE penstock.meta SET identity = 'elsewhere'")
    other.commit()
    engine.store.close()
    id = add(engine, queue="after")
    again = Worker(engine, ProcessId("again"))
    assert [(claim.id, claim.queue) for claim in again.claim()] == [(id, "after")]
    engine.close()


# -- lines and cursors ------------------------------------------------------------------------------------------------


def test_server_that_began_anew_is_looked_at_anew() -> None:
    folder = Path(tempfile.mkdtemp(prefix="penstock-"))
    folder.chmod(0o755)
    server = PostgresServer(folder)
    server.start()
    try:
        engine = opened(server.empty_store())
        worker = Worker(engine)
        add(engine, id="first")
        assert worker.claim()
        engine.store.query("DELETE FROM penstock.lines RETURNING 1")
        server.restart()
        assert comes_true(lambda: _is_up(engine))
        add(engine, id="second")
        assert [claim.id for claim in worker.claim()] == ["second"]
        engine.close()
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _is_up(engine: PostgresEngine) -> bool:
    with suppress(PenstockError):
        return bool(engine.describe())
    return False


def test_search_from_the_beginning_is_done_again_when_its_call_failed() -> None:
    sight = Sight()
    sight.learn(Head(mark=7))
    sight._all_s -= 61.0
    assert sight._settled() == 0
    sight._marks[0] = (sight._marks[0][0] - 10.0, 7)
    assert sight._settled() == 0
    sight.learn(Head(mark=8))
    assert sight._settled() == 7


def test_job_that_is_committed_behind_a_later_one_is_claimed(engine: PostgresEngine, other: psycopg.Connection) -> None:
    worker = Worker(engine)
    add(engine, id="first")
    assert [claim.id for claim in worker.claim()] == ["first"]
    other.execute(ADD_LATE)
    add(engine, id="early")
    assert [claim.id for claim in worker.claim()] == ["early"]
    assert worker.claim() == ()
    time_for_cursors_to_settle = time.monotonic() + 0.5
    assert comes_true(lambda: worker.claim() or time.monotonic() > time_for_cursors_to_settle)
    other.commit()
    assert comes_true(lambda: [claim.id for claim in worker.claim()] == ["late"])


def test_wait_finds_a_job_that_was_committed_behind_the_mark_unheard(
    engine: PostgresEngine, other: psycopg.Connection
) -> None:
    worker = Worker(engine)
    add(engine, id="first")
    assert worker.claim()
    other.execute(ADD_LATE)  # nobody waits, so its commit will tell nobody
    with someone_waits(engine):
        worker.beat += 1
        mark = engine.exchange(P, worker.beat, (), want()).mark
        other.commit()
        began = time.monotonic()
        engine.wait(Subject(queues=("default",)), mark, 6.0)
        assert time.monotonic() - began < 4.0
    assert [claim.id for claim in worker.claim()] == ["late"]


@contextmanager
def someone_waits(engine: PostgresEngine) -> Iterator[None]:
    """Let the engine listen meanwhile."""
    done = threading.Event()

    def wait() -> None:
        while not done.is_set():
            engine.wait(Subject(queues=()), 2**60, 0.2)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    assert comes_true(lambda: engine._listener.listens((WORK,)))
    try:
        yield
    finally:
        done.set()
        thread.join(DEADLINE_S)


def test_job_whose_claim_was_rolled_back_is_claimed_by_another(
    engine: PostgresEngine, other: psycopg.Connection
) -> None:
    worker = Worker(engine)
    add(engine, id="held")
    other.execute("SELECT * FROM penstock.ready FOR UPDATE")
    add(engine, id="free")
    assert [claim.id for claim in worker.claim()] == ["free"]
    other.rollback()
    assert comes_true(lambda: [claim.id for claim in worker.claim()] == ["held"])


def test_counts_stay_exact_when_they_are_folded(engine: PostgresEngine, other: psycopg.Connection) -> None:
    for _ in range(3):
        add(engine)
    other.execute("UPDATE penstock.deltas SET slot = (penstock.slot() + 1) % 3")
    other.commit()
    engine.tend(P)
    assert other.execute("SELECT sum(ready) FROM penstock.totals").fetchone() == (3,)
    assert [row.states for row in engine.counts()] == [{State.READY: 3}]


def test_jobs_of_the_applications_transactions_are_counted_and_folded(
    engine: PostgresEngine, other: psycopg.Connection
) -> None:
    engine.describe()
    other.execute("SELECT penstock.enqueue('mail', 'send') FROM generate_series(1, 3)")
    assert other.execute("SELECT sum(scheduled) FROM penstock.counted").fetchone() == (3,)
    other.commit()
    assert [row.states for row in engine.counts()] == [{State.READY: 3}]
    other.execute("UPDATE penstock.deltas SET slot = (penstock.slot() + 1) % 3")
    other.commit()
    engine.tend(P)
    assert other.execute("SELECT count(*) FROM penstock.deltas").fetchone() == (0,)
    assert [row.states for row in engine.counts()] == [{State.READY: 3}]


def test_arriving_job_that_is_cancelled_is_counted_once(engine: PostgresEngine, other: psycopg.Connection) -> None:
    engine.add_within(other, [AddRequest((new_job("within", delay_ms=60_000),))])
    other.commit()
    other.execute("SELECT penstock.end_waiting('{within}', 'cancelled', NULL, penstock.now_ms())")
    counted = "SELECT sum(scheduled), sum(cancelled) FROM penstock.counted"
    assert other.execute(counted).fetchone() == (0, 1)
    other.commit()
    assert [row.states for row in engine.counts()] == [{State.CANCELLED: 1}]


def test_old_ends_that_are_loaded_after_a_sweep_are_the_first_to_go(url: str) -> None:
    engine = opened(f"{url}?keep_jobs=2")
    worker = Worker(engine)
    for _ in range(3):
        add(engine)
    claims = worker.claim()
    worker.beat += 1
    engine.exchange(P, worker.beat, [change(claim) for claim in claims], None)
    assert engine.tend(P).pruned == 1
    ended = next(job for job in engine.get([claim.id for claim in claims]) if job is not None)
    assert ended.ended_ms is not None
    engine.load([replace(ended, id=JobId("loaded"), ended_ms=ended.ended_ms - 1000)])
    assert engine.tend(P).pruned == 1
    assert engine.get([JobId("loaded")]) == [None]
    engine.close()


# -- transactions of the application ----------------------------------------------------------------------------------


def test_long_transaction_that_enqueued_holds_nobody_up(engine: PostgresEngine, other: psycopg.Connection) -> None:
    worker = Worker(engine)
    engine.add_within(other, [AddRequest((new_job("within"),))])
    add(engine, id="beside")
    assert [claim.id for claim in worker.claim()] == ["beside"]
    engine.tend(P)
    other.commit()
    assert comes_true(lambda: [claim.id for claim in worker.claim()] == ["within"])


@pytest.mark.parametrize("until", ["ended", "started"])
@pytest.mark.parametrize("clash", ["keep", "replace"])
def test_open_transaction_that_met_a_unique_key_holds_no_worker_up(
    url: str, other: psycopg.Connection, until: str, clash: str
) -> None:
    engine = opened(f"{url}?timeout=2s")
    worker = Worker(engine)
    add(engine, id="first", details=Details(unique=Unique("k", until=until)))
    claims = worker.claim() if until == "ended" else ()
    second = new_job("second", details=Details(unique=Unique("k", until=until, clash=clash)))
    engine.add_within(other, [AddRequest((second,))])
    if until == "ended":
        worker.beat += 1
        assert not engine.exchange(P, worker.beat, [change(claim) for claim in claims], None).late
    else:
        assert [claim.id for claim in worker.claim()] == ["first"]
    engine.close()


def test_open_transaction_that_met_an_idempotency_key_does_not_lock_it(
    engine: PostgresEngine, other: psycopg.Connection, url: str
) -> None:
    details = Details(idempotency_key="k")
    add(engine, id="first", details=details)
    engine.add_within(other, [AddRequest((new_job("second", details=details),))])
    with psycopg.connect(url) as third:
        assert third.execute("SELECT id FROM penstock.keys FOR UPDATE NOWAIT").fetchall() == [("first",)]


def test_replacement_that_must_wait_holds_up_neither_other_arrivals_nor_the_tender(
    engine: PostgresEngine, other: psycopg.Connection, url: str
) -> None:
    worker = Worker(engine)
    unique = Unique("k", clash="replace")
    add(engine, id="first", details=Details(unique=unique))
    with psycopg.connect(url) as third:
        engine.add_within(third, [AddRequest((new_job("second", details=Details(unique=unique)),))])
        engine.add_within(third, [AddRequest((new_job("beside"),))])
        other.execute("SELECT FROM penstock.uniques FOR UPDATE")
        third.commit()
    assert engine.tend(P).next_ms is None
    assert {claim.id for claim in worker.claim()} == {"first", "beside"}
    other.commit()


def test_many_replacements_that_must_wait_hold_up_no_arrival_behind_them(
    engine: PostgresEngine, other: psycopg.Connection, url: str
) -> None:
    worker = Worker(engine)
    held, free = Unique("held", clash="replace"), Unique("free", clash="replace")
    add(engine, id="holder", details=Details(unique=held))
    add(engine, id="replaced", details=Details(unique=free))
    with psycopg.connect(url) as third:
        many = tuple(new_job(f"blocked-{n}", details=Details(unique=held)) for n in range(1000))
        engine.add_within(third, [AddRequest(many)])
        engine.add_within(third, [AddRequest((new_job("free", details=Details(unique=free)), new_job("plain")))])
        other.execute("SELECT FROM penstock.jobs WHERE id = 'holder' FOR UPDATE")
        third.commit()
    engine.tend(P)
    assert {claim.id for claim in worker.claim()} == {"holder", "free", "plain"}
    other.commit()


def test_replacements_of_a_key_that_cannot_be_seen_yet_are_passed_over(
    engine: PostgresEngine, other: psycopg.Connection, url: str
) -> None:
    worker = Worker(engine)
    unique = Unique("k", clash="replace")
    add(engine, id="holder", details=Details(unique=unique))
    with psycopg.connect(url) as third:
        many = tuple(new_job(f"blocked-{n}", details=Details(unique=unique)) for n in range(100))
        engine.add_within(third, [AddRequest((*many, new_job("plain")))])
        third.commit()
        third.execute("SELECT penstock.end_waiting('{holder}', 'cancelled', NULL, penstock.now_ms())")
    other.execute(
        "INSERT INTO penstock.uniques (digest, until, id)"
        " SELECT uniqueness, 'ended', 'unseen' FROM penstock.arrivals WHERE id = 'blocked-0'"
    )
    engine.tend(P)
    assert [claim.id for claim in worker.claim()] == ["plain"]
    other.rollback()
    assert comes_true(lambda: [claim.id for claim in worker.claim()] == ["blocked-99"])


def test_connection_that_commits_by_itself_is_refused(engine: PostgresEngine, url: str) -> None:
    with (
        psycopg.connect(url, autocommit=True) as db,
        pytest.raises(PenstockError, match="commits each statement by itself"),
    ):
        engine.add_within(db, [AddRequest((new_job(),))])


def test_connection_to_another_database_is_refused(engine: PostgresEngine, postgres_server: PostgresServer) -> None:
    engine.describe()
    with (
        psycopg.connect(postgres_server.empty_store()) as db,
        pytest.raises(PenstockError, match="the jobs belong in"),
    ):
        engine.add_within(db, [AddRequest((new_job(),))])


def test_connection_that_leads_to_one_store_is_refused_for_another(
    engine: PostgresEngine, other: psycopg.Connection, url: str, postgres_server: PostgresServer
) -> None:
    job = [AddRequest((new_job(),))]
    engine.add_within(other, job)
    elsewhere, beside = opened(postgres_server.empty_store()), opened(f"{url}?schema=beside")
    with pytest.raises(ConnectionInvalid, match="the jobs belong in"):
        elsewhere.add_within(other, job)
    beside.describe()
    beside.add_within(other, job)
    for one in (elsewhere, beside):
        one.close()


def test_transaction_older_than_the_store_is_refused_with_the_way_out(
    engine: PostgresEngine, other: psycopg.Connection
) -> None:
    other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    other.execute("SELECT count(*) FROM pg_class")
    engine.describe()
    with pytest.raises(ConnectionInvalid, match="Begin a new transaction"):
        engine.add_within(other, [AddRequest((new_job(),))])


# -- plain SQL --------------------------------------------------------------------------------------------------------


def test_plain_sql_enqueues_a_job_that_a_worker_can_read(engine: PostgresEngine, other: psycopg.Connection) -> None:
    worker = Worker(engine)
    row = other.execute("SELECT penstock.enqueue('mail', 't', '[1, {\"a\": null}]', priority => 5)").fetchone()
    other.commit()
    assert row is not None
    assert comes_true(lambda: [claim.id for claim in worker.claim()] == [row[0]])
    [job] = engine.get([row[0]])
    assert job is not None
    assert (job.queue, job.priority, job.state) == ("mail", 5, State.RUNNING)
    envelope = decode_envelope(job.envelope, job.crc)
    assert (envelope.v, envelope.task, json.decode(envelope.args)) == (1, "t", [1, {"a": None}])
    assert row[0][14] == "7"


def test_plain_sql_obeys_delay_uniqueness_and_idempotency(engine: PostgresEngine, other: psycopg.Connection) -> None:
    engine.describe()
    values = [
        other.execute(f"SELECT penstock.enqueue('q', 't', '{{\"n\": 1}}', {more})").fetchone()
        for more in (
            "delay => '1 hour'",
            "unique_key => 'k'",
            "unique_key => 'k'",
            "idempotency_key => 'i'",
            "idempotency_key => 'i'",
        )
    ]
    other.commit()
    assert values[1] == values[2]
    assert values[3] == values[4]
    assert len({*values}) == 3
    engine.tend(P)
    states = {job.id: job.state for job in engine.find(Filter()).jobs}
    assert values[0] is not None
    assert states.pop(values[0][0]) is State.SCHEDULED
    assert set(states.values()) == {State.READY}


def test_open_transaction_that_began_a_line_holds_up_no_other_producer(
    engine: PostgresEngine, other: psycopg.Connection, url: str
) -> None:
    worker = Worker(engine)
    enqueue = "SELECT penstock.enqueue('fresh', 't') FROM generate_series(1, 2)"
    with psycopg.connect(url) as third:
        other.execute(enqueue)
        third.execute("SET lock_timeout = '2s'")
        third.execute(enqueue)
        add(engine, queue="fresh", id="added")
        assert [claim.id for claim in worker.claim()] == ["added"]
        third.commit()
        assert len(engine.find(Filter(queue="fresh")).jobs) == 3
        assert comes_true(lambda: len(worker.claim()) == 2)
        other.commit()
    assert comes_true(lambda: len(worker.claim()) == 2)
    assert [(row.queue, row.states) for row in engine.counts()] == [("fresh", {State.RUNNING: 5})]
    assert {finding.subject: finding.verdict for finding in examine(url, deep=True).findings}["counts"] == "ok"


def test_job_of_a_line_begun_in_its_transaction_can_be_altered_before_it_has_arrived(
    engine: PostgresEngine, other: psycopg.Connection, url: str
) -> None:
    worker = Worker(engine)
    rows = other.execute("SELECT penstock.enqueue('fresh', 't') FROM generate_series(1, 3)").fetchall()
    other.commit()
    with psycopg.connect(url) as third:
        third.execute("SELECT FROM penstock.arrivals FOR UPDATE")  # so that nobody receives them
        kicked, moved, cancelled = (JobId(row[0]) for row in rows)
        engine.alter([kicked], Kick())
        engine.alter([moved], Edit(queue="other"))
        engine.alter([cancelled], Cancel())
        assert [claim.id for claim in worker.claim()] == [kicked]
    assert comes_true(lambda: [claim.id for claim in worker.claim()] == [moved])
    assert {row.queue: row.states for row in engine.counts()} == {
        "fresh": {State.RUNNING: 1, State.CANCELLED: 1},
        "other": {State.RUNNING: 1},
    }
    assert add(engine, queue="fresh")
    assert len(worker.claim()) == 1


def test_trigger_enqueues_with_the_row_or_not_at_all(engine: PostgresEngine, other: psycopg.Connection) -> None:
    worker = Worker(engine)
    other.execute("CREATE TABLE public.orders (id integer)")
    other.execute(
        "CREATE FUNCTION public.place_order() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM penstock.enqueue('mail', 't', jsonb_build_array(NEW.id)); RETURN NEW; END $$"
    )
    other.execute(
        "CREATE TRIGGER place AFTER INSERT ON public.orders FOR EACH ROW EXECUTE FUNCTION public.place_order()"
    )
    other.commit()
    other.execute("INSERT INTO public.orders VALUES (1)")
    other.rollback()
    other.execute("INSERT INTO public.orders VALUES (2)")
    other.commit()
    found: list[Claim] = []
    assert comes_true(lambda: found.extend(worker.claim()) or found)
    assert [json.decode(decode_envelope(claim.envelope, None).args) for claim in found] == [[2]]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("'a b', 't'", "no name of a queue"),
        ("'q', 't', '3'", "no JSON array or object"),
        ("'q', 't', priority => 101", "outside -100 to 100"),
        ("'q', 't', delay => '-1 s'", "below 0"),
        ("NULL, 't'", "NULL is no name of a queue"),
        ("'q', NULL", "NULL is no name of a task"),
        ("'q', ''", "'' is no name of a task"),
        ("'q', 't', NULL", "The arguments NULL are no JSON array or object"),
        ("'q', 't', priority => NULL", "The priority NULL is outside"),
        ("'q', 't', tags => ARRAY['eu', NULL]", "The tags {eu,NULL} are no list of texts"),
        ("'q', 't', tags => ARRAY['']", 'The tags {""} are no list of texts'),
        ("'q', 't', tags => '{{a,b},{c,d}}'", "The tags {{a,b},{c,d}} are no list of texts"),
        ("'q', 't', unique_key => ''", "An empty text is no key"),
        ("'q', 't', idempotency_key => ''", "An empty text is no key"),
    ],
)
def test_plain_sql_refuses_what_no_client_would_send(
    engine: PostgresEngine, other: psycopg.Connection, arguments: str, told: str
) -> None:
    engine.describe()
    with pytest.raises(psycopg.DataError, match=re.escape(told)):
        other.execute(f"SELECT penstock.enqueue({arguments})")


def test_plain_sql_takes_null_for_what_may_be_left_out(engine: PostgresEngine, other: psycopg.Connection) -> None:
    engine.describe()
    other.execute(
        "SELECT penstock.enqueue('q', 't', delay => NULL, run_at => NULL, expires_in => NULL, unique_key => NULL,"
        " idempotency_key => NULL, tags => NULL), penstock.enqueue('q', 't', tags => '{}')"
    )
    other.commit()
    assert comes_true(lambda: len(Worker(engine).claim()) == 2)


# -- roles ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def plain_role(other: psycopg.Connection, url: str) -> Iterator[str]:
    """Give the name of a role without any rights; it may log in."""
    name = f"role_{other.info.dbname}"
    other.execute(f"CREATE ROLE {name} LOGIN")
    other.commit()
    yield name
    with psycopg.connect(url, autocommit=True) as db:
        db.execute(f"DROP OWNED BY {name}")
        db.execute(f"DROP ROLE {name}")


def grants(role: str) -> list[str]:
    """Give what the documentation grants to a role."""
    page = (Path(__file__).parents[2] / "docs/explanation/postgres.md").read_text()
    return [line for line in page.splitlines() if line.startswith("GRANT ") and line.endswith(f" TO {role};")]


@pytest.mark.parametrize("truncates", [True, False])
def test_role_with_the_documented_rights_enqueues_and_works(
    engine: PostgresEngine, other: psycopg.Connection, url: str, plain_role: str, truncates: bool
) -> None:
    engine.describe()
    for grant in grants("shop"):
        if truncates or "TRUNCATE" not in grant:
            other.execute(grant.replace(" TO shop;", f" TO {plain_role}"))
    other.commit()
    plain = opened(url.replace("penstock@", f"{plain_role}@"))
    worker = Worker(plain)
    add(plain, details=Details(idempotency_key="k"))
    plain.alter_queue("bound", max_jobs=5)
    add(plain, queue="bound")
    claims = worker.claim()
    worker.beat += 1
    plain.exchange(P, worker.beat, [change(claim) for claim in claims], want())
    plain.alter([claims[0].id], Delete())
    other.execute("UPDATE penstock.deltas SET slot = (penstock.slot() + 1) % 3")
    other.commit()
    plain.tend(P)
    assert other.execute("SELECT count(*) FROM penstock.deltas").fetchone() == (0,)
    assert [row.states for row in plain.counts()] == [{State.SUCCEEDED: 1}]
    plain.close()


def test_role_with_the_documented_rights_enqueues_with_plain_sql(
    engine: PostgresEngine, other: psycopg.Connection, url: str, plain_role: str
) -> None:
    engine.alter_queue("mail", max_jobs=5)
    for grant in grants("web"):
        other.execute(grant.replace(" TO web;", f" TO {plain_role}"))
    other.commit()
    with psycopg.connect(url.replace("penstock@", f"{plain_role}@")) as plain:
        for more in ("", ", unique_key => 'u'", ", unique_key => 'u'", ", idempotency_key => 'i', delay => '1 h'"):
            plain.execute(f"SELECT penstock.enqueue('mail', 't'{more})")
    worker = Worker(engine)
    engine.tend(P)
    assert len(worker.claim()) == 2
    with psycopg.connect(url.replace("penstock@", f"{plain_role}@")) as plain:
        plain.execute("SELECT penstock.enqueue('mail', 't', unique_key => 'u')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            plain.execute("DELETE FROM penstock.jobs")


def test_doctor_says_what_a_role_does_not_see(
    engine: PostgresEngine, other: psycopg.Connection, url: str, plain_role: str
) -> None:
    engine.describe()
    other.execute(f"GRANT USAGE ON SCHEMA penstock TO {plain_role}")
    other.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA penstock TO {plain_role}")
    other.commit()
    plain = url.replace("penstock@", f"{plain_role}@")

    def told() -> tuple[str, str]:
        [finding] = [finding for finding in examine(plain).findings if finding.subject == "transactions"]
        return finding.verdict, finding.found + finding.remedy

    assert told()[0] == "warning"
    assert f"{plain_role} does not see those of other roles" in told()[1]
    other.execute(f"GRANT pg_read_all_stats TO {plain_role}")
    other.commit()
    assert told()[0] == "ok"


# -- tables beside an open transaction --------------------------------------------------------------------------------


def set_slot(db: psycopg.Connection, slot: int) -> None:
    """Let it be the time of this slot from now on."""
    is_now = f"'SELECT {slot}::smallint'"
    db.execute(f"CREATE OR REPLACE FUNCTION penstock.slot() RETURNS smallint LANGUAGE sql VOLATILE AS {is_now}")
    db.commit()


def test_arrivals_that_were_received_are_truncated_beside_an_open_transaction(
    engine: PostgresEngine, other: psycopg.Connection, url: str
) -> None:
    engine.describe()
    with psycopg.connect(url) as third:
        set_slot(third, 0)
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT pg_current_xact_id()")
        third.execute("SELECT penstock.enqueue('mail', 't') FROM generate_series(1, 500)")
        third.commit()
        engine.tend(P)
        size = "SELECT pg_relation_size('penstock.arrivals_0')"
        assert third.execute(size).fetchone() != (0,)
        set_slot(third, 2)
        engine.tend(P)
        assert third.execute(size).fetchone() == (0,)


def test_arrivals_that_are_still_to_come_are_left_where_they_are(
    engine: PostgresEngine, other: psycopg.Connection, url: str
) -> None:
    engine.describe()
    with psycopg.connect(url) as third:
        set_slot(third, 0)
        other.execute("SELECT penstock.enqueue('mail', 't')")
        set_slot(third, 2)
        engine.tend(P)
        other.commit()
    worker = Worker(engine)
    assert comes_true(lambda: len(worker.claim()) == 1)


def test_open_transaction_that_enqueued_into_a_bounded_queue_lets_counts_be_folded(
    engine: PostgresEngine, other: psycopg.Connection, url: str
) -> None:
    engine.alter_queue("mail", max_jobs=100)
    other.execute("SELECT penstock.enqueue('mail', 't')")
    with psycopg.connect(url) as third:
        for slot in (0, 2):
            set_slot(third, slot)
            add(engine, queue="mail")
            engine.tend(P)
        assert third.execute("SELECT count(*) FROM penstock.deltas WHERE slot = 0").fetchone() == (0,)
    other.execute("SELECT penstock.enqueue('mail', 't') FROM generate_series(1, 97)")
    with pytest.raises(psycopg.errors.ConfigurationLimitExceeded):
        other.execute("SELECT penstock.enqueue('mail', 't')")


# -- poolers ----------------------------------------------------------------------------------------------------------


def test_heartbeat_without_a_death_is_one_round_trip(url: str, postgres_server: PostgresServer) -> None:
    """On a link that needs a second for each, seven of them would take longer than a call may."""
    pieces: list[bytes] = []
    with Proxy(postgres_server.port) as proxy:
        engine = opened(url.replace(f":{postgres_server.port}/", f":{proxy.port}/"))
        processes = [ProcessId("p"), ProcessId("q")]
        engine.enrol(WorkerInfo(id="w"), processes)
        engine.renew(processes[0], processes)
        proxy.changes = lambda piece: pieces.append(piece) or piece  # type: ignore[func-returns-value]
        assert engine.renew(processes[0], processes).void == ()
        proxy.changes = None
        engine.close()
    assert len(pieces) == 1


def other_session(piece: bytes) -> bytes:
    """Name another server session at the start of a connection, as a pooler that lends sessions by transaction does.

    Source: PostgreSQL, Message Formats, BackendKeyData.
    """
    head = b"K\0\0\0\x0c"
    at = piece.find(head)
    return piece if at < 0 else piece[: at + 5] + b"\0\0\0\1" + piece[at + 9 :]


@pytest.fixture
def pooled(url: str, postgres_server: PostgresServer) -> Iterator[str]:
    """Give the URL of the database behind a pooler."""
    with Proxy(postgres_server.port) as proxy:
        proxy.changes = other_session
        yield url.replace(f":{postgres_server.port}/", f":{proxy.port}/")


def test_pooler_before_a_database_of_other_isolation_is_a_fault(
    other: psycopg.Connection, url: str, pooled: str
) -> None:
    other.execute(f"ALTER DATABASE {other.info.dbname} SET default_transaction_isolation = 'serializable'")
    other.commit()
    engine = opened(pooled)
    with pytest.raises(StoreInvalid, match=r"serializable.*ALTER ROLE"):
        engine.counts()
    engine.close()
    [finding] = [finding for finding in examine(pooled).findings if finding.subject == "schema"]
    assert (finding.verdict, "ALTER ROLE" in finding.remedy) == ("fault", True)
    assert all(finding.verdict != "fault" for finding in examine(url).findings)


def test_nothing_is_prepared_behind_a_pooler_where_another_client_may_have_given_the_name(
    engine: PostgresEngine, pooled: str
) -> None:
    prepared = "SELECT count(*) FROM pg_prepared_statements"
    behind = opened(pooled)
    for one in (behind, engine):
        for _ in range(10):
            add(one)
    assert behind.store.query(prepared) == [(0,)]
    assert engine.store.query(prepared) != [(0,)]
    behind.close()


def test_pooler_lets_nobody_listen_and_every_wait_ends_after_a_poll(pooled: str) -> None:
    engine = opened(pooled)
    worker = Worker(engine)
    add(engine)
    assert len(worker.claim()) == 1
    began = time.monotonic()
    engine.wait(Subject(queues=()), 2**60, 10.0)
    assert time.monotonic() - began < 5.0
    assert not engine._listener.listens((WORK,))
    engine.close()


# -- faults -----------------------------------------------------------------------------------------------------------


def test_table_that_is_locked_makes_calls_busy_in_time(url: str, engine: PostgresEngine) -> None:
    engine.describe()
    hasty = opened(f"{url}?timeout=1s")
    with psycopg.connect(url) as db:
        db.execute("LOCK TABLE penstock.jobs")
        began = time.monotonic()
        with pytest.raises(EngineBusy, match="lock timeout"):
            add(hasty)
        with pytest.raises(EngineBusy, match="lock timeout"):
            add(hasty, details=Details(idempotency_key="k"))
        assert time.monotonic() - began < 4.0
        with pytest.raises(EngineBusy):
            hasty.alter([JobId("ghost")], Cancel())
    assert add(hasty)
    hasty.close()


def test_call_whose_answer_is_overdue_may_have_been_done(url: str, other: psycopg.Connection) -> None:
    engine = opened(f"{url}?timeout=1s")
    engine.describe()
    other.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1.5); RETURN NULL; END'"
    )
    other.execute("CREATE TRIGGER slow AFTER INSERT ON penstock.jobs EXECUTE FUNCTION slow()")
    other.commit()
    with pytest.raises(EngineDown, match="may have been done"):
        add(engine, id="late")
    assert comes_true(lambda: engine.get([JobId("late")]) != [None])
    engine.close()


def test_pool_without_room_makes_a_call_busy_that_was_not_sent(url: str) -> None:
    engine = opened(f"{url}?timeout=1s")
    engine.describe()
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(engine.store._room)
        with pytest.raises(EngineBusy, match="1 s"):
            add(engine)
    engine.close()


def test_ten_steps_at_once_that_each_look_something_up_go_on(engine: PostgresEngine) -> None:
    engine.describe()
    together, done = threading.Barrier(10, timeout=DEADLINE_S), []

    def look_up(_: object) -> None:
        together.wait()
        done.append(engine.store.row("now_ms", 7)[0])

    threads = [threading.Thread(target=engine.store.step, args=(look_up,)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert done == [7] * 10


def test_wait_for_locks_of_a_callers_transaction_stays_as_it_was(
    engine: PostgresEngine, other: psycopg.Connection
) -> None:
    other.execute("SET LOCAL lock_timeout = '7s'")
    engine.add_within(other, [AddRequest((new_job(),))])
    assert other.execute("SHOW lock_timeout").fetchone() == ("7s",)


def test_job_that_is_claimed_while_it_is_cancelled_is_told_to_its_holder(
    engine: PostgresEngine, other: psycopg.Connection
) -> None:
    worker = Worker(engine)
    add(engine, id="first")
    other.execute("SELECT FROM penstock.jobs FOR UPDATE")
    altering = threading.Thread(target=engine.alter, args=([JobId("first")], Cancel()))
    altering.start()
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    assert comes_true(lambda: engine.store.query(waits) == [(1,)])
    [claim] = worker.claim()
    other.commit()
    altering.join(DEADLINE_S)
    worker.beat += 1
    assert engine.exchange(P, worker.beat, (), None).cancels == (claim.fence,)


def test_connection_that_was_ended_while_idle_is_not_noticed(engine: PostgresEngine, other: psycopg.Connection) -> None:
    add(engine)
    other.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE application_name = 'penstock' AND datname = current_database()"
    )
    assert add(engine)


def test_session_that_lost_its_prepared_statements_is_no_matter(engine: PostgresEngine) -> None:
    add(engine)
    for link in engine.store._idle:
        link.execute("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$")  # behind the driver's back
    assert add(engine)
    assert not engine.store.prepares


def test_store_that_may_only_be_read_says_so(url: str, engine: PostgresEngine) -> None:
    add(engine)
    reader = opened(f"{url}?options=-c%20default_transaction_read_only%3Don")
    assert [row.states for row in reader.counts()] == [{State.READY: 1}]
    with pytest.raises(EngineReadOnly):
        add(reader)
    reader.close()


def test_server_that_is_not_there_is_down_and_shows_no_password() -> None:
    engine = open_engine("postgresql://me:sesame@127.0.0.1:1/shop")
    with pytest.raises(EngineDown) as refused:
        engine.counts()
    assert "sesame" not in str(refused.value)
    [finding] = examine("postgresql://me:sesame@127.0.0.1:1/shop").findings
    assert (finding.verdict, "sesame" in str(finding)) == ("fault", False)


def test_database_that_does_not_exist_is_no_store(postgres_server: PostgresServer) -> None:
    engine = open_engine(postgres_server.url.replace("/postgres", "/nowhere"))
    with pytest.raises(StoreInvalid, match="createdb"):
        engine.counts()


def test_role_that_does_not_exist_is_told_apart_from_a_database(postgres_server: PostgresServer) -> None:
    engine = open_engine(postgres_server.url.replace("penstock@", "nobody@"))
    with pytest.raises(EngineDown, match=r'role "nobody" does not exist\. Check the user and the password'):
        engine.counts()


def test_server_that_refuses_connections_is_told_with_the_way_out() -> None:
    engine = open_engine("postgresql://me@127.0.0.1:1/shop")
    with pytest.raises(EngineDown, match=r"Connection refused\. Check that it runs and the address is right\."):
        engine.counts()


def test_message_of_the_server_comes_without_the_statements_around_it(url: str, other: psycopg.Connection) -> None:
    engine = opened(f"{url}?timeout=1s")
    engine.describe()
    other.execute("LOCK TABLE penstock.jobs")
    with pytest.raises(EngineBusy, match=r"due to lock timeout\. Try again\."):
        add(engine)
    engine.close()


def test_doctor_says_that_a_database_only_reads(engine: PostgresEngine, other: psycopg.Connection, url: str) -> None:
    engine.describe()
    other.execute(f"ALTER DATABASE {other.info.dbname} SET default_transaction_read_only = on")
    other.commit()
    [fault] = [finding for finding in examine(url).findings if finding.verdict == "fault"]
    assert (fault.subject, "only reads" in fault.found, "default_transaction_read_only" in fault.remedy) == (
        "server",
        True,
        True,
    )


def test_role_with_all_its_connections_in_use_is_busy(
    engine: PostgresEngine, other: psycopg.Connection, url: str, plain_role: str
) -> None:
    engine.describe()
    other.execute(f"ALTER ROLE {plain_role} CONNECTION LIMIT 0")
    other.commit()
    limited = opened(url.replace("penstock@", f"{plain_role}@"))
    with pytest.raises(EngineBusy, match=r"too many connections for role .*\. Raise .* CONNECTION LIMIT"):
        limited.counts()
    limited.close()


def test_role_without_rights_to_the_schema_hears_which_it_needs(
    engine: PostgresEngine, url: str, plain_role: str
) -> None:
    engine.describe()
    plain = opened(url.replace("penstock@", f"{plain_role}@"))
    with pytest.raises(StoreInvalid, match="GRANT USAGE ON SCHEMA"):
        plain.counts()
    plain.close()


def test_store_that_cannot_be_reached_is_not_said_to_be_missing(postgres_server: PostgresServer) -> None:
    with pytest.raises(EngineDown, match="refused"):
        is_there("postgresql://me@127.0.0.1:1/shop")
    with pytest.raises(StoreInvalid, match="createdb"):
        is_there(postgres_server.url.replace("/postgres", "/nowhere"))


def test_child_process_uses_connections_of_its_own(engine: PostgresEngine) -> None:
    add(engine)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            add(engine)
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [row.states for row in engine.counts()] == [{State.READY: 2}]


def test_listener_that_was_ended_listens_again(engine: PostgresEngine, other: psycopg.Connection) -> None:
    engine.describe()
    done = threading.Event()
    locks = "SELECT pid FROM pg_locks WHERE locktype = 'advisory'"

    def wait() -> None:
        while not done.is_set():
            engine.wait(Subject(queues=()), 2**60, 1.0)

    def listener() -> int:
        found: list[int] = []
        assert comes_true(lambda: found.extend(pid for (pid,) in other.execute(locks)) or found)
        return found[0]

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    first = listener()
    other.execute("SELECT pg_terminate_backend(%s, 5000)", (first,))
    assert listener() != first
    done.set()
    thread.join(DEADLINE_S)


# -- an exchange that comes late --------------------------------------------------------------------------------------


def test_claims_of_an_idle_exchange_that_came_late_are_told_next(url: str, engine: PostgresEngine) -> None:
    worker = Worker(engine)
    worker.beat = 2
    assert worker.claim() == ()  # a repeat: the first call is still on its way
    for id in ("a", "b", "c"):
        add(engine, id=id)
    late = opened(url)
    assert [claim.id for claim in late.exchange(P, 3, (), want(limit=2)).claims] == ["a", "b"]
    told = worker.claim()
    assert [claim.id for claim in told] == ["a", "b"]
    assert engine.exchange(P, 4, (), want()).claims == told
    answer = engine.exchange(P, 5, [change(claim) for claim in told], want())
    assert (answer.late, [claim.id for claim in answer.claims]) == ((), ["c"])
    late.close()


def test_exchange_that_comes_late_is_told_even_where_nothing_more_is_wanted(url: str, engine: PostgresEngine) -> None:
    worker = Worker(engine)
    assert worker.claim() == ()
    add(engine, id="a")
    late = opened(url)
    late.exchange(P, 1, (), want())
    assert [claim.id for claim in engine.exchange(P, 2, (), None).claims] == ["a"]
    late.close()


def test_exchange_that_waited_while_its_process_was_voided_claims_nothing(
    engine: PostgresEngine, other: psycopg.Connection
) -> None:
    Worker(engine)
    add(engine, id="a")
    lost: list[LeaseLost] = []

    def exchange() -> None:
        try:
            engine.exchange(P, 1, (), want())
        except LeaseLost as error:
            lost.append(error)

    other.execute("SELECT penstock.hold_process('p')")
    late = threading.Thread(target=exchange)
    late.start()
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    assert comes_true(lambda: engine.store.query(waits) == [(1,)])
    other.execute("UPDATE penstock.processes SET void = true")
    other.commit()
    late.join(DEADLINE_S)
    assert len(lost) == 1
    assert [row.states for row in engine.counts()] == [{State.READY: 1}]


# -- the server's clock -----------------------------------------------------------------------------------------------


def turn_clock(db: psycopg.Connection, ms: int) -> None:
    """Set the clock of the store forward or back."""
    db.execute(
        "CREATE OR REPLACE FUNCTION penstock.now_ms() RETURNS bigint LANGUAGE sql VOLATILE AS"
        f" 'SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint + {ms}'"
    )
    db.commit()


def test_clock_set_forward_lets_the_living_renew_before_anything_is_voided(
    engine: PostgresEngine, other: psycopg.Connection
) -> None:
    worker, tender = Worker(engine), Worker(engine, ProcessId("tender"))
    add(engine)
    [claim] = worker.claim()
    engine.tend(tender.process)
    turn_clock(other, 3_600_000)
    engine.renew(tender.process, [])
    assert engine.tend(tender.process).taken == ()
    assert engine.renew(P, [P]).void == ()
    worker.beat += 1
    assert not engine.exchange(P, worker.beat, [change(claim)], None).late


def test_lease_that_was_given_before_the_clock_was_set_back_is_cut(
    engine: PostgresEngine, other: psycopg.Connection
) -> None:
    engine.describe()
    turn_clock(other, 3_600_000)
    tender = Worker(engine, ProcessId("tender"))
    Worker(engine)
    turn_clock(other, 0)
    assert min(view.lease_left_ms for view in engine.workers()) > 3_500_000
    engine.tend(tender.process)
    assert all(0 < view.lease_left_ms <= 60_000 for view in engine.workers())


# -- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "level"),
    [
        (("on", "on", "on", "", 0), "D2"),
        (("on", "on", "local", "s1", 1), "D2"),
        (("on", "on", "off", "", 0), "D1"),
        (("off", "on", "on", "", 0), "D0"),
        (("on", "off", "on", "", 0), "D0"),
        (("on", "on", "on", "s1", 0), "D2"),
        (("on", "on", "remote_apply", "s1", 1), "D3"),
    ],
)
def test_durability_follows_the_live_settings(settings: tuple[str, str, str, str, int], level: str) -> None:
    assert durability(*settings) == level


def test_doctor_tells_the_durability_once(engine: PostgresEngine, url: str) -> None:
    engine.describe()
    told = CliRunner().invoke(cli, ["doctor", "--json", "--url", url]).stdout
    [finding] = [one for one in json.decode(told)["findings"] if one["subject"] == "durability"]
    assert finding["verdict"] == "warning"
    assert finding["found"].startswith("accepted jobs are lost with the store's process (D0): fsync off")


def test_server_that_does_not_sync_is_told(engine: PostgresEngine, url: str) -> None:
    assert engine.describe().durability == "D0"  # the tests' server
    findings = {finding.subject: finding for finding in examine(url, deep=True).findings}
    assert findings["durability"].verdict == "warning"
    assert findings["counts"].verdict == "ok"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://h/db?shema=x", "Did you mean 'schema'"),
        ("postgresql://h/db?sslmod=require", "Did you mean 'sslmode'"),
        ("postgresql://h/db?schema=a-b", "A-Z a-z 0-9 _"),
        ("postgresql://h/db?schema=pg_x", "pg_"),
        ("postgresql://h/db?prepare=no", "on or off"),
        ("postgresql://h/db/more", "names no database"),
        ("postgresql://me:ses@me@h/db", "write %40 for an @"),
    ],
)
def test_url_out_of_form_is_refused_with_the_way_out(url: str, told: str) -> None:
    with pytest.raises(EngineUnknown, match=told):
        check_url(url)


def test_options_of_libpq_pass_through(url: str) -> None:
    engine = opened(f"{url}?application_name=shop&sslmode=disable&connect_timeout=3")
    link = engine.store.connect(time.monotonic() + DEADLINE_S)
    assert link.info.get_parameters()["application_name"] == "shop"
    link.close()
    engine.close()


def test_socket_in_the_options_needs_no_host_before_the_path() -> None:
    engine = opened("postgresql:///db?host=/nowhere")
    with pytest.raises(EngineDown, match=r"postgresql:///db\?host=/nowhere"):
        engine.counts()
    engine.close()


def test_other_default_of_isolation_is_no_matter(url: str, other: psycopg.Connection) -> None:
    name = other.info.dbname
    other.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")
    other.commit()
    engine = opened(url)
    level = engine.store.query("SELECT current_setting('transaction_isolation')")
    assert level == [("read committed",)]
    assert engine.store.step(lambda session: session.query(b"SHOW transaction_isolation", ())) == level
    engine.close()
