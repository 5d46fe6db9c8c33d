"""Circuit breakers: shared by all processes, opened by failures in a row, tried by one job, closed by its success."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.client import Penstock
from penstock.dependencies import BREAKERS, read_breakers
from penstock.engines.memory.engine import MemoryEngine
from penstock.model.breaker import Breaker, Terms, opened
from penstock.model.errors import EngineDown, TaskInvalid
from penstock.model.job import Claim, ErrorInfo
from penstock.model.outcome import Ending, Outcome
from penstock.model.retry import Policy
from penstock.model.states import State
from penstock.worker import breakers as module
from penstock.worker.breakers import Breakers
from tests.conftest import lasting_server
from tests.polling import await_true
from tests.worker import frail
from tests.worker.harness import claim, working
from tests.worker.test_pump import Through

TASKS = {"thread.give": "thread", "thread.fail": "thread"}
TERMS = {"smtp": Terms(after=3, pause_ms=10_000, longest_ms=20_000)}
REFUSED = Outcome(
    ending=Ending.FAILED,
    error=ErrorInfo(kind="failed", type="ConnectionError", message="refused", failure="dependency:smtp"),
)
SUCCESS = Outcome(ending=Ending.SUCCEEDED, result=b"1")
FAILURE = Outcome(ending=Ending.FAILED, error=ErrorInfo(kind="failed", type="KeyError", message="7"))
NOW = 1_000_000


class Place:
    """Two processes on one store, which look at it whenever they are asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "LOOK_EVERY_S", 0.0)
        self.engine = MemoryEngine()
        self.one, self.other = self.process(), self.process(needs={"thread.fail": ("smtp",)})

    def process(self, engine: Any = None, **fields: Any) -> Breakers:
        return Breakers(engine or self.engine, **{"needs": {}, "terms": TERMS} | fields)

    def suffer(self, times: int, process: Breakers | None = None) -> list[Outcome]:
        return [(process or self.one).judge(give(), REFUSED, NOW) for _ in range(times)]

    @property
    def smtp(self) -> Breaker:
        return read_breakers(self.engine)["smtp"]

    @property
    def is_open(self) -> bool:
        return "smtp" in read_breakers(self.engine)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(monkeypatch)


def give() -> Claim:
    return claim("thread.give", 1)


def test_failures_in_a_row_open_the_breaker_for_all(place: Place) -> None:
    assert place.suffer(2) == [REFUSED, REFUSED]
    assert not place.is_open
    place.suffer(1)
    assert (place.smtp.tasks, place.smtp.reason) == (("thread.give",), "ConnectionError: refused")
    assert place.one.passable(TASKS) == {"thread.fail": "thread"}
    place.other.look()
    assert place.other.passable(TASKS) == {}, "its own task, which is known to need it, waits too"
    place.one.look()
    assert place.one.passable(TASKS) == {}, "everywhere"


def test_a_job_that_succeeds_in_between_begins_the_row_anew(place: Place) -> None:
    for _ in range(3):
        place.suffer(2)
        place.one.judge(give(), SUCCESS, NOW)
    assert not place.is_open


def test_a_failure_of_another_kind_says_nothing_of_the_dependency(place: Place) -> None:
    place.suffer(2)
    assert place.one.judge(give(), FAILURE, NOW) == FAILURE
    place.suffer(1)
    assert place.is_open


def test_what_fails_while_the_breaker_is_open_costs_the_job_nothing(place: Place) -> None:
    place.suffer(3)
    [outcome] = place.suffer(1)
    assert outcome.ending is Ending.RELEASED
    assert outcome.error is not None
    assert (outcome.error.kind, outcome.error.message) == ("released", "refused")


def test_one_job_tries_after_the_pause_and_in_one_process_alone(place: Place) -> None:
    place.suffer(3)
    place.other.look()
    place.one.look()
    late = NOW + 10_000
    assert place.one.on_trial(TASKS, NOW) == place.other.on_trial(TASKS, NOW) == {}
    assert not place.one.lets_through(give(), NOW), "too early"
    assert place.one.on_trial(TASKS, late) == place.other.on_trial(TASKS, late) == TASKS
    first, second = give(), give()
    assert place.one.lets_through(first, late)
    assert not place.other.lets_through(second, late)
    assert place.smtp.probe == first.id
    assert place.other.on_trial(TASKS, late) == {}


def trying(place: Place) -> Claim:
    """Let one job try."""
    place.suffer(3)
    job = give()
    assert place.one.lets_through(job, NOW + 10_000)
    return job


