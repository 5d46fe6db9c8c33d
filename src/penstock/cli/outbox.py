"""What `penstock migrate` and `penstock doctor` do about the outbox."""

from collections.abc import Iterator
from contextlib import closing

import click

from penstock.cli.screen import number
from penstock.client import Penstock
from penstock.engine import Finding
from penstock.model.durations import spell
from penstock.model.errors import EngineError
from penstock.outbox import Standing

__all__ = ["examine_outbox", "make_outbox"]

#: Waiting so long is no longer the usual latency of the relay.
LONG_MS = 60_000


def make_outbox(app: Penstock, *, dry_run: bool = False) -> None:
    """Make the table of the outbox, if the application has one; say what was done or would be."""
    outbox = app.outbox
    if outbox is None:
        return
    with closing(outbox):
        if outbox.stand().exists:
            click.echo(f"{outbox.url} has the table penstock_outbox; nothing to do.")
        elif dry_run:
            click.echo(f"{outbox.url} would get the table penstock_outbox.")
        else:
            outbox.make()
            click.echo(f"{outbox.url} got the table penstock_outbox.")


def examine_outbox(app: Penstock) -> Iterator[Finding]:
    """Look at what waits in the user's database, and at what the store refused for good."""
    try:
        outbox = app.outbox
        if outbox is None:
            return
        with closing(outbox):
            standing = outbox.stand()
    except EngineError as error:
        yield Finding("outbox", "fault", str(error), "Check the setting `outbox` and its database.")
    else:
        yield from _findings(outbox.url, standing)


def _findings(url: str, standing: Standing) -> Iterator[Finding]:
    if not standing.exists:
        yield Finding("outbox", "warning", f"{url} has no table penstock_outbox", "Run `penstock migrate`.")
        return
    oldest = f", the oldest for {spell(standing.oldest_ms / 1000)}" if standing.waiting else ""
    found = f"{url}: {number(standing.waiting, 'job')} to be carried to the store{oldest}"
    if standing.waiting and standing.oldest_ms > LONG_MS:
        yield Finding("outbox", "warning", found, "Any worker carries them: start one, or see its log.")
    else:
        yield Finding("outbox", "ok", found)
    for id, error in standing.shown:
        remedy = "Set `aside` of its row to false to try it again, or delete the row."
        yield Finding("outbox", "warning", f"job {id} was set aside: {error}", remedy)
    if more := standing.aside - len(standing.shown):
        yield Finding("outbox", "warning", f"{number(more, 'more job')} set aside", "See the table penstock_outbox.")
