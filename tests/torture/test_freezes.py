"""SIGSTOP for longer than a lease: who was thought dead and wakes again changes nothing, and finds its way back."""

import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.client import Penstock
from penstock.handle import JobHandle
from penstock.model.job import Job
from penstock.model.states import State
from tests.polling import await_true
from tests.torture.gate import is_gate_held
from tests.torture.processes import Process, workers_processes
from tests.torture.records import EFFECTS, FREEZE_AT_DELIVERY, LOSE_REPLIES, LOST, Trail
from tests.worker.harness import Worker, stored, working

pytestmark = [pytest.mark.slow, pytest.mark.lonely]

LEASE_S = 2.0
APP = "tests.torture.jobs:app"
WHO = ("process", "supervisor", "process and supervisor")


@pytest.fixture
def url(folder: Path) -> str:
    return f"sqlite:///{folder}/store.db"


@pytest.fixture
def app(url: str) -> Iterator[Penstock]:
    with Penstock(url) as app:
        yield app


class Scene:
    """One job that waits for a gate, and the worker that runs it first."""

    def __init__(self, app: Penstock, url: str, folder: Path, worker: Worker) -> None:
        self.app, self.url, self.folder, self.worker = app, url, folder, worker
        self.gates = folder / "gates"
        self.gates.mkdir()
        self.handle: JobHandle[str] = app.enqueue("tests.torture.jobs.wait_for", str(self.gates))
        self.first_claim = self.await_began(1)
        self.supervisor = Process(worker.pid, "supervisor")
        (self.process,) = workers_processes(self.supervisor)

    def job(self) -> Job:
        return stored(self.url, self.handle.id)

    def began(self) -> list[int]:
        """The claims under which the job has begun."""
        return [
            int(number)
            for stage, id, number, _, _ in Trail(self.folder / EFFECTS).news()
            if (stage, id) == ("began", self.handle.id)
        ]

    def await_began(self, times: int) -> int:
        await_true(lambda: len(self.began()) >= times, f"the job begins for the {times}. time")
        return self.began()[-1]

    def freeze(self, who: str) -> None:
        """Freeze the supervisor first, as it would notice.

        Not within a transaction: who sleeps in one keeps the file from everybody, as the documents say.
        """
        for name in ("supervisor", "process"):
            frozen: Process = getattr(self, name)
            while name in who:
                frozen.freeze()
                if self.is_outside_of_transactions(frozen):
                    break

    def is_outside_of_transactions(self, frozen: Process) -> bool:
        """Say whether a frozen process holds nobody up; else it is thawed to end its transaction."""
        if not is_gate_held(self.folder):
            return True
        frozen.send(signal.SIGCONT)
        await_true(lambda: not is_gate_held(self.folder), "the transaction ends")
        return False

    def await_frozen(self, why: str) -> None:
        """Wait until the process has frozen itself."""
        while True:
            await_true(self.process.is_stopped, why)
            if self.is_outside_of_transactions(self.process):
                return

    def thaw(self) -> None:
        self.process.send(signal.SIGCONT)
        self.supervisor.send(signal.SIGCONT)

    def open_gate(self, claim_number: int) -> None:
        (self.gates / str(claim_number)).touch()

    def assert_ended_under(self, claim_number: int) -> None:
        """The second claim's result stands, and the store holds nothing of the first."""
        job = self.job()
        assert (job.state, job.claim_number) == (State.SUCCEEDED, claim_number)
        assert self.handle.result(timeout=1).partition(":")[0] == str(claim_number)

    def late_results(self) -> int:
        return self.app.engine.describe().late_results

    def close(self) -> None:
        self.thaw()
        self.process.close()
        self.supervisor.close()


@pytest.fixture
def scene(app: Penstock, url: str, folder: Path) -> Iterator[Scene]:
    with staged(app, url, folder) as scene:
        yield scene


@contextmanager
def staged(app: Penstock, url: str, folder: Path) -> Iterator[Scene]:
    with working(url, app=APP, lease=f"{LEASE_S}s", slots=1) as worker:
        scene = Scene(app, url, folder, worker)
        try:
            yield scene
        finally:
            scene.close()


