"""`penstock jobs kick`, `cancel`, `bury`, `delete` and `reschedule`: one change for many jobs."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import click
from msgspec.structs import replace

from penstock.cli.access import existing_store, reaches_store
from penstock.cli.documents import job_document
from penstock.cli.exits import FAILED
from penstock.cli.screen import as_json, brief, confirm, number, progress_bar, write_json
from penstock.cli.selection import count_matching, filtered, make_filter, matching
from penstock.cli.words import duration, moment, read_ids
from penstock.engine import (
    Alteration,
    Altered,
    Bury,
    Cancel,
    Delete,
    Engine,
    Filter,
    Kick,
    Reschedule,
    Upgrade,
)
from penstock.model.job import Job, JobId
from penstock.model.states import Cause, State, sources
from penstock.remedies import read_ids as jobs_matching
from penstock.remedies import spread_out

__all__ = ["Tally", "Verb", "alter_matching", "bury", "cancel", "delete", "kick", "report", "reschedule", "upgrade"]

F = TypeVar("F", bound=Callable[..., Any])

_SHOWN = 20


class Pace(NamedTuple):
    """After how long the first of the jobs becomes ready, and over how long they all do."""

    delay_ms: int = 0
    span_ms: int = 0


AT_ONCE = Pace()


class Verb(NamedTuple):
    """How an alteration is told: what is done, what was done, and the states it applies to."""

    present: str
    past: str
    states: frozenset[State]


KICK = Verb("Kick", "kicked", sources(Cause.KICK))
UPGRADE = Verb("Upgrade", "upgraded", sources(Cause.UPGRADE))
CANCEL = Verb("Cancel", "cancelled", sources(Cause.CANCEL))
BURY = Verb("Bury", "buried", sources(Cause.BURY) - {State.RUNNING})
DELETE = Verb("Delete", "deleted", sources(Cause.DELETE))
RESCHEDULE = Verb("Reschedule", "rescheduled", sources(Cause.RESCHEDULE))


def steers(command: F) -> F:
    """Give a command ids or a filter, and the options that go with them."""
    options = (
        click.argument("ids", nargs=-1, metavar="[ID...|-]"),
        reaches_store,
        filtered,
        click.option("--all-matching", is_flag=True, help="Take all jobs that match the options above, not ids."),
        click.option("--yes", "-y", is_flag=True, help="Do not ask."),
        as_json,
        click.pass_context,
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@click.option("--delay", type=duration, help="How long they wait first.")
@click.option("--spread", type=duration, help="Let them become ready evenly over so long, as 10m, oldest first.")
@click.option("--trial", is_flag=True, help="Kick one of them for a single attempt, and wait for how it ends.")
@click.option("--timeout", type=duration, help="How long to wait for the end of a trial.")
@steers
def kick(
    ctx: click.Context,
    /,
    delay: float | None,
    spread: float | None,
    trial: bool,
    timeout: float | None,
    **given: Any,
) -> None:
    """Make buried, cancelled, expired or scheduled jobs ready now, or later.

    Their failures, crashes and attempts start again from 0. The word - reads ids from stdin. With --group, all jobs of
    the group are taken.

    With --trial, the first of them is kicked alone: it is buried again if its one attempt fails. The exit status is 0
    if it succeeded, and 1 if it did not, or has not ended when the time of --timeout is over.
    """
    if trial and (delay or spread):
        raise click.UsageError("A trial is made now; leave --delay and --spread out.", ctx)
    if timeout is not None and not trial:
        raise click.UsageError("Only a trial is waited for; give --trial with --timeout.", ctx)
    if trial:
        try_one(ctx, timeout, **given)
    else:
        pace = Pace(round((delay or 0) * 1000), round((spread or 0) * 1000))
        _steer(ctx, KICK, Kick(), **given, pace=pace)


@click.command()
@steers
def upgrade(ctx: click.Context, /, **given: Any) -> None:
    """Run the task of jobs that a fallback took over once more.

    Jobs that succeeded by a fallback, or were buried with one, become ready for the task that they were enqueued for,
    with new attempts. --all-matching takes those that succeeded, unless --state says otherwise. The word - reads ids
    from stdin.
    """
    if given["all_matching"] and not given["states"]:
        given["degraded"] = True
    _steer(ctx, UPGRADE, Upgrade(), **given)


@click.command()
@steers
def cancel(ctx: click.Context, /, **given: Any) -> None:
    """End waiting jobs as cancelled, and ask running ones to stop. The word - reads ids from stdin."""
    _steer(ctx, CANCEL, Cancel(), **given)


@click.command()
@click.option("--reason", default="buried by hand", show_default=True, help="Kept as the error of the jobs.")
@steers
def bury(ctx: click.Context, /, reason: str, **given: Any) -> None:
    """Take waiting jobs out of circulation and keep them. The word - reads ids from stdin."""
    _steer(ctx, BURY, Bury(reason), **given)


@click.command()
@steers
def delete(ctx: click.Context, /, **given: Any) -> None:
    """Forget jobs that are not running, with their results and logs. The word - reads ids from stdin."""
    _steer(ctx, DELETE, Delete(), **given)


@click.command()
@click.option("--delay", type=duration, help="How long they wait from now.")
@click.option("--run-at", type=moment, help="When they become ready.")
@steers
def reschedule(ctx: click.Context, /, delay: float | None, run_at: datetime | None, **given: Any) -> None:
    """Let ready or scheduled jobs wait. The word - reads ids from stdin."""
    if (delay is None) == (run_at is None):
        raise click.UsageError("Give --delay or --run-at, one of them.", ctx)
    run_at_ms = None if run_at is None else round(run_at.timestamp() * 1000)
    _steer(ctx, RESCHEDULE, Reschedule(run_at_ms, round((delay or 0) * 1000)), **given)


def _steer(
    ctx: click.Context,
    verb: Verb,
    alteration: Alteration,
    ids: tuple[str, ...],
    all_matching: bool,
    yes: bool,
    as_json: bool,
    pace: Pace = AT_ONCE,
    **chosen: Any,
) -> None:
    which = chosen_jobs(ctx, ids, all_matching, chosen)
    with existing_store(ctx) as app:
        if which is not None:
            tally = alter_matching(app.engine, verb, alteration, which, yes, pace)
        else:
            tally = _alter(app.engine, alteration, read_ids(ids), pace)
    report(tally, verb, as_json)
    if ids and tally.left_alone:
        ctx.exit(FAILED)


def chosen_jobs(ctx: click.Context, ids: tuple[str, ...], all_matching: bool, chosen: dict[str, Any]) -> Filter | None:
    """Give the filter by which jobs were chosen, None if it was by ids; a group needs no --all-matching."""
    which = make_filter(**chosen)
    if ids and which != Filter():
        raise click.UsageError("Give ids or a filter, not both.", ctx)
    all_matching = all_matching or which.group is not None
    if all_matching == bool(ids):
        raise click.UsageError("Give ids, or --all-matching with what they have in common, as --state buried.", ctx)
    return which if all_matching else None


class Tally:
    """How many jobs were changed, how many running ones were asked to stop, and which were left alone."""

    def __init__(self) -> None:
        self.changed = self.asked = 0
        self.left_alone: list[Altered] = []

    def add(self, altered: Sequence[Altered]) -> None:
        for one in altered:
            if one.refused is not None:
                self.left_alone.append(one)
            elif one.after is State.RUNNING:
                self.asked += 1
            else:
                self.changed += 1


def alter_matching(
    engine: Engine, verb: Verb, alteration: Alteration, which: Filter, yes: bool, pace: Pace = AT_ONCE
) -> Tally:
    """Change all jobs that match and stand in a state that allows it, after asking."""
    which = replace(which, states=verb.states if which.states is None else which.states & verb.states)
    counted = count_matching(engine, which)
    tally = Tally()
    if not counted.total():
        return tally
    told = ", ".join(f"{number:,} {state}" for state, number in sorted(counted.items()) if number)
    confirm(f"{verb.present} {number(counted.total(), 'job')} ({told})?", yes)
    with progress_bar(verb.past.capitalize(), counted.total()) as advance:
        if pace != AT_ONCE:
            return _alter(engine, alteration, jobs_matching(engine, which), pace, advance)
        for page in matching(engine, which):
            tally.add(engine.alter([job.id for job in page.jobs], alteration))
            advance(len(page.jobs))
    return tally


def _alter(
    engine: Engine,
    alteration: Alteration,
    ids: Sequence[str],
    pace: Pace = AT_ONCE,
    advance: Callable[[int], None] = lambda _: None,
) -> Tally:
    tally = Tally()
    for some, delay_ms in spread_out([JobId(id) for id in ids], *pace):
        tally.add(engine.alter(some, Kick(delay_ms) if isinstance(alteration, Kick) else alteration))
        advance(len(some))
    return tally


def try_one(
    ctx: click.Context,
    timeout: float | None,
    ids: tuple[str, ...],
    all_matching: bool,
    yes: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Kick one job for a single attempt, wait for how it ends, and say so."""
    which = chosen_jobs(ctx, ids, all_matching, chosen)
    with existing_store(ctx) as app:
        id = next(iter(read_ids(ids)), None) if which is None else _newest(app.engine, which)
        if id is None:
            raise click.ClickException("No job that can be kicked matches.")
        job = app.job(id)
        confirm(f"Kick job {job.id} ({job.task}, {job.state()}) on trial?", yes or which is None)
        click.echo(f"{job.id} is tried; Ctrl-C ends the waiting, not the job.", err=True)
        tried = app.trial(job, timeout=timeout)
        left = 0 if which is None else count_matching(app.engine, which).total()
    if as_json:
        write_json(job_document(tried))
    else:
        _tell_trial(tried, which, left)
    if tried.state is not State.SUCCEEDED:
        ctx.exit(FAILED)


