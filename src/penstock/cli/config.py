"""`penstock config`."""

from typing import Any

import click

from penstock.cli.access import reaches_store, settings
from penstock.cli.screen import Column, as_json, show_table, size, write_json
from penstock.engines.open import without_password
from penstock.model.durations import spell
from penstock.settings import OPTIONS, Option, Settings

__all__ = ["config"]


@click.command()
@reaches_store
@as_json
@click.pass_context
def config(ctx: click.Context, as_json: bool) -> None:
    """Show every setting, its value, where that came from, and what it means.

    The order is: command line, environment, penstock.toml or pyproject.toml, default. An application may name a store
    of its own in its code; it is used unless --url is given.

    With --json, one document: {"settings": [...]}.
    """
    found = settings(ctx)
    if as_json:
        write_json({"settings": [_document(option, found) for option in OPTIONS]})
        return
    columns = (Column("setting", whole=True), "value", "from", "meaning")
    show_table(columns, [(one.name, _told(one, found), found.source(one.name), one.meaning) for one in OPTIONS])


def _document(option: Option, found: Settings) -> dict[str, Any]:
    return {
        "name": option.name,
        "value": _value(option, found),
        "source": found.source(option.name),
        "unit": "seconds" if option.unit == "duration" else option.unit,
        "default": option.default,
        "variable": option.variable,
        "meaning": option.meaning,
    }


def _value(option: Option, found: Settings) -> Any:
    value = getattr(found, option.name)
    if option.name == "alerts":
        return tuple(alert.label for alert in value)  # their URLs are secrets
    return without_password(value) if option.name in ("url", "outbox") and value else value


def _told(option: Option, found: Settings) -> str:
    value = _value(option, found)
    if value in (None, ()):
        return "all" if option.name == "queues" else "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(value)
    if option.unit == "duration":
        return spell(value)
    return size(value) if option.unit == "bytes" else str(value)
