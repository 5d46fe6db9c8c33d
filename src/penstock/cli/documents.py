"""The JSON that `--json` writes of jobs, queues and workers: times in ISO 8601, null where there is no value."""

from typing import Any

from msgspec import Raw
from msgspec.structs import replace

from penstock.cli.screen import moment
from penstock.engine import QueueInfo, WorkerView
from penstock.model.codec import decode_envelope
from penstock.model.errors import EnvelopeCorrupt, EnvelopeTooNew
from penstock.model.job import ErrorInfo, Evidence, Former, Job
from penstock.serving import is_gone

__all__ = ["arguments_of", "job_document", "queue_document", "worker_document"]


def arguments_of(job: Job) -> tuple[bytes, bytes] | str:
    """Give a job's positional and named arguments as JSON, or why they cannot be read."""
    try:
        envelope = decode_envelope(job.envelope, job.crc)
    except (EnvelopeCorrupt, EnvelopeTooNew) as error:
        return str(error)
    if envelope.enc is not None:
        return f"They are encrypted ({envelope.enc})."
    return bytes(envelope.args), bytes(envelope.kwargs)


def job_document(job: Job) -> dict[str, Any]:
    """Give one job without its log; `history` holds failed attempts, oldest first."""
    arguments = arguments_of(job)
    args, kwargs = (None, None) if isinstance(arguments, str) else (Raw(arguments[0]), Raw(arguments[1]))
    counters, details = job.counters, job.details
    return {
        "id": job.id,
        "state": job.state,
        "task": job.task,
        "queue": job.queue,
        "priority": job.priority,
        "args": args,
        "kwargs": kwargs,
        "tags": details.tags,
        "attempts": counters.attempts,
        "failures": counters.failures,
        "max_attempts": job.terms.max_attempts,
        "crashes": counters.crashes,
        "interruptions": counters.interruptions,
        "losses": counters.losses,
        "snoozes": counters.snoozes,
        "suspect": counters.suspect,
        "claims": job.claim_number,
        "cancel_requested": job.cancel_requested,
        "created_at": moment(job.created_ms),
        "due_at": moment(job.due_ms),
        "expires_at": moment(job.expires_ms),
        "claimed_at": moment(job.claimed_ms),
        "ended_at": moment(job.ended_ms),
        "ran_ms": job.ran_us / 1000,
        "progress": job.progress,
        "result": None if job.result is None else Raw(job.result),
        "enqueued_for": job.origin,
        "degraded": job.degraded,
        "error": _error(job.error),
        "group": job.group or None,
        "edits": [_edit(job, former) for former in details.edits],
        "history": [_error(error) for error in job.history],
        "process": job.process,
        "parent_job": details.parent_job,
        "unique_key": None if details.unique is None else details.unique.key,
        "idempotency_key": details.idempotency_key,
    }


def queue_document(queue: QueueInfo, states: dict[str, int]) -> dict[str, Any]:
    return {
        "name": queue.name,
        "paused": queue.paused,
        "max_jobs": queue.max_jobs,
        "unfinished": queue.unfinished,
        "ended_per_second": round(queue.rate, 3),
        "oldest_ready_ms": queue.oldest_ms,
        "states": states,
    }


def worker_document(worker: WorkerView) -> dict[str, Any]:
    info = worker.info
    return {
        "id": info.id,
        "host": info.host,
        "pid": info.pid,
        "version": info.version,
        "queues": info.queues,
        "tasks": info.tasks,
        "slots": info.slots,
        "processes": worker.processes,
        "running": worker.running,
        "draining": worker.drain,
        "unfit": info.unfit or None,
        "gone": is_gone(info),
        "lease_left_ms": worker.lease_left_ms,
        "enrolled_at": moment(worker.enrolled_ms),
    }


def _edit(job: Job, former: Former) -> dict[str, Any]:
    """Give what a job was before an edit, null where the edit left it alone or it was too long to be kept."""
    envelope = former.envelope.encode()
    arguments = arguments_of(replace(job, envelope=envelope, crc=None)) if envelope else ""
    args, kwargs = (None, None) if isinstance(arguments, str) else (Raw(arguments[0]), Raw(arguments[1]))
    return {
        "at": moment(former.at_ms),
        "by": former.by,
        "args": args,
        "kwargs": kwargs,
        "envelope_bytes": former.size or None,
        "queue": former.queue,
        "priority": former.priority,
        "tags": former.tags,
    }


def _error(error: ErrorInfo | None) -> dict[str, Any] | None:
    if error is None:
        return None
    return {
        "kind": error.kind,
        "failure": error.failure_class,
        "type": error.type,
        "message": error.message,
        "where": error.where,
        "traceback": error.traceback,
        "attempt": error.attempt,
        "at": moment(error.at_ms or None),
        "worker": error.worker,
        "evidence": _evidence(error.evidence),
    }


def _evidence(evidence: Evidence | None) -> dict[str, Any] | None:
    if evidence is None:
        return None
    return {
        "status": evidence.status,
        "cause": evidence.cause,
        "peak_bytes": evidence.peak_bytes,
        "ran_s": evidence.ran_us / 1e6,
        "stacks": evidence.stacks,
        "log": evidence.log,
    }
