"""What a worker says of jobs that it leaves lying: at its start, rarely while it works, at the end of a burst."""

from penstock.engine import Counts, QueueInfo, WorkerInfo, WorkerView
from penstock.model.states import State
from penstock.worker.lookout import (
    LOOK_EVERY_S,
    MOST_NAMED,
    REMIND_AFTER_S,
    Lookout,
    is_done,
    left_out,
    start_warnings,
    what_is_left,
)

TASKS = {"shop.send": "mail", "shop.print": "default"}
WORKER = WorkerView(info=WorkerInfo(id="w", tasks=("shop.send",)), processes=(), lease_left_ms=1000)


def ready(task: str, count: int = 1, queue: str = "default") -> Counts:
    return Counts(queue, task, {State.READY: count})


def test_worker_without_tasks_is_told_where_to_import_them() -> None:
    (line,) = start_warnings("shop:app", {}, None, ["mail"])
    assert line == "shop:app has no tasks, so this worker finds nothing to do; let shop import the modules with tasks"


def test_queue_that_nobody_knows_is_told_with_the_one_that_was_meant() -> None:
    (line,) = start_warnings("shop:app", TASKS, ["mial", "default", "seen"], ["seen"])
    assert line == "queue 'mial' (-Q) is the queue of no task, and the store does not know it: did you mean 'mail'?"
    (line,) = start_warnings("shop:app", TASKS, ["xyz"], [])
    assert line.endswith("known are default, mail")


def test_tasks_whose_queues_are_left_out_are_named() -> None:
    assert left_out(TASKS, ["default"]) == (
        "-Q leaves out the queues of 1 of 2 tasks, which need another worker: shop.send (mail)"
    )
    assert left_out(TASKS, None) is None
    assert left_out(TASKS, ["mail", "default"]) is None


def test_jobs_without_a_worker_are_told_at_the_second_look_and_then_once_an_hour() -> None:
    lookout, counts, now = Lookout(None), [ready("old.task", 2), ready("shop.send")], 100.0
    assert lookout.is_due(now)
    assert lookout.look([WORKER], counts, now) == []
    assert not lookout.is_due(now + LOOK_EVERY_S / 2)
    (line,) = lookout.look([WORKER], counts, now + LOOK_EVERY_S)
    assert line.startswith("2 ready jobs of old.task in queue default: no live worker knows this task, so they wait;")
    assert line.endswith("`penstock jobs list --task old.task`")
    assert lookout.look([WORKER], counts, now + 2 * LOOK_EVERY_S) == []
    assert len(lookout.look([WORKER], counts, now + LOOK_EVERY_S + REMIND_AFTER_S)) == 1


def test_jobs_that_found_a_worker_meanwhile_are_told_anew_when_they_lose_it() -> None:
    lookout, counts = Lookout(None), [ready("old.task")]
    for now in (0.0, 30.0):
        told = lookout.look([WORKER], counts, now)
    assert len(told) == 1
    assert lookout.look([WORKER], [], 60.0) == []
    assert lookout.look([WORKER], counts, 90.0) == []
    assert len(lookout.look([WORKER], counts, 120.0)) == 1


def test_jobs_in_queues_that_the_worker_does_not_serve_are_not_its_business() -> None:
    lookout, counts = Lookout(["mail"]), [ready("old.task", queue="other")]
    assert [lookout.look([WORKER], counts, now) for now in (0.0, 30.0)] == [[], []]


def test_many_unknown_tasks_make_few_lines() -> None:
    lookout, counts = Lookout(None), [ready(f"old.task{n}") for n in range(MOST_NAMED + 7)]
    lookout.look([], counts, 0.0)
    told = lookout.look([], counts, 30.0)
    assert len(told) == MOST_NAMED + 1
    assert told[-1] == "7 ready jobs of 7 more tasks that no live worker knows; `penstock doctor` shows"


def test_burst_ends_when_none_of_its_jobs_is_ready_or_running() -> None:
    infos = [QueueInfo(name="mail", paused=True)]
    assert not is_done([ready("shop.print")], infos, TASKS, None)
    assert not is_done([Counts("mail", "shop.send", {State.RUNNING: 1})], infos, TASKS, None)
    assert is_done([ready("shop.send", queue="mail"), ready("old.task")], infos, TASKS, None)
    assert is_done([ready("shop.print")], infos, TASKS, ["mail"])


def test_end_of_a_burst_says_what_is_left_and_why() -> None:
    counts = [
        ready("old.task", 3),
        ready("shop.send", 2, "mail"),
        Counts("default", "shop.print", {State.SCHEDULED: 1, State.SUCCEEDED: 9, State.BURIED: 1}),
        ready("shop.print", 5, "other"),
    ]
    infos = [QueueInfo(name="mail", paused=True), QueueInfo(name="default")]
    assert what_is_left(counts, infos, TASKS, ["mail", "default"]) == (
        "nothing left to do now; left are 3 jobs of old.task (this worker does not know the task), "
        "2 jobs of shop.send (queue mail is paused), 1 job of shop.print (scheduled for later)"
    )
    assert what_is_left([ready("shop.print", 5, "other")], infos, TASKS, ["mail"]) == "nothing left to do"
