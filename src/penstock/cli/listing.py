"""`penstock jobs list`."""

from typing import Any

import click
from msgspec.structs import replace

from penstock.cli.access import existing_store, reaches_store
from penstock.cli.documents import job_document
from penstock.cli.screen import Cell, Column, ago, as_json, brief, show_table, state_text, write_json
from penstock.cli.selection import filtered, make_filter, matching
from penstock.cli.words import job_id
from penstock.model.job import Job, JobId
from penstock.model.states import State

__all__ = ["list_jobs"]


@click.command("list")
@reaches_store
@filtered
@click.option("--limit", "-n", type=click.IntRange(min=1), default=50, show_default=True, help="Most jobs.")
@click.option("--before", type=job_id, metavar="ID", help="Only jobs older than this one; where the page before ended.")
@as_json
@click.pass_context
def list_jobs(ctx: click.Context, /, limit: int, before: JobId | None, as_json: bool, **chosen: Any) -> None:
    """List the newest jobs that match all that is given.

    With --json, one document: {"jobs": [...], "next": ID}; give ID to --before for the next page, null ends.
    """
    which = replace(make_filter(**chosen), before=before)
    with existing_store(ctx) as app:
        found: list[Job] = []
        following: JobId | None = None
        for page in matching(app.engine, which, limit):
            found += page.jobs
            following = page.next
        now_ms = _now_ms()
    if as_json:
        write_json({"jobs": [job_document(job) for job in found], "next": following})
    elif not found:
        click.echo("No job matches.", err=True)
    else:
        _show(found, now_ms)
        if following is not None:
            click.echo(f"There are more: go on with --before {following}", err=True)


def _show(jobs: list[Job], now_ms: int) -> None:
    """The columns that people look for first stand first; the error takes what room is left."""
    columns = (
        Column("id", whole=True),
        Column("state", whole=True),
        "task",
        "queue",
        Column("tries", whole=True, right=True),
        Column("age", whole=True, right=True),
        Column("what", clipped=True),
    )
    show_table(columns, [_row(job, now_ms) for job in jobs])


def _row(job: Job, now_ms: int) -> tuple[Cell, ...]:
    tries = job.counters.attempts + (job.state is State.RUNNING)
    return (
        job.id,
        state_text(job.state),
        job.task,
        job.queue,
        str(tries or ""),
        ago(job.created_ms, now_ms),
        _what(job, now_ms),
    )


def _what(job: Job, now_ms: int) -> str:
    """Say in a few words what there is to know of a job in its state."""
    if job.state is State.SCHEDULED:
        due = f"due {ago(job.due_ms, now_ms)}"
        return f"{due} after {brief(job.error)}" if job.error else due
    if job.state is State.RUNNING:
        asked = "asked to stop, " if job.cancel_requested else ""
        return f"{asked}since {ago(job.claimed_ms, now_ms)}{_progress(job)}"
    if job.state is State.SUCCEEDED:
        return f"ran {job.ran_us / 1000:,.1f} ms" + (f", degraded: not by {job.origin}" if job.degraded else "")
    return brief(job.error) if job.error else ""


def _progress(job: Job) -> str:
    progress = job.progress
    if progress is None:
        return ""
    share = f", {progress.done / progress.total:.0%}" if progress.total else f", {progress.done:g}"
    return f"{share} {progress.note}".rstrip()


def _now_ms() -> int:
    import time

    return time.time_ns() // 1_000_000
