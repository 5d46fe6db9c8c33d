"""`get`, `find`, `counts`, `describe`, `wait`, and what a second handle sees."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from msgspec.structs import replace

from penstock.engine import AddRequest, Bury, Cancel, Engine, Filter, Kick, Subject, WorkerInfo
from penstock.model.errors import TextInvalid
from penstock.model.job import Details, Fence, JobId, ProcessId
from penstock.model.outcome import Ending
from penstock.model.retry import Policy
from penstock.model.states import State
from penstock.testing.conformance.trial import P1, Conformance, EngineFactory, Trial, new_job, want

PROMPT_S = 5.0
LONG_S = 10.0

UNFIT_TEXTS: dict[str, Callable[[Engine, str], object]] = {
    "new id": lambda engine, text: engine.add([AddRequest((new_job(text),))]),
    "new task": lambda engine, text: engine.add([AddRequest((replace(new_job(), task=text),))]),
    "parent": lambda engine, text: engine.add([AddRequest((new_job(),), (JobId(text), Fence(1, 2)))]),
    "worker": lambda engine, text: engine.enrol(WorkerInfo(id=text), [P1]),
    "process": lambda engine, text: engine.enrol(WorkerInfo(id="w"), [ProcessId(text)]),
    "wanted queue": lambda engine, text: engine.exchange(P1, 1, (), want(queues=[[text]])),
    "wanted task": lambda engine, text: engine.exchange(P1, 1, (), want(tasks={text: "thread"})),
    "get": lambda engine, text: engine.get([JobId(text)]),
    "log": lambda engine, text: engine.log(JobId(text)),
    "find ids": lambda engine, text: engine.find(Filter(ids=(JobId(text),))),
    "find queue": lambda engine, text: engine.find(Filter(queue=text)),
    "find task": lambda engine, text: engine.find(Filter(task=text)),
    "find tag": lambda engine, text: engine.find(Filter(tag=text)),
    "find group": lambda engine, text: engine.find(Filter(group=text)),
    "find text": lambda engine, text: engine.find(Filter(text=text)),
    "find before": lambda engine, text: engine.find(Filter(before=JobId(text))),
    "alter": lambda engine, text: engine.alter([JobId(text)], Cancel()),
    "drain": lambda engine, text: engine.drain([text]),
}


class Looking(Conformance):
    def test_jobs_are_given_in_the_order_of_their_ids(self, trial: Trial) -> None:
        first, second = trial.add(), trial.add()
        found = trial.engine.get([second, JobId("ghost"), first, second])
        assert [job.id if job else None for job in found] == [second, None, first, second]
        assert trial.engine.get([]) == []

    @pytest.mark.parametrize("ask", UNFIT_TEXTS.values(), ids=UNFIT_TEXTS)
    def test_text_that_is_not_unicode_is_refused(self, trial: Trial, ask: Callable[[Engine, str], object]) -> None:
        with pytest.raises(TextInvalid, match=r"'a\\udc80' is no (id|name|tag|text)") as refused:
            ask(trial.engine, "a\udc80")
        assert refused.value.value == "a\udc80"

    def test_counts_stand_by_queue_and_task_without_zeros(self, trial: Trial) -> None:
        trial.add_all(new_job(queue="b"), new_job(queue="a", task="u"), new_job(queue="a"), new_job(queue="b"))
        trial.end(trial.claim_one())
        rows = [(row.queue, row.task, dict(row.states)) for row in trial.engine.counts()]
        assert rows == [
            ("a", "t", {State.READY: 1}),
            ("a", "u", {State.READY: 1}),
            ("b", "t", {State.READY: 1, State.SUCCEEDED: 1}),
        ]

    def test_engine_says_what_it_is(self, trial: Trial) -> None:
        info = trial.engine.describe()
        assert info.kind
        assert info.url.startswith(info.kind)
        assert info.durability in ("D0", "D1", "D2", "D3")
        assert (info.epoch, info.late_results) == (trial.engine.describe().epoch, 0)


class Finding(Conformance):
    def test_newest_id_comes_first_and_pages_join(self, trial: Trial) -> None:
        ids = [trial.add() for _ in range(7)]
        seen: list[JobId] = []
        which = Filter(limit=3)
        for size in (3, 3, 1):
            page = trial.engine.find(which)
            assert len(page.jobs) == size
            seen += [job.id for job in page.jobs]
            which = Filter(limit=3, before=page.next)
        assert seen == sorted(ids, reverse=True)
        assert page.next is None

    def test_full_last_page_has_no_next(self, trial: Trial) -> None:
        trial.add_all(new_job(), new_job())
        assert trial.engine.find(Filter(limit=2)).next is None

    def test_pages_join_hot_and_ended_jobs(self, trial: Trial) -> None:
        for number in range(6):
            claim = trial.run()
            if number % 2:
                trial.end(claim)
        first = trial.engine.find(Filter(limit=4))
        second = trial.engine.find(Filter(limit=4, before=first.next))
        ids = [job.id for job in (*first.jobs, *second.jobs)]
        assert ids == sorted(ids, reverse=True)
        assert len(set(ids)) == 6

    @pytest.mark.parametrize(
        ("which", "found"),
        [
            (Filter(), "edcba"),
            (Filter(ids=(JobId("b"), JobId("ghost"), JobId("d"))), "db"),
            (Filter(ids=()), ""),
            (Filter(queue="mail"), "cb"),
            (Filter(task="u"), "dc"),
            (Filter(tag="red"), "ca"),
            (Filter(states=frozenset({State.SCHEDULED, State.SUCCEEDED})), "eb"),
            (Filter(states=frozenset()), ""),
            (Filter(states=frozenset({State.READY}), task="t"), "a"),
            (Filter(before=JobId("c")), "ba"),
            (Filter(text="ORDER"), "ba"),
            (Filter(text="Größe"), "c"),
            (Filter(text="%"), "d"),
            (Filter(text="_"), ""),
            (Filter(queue="mail", tag="red"), "c"),
        ],
    )
    def test_filters_add_up(self, trial: Trial, which: Filter, found: str) -> None:
        trial.add_all(
            new_job("a", args='["order-1"]', details=Details(tags=("red", "blue"))),
            new_job("b", queue="mail", args='["Order-2"]', priority=9),
            new_job("c", queue="mail", task="u", args='["Größe"]', details=Details(tags=("red",))),
            new_job("d", task="u", args='["100%"]', details=Details(tags=("reddish",))),
            new_job("e", delay_ms=1000),
        )
        trial.end(trial.claim_one())
        assert "".join(job.id for job in trial.engine.find(which).jobs) == found

    def test_text_is_found_in_the_last_error(self, trial: Trial) -> None:
        claim = trial.run()
        trial.end(claim, Ending.FAILED)
        assert [job.id for job in trial.engine.find(Filter(text="such ORDER")).jobs] == [claim.id]
        assert [job.id for job in trial.engine.find(Filter(text="valueerror")).jobs] == [claim.id]

    def test_text_of_an_earlier_error_or_one_that_was_forgiven_is_not_found(self, trial: Trial) -> None:
        claim = trial.run(policy=Policy(max_attempts=1))
        trial.end(claim, Ending.FAILED)
        trial.alter(claim.id, Kick())
        assert trial.engine.find(Filter(text="such order")).jobs == ()
        trial.alter(claim.id, Bury("not wanted"))
        assert trial.engine.find(Filter(text="such order")).jobs == ()
        assert [job.id for job in trial.engine.find(Filter(text="not wanted")).jobs] == [claim.id]

    @pytest.mark.parametrize("limit", [0, -1, 1001])
    def test_page_size_out_of_bounds_is_refused(self, trial: Trial, limit: int) -> None:
        with pytest.raises(ValueError, match="1,000"):
            trial.engine.find(Filter(limit=limit))


class Waiting(Conformance):
    """A hint may come too early, so only its coming is tested, and that it does not stay away for long."""

    def test_what_happened_since_the_mark_is_not_waited_for(self, trial: Trial) -> None:
        mark = trial.exchange().mark
        trial.add(queue="mail")
        assert waited(trial, Subject(queues=("mail",)), mark) < PROMPT_S
        assert waited(trial, Subject(queues=()), mark) < PROMPT_S

    def test_ended_job_is_not_waited_for(self, trial: Trial) -> None:
        claim = trial.run()
        trial.end(claim)
        assert waited(trial, Subject(jobs=(claim.id,)), trial.exchange().mark) < PROMPT_S

    def test_nothing_new_is_waited_for_until_the_timeout(self, trial: Trial) -> None:
        id = trial.add()
        mark = trial.exchange().mark
        began = time.monotonic()
        trial.engine.wait(Subject(queues=(), jobs=(id,), process=P1, due=True), mark, 0.05)
        assert time.monotonic() - began < PROMPT_S

    def test_new_job_ends_a_wait(self, trial: Trial) -> None:
        mark = trial.exchange().mark
        with waiting_for(trial, Subject(queues=("mail",)), mark) as waiting:
            trial.add(queue="mail")
            assert waiting.is_over()

    def test_end_of_a_job_ends_a_wait(self, trial: Trial) -> None:
        claim = trial.run()
        mark = trial.exchange().mark
        with waiting_for(trial, Subject(jobs=(claim.id,)), mark) as waiting:
            trial.end(claim)
            assert waiting.is_over()

    def test_cancel_ends_the_wait_of_its_process(self, trial: Trial) -> None:
        claim = trial.run()
        mark = trial.exchange().mark
        with waiting_for(trial, Subject(process=P1), mark) as waiting:
            trial.alter(claim.id, Cancel())
            assert waiting.is_over()

    def test_drain_ends_the_wait_of_a_process(self, trial: Trial) -> None:
        mark = trial.exchange().mark
        with waiting_for(trial, Subject(process=P1), mark) as waiting:
            trial.engine.drain(["w1"])
            assert waiting.is_over()

    def test_scheduled_job_ends_the_wait_of_a_tender(self, trial: Trial) -> None:
        mark = trial.exchange().mark
        with waiting_for(trial, Subject(due=True), mark) as waiting:
            # Only schedulings during the wait end it, so one must come after the thread has begun to wait.
            assert eventually(lambda: bool(trial.add(delay_ms=1000)) and waiting.is_over(within_s=0.02))


class Handles(Conformance):
    def test_second_handle_sees_and_changes_the_same_store(self, trial: Trial, engine_factory: EngineFactory) -> None:
        other = engine_factory.make(trial.clock)
        claim = trial.run()
        assert other.get([claim.id]) == trial.engine.get([claim.id])
        other.alter([claim.id], Cancel())
        assert trial.exchange().cancels == (claim.fence,)
        assert other.describe().epoch == trial.engine.describe().epoch

    def test_closed_engine_opens_again_by_itself(self, trial: Trial) -> None:
        id = trial.add()
        trial.engine.close()
        assert trial.state(id) is State.READY
        trial.engine.close()
        trial.engine.close()
        assert trial.claim_one().id == id

    def test_wait_of_one_handle_ends_by_work_of_another(self, trial: Trial, engine_factory: EngineFactory) -> None:
        other = engine_factory.make(trial.clock)
        mark = trial.exchange().mark
        with waiting_for(trial, Subject(queues=()), mark) as waiting:
            other.add([AddRequest((new_job(),))])
            assert waiting.is_over()


class Waiter:
    """A thread inside `wait`."""

    def __init__(self, trial: Trial, subject: Subject, mark: int) -> None:
        self.thread = threading.Thread(target=trial.engine.wait, args=(subject, mark, LONG_S), daemon=True)
        self.thread.start()

    def is_over(self, within_s: float = PROMPT_S) -> bool:
        """Say whether the wait ends within so many seconds, long before its own timeout."""
        self.thread.join(within_s)
        return not self.thread.is_alive()


@contextmanager
def waiting_for(trial: Trial, subject: Subject, mark: int) -> Iterator[Waiter]:
    """Hold a thread that waits, and see it end."""
    waiter = Waiter(trial, subject, mark)
    yield waiter
    waiter.thread.join(2 * LONG_S)


def waited(trial: Trial, subject: Subject, mark: int) -> float:
    """Give the seconds that a wait took."""
    began = time.monotonic()
    trial.engine.wait(subject, mark, LONG_S)
    return time.monotonic() - began


def eventually(happens: Callable[[], bool]) -> bool:
    """Try until it happens, for as long as a prompt answer may take."""
    deadline = time.monotonic() + PROMPT_S
    while time.monotonic() < deadline:
        if happens():
            return True
    return False
