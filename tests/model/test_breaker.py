"""When an open breaker lets a job through, and how long it waits after one that failed."""

from penstock.model.breaker import PROBE_MS, Terms, failed_again, joined, let_through, opened, opened_by_hand
from penstock.model.job import JobId

TERMS = Terms(after=3, pause_ms=10_000, longest_ms=35_000)
JOB = JobId("job-1")


def test_no_job_is_let_through_before_the_pause_is_over() -> None:
    for luck, first_ms in ((0.0, 7_500), (1.0, 10_000)):
        breaker = opened(TERMS, ("send",), "refused", 1_000, luck)
        assert not breaker.may_be_tried(1_000 + first_ms - 1)
        assert breaker.may_be_tried(1_000 + first_ms)


def test_while_one_job_tries_no_other_does_unless_it_takes_very_long() -> None:
    breaker = let_through(opened(TERMS, ("send",), "refused", 0, 1.0), JOB, 10_000)
    assert breaker.probe == JOB
    assert not breaker.may_be_tried(10_000 + PROBE_MS - 1)
    assert breaker.may_be_tried(10_000 + PROBE_MS)


def test_each_failure_doubles_the_pause_up_to_the_longest() -> None:
    breaker, pauses = opened(TERMS, ("send",), "refused", 0, 1.0), []
    for _ in range(3):
        breaker = failed_again(let_through(breaker, JOB, 0), TERMS, "still refused", 0, 1.0)
        pauses.append(breaker.pause_ms)
    assert pauses == [20_000, 35_000, 35_000]
    assert (breaker.probes, breaker.probe, breaker.reason, breaker.opened_ms) == (3, "", "still refused", 0)


def test_what_a_person_opened_lets_nothing_through() -> None:
    assert not opened_by_hand("maintenance", 0).may_be_tried(10**15)


def test_tasks_join_once() -> None:
    breaker = opened(TERMS, ("send",), "refused", 0, 1.0)
    assert joined(joined(breaker, ("bill", "send")), ("bill",)).tasks == ("bill", "send")
