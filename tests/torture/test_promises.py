"""Figures that are promised on every engine: how soon work goes on, and that nobody healthy is taken for dead."""

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from penstock.client import Penstock
from penstock.handle import JobHandle
from penstock.model.job import JobId
from penstock.model.states import State
from tests.conftest import lasting_server
from tests.polling import await_true
from tests.servers.proxy import Proxy
from tests.torture.records import EFFECTS, STORE, Trail
from tests.worker.harness import ROOT, Worker, working

APP = "tests.torture.jobs:app"
ENGINES = ("sqlite", "redis", "postgresql")
#: How often a worker looks at its store: a tenth of its lease, but no more than twice a second.
LEASE_S, PERIOD_S = 2.0, 0.5
#: What PostgreSQL says last when a transaction is over. Source: its manual, "Message Formats", ReadyForQuery.
READY_OUTSIDE_OF_TRANSACTIONS = b"Z\0\0\0\5I"
#: What a busy machine may add to what an idle one takes.
SLACK_S = 3.0


@contextmanager
def opened(engine: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Have a store of this kind, which the processes of the test know too."""
    if engine == "sqlite":
        yield f"sqlite:///{folder}/store.db"
        return
    with lasting_server(engine) as server:
        monkeypatch.setenv(STORE, server.url)
        yield server.url


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with opened(request.param, folder, monkeypatch) as url:
        yield url


@pytest.fixture
def app(url: str) -> Iterator[Penstock]:
    with Penstock(url) as app:
        yield app


class Watch:
    """What jobs that wait for a gate have done so far."""

    def __init__(self, app: Penstock, folder: Path) -> None:
        self.app, self.gates, self._trail = app, folder / "gates", Trail(folder / EFFECTS)
        self.gates.mkdir()

    def enqueue(self) -> JobHandle[str]:
        return self.app.enqueue("tests.torture.jobs.wait_for", str(self.gates))

    def await_began(self) -> tuple[int, int]:
        """Wait for the next beginning of a job; give the number of its claim and the process."""
        [(_, _, number, _, pid)] = await_true(lambda: list(self._trail.news()), "the job begins")
        return int(number), int(pid)

    def let_end(self, job: JobHandle[str], after: int) -> None:
        for number in range(after, after + 100):
            (self.gates / str(number)).touch()
        assert job.result(timeout=20)
        for gate in self.gates.iterdir():
            gate.unlink()
        list(self._trail.news())


def spread(figures: list[float]) -> str:
    return f"median {statistics.median(figures):.3f} s, worst of {len(figures)} {max(figures):.3f} s"


# -- how soon work goes on --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.lonely
def test_job_of_a_killed_process_can_start_again_within_a_second(app: Penstock, url: str, folder: Path) -> None:
    watch = Watch(app, folder)
    with working(url, app=APP, lease="30s", slots=1, processes=2):
        took_s = [kill_and_time(watch) for _ in range(20)]
    print(f"startable again after a kill: {spread(took_s)}")
    assert max(took_s) < 1 + SLACK_S


def kill_and_time(watch: Watch) -> float:
    """Kill the process that runs a job; give how long it takes until the job may be claimed again."""
    job = watch.enqueue()
    number, pid = watch.await_began()
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    await_true(lambda: job.info().counters.crashes == 1, "the crash is settled")
    took_s = time.monotonic() - killed
    watch.await_began()
    watch.let_end(job, number + 1)
    return took_s


@pytest.mark.slow
@pytest.mark.lonely
def test_jobs_of_a_host_that_is_gone_run_again_a_second_after_its_lease(app: Penstock, url: str, folder: Path) -> None:
    watch = Watch(app, folder)
    with working(url, app=APP, lease=f"{LEASE_S}s", slots=1, queues="elsewhere"):
        took_s = [lose_and_time(app, url, watch) for _ in range(3)]
    print(f"running again after a host was lost, lease {LEASE_S:.0f} s: {spread(took_s)}")
    assert max(took_s) < LEASE_S + PERIOD_S + 1 + SLACK_S


def lose_and_time(app: Penstock, url: str, watch: Watch) -> float:
    """Kill a whole worker while it runs a job; give how long it takes until the code of the job begins again."""
    job = watch.enqueue()
    with working(url, app=APP, lease=f"{LEASE_S}s", slots=1) as lost:
        number, _ = watch.await_began()
        with working(url, app=APP, lease=f"{LEASE_S}s", slots=1):
            await_true(lambda: len(app.workers()) == 3, "the other one is there")
            for pid in (lost.pid, *lost.processes()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            killed = time.monotonic()
            watch.await_began()
            took_s = time.monotonic() - killed
            watch.let_end(job, number + 1)
    assert job.info().counters.losses == 1
    return took_s


# -- a job that kills its process -------------------------------------------------------------------------------------

#: One pill among so many jobs of a tenth of a second.
OTHERS = 500


@pytest.mark.slow
def test_poison_is_buried_after_three_crashes_and_hardly_slows_the_others(app: Penstock, url: str) -> None:
    with working(url, app=APP, lease="30s", slots=8, processes=2):
        run_others(app, 16)
        alone_s = run_others(app, OTHERS)
        pill = app.enqueue("tests.torture.jobs.poison")
        beside_s = run_others(app, OTHERS)
        pill.wait(timeout=30)
    found = pill.info()
    assert (found.state, found.counters.crashes, found.counters.attempts) == (State.BURIED, 3, 3)
    print(f"{OTHERS} jobs of 100 ms: {alone_s:.2f} s, beside a pill {beside_s:.2f} s, {beside_s / alone_s:.3f} of it")
    assert beside_s < 2 * alone_s, "a tenth more is aimed at; a busy machine takes longer to start a process"


def run_others(app: Penstock, count: int) -> float:
    """Give how long many short jobs take, all together."""
    done, began = succeeded(app), time.monotonic()
    app.task(name="tests.torture.jobs.work", max_attempts=1, max_crashes=10_000)(_work).enqueue_many(
        [("one of many", 0.1)] * count
    )
    await_true(lambda: succeeded(app) == done + count, "all are done", 120)
    return time.monotonic() - began


def _work(_name: str, seconds: float) -> str:
    raise NotImplementedError(f"it runs in workers alone, for {seconds} s")


def succeeded(app: Penstock) -> int:
    return sum(row.states.get(State.SUCCEEDED, 0) for row in app.engine.counts())


# -- nobody healthy is taken for dead ---------------------------------------------------------------------------------


@pytest.mark.torture
@pytest.mark.timeout(400)
def test_healthy_workers_keep_their_jobs_on_a_slow_store_and_a_busy_machine(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven workers on each engine at once: twenty-one, ten rounds each."""
    with ExitStack() as stack:
        strained = [
            stack.enter_context(straining(engine, folder, monkeypatch, workers=7, lease_s=6.0, slow_s=1.0))
            for engine in ENGINES
        ]
        stack.enter_context(overloaded(strained, core=max(os.sched_getaffinity(0))))
        for one in strained:
            one.enqueue(rounds=10)
        for one in strained:
            one.await_end()
    for one in strained:
        one.assert_untouched()


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("engine", ENGINES)
def test_many_healthy_workers_keep_their_jobs(engine: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        straining(engine, folder, monkeypatch, workers=20, lease_s=30.0, slow_s=2.0) as strained,
        overloaded([strained], core=max(os.sched_getaffinity(0))),
    ):
        strained.enqueue(rounds=10)
        strained.await_end()
    strained.assert_untouched()


class Strained:
    """Workers on one store that is slow, whose jobs hold the interpreter lock for two leases each."""

    def __init__(self, app: Penstock, folder: Path, workers: list[Worker], lease_s: float) -> None:
        self.app, self.folder, self.workers, self.lease_s = app, folder, workers, lease_s
        self.ids: list[JobId] = []

    def enqueue(self, *, rounds: int) -> None:
        for _ in range(rounds * len(self.workers)):
            job = self.app.enqueue("tests.torture.jobs.hold_the_lock", 2 * self.lease_s)
            self.ids.append(job.id)

    def await_end(self) -> None:
        """Wait until all have ended, each in its turn."""
        longest_s = 2 * self.lease_s * len(self.ids) / len(self.workers) * 3
        await_true(lambda: succeeded(self.app) == len(self.ids), f"all {len(self.ids)} jobs end", longest_s)

    def assert_untouched(self) -> None:
        began = Counter(id for stage, id, *_ in Trail(self.folder / EFFECTS).news() if stage == "began")
        assert {began[id] for id in self.ids} == {1}
        for worker in self.workers:
            told = [line for line in worker.lines if "void" in line or "killed" in line or "lease" in line]
            assert told == []
        print(f"{len(self.workers)} workers, {len(self.ids)} jobs, lease {self.lease_s:.0f} s: no lease was lost")


@contextmanager
def straining(
    engine: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *, workers: int, lease_s: float, slow_s: float
) -> Iterator[Strained]:
    with ExitStack() as stack:
        url = stack.enter_context(opened(engine, folder, monkeypatch))
        app = stack.enter_context(Penstock(url))
        app.workers()
        through, slow_down = stack.enter_context(slowed(url, slow_s, folder))
        started = [
            stack.enter_context(
                working(through, app=APP, lease=f"{lease_s}s", slots=1, shutdown_timeout="1s", log_level="warning")
            )
            for _ in range(workers)
        ]
        await_true(lambda: len(app.workers()) == workers, "all workers are there", 60)
        slow_down()
        yield Strained(app, folder, started, lease_s)


@contextmanager
def slowed(url: str, slow_s: float, folder: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """Give a way to the store on which each call takes that much longer, once it is told to be slow.

    A file has no way to it: another program holds its write lock for as long, again and again.
    """
    if url.startswith("sqlite:"):
        with ExitStack() as stack:
            yield url, lambda: stack.enter_context(running("tests.torture.holder", f"{folder}/store.db", str(slow_s)))
        return
    port = int(url.partition("://")[2].partition("/")[0].rpartition(":")[2])
    with Proxy(port) as proxy:
        if url.startswith("postgresql:"):  # a transaction of many statements is one call
            proxy.delays = lambda piece: piece.endswith(READY_OUTSIDE_OF_TRANSACTIONS)

        def slow_down() -> None:
            proxy.delay_s = slow_s

        yield url.replace(f":{port}/", f":{proxy.port}/"), slow_down


@contextmanager
def overloaded(strained: list[Strained], core: int) -> Iterator[None]:
    """Put all workers on one core, and four programs on it that burn what they get."""
    for worker in (worker for one in strained for worker in one.workers):
        for pid in (worker.pid, *worker.processes()):
            os.sched_setaffinity(pid, {core})
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(running("tests.torture.burner", str(core)))
        yield


@contextmanager
def running(module: str, *words: str) -> Iterator[None]:
    """Have a program run for a while; it must not end by itself."""
    program = subprocess.Popen([sys.executable, "-m", module, *words], cwd=ROOT)
    try:
        yield
        assert program.poll() is None, f"{module} has ended"
    finally:
        program.kill()
        program.wait()
