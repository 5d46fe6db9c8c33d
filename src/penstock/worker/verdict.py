"""What becomes of the jobs of a process that has ended: from what its supervisor saw to an outcome for each."""

from msgspec import Struct

from penstock.engine import Taken
from penstock.model.durations import spell
from penstock.model.job import Claim, ErrorInfo, JobId, ProcessId
from penstock.model.outcome import Ending, Outcome
from penstock.worker.execution import RETURNED
from penstock.worker.scene import Scene


class Verdict(Struct, frozen=True):
    """Why a process ended.

    Attributes:
        ending: what that means for its jobs whose code had begun.
        message: for a person, kept with those jobs.
        overdue: jobs that had ignored their time limit; they alone are charged with it.
        scene: what was found where it ended.
    """

    ending: Ending
    message: str
    overdue: frozenset[JobId] = frozenset()
    scene: Scene | None = None


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
        return _overdue(taken, verdict.scene)
    if verdict.ending is Ending.RELEASED:
        return Outcome(ending=Ending.RELEASED, cancel_requested=taken.claim.cancel_requested)
    return _outcome(taken, verdict.ending, verdict.message, verdict.scene)


def _overdue(taken: Taken, scene: Scene | None) -> Outcome:
    claim = taken.claim
    job = None if scene is None else scene.jobs.get(claim.id)
    if scene is not None and job is not None and scene.has_time_left(job, claim.terms.timeout_ms):
        complaint = "it blocked the event loop until others ran out of time"
        return _outcome(taken, Ending.TIMED_OUT, f"{complaint}, so its process was killed", scene, complaint)
    message = "ran on after its timeout, so its process was killed"
    return _outcome(taken, Ending.TIMED_OUT, message, scene, overran(claim))


def overran(claim: Claim) -> str:
    """Say what a job did that did not stop at its timeout."""
    return f"it ignored its time limit of {spell((claim.terms.timeout_ms or 0) / 1000)}"


def _outcome(taken: Taken, ending: Ending, message: str, scene: Scene | None = None, complaint: str = "") -> Outcome:
    claim = taken.claim
    evidence = None if scene is None else scene.evidence(claim.id, complaint)
    error = ErrorInfo(
        kind=ending.value, message=message, attempt=claim.attempt, worker=taken.previous, evidence=evidence
    )
    return Outcome(
        ending=ending,
        error=error,
        cancel_requested=claim.cancel_requested,
        ran_us=0 if evidence is None else evidence.ran_us,
    )
