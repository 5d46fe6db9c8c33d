"""What is read from records: who fails what others do, and where the queue costs more than the work."""

import pytest

from penstock.model.record import Record, TaskRecord, add_up, dearer_than_work, fails_what_others_do


def record(worker: str, done: int, failed: int, task: str = "send") -> Record:
    return Record(worker, "host", 0, {task: TaskRecord(done, failed)})


def test_a_worker_that_fails_what_others_do_well_is_told_with_both_figures() -> None:
    told = fails_what_others_do(
        "bad", [record("bad", 2, 18), record("bad", 0, 5), record("a", 30, 1), record("b", 9, 0)]
    )
    assert told == ("it failed 23 of 25 jobs of send in the last minutes, of which other workers did 39 of 40")


@pytest.mark.parametrize(
    "records",
    [
        [],
        [record("bad", 0, 50)],
        [record("bad", 0, 19), record("a", 50, 0)],
        [record("bad", 6, 20), record("a", 50, 0)],
        [record("bad", 0, 50), record("a", 19, 0)],
        [record("bad", 0, 50), record("a", 50, 20)],
        [record("bad", 0, 50), record("a", 50, 0, task="bill")],
    ],
    ids=["nothing", "alone", "too few", "not most", "others too few", "others fail too", "another task"],
)
def test_nothing_is_said_of_a_worker_that_may_be_as_good_as_others(records: list[Record]) -> None:
    assert fails_what_others_do("bad", records) is None


def test_a_task_costs_more_around_its_code_than_in_it() -> None:
    small, large = TaskRecord(90, 10, ran_us=500, queue_us=20_000), TaskRecord(100, 0, ran_us=90_000, queue_us=20_000)
    worse, few = TaskRecord(500, 0, ran_us=500, queue_us=90_000), TaskRecord(99, 0, ran_us=1, queue_us=20_000)
    found = dearer_than_work({"small": small, "large": large, "worse": worse, "few": few})
    assert list(found) == ["worse", "small"]


def test_records_of_several_processes_add_up() -> None:
    total = add_up([{"a": TaskRecord(1, 2, 3, 4)}, {"a": TaskRecord(10, 20, 30, 40), "b": TaskRecord(1)}])
    assert total == {"a": TaskRecord(11, 22, 33, 44), "b": TaskRecord(1)}
