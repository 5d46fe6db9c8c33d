import pytest

from penstock.model.outcome import Ending, Outcome


def test_an_attempt_ends_in_one_of_eight_ways() -> None:
    assert [str(ending) for ending in Ending] == [
        "succeeded",
        "failed",
        "timed out",
        "crashed",
        "lost",
        "snoozed",
        "released",
        "cancelled",
    ]


@pytest.mark.parametrize("ending", Ending)
def test_outcome_leaves_to_the_policy_what_the_task_did_not_ask_for(ending: Ending) -> None:
    outcome = Outcome(ending=ending)
    assert (outcome.verdict, outcome.after_ms, outcome.started) == (None, None, True)
