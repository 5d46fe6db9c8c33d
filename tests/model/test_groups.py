"""Which buried jobs belong together."""

from msgspec.structs import replace

from penstock.model.groups import GROUP_LENGTH, group_of
from penstock.model.job import ErrorInfo, Evidence
from penstock.model.outcome import Ending, Outcome
from penstock.model.settle import settle
from tests.model.test_settle import claim

ERROR = ErrorInfo("failed", type="builtins.ValueError", message="7 is odd", where="shop.jobs:check")


def test_what_differs_from_job_to_job_does_not_count() -> None:
    other = replace(ERROR, message="9 is odd", traceback="line 9", attempt=4, at_ms=7, worker="p2", failure="network")
    assert group_of("mail", "send", ERROR) == group_of("mail", "send", other)


def test_group_is_a_short_id_that_never_changes() -> None:
    """Stores keep it, and people write it down."""
    assert group_of("mail", "send", ERROR) == "f174afe209c5"
    assert len("f174afe209c5") == GROUP_LENGTH


def test_failure_without_an_exception_goes_by_its_kind() -> None:
    crashed, lost = ErrorInfo("crashed", message="killed by signal 9"), ErrorInfo("lost")
    assert group_of("mail", "send", crashed) == group_of("mail", "send", replace(crashed, message="status 3"))
    assert group_of("mail", "send", crashed) != group_of("mail", "send", lost)


def test_crashes_go_by_the_signal_or_status_that_ended_the_process() -> None:
    killed, again, fault = (
        replace(ErrorInfo("crashed"), evidence=Evidence(status, log=log))
        for status, log in ((-9, "a"), (-9, "b"), (-11, "a"))
    )
    assert group_of("mail", "send", killed) == group_of("mail", "send", again)
    assert group_of("mail", "send", killed) != group_of("mail", "send", fault)


def test_only_the_error_that_buries_a_job_names_its_group() -> None:
    again = settle(claim(), Outcome(ending=Ending.FAILED, error=ERROR), 0.5)
    buried = settle(claim(), Outcome(ending=Ending.FAILED, error=ERROR, verdict="bury"), 0.5)
    assert again.error == ERROR
    assert buried.error == replace(ERROR, group=group_of(claim().queue, claim().task, ERROR))
