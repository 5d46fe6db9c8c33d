"""What every engine refuses at its edge, before it touches the store."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from penstock.engine import MOST_AT_ONCE, AddRequest, Alteration, Bury, Edit, Filter, Kick, Want, WorkerInfo
from penstock.model.errors import TextInvalid, Unsupported
from penstock.model.job import (
    HIGHEST_PRIORITY,
    LOWEST_PRIORITY,
    NO_DETAILS,
    QUEUE_NAME,
    QUEUE_NAME_IN_WORDS,
    Change,
    Details,
    JobId,
    Move,
    NewJob,
    ProcessId,
)
from penstock.model.retry import DEFAULT_POLICY, Policy
from penstock.model.states import TRANSITIONS, State

LONGEST_ID = 64
_LONGEST_NAME = 200
_LARGEST_SHARED = 64 * 1024
_SOUGHT = {
    "queue": "name of a queue",
    "task": "name of a task",
    "tag": "tag",
    "text": "text to look for",
    "group": "id of a group",
    "before": "id of a job",
}

_POLICIES_KEPT = 256
_NAMES_KEPT = 1024

_find_surrogate = re.compile(r"[\ud800-\udfff]").search
_queue_name_fits = re.compile(QUEUE_NAME).fullmatch
_encode = msgspec.json.Encoder().encode
_decode_policy = msgspec.json.Decoder(Policy).decode
_decode_details = msgspec.json.Decoder(Details).decode

#: Names that were looked at before; a program has few.
_fitting_names: set[str] = set()
#: By identity, because values that are equal need not be stored alike: True equals 1.
_sound_policies: dict[int, Policy] = {}


def check_requests(requests: Sequence[AddRequest], engine: str, capabilities: frozenset[str]) -> None:
    """Refuse requests that no engine may store, and those beyond what this one can do.

    Raises:
        ValueError: over 1,000 jobs in a request, or an id, task, queue, priority or time out of bounds.
        Unsupported: a job asks for a capability that `engine` does not declare.
    """
    for request in requests:
        _check_size(len(request.jobs), "jobs in one add request")
        if request.parent is not None:
            check_text("id of a job", request.parent[0])
        for job in request.jobs:
            check_new_job(job, engine, capabilities)


def check_new_job(job: NewJob, engine: str, capabilities: frozenset[str]) -> None:
    """Refuse one new job; raises as `check_requests` does."""
    check_id(job.id)
    check_text("name of a task", job.task)
    check_queue(job.queue)
    check_priority(job.priority)
    if job.delay_ms < 0:
        raise ValueError(f"Job {job.id} has a delay of {job.delay_ms} ms; it must be 0 or more.")
    if job.delay_ms and job.run_at_ms is not None:
        raise ValueError(f"Job {job.id} has both a delay and a time to run at; give one of them.")
    if job.policy is not DEFAULT_POLICY and _sound_policies.get(id(job.policy)) is not job.policy:
        _check_policy(job)
    if job.details is NO_DETAILS and not job.fair_key:
        return
    _check_details(job)
    unique = job.details.unique
    if unique is not None and unique.until == "window" and unique.window_ms <= 0:
        raise ValueError(f"Unique key {unique.key!r} has a window of {unique.window_ms} ms; it must be above 0.")
    for capability in sorted(needed_capabilities(job) - capabilities):
        raise Unsupported(engine, capability)


def _check_policy(job: NewJob) -> None:
    """Refuse a policy that could not be read again or followed: claiming its job would fail for every worker."""
    for stage in job.policy.fallbacks:
        check_queue(stage.queue)
        check_text("name of a task", stage.task)
    try:
        _decode_policy(_encode(job.policy))
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise ValueError(f"Job {job.id} has a policy that cannot be stored: {error}.") from error
    if len(_sound_policies) >= _POLICIES_KEPT:
        _sound_policies.clear()
    _sound_policies[id(job.policy)] = job.policy


def _check_details(job: NewJob) -> None:
    try:
        _decode_details(_encode(job.details))
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise ValueError(f"Job {job.id} has details that cannot be stored: {error}.") from error


def needed_capabilities(job: NewJob) -> frozenset[str]:
    """Give the capabilities that an engine must declare to take this job."""
    details = job.details
    asked = {
        "fair_key": job.fair_key,
        "parents": details.parents,
        "order_key": details.order_key is not None,
        "limit_keys": details.limit_keys,
        "needs": details.needs is not None,
    }
    return frozenset(name for name, value in asked.items() if value)


def check_changes(changes: Sequence[Change], engine: str, capabilities: frozenset[str]) -> None:
    """Refuse more than 1,000 changes, one that the transition table does not hold, and follow-ups out of bounds.

    Raises:
        ValueError: see above; names the job and the change.
        Unsupported: a follow-up asks for a capability that `engine` does not declare.
    """
    _check_size(len(changes), "changes in one exchange")
    for change in changes:
        if change.next not in TRANSITIONS.get((State.RUNNING, change.cause), ()):
            raise ValueError(f"Job {change.id} cannot go from running to {change.next} because of {change.cause!r}.")
        for job in change.follow_ups:
            check_new_job(job, engine, capabilities)
        if change.move is not None:
            _check_move(change, change.move)


def _check_move(change: Change, move: Move) -> None:
    if change.next.is_final:
        raise ValueError(f"Job {change.id} ends {change.next}, so it cannot go on as task {move.task!r}.")
    check_queue(move.queue)
    check_text("name of a task", move.task)


def check_want(want: Want | None) -> None:
    """Refuse to claim more than 1,000 jobs at once, or from a queue that is named twice."""
    if want is None:
        return
    _check_size(want.limit, "claims in one exchange")
    check_texts("name of a task", want.tasks)
    named = [name for group in want.queues or () for name in group]
    check_texts("name of a queue", named)
    if len(set(named)) < len(named):
        twice = sorted(name for name, times in Counter(named).items() if times > 1)
        raise ValueError(f"Queue {twice[0]!r} is wanted twice; name each queue in one group.")


def check_ids(ids: Sequence[JobId]) -> None:
    """Refuse more than 1,000 ids in one call, and what no id of a job can be."""
    _check_size(len(ids), "ids in one call")
    check_texts("id of a job", ids)


def check_alteration(alteration: Alteration) -> None:
    """Refuse an edit that would give a job what it could not have been added with, and a reason that is no text."""
    if isinstance(alteration, Bury) and not isinstance(alteration.reason, str):
        raise ValueError(f"The reason {alteration.reason!r} is no text.")
    if isinstance(alteration, Kick) and alteration.delay_ms < 0:
        raise ValueError(f"A kick has a delay of {alteration.delay_ms} ms; it must be 0 or more.")
    if isinstance(alteration, Edit):
        check_text("name of who edits", alteration.by)
        if alteration.queue is not None:
            check_queue(alteration.queue)
        if alteration.priority is not None:
            check_priority(alteration.priority)


def check_filter(which: Filter) -> None:
    """Refuse pages of less than 1 or more than 1,000 jobs, and texts that no job can have."""
    if not 1 <= which.limit <= MOST_AT_ONCE:
        raise ValueError(f"A page of {which.limit} jobs was asked for; it may hold 1 to {MOST_AT_ONCE:,}.")
    check_texts("id of a job", which.ids or ())
    for what in _SOUGHT:
        check_text(_SOUGHT[what], getattr(which, what) or "")


def check_worker(worker: WorkerInfo, processes: Sequence[ProcessId]) -> None:
    """Refuse a worker or process whose id no store can keep."""
    check_text("id of a worker", worker.id)
    check_texts("id of a process", processes)


def check_shared(kind: str, key: str | None = None, value: bytes | None = None) -> None:
    """Refuse a shared value that no engine keeps: names of 1 to 200 characters without NUL, and at most 64 KiB."""
    for name in (kind,) if key is None else (kind, key):
        if not 1 <= len(name) <= _LONGEST_NAME or "\0" in name:
            raise ValueError(f"{name!r} names no shared value; use 1 to {_LONGEST_NAME} characters without NUL.")
        check_text("name of a shared value", name)
    if value is not None and len(value) > _LARGEST_SHARED:
        raise ValueError(f"The shared value {key!r} has {len(value):,} bytes; at most {_LARGEST_SHARED:,} are kept.")


def check_texts(what: str, texts: Iterable[str]) -> None:
    """Refuse texts of which one has no form in UTF-8; `what` says what it was to be."""
    for text in texts:
        check_text(what, text)


def check_text(what: str, text: str) -> None:
    """Refuse a text that has no form in UTF-8.

    Raises:
        TextInvalid: it holds a lone surrogate.
    """
    if not text.isascii() and _find_surrogate(text):
        raise TextInvalid(what, text)


def check_id(id: JobId) -> None:
    """Refuse an id that is empty, over 64 characters long, no Unicode, or has a NUL, at which stores may cut it off."""
    if not 1 <= len(id) <= LONGEST_ID or "\0" in id:
        raise ValueError(f"{id!r} is no id of a job: it must be text of 1 to {LONGEST_ID} characters without NUL.")
    check_text("id of a job", id)


def check_queue(name: str) -> None:
    """Refuse a queue name with anything but 1 to 128 ASCII letters, digits, `_`, `.` and `-`."""
    if name in _fitting_names:
        return
    if not _queue_name_fits(name):
        raise ValueError(f"{name!r} is no name of a queue; use {QUEUE_NAME_IN_WORDS}")
    if len(_fitting_names) < _NAMES_KEPT:
        _fitting_names.add(name)


def check_priority(priority: int) -> None:
    """Refuse a priority outside -100 to 100."""
    if not LOWEST_PRIORITY <= priority <= HIGHEST_PRIORITY:
        raise ValueError(f"The priority {priority} is outside {LOWEST_PRIORITY} to {HIGHEST_PRIORITY}.")


def refusal(state: State | None) -> str:
    """Say why a job in this state is left alone by an alteration; None stands for an unknown job."""
    if state is None:
        return "no such job"
    if state is State.RUNNING:
        return "job is running; cancel it or wait"
    return f"job has ended {state}" if state.is_final else f"job is {state}"


def _check_size(count: int, what: str) -> None:
    if count > MOST_AT_ONCE:
        raise ValueError(f"{count:,} {what} are over the limit of {MOST_AT_ONCE:,}.")
