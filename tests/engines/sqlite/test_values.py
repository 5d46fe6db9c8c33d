"""Values at the edge of what SQLite's integers, text and patterns can hold."""

import string
import threading
from pathlib import Path

import pytest
from msgspec.structs import replace

from penstock.engine import Filter
from penstock.engines.sqlite import SqliteEngine
from penstock.model.job import Details, Fence, JobId, LedgerEntry, NewJob, Unique
from penstock.model.states import State
from penstock.testing.conformance.trial import change, new_job, want
from tests.engines.sqlite.jobs import add, add_one, all_jobs, enrol, opened, stored_ids

LATEST_MS = 2**53


@pytest.fixture
def engine(tmp_path: Path) -> SqliteEngine:
    engine = opened(tmp_path / "store.db")
    enrol(engine)
    return engine


@pytest.mark.parametrize(
    "id", ["0", "a" * 64, "'; DROP TABLE jobs; --", "%", "_", "größe-☂-𝄞", "a\tb", '"[1]"', "\\u0000", "1e3", "NULL"]
)
def test_id_comes_back_as_it_was_given_and_can_be_worked(engine: SqliteEngine, id: str) -> None:
    add_one(engine, id)
    [claim] = engine.exchange(enrol(engine), 1, (), want()).claims
    assert claim.id == id
    assert engine.exchange(enrol(engine), 2, [change(claim)], None).late == ()
    [job] = engine.get([JobId(id)])
    assert job is not None
    assert (job.id, job.state) == (id, State.SUCCEEDED)


def test_id_with_a_nul_is_refused_because_sqlite_would_take_it_for_another(engine: SqliteEngine) -> None:
    add_one(engine, "a")
    with pytest.raises(ValueError, match="is no id of a job"):
        add_one(engine, "a\0b")
    assert engine.get([JobId("a\0b")]) == [None]
    assert stored_ids(engine) == {"a"}


def test_ids_that_differ_only_by_case_or_space_are_different_jobs(engine: SqliteEngine) -> None:
    ids = ["job", "JOB", "job ", " job"]
    for id in ids:
        add_one(engine, id)
    assert stored_ids(engine) == set(ids)
    assert [job and job.id for job in engine.get([JobId(id) for id in ids])] == ids


@pytest.mark.parametrize("queue", ["a" * 128, string.ascii_letters + string.digits + "_.-", "0", "-", "null"])
def test_queue_of_any_allowed_name_works(engine: SqliteEngine, queue: str) -> None:
    id = add_one(engine, queue=queue)
    assert [job.id for job in engine.find(Filter(queue=queue)).jobs] == [id]
    assert [claim.queue for claim in engine.exchange(enrol(engine), 1, (), want(queues=[[queue]])).claims] == [queue]
    engine.alter_queue(queue, paused=True)
    assert engine.queues()[0].paused


@pytest.mark.parametrize("queue", ["", "a" * 129, "a b", "größe", "a\0", "a\n", "a/b", "'"])
def test_queue_of_another_name_is_refused_whole(engine: SqliteEngine, queue: str) -> None:
    with pytest.raises(ValueError, match="is no name of a queue"):
        add(engine, new_job("good"), new_job(queue=queue))
    assert stored_ids(engine) == set()


@pytest.mark.parametrize("priority", [-101, 101, 2**31, 2**63, -(2**63), 2**200])
def test_priority_out_of_bounds_is_refused(engine: SqliteEngine, priority: int) -> None:
    with pytest.raises(ValueError, match="outside -100 to 100"):
        add_one(engine, priority=priority)


@pytest.mark.parametrize(
    "fields",
    [{"delay_ms": 2**70}, {"run_at_ms": 2**70}, {"expires_ms": 2**64}, {"expires_in_ms": 2**70}, {"crc": 2**64}],
)
def test_number_that_no_store_can_hold_is_refused_whole(engine: SqliteEngine, fields: dict[str, int]) -> None:
    with pytest.raises((ValueError, OverflowError)):
        add(engine, new_job("good"), new_job(**fields))
    assert stored_ids(engine) == set()
    assert engine.counts() == []
    add_one(engine, "after")


def test_times_up_to_the_bound_of_json_are_kept(engine: SqliteEngine) -> None:
    id = add_one(engine, run_at_ms=LATEST_MS, expires_ms=LATEST_MS)
    [job] = engine.get([id])
    assert job is not None
    assert (job.due_ms, job.expires_ms, job.state) == (LATEST_MS, LATEST_MS, State.SCHEDULED)
    assert engine.tend(enrol(engine)).due == 0


