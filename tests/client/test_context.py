import threading
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest

from penstock.context import JobContext, NotInJob, ProgressInvalid, current_job, entered
from penstock.model.errors import Cancel
from penstock.model.job import Claim, Counters, Details, Fence, JobId, Progress
from penstock.model.retry import DEFAULT_POLICY


class Notebook:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.notes: list[tuple[Progress | None, str]] = []
        self.cancelled = False

    def note(self, progress: Progress | None, log: str) -> None:
        self.notes.append((progress, log))

    def is_cancelled(self) -> bool:
        return self.cancelled


def a_claim() -> Claim:
    return Claim(
        id=JobId("7"),
        fence=Fence(1, 2),
        task="shop.send",
        queue="mail",
        envelope=b"",
        crc=None,
        policy=DEFAULT_POLICY,
        counters=Counters(attempts=2),
        details=Details(tags=("vip",)),
        enqueued_ms=1_000,
    )


def test_outside_a_job_there_is_none() -> None:
    with pytest.raises(NotInJob, match="No job is running here"):
        current_job()
    with pytest.raises(LookupError):
        current_job()
    assert current_job(default=None) is None


def test_inside_a_job_it_sees_itself() -> None:
    with entered(JobContext(a_claim(), Notebook(), headers={"trace": "x"}, deadline=5.0)):
        me = current_job()
        assert (me.id, me.task, me.queue, me.attempt, me.tags) == ("7", "shop.send", "mail", 3, ("vip",))
        assert me.enqueued_at == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
        assert (dict(me.headers), me.deadline) == ({"trace": "x"}, 5.0)
    assert current_job(default=None) is None


def test_the_context_is_left_also_when_the_job_fails() -> None:
    with pytest.raises(ValueError, match="broken"), entered(JobContext(a_claim(), Notebook())):
        raise ValueError("broken")
    assert current_job(default=None) is None


def test_another_thread_is_in_no_job() -> None:
    seen: list[object] = []
    with entered(JobContext(a_claim(), Notebook())):
        thread = threading.Thread(target=lambda: seen.append(current_job(default=None)))
        thread.start()
        thread.join()
    assert seen == [None]


def test_progress_and_log_go_to_the_sink() -> None:
    notebook = Notebook()
    me = JobContext(a_claim(), notebook)
    me.progress(1, 4, "a quarter")
    me.log("hello")
    assert notebook.notes == [(Progress(1, 4, "a quarter"), ""), (None, "hello\n")]


def test_a_cancelled_job_stops_where_it_asks() -> None:
    notebook = Notebook()
    me = JobContext(a_claim(), notebook)
    me.check_cancelled()
    notebook.cancelled = True
    with pytest.raises(Cancel):
        me.check_cancelled()


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), 10**400, 10**5000, "many", None, object()],
    ids=["nan", "infinity", "large", "larger", "text", "none", "object"],
)
def test_progress_that_is_no_finite_number_is_refused(value: object) -> None:
    notebook = Notebook()
    me = JobContext(a_claim(), notebook)
    with pytest.raises(ProgressInvalid, match=r"^Task 'shop.send' reports progress with done=.* no finite number"):
        me.progress(value)  # type: ignore[arg-type]
    if value is not None:
        with pytest.raises(ProgressInvalid, match="progress with total="):
            me.progress(1, value)  # type: ignore[arg-type]
    assert notebook.notes == []


@pytest.mark.parametrize(
    ("value", "kept"), [(3, 3), (True, 1.0), (Fraction(1, 2), 0.5), (2**70, float(2**70)), (Decimal("0.1"), 0.1)]
)
def test_progress_in_other_numbers_is_kept_as_json_has_it(value: float, kept: float) -> None:
    notebook = Notebook()
    JobContext(a_claim(), notebook).progress(value)
    noted = notebook.notes[0][0]
    assert noted is not None
    assert (noted.done, type(noted.done)) == (kept, type(kept))


def test_words_of_a_job_are_made_valid_text() -> None:
    notebook = Notebook()
    me = JobContext(a_claim(), notebook)
    me.progress(1, note="a \ud800 b" + 2000 * "c")
    me.log("a \ud800 b")
    assert notebook.notes == [(Progress(1, None, r"a \ud800 b" + 995 * "c"), ""), (None, "a \\ud800 b\n")]
