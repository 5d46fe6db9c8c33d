"""`penstock jobs kick`, `cancel`, `bury`, `delete` and `reschedule`: one change for many jobs."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import click
from msgspec.structs import replace

from penstock.cli.access import existing_store, reaches_store
from penstock.cli.exits import FAILED
from penstock.cli.screen import as_json, confirm, number, progress_bar, write_json
from penstock.cli.selection import count_matching, filtered, make_filter, matching
from penstock.cli.words import duration, moment, read_ids
from penstock.engine import (
    MOST_AT_ONCE,
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
from penstock.model.job import JobId
from penstock.model.states import Cause, State, sources

__all__ = ["Tally", "Verb", "alter_matching", "bury", "cancel", "delete", "kick", "report", "reschedule", "upgrade"]

F = TypeVar("F", bound=Callable[..., Any])

_SHOWN = 20


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
@steers
def kick(ctx: click.Context, /, **given: Any) -> None:
    """Make buried, cancelled, expired or scheduled jobs ready now.

    Their failures, crashes and attempts start again from 0. The word - reads ids from stdin.
    """
    _steer(ctx, KICK, Kick(), **given)


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
    **chosen: Any,
) -> None:
    which = make_filter(**chosen)
    if all_matching == bool(ids):
        raise click.UsageError("Give ids, or --all-matching with what they have in common, as --state buried.", ctx)
    if ids and which != Filter():
        raise click.UsageError("Give ids or a filter, not both.", ctx)
    with existing_store(ctx) as app:
        if all_matching:
            tally = alter_matching(app.engine, verb, alteration, which, yes)
        else:
            tally = _alter(app.engine, alteration, read_ids(ids))
    report(tally, verb, as_json)
    if ids and tally.left_alone:
        ctx.exit(FAILED)


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


def alter_matching(engine: Engine, verb: Verb, alteration: Alteration, which: Filter, yes: bool) -> Tally:
    """Change all jobs that match and stand in a state that allows it, after asking."""
    which = replace(which, states=verb.states if which.states is None else which.states & verb.states)
    counted = count_matching(engine, which)
    tally = Tally()
    if not counted.total():
        return tally
    told = ", ".join(f"{number:,} {state}" for state, number in sorted(counted.items()) if number)
    confirm(f"{verb.present} {number(counted.total(), 'job')} ({told})?", yes)
    with progress_bar(verb.past.capitalize(), counted.total()) as advance:
        for page in matching(engine, which):
            tally.add(engine.alter([job.id for job in page.jobs], alteration))
            advance(len(page.jobs))
    return tally


def _alter(engine: Engine, alteration: Alteration, ids: Sequence[str]) -> Tally:
    tally = Tally()
    for start in range(0, len(ids), MOST_AT_ONCE):
        tally.add(engine.alter([JobId(id) for id in ids[start : start + MOST_AT_ONCE]], alteration))
    return tally


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
