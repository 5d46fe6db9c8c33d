"""`penstock jobs groups`."""

import time
from typing import Any

import click

from penstock.cli.access import existing_store, reaches_store
from penstock.cli.screen import Cell, Column, ago, as_json, brief, moment, show_table, write_json
from penstock.remedies import JobGroup

__all__ = ["group_document", "list_groups", "retry_command"]


@click.command("groups")
@click.option("--queue", "-q", metavar="QUEUE", help="Only jobs of this queue.")
@click.option("--task", "-t", metavar="TASK", help="Only jobs of this task.")
@reaches_store
@as_json
@click.pass_context
def list_groups(ctx: click.Context, queue: str | None, task: str | None, as_json: bool) -> None:
    """Show which buried jobs failed alike: of one task in one queue, by the same exception, in the same function.

    The group whose last job was buried last comes first. `jobs list --group ID` shows the jobs of one, and
    `jobs kick --group ID` retries them. With --json, one document: {"groups": [...]}.
    """
    with existing_store(ctx) as app:
        found = app.groups(queue=queue, task=task)
    if as_json:
        write_json({"groups": [group_document(group) for group in found]})
    elif not found:
        click.echo("No job is buried.", err=True)
    else:
        _show(found)


def group_document(group: JobGroup) -> dict[str, Any]:
    """Give one group with the command that retries it."""
    return {
        "id": group.id,
        "task": group.task,
        "queue": group.queue,
        "exception": group.error.type or group.error.kind,
        "where": group.error.where,
        "message": group.error.message,
        "count": group.count,
        "first_at": moment(group.first_ms),
        "last_at": moment(group.last_ms),
        "sample": group.sample,
        "retry": retry_command(group.id),
    }


def retry_command(id: str) -> str:
    """Write the command that retries a group."""
    import shlex

    return f"penstock jobs kick --group {shlex.quote(id)}"


def _show(groups: list[JobGroup]) -> None:
    columns = (
        Column("group", whole=True),
        Column("jobs", whole=True, right=True),
        Column("first", whole=True, right=True),
        Column("last", whole=True, right=True),
        "task",
        "queue",
        "where",
        Column("sample", whole=True),
        Column("what", clipped=True),
    )
    now_ms = time.time_ns() // 1_000_000
    show_table(columns, [_row(group, now_ms) for group in groups])
    click.echo(f"\nTry one job of a group, then retry all of it over a while:\n  {retry_command(groups[0].id)} --trial")
    click.echo(f"  {retry_command(groups[0].id)} --spread 10m")


def _row(group: JobGroup, now_ms: int) -> tuple[Cell, ...]:
    return (
        group.id,
        f"{group.count:,}",
        ago(group.first_ms, now_ms),
        ago(group.last_ms, now_ms),
        group.task,
        group.queue,
        group.error.where,
        group.sample,
        brief(group.error),
    )