@pytest.mark.parametrize("outcome", [SUCCESS, FAILURE], ids=["succeeds", "fails of something else"])
def test_when_the_job_that_tries_gets_through_all_go_on(place: Place, outcome: Outcome) -> None:
    assert place.one.judge(trying(place), outcome, NOW + 11_000) == outcome
    assert not place.is_open
    place.other.look()
    assert place.one.passable(TASKS) == place.other.passable(TASKS) == TASKS
    place.suffer(2, place.one)
    place.suffer(2, place.other)
    assert not place.is_open, "the row begins anew"


def test_when_the_job_that_tries_fails_again_the_others_wait_longer(place: Place) -> None:
    outcome = place.one.judge(trying(place), REFUSED, NOW + 11_000)
    assert outcome.ending is Ending.RELEASED
    assert (place.smtp.pause_ms, place.smtp.probes, place.smtp.probe) == (20_000, 1, "")
    assert not place.smtp.may_be_tried(NOW + 11_000 + 14_999)


def test_a_job_that_tries_and_runs_out_of_time_is_charged_and_proves_nothing_good(place: Place) -> None:
    slow = Outcome(ending=Ending.TIMED_OUT, error=ErrorInfo(kind="timed out", type="JobTimeout", message="60 s"))
    assert place.one.judge(trying(place), slow, NOW + 11_000) == slow
    assert place.smtp.probes == 1


def test_a_job_that_tries_and_is_given_back_lets_another_try_at_once(place: Place) -> None:
    place.one.judge(trying(place), Outcome(ending=Ending.RELEASED), NOW + 11_000)
    assert (place.smtp.probe, place.smtp.probes) == ("", 0)
    assert place.smtp.may_be_tried(NOW + 11_000)


def test_a_job_that_waits_for_two_dependencies_tries_when_both_may_be_tried(place: Place) -> None:
    process = place.process(needs={"thread.give": ("smtp", "crm")})
    crm = failed_of("dependency:crm")
    for _ in range(3):
        process.judge(give(), REFUSED, NOW)
    for _ in range(5):
        process.judge(give(), crm, NOW + 60_000)
    assert process.on_trial(TASKS, NOW + 60_000) == {}
    assert process.on_trial(TASKS, NOW + 70_000) == {"thread.give": "thread"}
    job = give()
    assert process.lets_through(job, NOW + 70_000)
    process.judge(job, SUCCESS, NOW + 70_000)
    assert read_breakers(place.engine) == {}


def failed_of(failure: str) -> Outcome:
    assert REFUSED.error is not None
    return msgspec.structs.replace(REFUSED, error=msgspec.structs.replace(REFUSED.error, failure=failure))


def test_a_job_that_was_to_try_and_never_started_lets_another_try_at_once(place: Place) -> None:
    job = trying(place)
    place.one.gave_back(job, NOW + 10_000)
    assert place.smtp.probe == ""
    other = give()
    assert place.one.lets_through(other, NOW + 10_000)
    place.one.gave_back(job, NOW + 10_000)
    assert place.smtp.probe == other.id, "it has no say any more"


@pytest.mark.parametrize(
    "outcome", [SUCCESS, REFUSED, Outcome(ending=Ending.RELEASED)], ids=lambda one: str(one.ending)
)
def test_what_a_person_opened_meanwhile_no_job_that_tries_closes(place: Place, outcome: Outcome) -> None:
    job = trying(place)
    Penstock(engine=place.engine).dependency("smtp").open("maintenance")
    place.one.look()
    place.one.judge(job, outcome, NOW + 11_000)
    assert (place.smtp.reason, place.smtp.probe_ms) == ("maintenance", None)


def test_a_job_that_may_start_once_is_buried_with_its_own_error(place: Place) -> None:
    place.suffer(3)
    job = claim("thread.give", 1, policy=Policy(max_attempts=1, max_crashes=0))
    assert place.one.judge(job, REFUSED, NOW) == REFUSED


def test_a_job_that_is_to_be_buried_whatever_it_failed_of_is_not_given_back(place: Place) -> None:
    place.suffer(3)
    done = msgspec.structs.replace(REFUSED, verdict="bury")
    assert place.one.judge(give(), done, NOW) == done


def test_of_two_dependencies_both_are_tried_or_neither(place: Place) -> None:
    class Contested(Through):
        """Another worker lets a job try `smtp` just before this one would."""

        def share(self, kind: str, key: str, value: bytes | None, was: bytes | None) -> bool:
            return key != "smtp" and bool(self.engine.share(kind, key, value, was))

    for name in ("crm", "smtp"):
        data = msgspec.json.encode(opened(Terms(), ("thread.give",), "refused", 0, 1.0))
        place.engine.share(BREAKERS, name, data, None)
    process = place.process(Contested(place.engine))
    process.look()
    assert not process.lets_through(give(), NOW)
    assert read_breakers(place.engine)["crm"].probe == ""


