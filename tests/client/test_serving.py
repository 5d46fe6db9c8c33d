"""Which workers live, and which of them take nothing although they could."""

from penstock.engine import Counts, QueueInfo, WorkerInfo, WorkerView
from penstock.model.states import State
from penstock.serving import silent

LATE = QueueInfo(name="default", unfinished=1, oldest_ms=31_000)


def view(id: str = "w", *, running: int = 0, drain: bool = False, left_ms: int = 1000, **info: object) -> WorkerView:
    told = WorkerInfo(**{"id": id, "tasks": ("shop.send",), **info})  # type: ignore[arg-type]
    return WorkerView(info=told, processes=(), running=running, drain=drain, lease_left_ms=left_ms)


def found(*views: WorkerView, queue: QueueInfo = LATE, task: str = "shop.send") -> list[str]:
    counts = [Counts("default", task, {State.READY: 1}), Counts("other", "shop.send", {State.READY: 1})]
    return [info.id for info, _ in silent(views, counts, [queue], 30)]


def test_worker_that_runs_nothing_while_its_job_waits_is_silent() -> None:
    assert found(view()) == ["w"]


def test_idle_worker_among_busy_ones_is_silent() -> None:
    assert found(view("busy", running=3), view("idle")) == ["idle"]


def test_worker_that_may_not_take_the_job_is_not_silent() -> None:
    assert found(view(running=1)) == []
    assert found(view(drain=True)) == []
    assert found(view(left_ms=0)) == []
    assert found(view(queues=("other",))) == []


def test_job_that_is_not_late_or_stands_in_a_paused_queue_makes_nobody_silent() -> None:
    assert found(view(), queue=QueueInfo(name="default", oldest_ms=30_000)) == []
    assert found(view(), queue=QueueInfo(name="default", oldest_ms=None)) == []
    assert found(view(), queue=QueueInfo(name="default", oldest_ms=99_000, paused=True)) == []


def test_queue_with_jobs_that_nobody_takes_makes_nobody_silent() -> None:
    """Which of its jobs is the late one is not known."""
    assert found(view(), task="shop.unknown") == []
