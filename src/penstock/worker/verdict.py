"""What becomes of the jobs of a process that has ended: from what its supervisor saw to an outcome for each."""

from msgspec import Struct

from penstock.engine import Taken
from penstock.model.job import ErrorInfo, JobId, ProcessId
from penstock.model.outcome import Ending, Outcome
from penstock.worker.execution import RETURNED


class Verdict(Struct, frozen=True):
    """Why a process ended.

    Attributes:
        ending: what that means for its jobs whose code had begun.
        message: for a person, kept with those jobs.
        overdue: jobs that had ignored their time limit; they alone are charged with it.
    """

    ending: Ending
    message: str
    overdue: frozenset[JobId] = frozenset()


#: The worker ended it; nothing is charged.
STOPPED = Verdict(Ending.RELEASED, "its worker was stopped")


def outcome_of(taken: Taken, verdicts: dict[ProcessId, Verdict]) -> Outcome:
    """Give the outcome of a claim that was taken over."""
    if taken.fate == "released":
        return RETURNED
    if taken.fate == "lost":
        return _outcome(taken, Ending.LOST, "its worker vanished; nobody saw whether it had started")
    verdict = verdicts.get(taken.previous)
    if verdict is None:
        return _outcome(taken, Ending.CRASHED, "its process ended while it ran")
    if taken.claim.id in verdict.overdue:
        return _outcome(taken, Ending.TIMED_OUT, "ran on after its timeout, so its process was killed")
    if verdict.ending is Ending.RELEASED:
        return Outcome(ending=Ending.RELEASED, cancel_requested=taken.claim.cancel_requested)
    return _outcome(taken, verdict.ending, verdict.message)


def _outcome(taken: Taken, ending: Ending, message: str) -> Outcome:
    claim = taken.claim
    error = ErrorInfo(kind=ending.value, message=message, attempt=claim.attempt, worker=taken.previous)
    return Outcome(ending=ending, error=error, cancel_requested=claim.cancel_requested)