@pytest.mark.parametrize("who", WHO)
def test_frozen_past_its_lease_changes_nothing_by_waking(scene: Scene, who: str) -> None:
    with working(scene.url, app=APP, lease=f"{LEASE_S}s", slots=1) as second:
        await_true(lambda: len(scene.app.workers()) == 2, "a second worker is there")
        scene.freeze(who)
        claim = scene.await_began(2)
        scene.open_gate(claim)
        await_true(lambda: scene.job().state is State.SUCCEEDED, "the second claim ends")
        scene.open_gate(scene.first_claim)
        scene.thaw()
        await_true(lambda: scene.process.has_ended(), "the process that was thought dead ends")
        scene.assert_ended_under(claim)
        second.signal(signal.SIGTERM)
        assert second.wait() == 0
    assert_works_again(scene)
    scene.assert_ended_under(claim)


def test_process_whose_supervisor_is_frozen_ends_what_it_runs_when_its_lease_is_void(scene: Scene) -> None:
    with working(scene.url, app=APP, lease=f"{LEASE_S}s", slots=1):
        await_true(lambda: len(scene.app.workers()) == 2, "a second worker is there")
        scene.freeze("supervisor")
        claim = scene.await_began(2)
        await_true(scene.process.has_ended, "the process hears that its lease is void and ends", LEASE_S + 5)
        assert (scene.job().state, scene.job().claim_number) == (State.RUNNING, claim)


def test_late_result_is_refused_and_counted(
    app: Penstock, url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery = folder / "delivery"
    monkeypatch.setenv(FREEZE_AT_DELIVERY, str(delivery))
    with staged(app, url, folder) as scene:
        monkeypatch.delenv(FREEZE_AT_DELIVERY)
        scene.freeze("supervisor")
        scene.open_gate(scene.first_claim)
        scene.await_frozen("the process has a result to deliver and is frozen")
        with working(url, app=APP, lease=f"{LEASE_S}s", slots=1):
            claim = scene.await_began(2)
            delivery.touch()
            scene.process.send(signal.SIGCONT)
            await_true(scene.process.has_ended, "the process hears that its lease is void and ends")
            await_true(lambda: scene.worker.has_said("late result refused"), "the refusal is logged")
            assert scene.late_results() == 1
            assert (scene.job().state, scene.job().claim_number) == (State.RUNNING, claim)
            scene.open_gate(claim)
            scene.handle.wait(timeout=10)
            scene.assert_ended_under(claim)


def assert_works_again(scene: Scene) -> None:
    """The worker that was frozen takes new jobs, in a process that was not."""
    again: JobHandle[str] = scene.app.enqueue("tests.torture.jobs.work", "again", 0.0)
    assert again.result(timeout=20)
    assert [view.info.pid for view in scene.app.workers()] == [scene.worker.pid]


def test_lost_replies_of_exchanges_leak_no_claim(
    app: Penstock, url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOSE_REPLIES, "3")
    for name in ("work", "work_async"):
        app.using(queue=name).enqueue(f"tests.torture.jobs.{name}", "first", 0.0)
    calls = [(f"one of {name}", 0.001) for name in ("work", "work_async") for _ in range(150)]
    for name, seconds in calls:
        app.enqueue(f"tests.torture.jobs.{name.removeprefix('one of ')}", name, seconds)
    with working(url, app=APP, burst=True, slots=2) as worker:
        assert worker.wait(60) == 0
    assert {job.state for job in app.find(limit=1000)} == {State.SUCCEEDED}
    assert set(runs(folder).values()) == {1}
    lost = [int(claims) for _, claims in Trail(folder / LOST).news()]
    assert len(lost) >= 10
    assert sum(lost) >= 10, "claims were in the replies that got lost"
    assert app.engine.workers() == []
    assert app.engine.describe().late_results == 0


def test_job_that_holds_the_interpreter_lock_for_two_leases_is_not_taken_away(
    app: Penstock, url: str, folder: Path
) -> None:
    job: JobHandle[str] = app.enqueue("tests.torture.jobs.hold_the_lock", 2.2 * LEASE_S)
    with working(url, app=APP, lease=f"{LEASE_S}s") as first, working(url, app=APP, lease=f"{LEASE_S}s") as second:
        assert job.result(timeout=30)
        assert not any(worker.has_said("void") or worker.has_said("killed") for worker in (first, second))
    assert runs(folder) == {job.id: 1}


def runs(folder: Path) -> Counter[str]:
    """How often the code of each job has begun; a claim that is given back before it began is none."""
    return Counter(id for stage, id, *_ in Trail(folder / EFFECTS).news() if stage == "began")