def _newest(engine: Engine, which: Filter) -> JobId | None:
    page = engine.find(replace(which, states=KICK.states if which.states is None else which.states, limit=1))
    return page.jobs[0].id if page.jobs else None


def _tell_trial(job: Job, which: Filter | None, left: int) -> None:
    by = f" by the fallback {job.degraded}" if job.degraded else ""
    why = f": {brief(job.error)}" if job.error is not None else ""
    click.echo(f"{job.id} {job.state}{by}{why}")
    if job.state is State.SUCCEEDED and which is not None and which.group is not None and left:
        click.echo(f"Retry the other {left:,}: penstock jobs kick --group {which.group} --spread 10m")


def report(tally: Tally, verb: Verb, as_json: bool) -> None:
    """Say how many jobs were changed, and which were left alone and why."""
    if as_json:
        refusals = [{"id": one.id, "state": one.before, "why": one.refused} for one in tally.left_alone]
        write_json({verb.past: tally.changed, "asked_to_stop": tally.asked, "left_alone": refusals})
        return
    parts = [f"{tally.changed:,} {verb.past}"] if tally.changed or not tally.asked else []
    parts += [f"{tally.asked:,} running, asked to stop"] if tally.asked else []
    click.echo(f"{'; '.join(parts)}.")
    for one in tally.left_alone[:_SHOWN]:
        click.echo(f"{one.id} was left alone: {one.refused}", err=True)
    if len(tally.left_alone) > _SHOWN:
        click.echo(f"{len(tally.left_alone) - _SHOWN:,} more were left alone.", err=True)
