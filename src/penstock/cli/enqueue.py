"""`penstock enqueue`."""

from datetime import datetime
from typing import Any

import click

from penstock.cli.access import named_app, reaches_store
from penstock.cli.words import duration, moment, moment_or_duration, read_call, read_json
from penstock.client import Penstock
from penstock.handle import JobHandle
from penstock.model.errors import JobFailed, TaskUnknown
from penstock.model.states import State

__all__ = ["enqueue"]


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("task")
@click.argument("words", nargs=-1, metavar="[JSON|NAME=JSON]...", type=click.UNPROCESSED)
@click.option("--kwargs", metavar="JSON", help="Named arguments as one JSON object.")
@click.option("--queue", "-q", metavar="QUEUE", help="Where it goes, if not to its task's queue.")
@click.option("--priority", "-p", type=int, help="-100 to 100, higher runs first.")
@click.option("--delay", type=duration, help="How long it waits first, as 90s or 5m.")
@click.option("--run-at", type=moment, help="When it becomes ready, as 2030-01-31T08:00Z.")
@click.option(
    "--expires", type=moment_or_duration, metavar="MOMENT|DURATION", help="When it is dropped unless it has started."
)
@click.option("--unique-key", metavar="KEY", help="At most one live job of the task has this key; answers with it.")
@click.option("--idempotency-key", metavar="KEY", help="Saying the same again with this key adds nothing.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="A word to find it by; may be given several times.")
@click.option("--wait", type=duration, help="Wait so long for its end, and print its result instead of its id.")
@reaches_store
@click.pass_context
def enqueue(
    ctx: click.Context,
    /,
    task: str,
    words: tuple[str, ...],
    kwargs: str | None,
    unique_key: str | None,
    wait: float | None,
    **terms: Any,
) -> None:
    """Enqueue a job of TASK and print its id.

    Arguments are JSON: a number is 7, a text is '"text"', a named argument is width=100 or name='"Ada"'. With -A they
    are checked against the task, without it they are stored as they are.

    With --wait its result is printed as JSON; the exit status is 1 if it fails or is not done in time.
    """
    args, named = read_call(words, ctx)
    named = {**_named(kwargs, named, ctx), **named}
    _check_times(ctx, terms["delay"], terms["run_at"])
    unique = None if unique_key is None else lambda *_args, **_kwargs: unique_key
    with named_app(ctx) as app:
        _check_known(app, task)
        job = app.using(unique=unique, **terms).enqueue(task, *args, **named)
        if job.existing:
            click.echo("penstock: a job that was there before is the answer; nothing was added.", err=True)
        if wait is None:
            click.echo(job.id)
        else:
            click.echo(job.id, err=True)
            click.echo(_result(job, wait))


def _named(kwargs: str | None, given: dict[str, Any], ctx: click.Context) -> dict[str, Any]:
    if kwargs is None:
        return {}
    found = read_json(kwargs, "--kwargs")
    if not isinstance(found, dict):
        raise click.UsageError(f"--kwargs is {kwargs!r}; give a JSON object, as '{{\"width\": 100}}'.", ctx)
    for name in found:
        if name in given:
            raise click.UsageError(f"The argument {name!r} is given twice.", ctx)
    return found


def _check_times(ctx: click.Context, delay: float | None, run_at: datetime | None) -> None:
    if delay is not None and run_at is not None:
        raise click.UsageError("Give --delay or --run-at, not both.", ctx)


def _check_known(app: Penstock, task: str) -> None:
    """With an application its tasks are known, so an unknown name is a slip of the pen."""
    if app.tasks and task not in app.tasks:
        raise TaskUnknown(task, list(app.tasks))


def _result(job: JobHandle[Any], wait: float) -> bytes:
    job.wait(wait)
    info = job.info()
    if info.state is not State.SUCCEEDED:
        error = info.error
        raise JobFailed(info.id, info.state, str(error) if error else None)
    return info.result or b"null"
