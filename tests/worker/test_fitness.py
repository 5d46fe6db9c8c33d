"""The health of a process: what its checks say, when they are asked, and what becomes of a worker that is unfit."""

import errno
import os
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.client import Penstock
from penstock.fitness import Check
from penstock.model.errors import TaskInvalid
from penstock.model.failures import NO_RULES, Classes, classify, is_failure_class
from penstock.model.job import Avoid, Details
from penstock.model.outcome import Ending, Outcome
from penstock.model.settle import AVOIDED_KEPT, settle
from penstock.model.states import Cause, State
from penstock.testing import run_jobs
from penstock.worker.execution import MOST_UNFIT, Attempt, explain, found_unfit, passed_on
from penstock.worker.fitness import Fitness
from tests.polling import await_true
from tests.worker import frail
from tests.worker.harness import claim, working

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# -- classes of failure -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (FULL, "host"),
        (OSError(errno.EROFS, "read-only"), "host"),
        (OSError(errno.EIO, "I/O error"), "host"),
        (OSError(errno.EMFILE, "too many open files"), "host"),
        (MemoryError(), "host"),
        (OSError(errno.ENETUNREACH, "network is unreachable"), "network"),
        (FileNotFoundError(errno.ENOENT, "no such file"), "job"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "job"),
        (ValueError("7"), "job"),
        (SystemExit(0), "job"),
    ],
    ids=repr,
)
def test_an_exception_tells_by_itself_whether_the_host_is_at_fault(error: BaseException, failure: str) -> None:
    assert classify(error) == NO_RULES.of(error) == failure


def test_a_rule_holds_for_subclasses_unless_they_have_their_own() -> None:
    classes = Classes()
    classes.rules = {OSError: "dependency:share", ConnectionError: "network"}
    assert [classes.of(error) for error in (FULL, ConnectionResetError(), KeyError())] == [
        "dependency:share",
        "network",
        "job",
    ]


def test_a_function_decides_case_by_case_and_may_leave_it_to_others() -> None:
    classes = Classes()
    classes.rules[OSError] = lambda error: "job" if "quota" in str(error) else None
    assert [classes.of(OSError(errno.ENOSPC, text)) for text in ("quota", "full")] == ["job", "host"]


def test_a_job_in_a_process_of_its_own_lacks_the_memory_it_asked_for() -> None:
    classes = Classes()
    assert (classes.of(MemoryError()), classes.alone().of(MemoryError())) == ("host", "job")
    classes.rules[MemoryError] = "host"
    assert classes.alone().of(MemoryError()) == "host"


@pytest.mark.parametrize("name", ["job", "host", "dependency:smtp"])
def test_classes_of_failure_have_names(name: str) -> None:
    assert is_failure_class(name)


@pytest.mark.parametrize(("kind", "failure"), [(OSError, "disk"), (OSError, "dependency:"), (7, "host"), (int, "host")])
def test_what_is_no_class_is_refused_with_the_names_there_are(kind: Any, failure: str) -> None:
    with pytest.raises(TaskInvalid, match="class"):
        Penstock("memory://").classify(kind, failure)


# -- what a host's failure means for the job --------------------------------------------------------------------------


def outcome_of(error: BaseException, **fields: Any) -> Outcome:
    return explain(Attempt(claim("thread.give", 1, **fields), None, NO_RULES), error)  # type: ignore[arg-type]


def test_a_job_that_meets_a_full_disk_goes_back_free_and_calls_the_worker_unfit() -> None:
    outcome = outcome_of(FULL)
    assert (outcome.ending, outcome.verdict) == (Ending.RELEASED, None)
    assert outcome.error is not None
    assert (outcome.error.failure_class, found_unfit(outcome)) == ("host", str(FULL))


def test_a_job_that_has_called_many_workers_unfit_is_at_fault_itself() -> None:
    avoid = tuple(Avoid(f"w{number}", "boot", 0, 0) for number in range(MOST_UNFIT))
    outcome = outcome_of(FULL, details=Details(avoid=avoid))
    assert (outcome.ending, found_unfit(outcome)) == (Ending.FAILED, None)
    assert outcome.error is not None
    assert outcome.error.failure_class == "host"


def test_a_rule_that_fails_is_told_and_the_exception_is_looked_at_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    classes = Classes()
    classes.rules[ValueError] = lambda _: {}["no"]
    attempt = Attempt(claim("thread.give", 1), None, classes)  # type: ignore[arg-type]
    assert explain(attempt, ValueError("7")).ending is Ending.FAILED
    assert "whose fault builtins.ValueError is has failed" in caplog.text


