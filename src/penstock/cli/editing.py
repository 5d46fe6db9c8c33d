"""`penstock jobs edit`."""

from typing import Any

import click

from penstock.cli.access import existing_store, named_app, reaches_store
from penstock.cli.exits import FAILED
from penstock.cli.words import read_json

__all__ = ["edit"]


@click.command()
@click.argument("id")
@click.option("--args", metavar="JSON", help="New positional arguments, a JSON array.")
@click.option("--kwargs", metavar="JSON", help="New named arguments, a JSON object.")
@click.option("--queue", "-q", metavar="QUEUE", help="Move it to this queue.")
@click.option("--priority", "-p", type=click.IntRange(-100, 100), help="Its new priority, higher runs first.")
@click.option("--by", metavar="NAME", help="Who does it, as `jobs show` will tell. [your user and host]")
@reaches_store
@click.pass_context
def edit(
    ctx: click.Context,
    id: str,
    args: str | None,
    kwargs: str | None,
    queue: str | None,
    priority: int | None,
    by: str | None,
) -> None:
    """Change a waiting or buried job; what is left out stays. A buried job becomes ready.

    What the job was before is kept, of its last 20 edits, and `jobs show` tells it. With -A, new arguments are checked
    against the task.
    """
    if args is None and kwargs is None and queue is None and priority is None:
        raise click.UsageError("Say what to change: --args, --kwargs, --queue or --priority.", ctx)
    new_args = _read(args, list, "--args", "a JSON array, as '[1, \"two\"]'")
    new_kwargs = _read(kwargs, dict, "--kwargs", "a JSON object, as '{\"width\": 100}'")
    existing_store(ctx).close()
    with named_app(ctx) as app:
        altered = app.edit(id, args=new_args, kwargs=new_kwargs, queue=queue, priority=priority, by=by)
    if altered.refused is not None:
        click.echo(f"{id} was left alone: {altered.refused}", err=True)
        ctx.exit(FAILED)
    click.echo(f"{id} was edited and is {altered.after}.")


def _read(text: str | None, kind: type, option: str, right: str) -> Any:
    if text is None:
        return None
    value = read_json(text, option)
    if not isinstance(value, kind):
        raise click.UsageError(f"{option} is {text!r}; give {right}.")
    return value
