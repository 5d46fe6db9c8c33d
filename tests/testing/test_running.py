"""What an application's own tests stand on: its tasks run in the test, over a store whose clock the test turns."""

import errno
import sys
from typing import Any

import pytest

from penstock import Penstock, Retry, Snooze, State, WorkerUnfit, current_job
from penstock.engine import Engine
from penstock.testing import TurnedClock, memory_engine, run_jobs


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture
def app(clock: TurnedClock) -> Penstock:
    return Penstock(engine=memory_engine(clock))


def test_nothing_to_run_is_no_attempt(app: Penstock) -> None:
    app.enqueue("other.task")
    assert run_jobs(app) == 0
    assert app.counts()["default"] == {State.READY: 1}


def test_functions_and_coroutines_run_with_what_a_worker_would_give_them(app: Penstock) -> None:
    @app.task(name="shop.add")
    def add(a: int, *, b: float = 0.5) -> float:
        return a + b

    @app.task(name="shop.wait", runner="loop")
    async def wait(number: int) -> str:
        me = current_job()
        me.progress(1, 2, "half")
        me.log("waits")
        return f"{me.task} {me.attempt} {number}"

    jobs = [add.enqueue(1), wait.enqueue(7)]
    assert run_jobs(app) == 2
    assert [job.result() for job in jobs] == [1.5, "shop.wait 1 7"]
    assert app.engine.log(jobs[1].id) == {1: "waits\n"}


def test_a_failed_job_is_run_again_when_its_time_has_come(app: Penstock, clock: TurnedClock) -> None:
    attempts: list[int] = []

    @app.task(name="shop.send", backoff="1m", max_attempts=3)
    def send() -> int:
        attempts.append(current_job().attempt)
        if len(attempts) < 3:
            raise OSError("no paper")
        return len(attempts)

    job = send.enqueue()
    assert [run_jobs(app), job.state(), run_jobs(app)] == [1, State.SCHEDULED, 0]
    for _ in range(2):
        clock.turn(60_000)
        assert run_jobs(app) == 1
    assert (job.result(), attempts) == (3, [1, 2, 3])


@pytest.mark.parametrize("signal", [Snooze("1h"), Retry(after="1h")], ids=["snooze", "retry"])
def test_a_job_that_puts_itself_off_waits(app: Penstock, clock: TurnedClock, signal: BaseException) -> None:
    signals = [signal]

    @app.task(name="shop.poll")
    def poll() -> None:
        if signals:
            raise signals.pop()

    job = poll.enqueue()
    assert (run_jobs(app), job.state()) == (1, State.SCHEDULED)
    clock.turn(3_600_000)
    assert (run_jobs(app), job.state()) == (1, State.SUCCEEDED)


def test_arguments_that_do_not_fit_and_results_that_cannot_travel_bury_or_fail_the_job(app: Penstock) -> None:
    early = app.enqueue("shop.square", "seven")

    @app.task(name="shop.square", max_attempts=1)
    def square(number: int) -> Any:
        return object() if number else 0

    late = square.enqueue(7)
    assert run_jobs(app) == 2
    assert [job.info().error.type for job in (early, late)] == [  # type: ignore[union-attr]
        "penstock.model.errors.ArgumentsInvalid",
        "penstock.model.errors.PayloadInvalid",
    ]


def test_jobs_that_enqueue_each_other_are_run_up_to_the_limit_and_know_their_parent(app: Penstock) -> None:
    @app.task(name="shop.again")
    def again(number: int) -> None:
        again.enqueue(number + 1)

    first = again.enqueue(1)
    assert run_jobs(app, limit=5) == 5
    children = app.find()
    assert len(children) == 6
    assert {child.details.parent_job for child in children} >= {None, first.id}


@pytest.mark.parametrize("error", [WorkerUnfit("no GPU"), OSError(errno.ENOSPC, "No space left on device")])
def test_a_job_that_finds_its_worker_unfit_ends_the_run(app: Penstock, error: BaseException) -> None:
    @app.task(name="shop.render")
    def render() -> None:
        raise error

    jobs = [render.enqueue(), render.enqueue()]
    assert run_jobs(app) == 1
    assert [job.state() for job in jobs] == [State.READY, State.READY]
    assert jobs[0].info().counters.failures == 0


def test_what_ends_the_program_ends_the_test(app: Penstock) -> None:
    @app.task(name="shop.stop")
    def stop() -> None:
        sys.exit(3)

    stop.enqueue()
    with pytest.raises(SystemExit):
        run_jobs(app)


def test_jobs_of_commands_stay_where_they_are(app: Penstock) -> None:
    job = app.command("shop.list", ["ls"]).enqueue()
    assert (run_jobs(app), job.state()) == (0, State.READY)


def test_any_store_will_do(tmp_path: Any) -> None:
    with Penstock(f"sqlite:///{tmp_path}/shop.db") as app:
        job = app.task(name="shop.count")(len).enqueue("seven")
        assert run_jobs(app) == 1
        assert job.result() == 5


def test_memory_engines_are_apart_and_read_the_machine_s_clock_unless_told() -> None:
    one: Engine = memory_engine()
    assert one.describe().epoch != memory_engine().describe().epoch
