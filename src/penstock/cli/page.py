"""`penstock jobs show`."""

import time
from collections.abc import Iterator
from typing import Any

import click
import msgspec
from msgspec.structs import replace

from penstock.cli.access import existing_store, reaches_store
from penstock.cli.documents import arguments_of, job_document
from penstock.cli.screen import ago, as_json, brief, moment, short, show, size, state_text, tame, write_json
from penstock.engine import WorkerView
from penstock.model.durations import spell
from penstock.model.errors import JobNotFound
from penstock.model.job import ErrorInfo, Evidence, Former, Job, JobId, ProcessId
from penstock.model.states import Cause, State, sources

__all__ = ["show_job"]

_Line = tuple[str, Any]

_COMMANDS = {
    Cause.KICK: ("kick", "make it ready now, with fresh counters"),
    Cause.UPGRADE: ("upgrade", "run the task that it was enqueued for once more"),
    Cause.EDIT: ("edit", "change its arguments, queue or priority"),
    Cause.RESCHEDULE: ("reschedule", "let it wait"),
    Cause.CANCEL: ("cancel", "end it, or ask it to stop if it runs"),
    Cause.BURY: ("bury", "take it out of circulation"),
    Cause.DELETE: ("delete", "forget it"),
}
_EXAMPLES = {"edit": " --args '[...]'", "reschedule": " --delay 1h"}


@click.command("show")
@click.argument("id")
@reaches_store
@as_json
@click.pass_context
def show_job(ctx: click.Context, id: str, as_json: bool) -> None:
    """Show all that is known of a job: arguments, what it went through, its log, its result.

    With --json, one document: the job as in `jobs list`, and "log" by attempt.
    """
    with existing_store(ctx) as app:
        job = app.engine.get([JobId(id)])[0]
        if job is None:
            raise JobNotFound(id)
        log = app.engine.log(job.id)
        workers = app.workers()
    if as_json:
        write_json({**job_document(job), "log": {str(attempt): text for attempt, text in log.items()}})
    else:
        _show(job, log, workers)


