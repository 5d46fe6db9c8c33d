"""`penstock breakers`."""

import time

import click

from penstock.cli.access import existing_store, reaches_store, store
from penstock.cli.screen import Cell, Column, ago, as_json, moment, show_table, styled, write_json
from penstock.model.breaker import Breaker
from penstock.model.durations import spell

__all__ = ["breakers"]


@click.group()
def breakers() -> None:
    """List, open and close the circuit breakers of dependencies."""


@breakers.command("list")
@reaches_store
@as_json
@click.pass_context
def list_breakers(ctx: click.Context, as_json: bool) -> None:
    """List the dependencies that are out of order, and the tasks that wait for them.

    With --json, one document: {"breakers": [{"dependency", "tasks", "reason", "opened_at", "next_try_at", ...}]}.
    """
    with existing_store(ctx) as app:
        found = app.breakers()
    if as_json:
        write_json({"breakers": [_document(name, breaker) for name, breaker in found.items()]})
    elif not found:
        click.echo("No circuit breaker is open.", err=True)
    else:
        now_ms = time.time_ns() // 1_000_000
        columns = (
            Column("dependency", whole=True),
            Column("open for", whole=True, right=True),
            Column("next try", whole=True),
            Column("tries", whole=True, right=True),
            "tasks that wait",
            "reason",
        )
        show_table(columns, [_row(name, breaker, now_ms) for name, breaker in found.items()])


def _row(name: str, breaker: Breaker, now_ms: int) -> tuple[Cell, ...]:
    return (
        name,
        ago(breaker.opened_ms, now_ms),
        _next_try(breaker, now_ms),
        f"{breaker.probes:,}",
        ", ".join(breaker.tasks) or "none known yet",
        breaker.reason,
    )


def _next_try(breaker: Breaker, now_ms: int) -> Cell:
    if breaker.probe_ms is None:
        return styled("once closed by hand", "yellow")
    if breaker.probe:
        return f"now, job {breaker.probe}"
    left_ms = breaker.probe_ms - now_ms
    return f"in {spell(left_ms / 1000)}" if left_ms > 0 else "with the next job"


def _document(name: str, breaker: Breaker) -> dict[str, object]:
    return {
        "dependency": name,
        "tasks": breaker.tasks,
        "reason": breaker.reason,
        "opened_at": moment(breaker.opened_ms),
        "next_try_at": moment(breaker.probe_ms),
        "tried_by": breaker.probe or None,
        "failed_tries": breaker.probes,
    }


@breakers.command("open")
@click.argument("dependency")
@click.option("--reason", default="opened by hand", show_default=True, help="What the others are told.")
@reaches_store
@click.pass_context
def open_breaker(ctx: click.Context, dependency: str, reason: str) -> None:
    """Let the tasks that need a dependency wait, free of charge, until its breaker is closed."""
    with store(ctx) as app:
        app.dependency(dependency).open(reason)
    click.echo(
        f"The tasks that need {dependency} wait from the next second on; "
        f"`penstock breakers close {dependency}` lets them go on."
    )


@breakers.command()
@click.argument("dependency")
@reaches_store
@click.pass_context
def close(ctx: click.Context, dependency: str) -> None:
    """Let the tasks that wait for a dependency go on at once."""
    with existing_store(ctx) as app:
        waited = app.dependency(dependency).close()
    click.echo(f"The breaker of {dependency} is closed." if waited else f"The breaker of {dependency} was not open.")
