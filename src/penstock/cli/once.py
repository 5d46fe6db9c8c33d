"""`penstock once`."""

import click

from penstock.cli.access import existing_store, reaches_store
from penstock.cli.exits import FAILED
from penstock.cli.words import read_json

__all__ = ["once"]


@click.command()
@click.argument("key")
@click.option("--done/--not-done", default=None, help="Whether it happened.")
@click.option("--value", metavar="JSON", help="What it gave, if it happened. [null]")
@reaches_store
@click.pass_context
def once(ctx: click.Context, key: str, done: bool | None, value: str | None) -> None:
    """Say whether the side effect KEY happened, when nobody else knows.

    A job that began it and died before it could say so leaves it open; jobs that would do it again are buried for a
    person (see `current_job().once`). Look whether it happened, say so, and kick them: after --done they go on
    without it, after --not-done they do it.
    """
    if done is None:
        raise click.UsageError("Say whether it happened: --done or --not-done.", ctx)
    if value is not None and not done:
        raise click.UsageError("What did not happen gave no value; leave --value out.", ctx)
    gave = None if value is None else read_json(value, "--value")
    with existing_store(ctx) as app:
        known = app.settle_once(key, done=done, value=gave)
    if not known:
        click.echo(f"penstock: no job has begun {key!r}, or it was forgotten; nothing was changed.", err=True)
        ctx.exit(FAILED)
    click.echo(f"{key} happened; it is not done again." if done else f"{key} did not happen; it may be done.")