@pytest.mark.parametrize("token", [-(2**63), -1, 0, 2**63 - 1])
def test_fence_of_any_token_is_only_late(engine: SqliteEngine, token: int) -> None:
    add_one(engine)
    [claim] = engine.exchange(enrol(engine), 1, (), want()).claims
    strange = replace(change(claim), fence=Fence(claim.fence.number, token))
    assert engine.exchange(enrol(engine), 2, [strange], None).late == (claim.id,)


@pytest.mark.parametrize("content", [b"\0" * 100, bytes(range(256)) * 10, b"\xff\xfe", b"", b"x" * 1024 * 1024])
def test_envelope_comes_back_byte_for_byte(engine: SqliteEngine, content: bytes) -> None:
    add(engine, NewJob(id=JobId("job"), task="t", envelope=content))
    [claim] = engine.exchange(enrol(engine), 1, (), want()).claims
    assert claim.envelope == content
    assert engine.find(Filter(text="no such text")).jobs == ()


@pytest.mark.parametrize("text", ["a\0b", "☂𝄞", "'; --", "%", "x" * 100_000])
def test_text_of_any_kind_serves_as_task_and_key_and_tag(engine: SqliteEngine, text: str) -> None:
    details = Details(tags=(text,), unique=Unique(text), idempotency_key=text)
    job = NewJob(id=JobId("job"), task=text, envelope=b"{}", details=details)
    add(engine, job)
    [stored] = engine.get([job.id])
    assert stored is not None
    assert (stored.task, stored.details) == (text, details)
    assert [found.id for found in engine.find(Filter(task=text)).jobs] == ["job"]
    [claim] = engine.exchange(enrol(engine), 1, (), want(tasks={text: "thread"})).claims
    entry = LedgerEntry(scope=text, key=text, value=b"1")
    assert engine.exchange(enrol(engine), 2, [replace(change(claim), ledger=(entry,))], None).late == ()


def test_lone_surrogate_is_refused_whole_and_leaves_the_engine_working(engine: SqliteEngine) -> None:
    for job in (
        new_job("a\ud800"),
        new_job(details=Details(tags=("\udfff",))),
        NewJob(id=JobId("b"), task="\ud800", envelope=b"{}"),
    ):
        with pytest.raises(ValueError, match="surrogate"):
            add(engine, new_job("good"), job)
    assert stored_ids(engine) == set()
    add_one(engine, "after")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("%", {"percent"}),
        ("100%", {"percent"}),
        ("_", {"under"}),
        ("x_y", {"under"}),
        ("xay", {"plain"}),
        ("\\", {"back"}),
        ("'", {"quote"}),
        ("☂", {"rain"}),
        ("GRÖSSE", set()),
        ("", {"percent", "under", "plain", "back", "quote", "rain"}),
    ],
)
def test_text_is_looked_for_as_it_is(engine: SqliteEngine, text: str, found: set[str]) -> None:
    for id, content in {
        "percent": "100%",
        "under": "x_y",
        "plain": "xay",
        "back": "a\\b",
        "quote": "it's",
        "rain": "größe ☂",
    }.items():
        add(engine, NewJob(id=JobId(id), task="t", envelope=content.encode()))
    assert {job.id for job in engine.find(Filter(text=text)).jobs} == found


@pytest.mark.parametrize("tag", ["%", "_", "red ☂", "'; --", '"', "[1]", "x" * 10_000])
def test_tag_is_looked_for_as_it_is(engine: SqliteEngine, tag: str) -> None:
    id = add_one(engine, details=Details(tags=("other", tag)))
    add_one(engine, details=Details(tags=("other", f"{tag}{tag}")))
    assert [job.id for job in engine.find(Filter(tag=tag)).jobs] == [id]


def test_pages_are_stable_while_jobs_are_added_and_end(engine: SqliteEngine) -> None:
    """Every job that was there at the first page is seen once, whatever comes and goes meanwhile."""
    before = {add_one(engine, f"m{number:04}") for number in range(300)}
    stop = threading.Event()

    def disturb() -> None:
        beat, number, changes = 0, 0, ()
        process = enrol(engine, "p2")
        while not stop.is_set():
            add_one(engine, f"a{number:06}")
            add_one(engine, f"z{number:06}")
            number, beat = number + 1, beat + 1
            claims = engine.exchange(process, beat, changes, want(limit=3)).claims
            changes = tuple(change(claim) for claim in claims)

    thread = threading.Thread(target=disturb)
    thread.start()
    seen: list[str] = []
    next: JobId | None = JobId("n")
    while next is not None and next > "m":
        page = engine.find(Filter(limit=7, before=next))
        seen += [job.id for job in page.jobs]
        next = page.next
    stop.set()
    thread.join()
    assert [id for id in seen if id in before] == sorted(before, reverse=True)
    assert len(list(all_jobs(engine))) >= 300