def test_a_job_remembers_the_last_workers_that_were_unfit_for_it() -> None:
    held = claim("thread.give", 1)
    for number in range(AVOIDED_KEPT + 2):
        avoid = Avoid(f"w{number}", "boot", 9, 5)
        change = settle(held, Outcome(ending=Ending.RELEASED, avoid=avoid), 0.5)
        assert (change.cause, change.next, change.counters.interruptions) == (Cause.RELEASE, State.READY, 1)
        assert change.move is not None
        held = claim("thread.give", 1, details=change.move.details)
    assert [avoid.worker for avoid in held.details.avoid] == [f"w{n}" for n in range(2, AVOIDED_KEPT + 2)]


def test_a_job_passes_the_worker_and_for_a_shorter_time_its_machine() -> None:
    avoid = Avoid("w1", "boot", until_ms=100, boot_until_ms=50)
    assert [avoid.shuns("w1", "boot", now) for now in (0, 99, 100)] == [True, True, False]
    assert [avoid.shuns("w2", "boot", now) for now in (0, 49, 50)] == [True, True, False]
    assert not avoid.shuns("w2", "other", 0)


def test_a_job_that_passes_by_waits_a_moment_for_another_worker() -> None:
    change = settle(claim("thread.give", 1), passed_on(0.5), 0.0)
    assert (change.cause, change.next, change.after_ms) == (Cause.RELEASE, State.SCHEDULED, 200)
    assert change.counters.attempts == 0


# -- checks -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def told() -> Iterator["queue.SimpleQueue[str | None]"]:
    yield queue.SimpleQueue()
    for made in _MADE:
        made.end()
    _MADE.clear()


_MADE: list[Fitness] = []


def fitness(told: "queue.SimpleQueue[str | None]", period_s: float = 0.01, **checks: Callable[[], Any]) -> Fitness:
    found = {name: Check(function, 0.05) for name, function in checks.items()}
    _MADE.append(Fitness(found, period_s, told.put))
    return _MADE[-1]


def test_a_process_without_checks_is_fit(told: "queue.SimpleQueue[str | None]") -> None:
    found = fitness(told)
    found.begin()
    assert found.is_fit
    assert told.empty()


def test_a_process_is_fit_once_all_its_checks_have_passed(told: "queue.SimpleQueue[str | None]") -> None:
    found = fitness(told, one=lambda: None, two=lambda: True)
    assert not found.is_fit
    found.begin()
    assert told.get(timeout=10) is None
    assert found.is_fit


@pytest.mark.parametrize(
    ("check", "reason"),
    [
        (lambda: False, "health check 'disk' failed"),
        (lambda: "only 3 MB left", "health check 'disk' failed: only 3 MB left"),
        (lambda: {}["gone"], "health check 'disk' failed: KeyError: 'gone'"),
    ],
)
def test_a_check_fails_that_says_so_or_raises(
    told: "queue.SimpleQueue[str | None]", check: Callable[[], Any], reason: str
) -> None:
    found = fitness(told, good=lambda: None, disk=check)
    found.begin()
    assert told.get(timeout=10) == reason


def test_only_what_changes_is_told(told: "queue.SimpleQueue[str | None]") -> None:
    answers = iter([None, None, "bad", "worse", None])
    more = threading.Event()

    def check() -> str | None:
        answer = next(answers, more)
        if answer is more:
            more.wait()
        return answer  # type: ignore[return-value]

    fitness(told, disk=check).begin()
    assert [told.get(timeout=10) for _ in range(3)] == [None, "health check 'disk' failed: bad", None]
    more.set()


def test_a_check_that_does_not_answer_fails_until_it_does(told: "queue.SimpleQueue[str | None]") -> None:
    answer = threading.Event()
    found = fitness(told, mount=lambda: answer.wait(30))
    found.begin()

    def looked() -> bool:
        found.look()
        return not told.empty()

    await_true(looked)
    assert told.get() == "health check 'mount' has not answered within 50ms"
    answer.set()
    assert told.get(timeout=10) is None


def test_a_process_that_a_job_called_unfit_rests_although_its_checks_pass(
    told: "queue.SimpleQueue[str | None]",
) -> None:
    asked: queue.SimpleQueue[int] = queue.SimpleQueue()
    found = fitness(told, 0.2, disk=lambda: asked.put(1))
    found.begin()
    assert told.get(timeout=10) is None
    found.call_unfit("the disk is full")
    assert told.get(timeout=10) == "the disk is full"
    for _ in range(2):
        asked.get(timeout=10)
    assert told.get(timeout=10) is None
    assert not asked.empty() or found.is_fit


