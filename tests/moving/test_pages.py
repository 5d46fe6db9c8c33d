"""Jobs are given oldest first, each once, also while others come and go."""

from penstock.engine import AddRequest, Delete, Filter
from penstock.moving.pages import oldest_first
from penstock.testing import memory_engine
from tests.moving.jobs import job_id, new_job


def test_pages_go_from_the_oldest_job_to_the_newest() -> None:
    engine = memory_engine()
    for start in range(0, 2300, 100):
        engine.add([AddRequest(tuple(new_job(number) for number in range(start, start + 100)))])
    pages = [[job.id for job in page] for page in oldest_first(engine, Filter())]
    assert [len(page) for page in pages] == [300, 1000, 1000]
    assert [id for page in pages for id in page] == [job_id(number) for number in range(2300)]


def test_no_job_gives_no_page() -> None:
    assert list(oldest_first(memory_engine(), Filter())) == []


def test_jobs_that_are_deleted_or_added_meanwhile_do_not_shift_the_others() -> None:
    engine = memory_engine()
    for start in range(0, 4000, 1000):
        engine.add([AddRequest(tuple(new_job(number) for number in range(start, start + 1000, 2)))])
    seen = []
    for turn, page in enumerate(oldest_first(engine, Filter())):
        seen += [job.id for job in page]
        engine.alter([job.id for job in page], Delete())
        if turn == 0:
            more = [new_job(number) for number in (*range(1001, 3000, 2), *range(5000, 5600))]
            engine.add([AddRequest(tuple(more[:1000])), AddRequest(tuple(more[1000:]))])
    assert seen == sorted(set(seen))
    assert {job_id(number) for number in range(0, 4000, 2)} <= set(seen)