def test_a_store_that_cannot_be_reached_leaves_what_was_known_and_is_left_alone(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    class Down(Through):
        asked = 0

        def share(self, *_: object) -> bool:
            self.asked += 1
            raise EngineDown("gone")

        shared = share

    down = Down(place.engine)
    process = place.process(engine=down)
    assert place.suffer(7, process) == [REFUSED] * 7
    process.look()
    assert (down.asked, process.passable(TASKS)) == (1, TASKS)
    assert "taken as they were last seen" in caplog.text


def test_a_breaker_that_cannot_be_read_keeps_nobody_waiting(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.engine.share(BREAKERS, "smtp", b"\xff", None)
    place.one.look()
    assert place.one.passable(TASKS) == TASKS
    assert "cannot be read" in caplog.text
    place.suffer(3)
    assert place.is_open, "and is replaced"


# -- by hand ----------------------------------------------------------------------------------------------------------


def test_a_person_opens_and_closes_a_breaker(place: Place) -> None:
    app = Penstock(engine=place.engine)
    smtp = app.dependency("smtp")
    assert smtp.breaker() is None
    smtp.open("maintenance")
    place.other.look()
    assert place.other.passable(TASKS) == {"thread.give": "thread"}
    assert place.other.on_trial(TASKS, 10**15) == {}, "nobody tries"
    assert app.breakers()["smtp"].tasks == ("thread.fail",)
    assert smtp.close()
    assert not smtp.close()
    place.other.look()
    assert place.other.passable(TASKS) == TASKS


@pytest.mark.parametrize("name", ["", "x" * 101, "a\0b", "dependency:smtp", 7])
def test_what_is_no_name_of_a_dependency_is_refused(name: Any) -> None:
    app = Penstock("memory://")
    with pytest.raises(TaskInvalid, match="is no name of a dependency"):
        app.dependency(name)
    with pytest.raises(TaskInvalid, match="is no name"):
        app.task(depends_on=[name])


@pytest.mark.parametrize(
    ("terms", "told"),
    [({"after": 0}, "after=0"), ({"pause": 0}, "cannot pause for 0"), ({"pause": "10m"}, "longest_pause")],
    ids=repr,
)
def test_terms_that_cannot_be_kept_are_refused(terms: dict[str, Any], told: str) -> None:
    with pytest.raises(TaskInvalid, match=told):
        Penstock("memory://").dependency("smtp", **terms)


def test_what_is_said_of_a_dependency_later_adds_to_what_was_said_before() -> None:
    app = Penstock("memory://")
    app.dependency("smtp", after=2, pause="1s")
    app.dependency("smtp")
    app.dependency("smtp", longest_pause="2s")
    assert app.breaker_terms == {"smtp": Terms(after=2, pause_ms=1000, longest_ms=2000)}


# -- whole workers ----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "redis", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/store.db"
        return
    with lasting_server(request.param) as server:
        yield server.url


@pytest.mark.slow
def test_jobs_wait_free_of_charge_until_their_dependency_works_again(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(frail.PLACE, str(tmp_path))
    (tmp_path / "down").touch()
    frail.app.redirect(url)
    with frail.app as app, working(url, app="tests.worker.frail:app", processes=2) as worker:
        jobs = [frail.send.enqueue(number) for number in range(40)]
        breaker = await_true(lambda: app.breakers().get("smtp"), "the breaker opens")
        assert breaker.tasks == ("tests.worker.frail.send",)
        await_true(lambda: (found := app.breakers().get("smtp")) and found.probes >= 2, "jobs try in vain")
        assert frail.write.enqueue(7).result(timeout=20) == 7, "what does not need it goes on"
        (tmp_path / "down").unlink()
        began = time.monotonic()
        assert [job.result(timeout=30) for job in jobs] == list(range(40))
        print(f"all done {time.monotonic() - began:.1f} s after the dependency was mended")
        assert worker.has_said("smtp is out of order after 3 failures in a row")
        assert worker.has_said("smtp works again")
        assert app.breakers() == {}
        ended = [job.info() for job in jobs]
    assert {job.state for job in ended} == {State.SUCCEEDED}
    assert sum(job.counters.failures for job in ended) <= 3 * 2, "three in a row in each process, before it opened"
    assert max(job.counters.failures for job in ended) <= 2