def test_a_process_without_checks_that_a_job_called_unfit_is_fit_again_after_a_rest(
    told: "queue.SimpleQueue[str | None]",
) -> None:
    found = fitness(told)
    found.call_unfit("no")
    found.call_unfit("no again")
    assert [told.get(timeout=10), told.get(timeout=10)] == ["no", None]


# -- registering ------------------------------------------------------------------------------------------------------


def test_a_check_is_still_a_function_and_has_the_name_it_was_given() -> None:
    app = Penstock("memory://")

    @app.health_check
    def disk() -> bool:
        return True

    @app.health_check(name="mount", timeout="3s")
    def other() -> bool:
        return True

    assert (disk(), other()) == (True, True)
    assert {name: check.timeout_s for name, check in app.health_checks.items()} == {"disk": 10.0, "mount": 3.0}


async def _coroutine() -> None: ...


@pytest.mark.parametrize(
    ("function", "options", "match"),
    [
        (7, {}, "cannot be called"),
        (lambda x: x, {"name": "x"}, "takes arguments"),
        (_coroutine, {}, "coroutine"),
        (lambda: None, {"name": "x", "timeout": 0}, "some time"),
    ],
)
def test_what_cannot_be_a_check_is_refused(function: Any, options: dict[str, Any], match: str) -> None:
    with pytest.raises(TaskInvalid, match=match):
        Penstock("memory://").health_check(**options)(function)


def test_two_checks_of_one_name_are_refused_and_the_same_one_is_not() -> None:
    app = Penstock("memory://")

    def check() -> None: ...

    def other() -> None: ...

    app.health_check(name="disk")(check)
    app.health_check(name="disk")(check)
    with pytest.raises(TaskInvalid, match="'disk'"):
        app.health_check(name="disk")(other)


def test_the_class_of_a_failure_is_kept_with_it() -> None:
    app = Penstock("memory://")
    app.classify(ConnectionError, "dependency:smtp")

    @app.task(name="shop.send", max_attempts=1)
    def send() -> None:
        raise ConnectionResetError("gone")

    job = send.enqueue()
    run_jobs(app)
    error = job.info().error
    assert error is not None
    assert (error.kind, error.failure_class) == ("failed", "dependency:smtp")


# -- whole workers ----------------------------------------------------------------------------------------------------


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store.db"


@pytest.fixture
def app(url: str) -> Iterator[Penstock]:
    frail.app.redirect(url)
    yield frail.app
    frail.app.close()


FRAIL = "tests.worker.frail:app"


@pytest.mark.slow
@pytest.mark.lonely
@pytest.mark.usefixtures("app")
def test_a_worker_whose_check_fails_at_the_start_claims_nothing_and_ends(url: str) -> None:
    frail.beside("unfit").write_text("the mount is gone")
    job = frail.write.enqueue(7)
    with working(url, app=FRAIL) as worker:
        assert worker.wait() == 4
        assert worker.has_said("health check 'no_file_says_unfit' failed: the mount is gone")
    assert (job.state(), job.info().claim_number) == (State.READY, 0)


@pytest.mark.slow
@pytest.mark.lonely
def test_a_worker_that_is_told_to_wait_works_again_when_its_checks_pass(app: Penstock, url: str) -> None:
    with working(url, app=FRAIL, when_unfit="wait", health_period="100ms", processes=2) as worker:
        assert frail.write.enqueue(1).result(timeout=20) == 1
        frail.beside("unfit").write_text("the mount is gone")
        await_true(lambda: any("the mount is gone" in view.info.unfit for view in app.workers()))
        job = frail.write.enqueue(2)
        frail.beside("unfit").unlink()
        assert job.result(timeout=20) == 2
        await_true(lambda: not any(view.info.unfit for view in app.workers()))
        assert worker.has_said("this worker claims no more until its health checks pass")
        assert worker.has_said("fit again")


@pytest.mark.slow
@pytest.mark.lonely
@pytest.mark.usefixtures("app")
def test_a_job_that_meets_a_full_disk_is_done_by_the_next_worker(url: str) -> None:
    frail.beside("full").touch()
    job = frail.write.enqueue(7)
    with working(url, app=FRAIL) as worker:
        assert worker.wait() == 4
        assert worker.has_said("No space left on device")
    found = job.info()
    assert (found.state, found.counters.failures, found.counters.interruptions) == (State.READY, 0, 1)
    [avoid] = found.details.avoid
    assert avoid.boot_until_ms < avoid.until_ms
    frail.beside("full").unlink()
    with working(url, app=FRAIL) as worker:
        await_true(lambda: job.info().claim_number > 2)
        assert job.info().counters.attempts == 1, "the machine is passed by for a minute"
        assert not worker.has_said("unfit")