def _show(job: Job, log: dict[int, str], workers: list[WorkerView]) -> None:
    from rich.table import Table
    from rich.text import Text

    head = Table.grid(padding=(0, 2))
    head.add_column(style="bold", no_wrap=True)
    head.add_column(overflow="fold")
    for label, value in _head(job, workers, time.time_ns() // 1_000_000):
        head.add_row(label, value if isinstance(value, Text) else Text(tame(str(value))))
    show(head)
    for title, text in (*_payload(job), *_edits(job), *_errors(job), *_logs(log), ("next", _next(job))):
        click.echo()
        show(Text(tame(title), style="bold"))
        click.echo(tame(text.rstrip("\n"), keep="\n\t"))


def _head(job: Job, workers: list[WorkerView], now_ms: int) -> Iterator[_Line]:
    yield "id", job.id
    yield "state", state_text(job.state) + _addition(job)
    yield "task", job.task
    yield "queue", f"{job.queue}, priority {job.priority}"
    if job.details.tags:
        yield "tags", ", ".join(job.details.tags)
    yield "tries", _tries(job)
    if job.group:
        yield "group", f"{job.group}, see penstock jobs groups"
    for label, at_ms in (("enqueued", job.created_ms), ("due", job.due_ms), ("expires", job.expires_ms)):
        if at_ms is not None:
            yield label, _when(at_ms, now_ms)
    if job.claimed_ms is not None:
        waited = f", waited {spell(_waited_s(job))}" if job.claim_number == 1 else ""
        yield "started" if job.claim_number == 1 else "last start", _when(job.claimed_ms, now_ms) + waited
    if job.ended_ms is not None:
        ran = f", ran {spell(job.ran_us / 1_000_000)}" if job.ran_us else ""
        yield "ended", _when(job.ended_ms, now_ms) + ran
    if job.process is not None:
        yield "process", _process(job.process, workers)
    yield from _relations(job)
    yield from _progress(job)


def _process(id: ProcessId, workers: list[WorkerView]) -> str:
    """Name a process, and the worker it belongs to as long as that worker lives."""
    info = next((worker.info for worker in workers if id in worker.processes), None)
    return short(id) if info is None else f"{short(id)} of worker {short(info.id)}, pid {info.pid} on {info.host}"


def _relations(job: Job) -> Iterator[_Line]:
    details = job.details
    for label, value in (
        ("parent job", details.parent_job),
        ("unique key", details.unique and details.unique.key),
        ("idempotency", details.idempotency_key),
        ("enqueued for", details.home and f"{details.home.task}, in queue {details.home.queue}"),
        ("result by", job.degraded and f"the fallback {job.degraded}"),
    ):
        if value:
            yield label, value


def _progress(job: Job) -> Iterator[_Line]:
    progress = job.progress
    if progress is not None:
        total = f" of {progress.total:g} ({progress.done / progress.total:.0%})" if progress.total else ""
        yield "progress", f"{progress.done:g}{total} {progress.note}".rstrip()


def _addition(job: Job) -> str:
    if job.state is State.RUNNING and job.cancel_requested:
        return ", asked to stop"
    return ", runs alone in a process of its own" if job.counters.runs_alone and not job.state.is_final else ""


def _tries(job: Job) -> str:
    """Tell what a job has been through, leaving out what never happened."""
    counters, terms = job.counters, job.terms
    started = counters.attempts + (job.state is State.RUNNING)
    told = [f"{started} started, {counters.failures} of at most {terms.max_attempts} failed"]
    if counters.crashes:
        told.append(f"{counters.crashes} of at most {terms.max_crashes} crashed")
    for count, what in (
        (counters.interruptions, "interrupted"),
        (counters.losses, "lost with its worker, perhaps started"),
        (counters.snoozes, "snoozed"),
    ):
        if count:
            told.append(f"{count} {what}")
    return ", ".join(told)


def _when(at_ms: int, now_ms: int) -> str:
    distance = ago(at_ms, now_ms)
    return f"{moment(at_ms)} ({distance if distance.startswith('in ') else distance + ' ago'})"


def _waited_s(job: Job) -> float:
    return max(0, (job.claimed_ms or 0) - job.created_ms) / 1000


def _payload(job: Job) -> Iterator[tuple[str, str]]:
    arguments = arguments_of(job)
    if isinstance(arguments, str):
        yield "arguments", arguments
    else:
        args, kwargs = arguments
        if args != b"[]" or kwargs == b"{}":
            yield "arguments", _pretty(args)
        if kwargs != b"{}":
            yield "named arguments", _pretty(kwargs)
    if job.result is not None:
        yield "result", _pretty(job.result)


def _pretty(data: bytes) -> str:
    """Write short JSON on one line and long JSON on many."""
    try:
        text = msgspec.json.format(data, indent=0).decode()
        return text if len(text) <= 100 else msgspec.json.format(data, indent=2).decode()
    except (msgspec.DecodeError, UnicodeDecodeError):
        return repr(data)


def _edits(job: Job) -> Iterator[tuple[str, str]]:
    """Tell what each edit replaced."""
    for former in job.details.edits:
        yield f"before the edit by {former.by}, {moment(former.at_ms)}", "\n".join(_former(job, former))


def _former(job: Job, former: Former) -> Iterator[str]:
    if former.envelope:
        arguments = arguments_of(replace(job, envelope=former.envelope.encode(), crc=None))
        if isinstance(arguments, str):
            yield arguments
        else:
            args, kwargs = arguments
            yield _pretty(args) + ("" if kwargs == b"{}" else f" {_pretty(kwargs)}")
    elif former.size:
        yield f"arguments that are no longer kept, as they were too long ({former.size:,} bytes)"
    for label, value in (("queue", former.queue), ("priority", former.priority)):
        if value is not None:
            yield f"{label} {value}"
    if former.tags is not None:
        yield f"tags {', '.join(former.tags) or 'none'}"


def _errors(job: Job) -> Iterator[tuple[str, str]]:
    for number, error in enumerate(job.history, 1):
        title = f"event {number} of {len(job.history)}"
        yield f"{title}: {_circumstances(error)}", error.traceback or brief(error)
        if error.evidence is not None:
            yield from _evidence(f"{title}, ", error.evidence)


def _evidence(title: str, evidence: Evidence) -> Iterator[tuple[str, str]]:
    """Tell what was found where an attempt took its process down, or hung."""
    status, peak = evidence.status, evidence.peak_bytes
    facts = [f"status {status}" if status >= 0 else f"signal {-status}"]
    facts += [f"after {spell(evidence.ran_us / 1e6)}"] if evidence.ran_us else []
    facts += [f"peak memory {size(peak)}"] if peak else []
    yield f"{title}likely cause ({', '.join(facts)})", evidence.cause
    for what, text in (("last lines of its log", evidence.log), ("where its threads stood", evidence.stacks)):
        if text:
            yield f"{title}{what}", text.rstrip("\n")


def _circumstances(error: ErrorInfo) -> str:
    parts = [error.kind]
    parts += [f"attempt {error.attempt}"] if error.attempt else []
    parts += [str(moment(error.at_ms))] if error.at_ms else []
    parts += [f"process {short(error.worker)}"] if error.worker else []
    return ", ".join(parts)


def _logs(log: dict[int, str]) -> Iterator[tuple[str, str]]:
    for attempt, text in log.items():
        yield f"log of attempt {attempt}", text


def _next(job: Job) -> str:
    """Give the commands that its state allows."""
    possible = [words for cause, words in _COMMANDS.items() if job.state in sources(cause) and _applies(cause, job)]
    lines = [(f"penstock jobs {verb} {job.id}{_EXAMPLES.get(verb, '')}", why) for verb, why in possible]
    width = max((len(line) for line, _ in lines), default=0)
    return "\n".join(f"  {line:<{width}}  # {why}" for line, why in lines)


def _applies(cause: Cause, job: Job) -> bool:
    """Running jobs are buried by what they raise, not by hand; only what a fallback had is upgraded."""
    if cause is Cause.UPGRADE:
        return job.details.home is not None
    return not (cause is Cause.BURY and job.state is State.RUNNING)
