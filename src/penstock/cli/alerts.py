"""`penstock alerts`."""

import time
from typing import Any

import click

from penstock.alerts import ALERTS, NOTHING_TOLD, Alert, Telltale, read_states, state_in
from penstock.cli.access import existing_store, named_app, reaches_store
from penstock.cli.exits import FAILED
from penstock.cli.screen import Cell, Column, ago, as_json, moment, show_table, styled, write_json
from penstock.client import Penstock
from penstock.notifying import send

__all__ = ["alerts"]


@click.group(invoke_without_command=True)
@reaches_store
@as_json
@click.pass_context
def alerts(ctx: click.Context, as_json: bool) -> None:
    """Show who is told of buried jobs, what was sent last, and what could not be sent.

    Alerts of the application are known with -A, those of the settings always; alerts that only a worker knows are shown
    once it has used them. URLs are not shown, because they hold passwords.

    With --json, one document: {"alerts": [...]}.
    """
    if ctx.invoked_subcommand is None:
        _list(ctx, as_json)


@alerts.command()
@click.argument("name", required=False)
@reaches_store
@click.pass_context
def test(ctx: click.Context, name: str | None) -> None:
    """Send a test message to everybody who would be told of buried jobs, or to the alert NAME alone.

    The exit status is 1 if a message could not be sent.
    """
    with named_app(ctx) as app:
        chosen = [alert for alert in app.alerts if name in (None, alert.label)]
    if not chosen:
        known = ", ".join(alert.label for alert in app.alerts)
        none = "No alert is configured here; see `penstock alerts --help`."
        raise click.ClickException(f"No alert is named {name!r}; known: {known}." if known else none)
    text = "This is a test: penstock would tell here of jobs that were buried."
    faults = {alert: send(alert.url, "penstock: test of an alert", text) for alert in chosen}
    for alert, fault in faults.items():
        click.echo(f"{alert.label}: {'sent' if fault is None else fault}", err=fault is not None)
    if any(fault is not None for fault in faults.values()):
        ctx.exit(FAILED)


@alerts.command()
@click.argument("name")
@reaches_store
@click.pass_context
def forget(ctx: click.Context, name: str) -> None:
    """Forget what was told by the alert NAME, as of one that is configured no more.

    One that is still configured then tells of everything that is buried once more.
    """
    with existing_store(ctx) as app:
        known = {id: data for id, data in app.engine.shared(ALERTS).items() if state_in(data).label == name}
        forgotten = [app.engine.share(ALERTS, id, None, data) for id, data in known.items()]
    if not known:
        raise click.ClickException(f"No worker has used an alert named {name!r}; see `penstock alerts`.")
    if not all(forgotten):
        raise click.ClickException(f"A worker is telling by {name} at this moment; try again.")
    click.echo(f"What {name} has told is forgotten.")


def _list(ctx: click.Context, as_json: bool) -> None:
    existing_store(ctx).close()
    with named_app(ctx) as app:
        found = _known(app)
    if as_json:
        write_json({"alerts": [_document(*one) for one in found]})
    elif not found:
        click.echo(
            "Nobody is told of buried jobs. Say app.alert('mailto://...') in your application, or set PENSTOCK_ALERTS.",
            err=True,
        )
    else:
        _show(found)


def _known(app: Penstock) -> list[tuple[Alert | None, Telltale]]:
    """Give each alert that is configured here with what is known of it, then those that only workers know."""
    states = read_states(app.engine)
    here: list[tuple[Alert | None, Telltale]] = [(alert, states.pop(alert.id, NOTHING_TOLD)) for alert in app.alerts]
    return here + [(None, state) for _, state in sorted(states.items())]


def _document(alert: Alert | None, state: Telltale) -> dict[str, Any]:
    return {
        "name": state.label if alert is None else alert.label,
        "configured_here": alert is not None,
        "queue": state.queue if alert is None else alert.queue,
        "task": state.task if alert is None else alert.task,
        "every_ms": None if alert is None else alert.every_ms,
        "sent_at": moment(state.sent_ms or None),
        "sent": state.sent or None,
        "failures": state.failures,
        "failed_at": moment(state.failed_ms or None) if state.failures else None,
        "error": state.error if state.failures else None,
        "next_try_at": moment(state.again_ms or None) if state.failures else None,
    }


def _show(found: list[tuple[Alert | None, Telltale]]) -> None:
    columns = (
        Column("alert", whole=True),
        "of",
        Column("last sent", whole=True, right=True),
        "what",
        Column("failed", whole=True),
        "why",
    )
    now_ms = time.time_ns() // 1_000_000
    show_table(columns, [_row(alert, state, now_ms) for alert, state in found])


def _row(alert: Alert | None, state: Telltale, now_ms: int) -> tuple[Cell, ...]:
    source = state if alert is None else alert
    of = [f"queue {source.queue}"] if source.queue else []
    of += [f"task {source.task}"] if source.task else []
    failed = f"{state.failures:,} times, {ago(state.failed_ms, now_ms)} ago" if state.failures else ""
    return (
        source.label + ("" if alert is not None else " (configured elsewhere)"),
        ", ".join(of) or "all jobs",
        ago(state.sent_ms or None, now_ms) or "never",
        state.sent,
        styled(failed, "bold red"),
        state.error if state.failures else "",
    )
